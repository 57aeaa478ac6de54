"""Metrics of entity extraction as JSON: span F1, share of outputs that parse, and why the others do not.

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
from midalign.metrics.scoring import (
    Measure,
    Predictions,
    Stratum,
    align_outputs,
    by_language,
    f1,
    item_names,
    precision,
    recall,
    share,
)
from midalign.metrics.slots import span_counts
from midalign.records import TaskExample

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


def extraction_strata(examples: Sequence[TaskExample], predictions: Predictions) -> list[Stratum]:
    """The statistics of each language, for scores and for comparisons.

    Args:
        examples: Gold. Its entity types are the known ones.
        predictions: What was answered, for exactly the examples' ids.

    Raises:
        DataError: No examples, or ids that do not fit.
    """
    outputs = align_outputs(examples, predictions)
    known = {span.label for example in examples for span in example.spans}
    return [
        Stratum(
            language,
            None,
            item_names(example for example, _ in items),
            np.array([_item_counts(e, parse_entities(o), known) for e, o in items], dtype=np.float64),
            _MEASURES,
        )
        for language, items in by_language(examples, outputs).items()
    ]


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
