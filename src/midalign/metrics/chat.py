"""Metrics of free answers, chosen by name: of text, labels or JSON, or a function of your own.

=================  ==========================================================================================
``exact_match``    share of answers equal to the reference, blanks at both ends dropped
``token_f1``       SQuAD's F1 over words (Rajpurkar et al. 2016), mean over items
``chrf``, ``bleu``  sacreBLEU's, with the tokenizer of the answer's language; 0 to 100
``rougeL``         F-measure of the longest common subsequence, mean over items (rouge-score, no stemming)
``json_match``     share equal to the reference as JSON; with it ``json_valid`` and ``json_field_f1``
``accuracy``       share of right labels, and ``macro_f1`` over the labels of the references (as scikit-learn's)
``module:name``    mean of a function ``(prediction, reference) -> float`` in a module that Python can import
=================  ==========================================================================================

Every metric is computed from statistics per item, so intervals and paired tests work as for the other tasks.
"""

from __future__ import annotations

import functools
import importlib
import json
import re
import string
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from midalign.answers.format import METRICS, AnswerFormat
from midalign.errors import DataError, MissingExtraError, RunError, did_you_mean
from midalign.files import hash_paths
from midalign.functional.statistics import FloatArray
from midalign.metrics.scoring import Measure, Predictions, Stratum, align_outputs, by_language, f1, item_names, share
from midalign.metrics.translation import direction_statistics, one_line
from midalign.records import TaskExample

Block = tuple[FloatArray, tuple[Measure, ...]]
"""Statistics ``(items, columns)`` of one metric, and its measures over those columns, counted from 0."""
Rows = Sequence[tuple[TaskExample, str]]


def chat_strata(
    examples: Sequence[TaskExample], predictions: Predictions, metrics: Sequence[str] = ("exact_match",)
) -> list[Stratum]:
    """The statistics of each language, for scores and for comparisons.

    Args:
        examples: Gold; the `reference` of each is its answer.
        predictions: What was answered, for exactly the examples' ids.
        metrics: Names from the table above; the first is the one that settings are chosen by.

    Raises:
        DataError: No examples, ids that do not fit, or an item that a metric cannot score.
        MissingExtraError: If a metric needs a package that is not installed.
        RunError: If a metric is unknown.
    """
    outputs = align_outputs(examples, predictions)
    chosen = [check_metric(name) for name in metrics]
    labels = sorted({example.reference.strip() for example in examples})
    strata = []
    for language, rows in by_language(examples, outputs).items():
        blocks = [metric(rows, labels) for metric in chosen]
        names = item_names(example for example, _ in rows)
        stats = np.concatenate([stats for stats, _ in blocks], axis=1)
        strata.append(Stratum(language, None, names, stats, _moved(blocks)))
    return strata


def check_metric(name: str) -> Callable[[Rows, Sequence[str]], Block]:
    """Check that a metric exists and can be used, before any work is done.

    Raises:
        MissingExtraError: If it needs a package that is not installed.
        RunError: If there is none.
    """
    if name in _BY_NAME:
        if name == "rougeL":
            _rouge()
        return _BY_NAME[name]
    if ":" in name:
        return functools.partial(_own, name, _imported(name))
    raise RunError(
        f"metric {name!r} is unknown, so nothing could be scored. Write one of {', '.join(METRICS)}, or "
        f"module:function for your own.{did_you_mean(name, METRICS)}"
    )


def _moved(blocks: Sequence[Block]) -> tuple[Measure, ...]:
    """The measures of blocks that stand beside each other."""
    measures: list[Measure] = []
    start = 0
    for stats, own in blocks:
        for measure in own:
            columns = slice(start + measure.columns.start, start + measure.columns.stop)
            measures.append(Measure(measure.name, columns, measure.formula, measure.signature))
        start += stats.shape[1]
    return tuple(measures)


def _mean(name: str, values: Sequence[float], how: str) -> Block:
    """One value per item, and their mean."""
    stats = np.array([[value, 1.0] for value in values], dtype=np.float64)
    return stats, (Measure(name, slice(0, 2), share, f"{name}|{how}"),)


