"""Metrics of slot filling: span F1 as seqeval computes it, and F1 of labels and values apart.

Predicted phrases become spans by the rule of `midalign.answers.matching`; a phrase that matches nothing stays a false
positive. Where all phrases match, ``slot_f1`` equals seqeval's micro F1 on the same BIO tags.

====================  =================================================================================
``slot_f1``           micro F1 over spans: label and words right; also ``slot_precision``, ``slot_recall``
``label_f1``          labels right, values ignored (the label of each slot, as a multiset)
``value_f1``          words right, labels ignored
``exact_match``       share of items that parsed and have all slots right and none too many
``unparsed``          share of items whose output did not fit the format
``intent_accuracy``   share of items with the right intent (style ``"intent_slots"`` only)
====================  =================================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from midalign.answers.format import Style
from midalign.answers.matching import match_items
from midalign.answers.parse import SlotOutput, parse_slots
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
from midalign.records import TaskExample

_SPANS, _LABELS, _VALUES = slice(0, 3), slice(3, 6), slice(6, 9)
_EXACT, _UNPARSED, _INTENT = slice(9, 11), slice(11, 13), slice(13, 15)
_SIGNATURE = "spans:words|match:nfd-casefold-in-order"
_MEASURES = (
    Measure("slot_f1", _SPANS, f1, f"slot_f1|avg:micro|{_SIGNATURE}"),
    Measure("slot_precision", _SPANS, precision, f"slot_precision|avg:micro|{_SIGNATURE}"),
    Measure("slot_recall", _SPANS, recall, f"slot_recall|avg:micro|{_SIGNATURE}"),
    Measure("label_f1", _LABELS, f1, "label_f1|avg:micro|multiset"),
    Measure("value_f1", _VALUES, f1, f"value_f1|avg:micro|{_SIGNATURE}"),
    Measure("exact_match", _EXACT, share, f"exact_match|{_SIGNATURE}"),
    Measure("unparsed", _UNPARSED, share, "unparsed|share of outputs"),
)
_INTENT_MEASURE = Measure("intent_accuracy", _INTENT, share, "intent_accuracy|share of items")


def slot_strata(examples: Sequence[TaskExample], predictions: Predictions, style: Style = "slots") -> list[Stratum]:
    """The statistics of each language, for scores and for comparisons.

    Args:
        examples: Gold. Its labels decide where a value ends that contains ``;``.
        predictions: What was answered, for exactly the examples' ids.
        style: The style of answers that was asked for.

    Raises:
        DataError: No examples, or ids that do not fit.
    """
    outputs = align_outputs(examples, predictions)
    labels = {span.label for example in examples for span in example.spans}
    measures = (*_MEASURES, _INTENT_MEASURE) if style == "intent_slots" else _MEASURES
    strata = []
    for language, items in by_language(examples, outputs).items():
        rows = [
            _item_counts(example, parse_slots(output, example.words, labels=labels, style=style))
            for example, output in items
        ]
        names = item_names(example for example, _ in items)
        strata.append(Stratum(language, None, names, np.array(rows, dtype=np.float64), measures))
    return strata


def span_counts(example: TaskExample, items: Sequence[tuple[str, str]]) -> tuple[int, int, int]:
    """True positives, false positives and false negatives of one example's predicted items."""
    right = len({span for span in match_items(example.words, items) if span} & set(example.spans))
    return right, len(items) - right, len(example.spans) - right


def _item_counts(example: TaskExample, output: SlotOutput) -> list[int]:
    """One row of statistics, in the order of the column slices above."""
    spans = [span for span in match_items(example.words, output.items) if span]
    gold = example.spans
    right = len(set(spans) & set(gold))
    labels = (Counter(label for label, _ in output.items) & Counter(span.label for span in gold)).total()
    values = len({(s.start, s.end) for s in spans} & {(s.start, s.end) for s in gold})
    predicted, wanted = len(output.items), len(gold)
    exact = output.parsed and right == predicted == wanted
    row: list[int] = []
    for hits in (right, labels, values):
        row += [hits, predicted - hits, wanted - hits]
    for yes in (exact, not output.parsed, output.intent == example.intent):
        row += [int(yes), 1]
    return row
