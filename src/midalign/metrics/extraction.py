"""JSON extraction of entities: F1 over spans, how many outputs parse, and how the others failed.

========================  ============================================================================
``entity_f1``             micro F1 over spans; an output that does not parse finds nothing
``parse_rate``            share of outputs that are JSON of the right shape
``truncated``             share that break off inside the JSON
``not_json``              share that are something else
``wrong_schema``          share that are JSON of another shape
``unknown_type``          share that parse but name a type that is not known
``not_in_text``           share that parse but have a text that the sentence does not have (left)
========================  ============================================================================
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from midalign.answers.matching import match_items
from midalign.answers.parse import FAILURES, EntityOutput, parse_entities
from midalign.functional.statistics import RESAMPLES, SEED
from midalign.metrics.scoring import (
    Groups,
    Measure,
    Predictions,
    Stratum,
    align_outputs,
    by_language,
    f1,
    precision,
    recall,
    score_strata,
    share,
)
from midalign.metrics.slots import add_label_counts, span_counts
from midalign.records import Score, TaskExample

_SIGNATURE = "spans:words|match:nfd-casefold-in-order"
_SHARES = ("parse_rate", *FAILURES, "unknown_type", "not_in_text")
_MEASURES = (
    Measure("entity_f1", slice(0, 3), f1, f"entity_f1|avg:micro|{_SIGNATURE}"),
    Measure("entity_precision", slice(0, 3), precision, f"entity_precision|avg:micro|{_SIGNATURE}"),
    Measure("entity_recall", slice(0, 3), recall, f"entity_recall|avg:micro|{_SIGNATURE}"),
    *(
        Measure(name, slice(3 + 2 * index, 5 + 2 * index), share, f"{name}|share of outputs|json:strict")
        for index, name in enumerate(_SHARES)
    ),
)


def score_extraction(
    examples: Sequence[TaskExample],
    predictions: Predictions,
    *,
    groups: Groups | None = None,
    types: Collection[str] = (),
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> list[Score]:
    """All extraction metrics per language and per group (mean over its languages; ``"all"`` is always there).

    Args:
        examples: Gold.
        predictions: Output text per id, or `Prediction` records; exactly the examples' ids.
        groups: Group name to canonical codes.
        types: Known entity types; the gold's own types are always known.
        resamples: Bootstrap resamples.
        seed: Bootstrap seed.

    Raises:
        DataError: No examples, or ids that do not fit.
    """
    return score_strata(extraction_strata(examples, predictions, types=types), groups, resamples, seed)


def extraction_strata(
    examples: Sequence[TaskExample], predictions: Predictions, *, types: Collection[str] = ()
) -> list[Stratum]:
    """The statistics of each language, for `score_strata` and for comparisons; arguments as `score_extraction`.

    Raises:
        DataError: No examples, or ids that do not fit.
    """
    outputs = align_outputs(examples, predictions)
    known = {span.label for example in examples for span in example.spans} | set(types)
    return [
        Stratum(
            language,
            None,
            np.array([_item_counts(e, parse_entities(o), known) for e, o in items], dtype=np.float64),
            _MEASURES,
        )
        for language, items in by_language(examples, outputs).items()
    ]


def entity_counts_by_type(examples: Sequence[TaskExample], predictions: Predictions) -> dict[str, tuple[int, int, int]]:
    """True positives, false positives and false negatives of each type, over all examples.

    Raises:
        DataError: No examples, or ids that do not fit.
    """
    counts: dict[str, list[int]] = {}
    for example, output in zip(examples, align_outputs(examples, predictions), strict=True):
        add_label_counts(counts, example, parse_entities(output).items)
    return {label: (row[0], row[1], row[2]) for label, row in sorted(counts.items())}


def _item_counts(example: TaskExample, output: EntityOutput, known: Collection[str]) -> list[int]:
    """One row of statistics: span counts, then one pair (yes, 1) for each of ``_SHARES``."""
    row = list(span_counts(example, output.items))
    yes: dict[str, bool] = {
        "parse_rate": output.failure is None,
        "unknown_type": any(label not in known for label, _ in output.items),
        "not_in_text": None in match_items(example.words, [("any", text) for _, text in output.items]),
    }
    yes |= {failure: output.failure == failure for failure in FAILURES}
    for name in _SHARES:
        row += [int(yes[name]), 1]
    return row