def _equal(name: str, how: str, rows: Rows, _labels: Sequence[str]) -> Block:
    return _mean(name, [float(output.strip() == example.reference.strip()) for example, output in rows], how)


def _token_f1(rows: Rows, _labels: Sequence[str]) -> Block:
    values = [_squad_f1(output, example.reference) for example, output in rows]
    return _mean("token_f1", values, "SQuAD 1.1: lower case, no punctuation, no English articles|mean over items")


def _squad_f1(output: str, reference: str) -> float:
    """F1 over the words of two texts, as SQuAD's evaluation script computes it."""
    one, other = (Counter(_squad_words(text)) for text in (output, reference))
    if not one or not other:
        return float(one == other)
    return 2 * (one & other).total() / (one.total() + other.total())


def _squad_words(text: str) -> list[str]:
    plain = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


def _sacrebleu(name: str, rows: Rows, _labels: Sequence[str]) -> Block:
    texts, references = [one_line(output) for _, output in rows], [example.reference for example, _ in rows]
    return direction_statistics(texts, references, rows[0][0].language, [name])


def _rouge_l(rows: Rows, _labels: Sequence[str]) -> Block:
    scorer = _rouge().RougeScorer(["rougeL"], use_stemmer=False, tokenizer=_Words())
    values = [scorer.score(example.reference, output)["rougeL"].fmeasure for example, output in rows]
    return _mean(
        "rougeL", values, "rouge-score|F-measure|words: runs of letters, marks and digits of any script, lower case"
    )


class _Words:
    """Words of any script; rouge-score's own tokenizer drops every letter that is not ASCII."""

    def tokenize(self, text: str) -> list[str]:
        # An Indic vowel sign, or a Thai tone, is a mark, which \w leaves out; without it other words would be equal.
        parts = (c if c.isalnum() or c == "_" or unicodedata.category(c)[0] == "M" else " " for c in text.lower())
        return "".join(parts).split()


def _rouge() -> Any:
    try:
        from rouge_score import rouge_scorer
    except ImportError:
        raise MissingExtraError("rouge-score", "metrics", "the metric rougeL") from None
    return rouge_scorer


def _json_match(rows: Rows, _labels: Sequence[str]) -> Block:
    """Whole objects equal (keys in any order), how many answers are JSON, and F1 over their fields."""
    table = []
    for example, output in rows:
        gold = _parsed(example.reference)
        if gold is _NOT_JSON:
            raise DataError(f"item {example.id}: its reference is not JSON, so json_match cannot score it: correct it")
        found = _parsed(output)
        one, other = Counter(_fields(found)), Counter(_fields(gold))
        right = (one & other).total()
        equal, valid = float(_same(found, gold)), float(found is not _NOT_JSON)
        table.append([equal, 1.0, valid, 1.0, right, one.total() - right, other.total() - right])
    measures = (
        Measure("json_match", slice(0, 2), share, "json_match|share of answers equal as JSON"),
        Measure("json_valid", slice(2, 4), share, "json_valid|share of answers that are JSON"),
        Measure("json_field_f1", slice(4, 7), f1, "json_field_f1|avg:micro|fields: path and value"),
    )
    return np.array(table, dtype=np.float64), measures


_NOT_JSON = object()


def _parsed(text: str) -> Any:
    try:
        value = json.loads(text)
        list(_fields(value))  # which goes as deep as the value
    except (ValueError, RecursionError):
        return _NOT_JSON
    return value


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON, where true is not 1."""
    return one is not _NOT_JSON and sorted(map(repr, _fields(one))) == sorted(map(repr, _fields(other)))


def _fields(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every value with the path that leads to it; places in a list count, keys come in any order, 5.0 is 5."""
    if value is _NOT_JSON:
        return
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _fields(inner, f"{path}/{json.dumps(key)}")
    elif isinstance(value, list) and value:
        for place, inner in enumerate(value):
            yield from _fields(inner, f"{path}/{place}")
    else:
        yield path, json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)


def _macro_f1(rows: Rows, labels: Sequence[str]) -> Block:
    """Counts of every label of the references. An answer that is no such label counts as a miss, not as a new label."""
    place = {label: number for number, label in enumerate(labels)}
    table = np.zeros((len(rows), 3 * len(labels)), dtype=np.float64)
    for row, (example, output) in zip(table, rows, strict=True):
        gold, found = place[example.reference.strip()], place.get(output.strip())
        if found == gold:
            row[3 * gold] += 1
        else:
            row[3 * gold + 2] += 1
            if found is not None:
                row[3 * found + 1] += 1
    signature = f"macro_f1|mean over the labels that occur|labels:{len(labels)}"
    return table, (Measure("macro_f1", slice(0, table.shape[1]), _mean_f1, signature),)


def _mean_f1(sums: FloatArray) -> FloatArray:
    """The mean F1 over labels that occur in the answers or the references, from their three counts each."""
    counts = sums.reshape(*sums.shape[:-1], -1, 3)
    occurs = counts.sum(axis=-1) > 0
    total = np.where(occurs, f1(counts), 0.0).sum(axis=-1)
    number = occurs.sum(axis=-1)
    mean: FloatArray = np.divide(total, number, out=np.zeros_like(total), where=number > 0)
    return mean


def _imported(name: str) -> Callable[[str, str], float]:
    """The user's own function; modules in the folder of the command are found too."""
    module, _, function = name.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as fault:  # the module is the user's, and may do anything
        raise RunError(
            f"metric {name!r}: {type(fault).__name__}: {fault}. Write module:function, where the module is in this "
            "folder or installed"
        ) from fault
    finally:
        sys.path.remove(here)
    if not callable(found):
        raise RunError(f"metric {name!r} is {found!r}, not a function of a prediction and a reference; name one")
    return found  # type: ignore[no-any-return]


def own_metric_files(answer_format: AnswerFormat) -> list[str]:
    """The source files of the metrics that are functions of the user's."""
    found = []
    for name in answer_format.metrics:
        if ":" in name:
            _imported(name)
            found += _file_of(name)
    return found


def _file_of(name: str) -> list[str]:
    """The file of the module of a function of the user's, which is imported; none where it has no file."""
    file = getattr(sys.modules[name.partition(":")[0]], "__file__", None)
    return [] if file is None else [file]


_ROUNDING = 1e-6  # a cosine of a vector with itself may be this much above 1


def _own(name: str, function: Callable[[str, str], float], rows: Rows, _labels: Sequence[str]) -> Block:
    values = []
    for example, output in rows:
        try:
            value = float(function(output, example.reference))
        except Exception as fault:
            raise DataError(
                f"item {example.id}: the metric {name!r} failed with {type(fault).__name__}: {fault}. Correct the "
                "function"
            ) from fault
        if not -_ROUNDING <= value <= 1 + _ROUNDING:
            raise DataError(
                f"item {example.id}: the metric {name!r} gave {value}; scores are shares, so return a number from 0 to "
                "1, higher for a better answer (1 / (1 + distance), for a distance)"
            )
        values.append(min(max(value, 0.0), 1.0))
    version = "".join(f"|sha256:{digest[:12]}" for digest in hash_paths(_file_of(name)).values())
    return _mean(name, values, f"mean over items|a function of the user's own{version}")


_BY_NAME: dict[str, Callable[[Rows, Sequence[str]], Block]] = {
    "exact_match": functools.partial(_equal, "exact_match", "share of answers|blanks at the ends dropped"),
    "token_f1": _token_f1,
    "chrf": functools.partial(_sacrebleu, "chrf"),
    "bleu": functools.partial(_sacrebleu, "bleu"),
    "rougeL": _rouge_l,
    "json_match": _json_match,
    "accuracy": functools.partial(_equal, "accuracy", "share of right labels"),
    "macro_f1": _macro_f1,
}
