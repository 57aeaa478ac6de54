"""Scoring that all tasks share: from statistics per item to `Score` records.

1. `align_outputs` matches predictions to examples by id; missing and unknown ids are errors.
2. A task turns each language's items into a `Stratum`: statistics ``(items, columns)`` and the measures over them.
3. `score_strata` gives one score per measure and language, and one per measure and group.

A group's value is the **mean over its languages** of the language's score (as the paper reports), not a score over its
pooled items. Its interval resamples items: where one is drawn, it is drawn in every language, since the items of a
test set with the same number usually are translations of each other. The group ``"all"`` is always there.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TypeVar

import numpy as np

from midalign.errors import DataError
from midalign.functional.statistics import FloatArray, Formula, percentiles, resample_together
from midalign.languages import canonical
from midalign.records import RESAMPLES, SEED, Prediction, Score, TaskExample

logger = logging.getLogger(__name__)

T = TypeVar("T")
Predictions = Mapping[str, str] | Iterable[Prediction]
Groups = Mapping[str, Collection[str]]
ALL = "all"
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Measure:
    """One number that can be computed from summed statistics.

    Attributes:
        name: Metric name, such as ``"slot_f1"``.
        columns: Which columns of the statistics it needs.
        formula: Sums of those columns to values, ``(..., columns) -> (...)``.
        signature: How it is computed, in one line.
    """

    name: str
    columns: slice
    formula: Formula
    signature: str

    def of_sums(self, sums: FloatArray) -> FloatArray:
        """The values for ``(..., all columns)`` sums."""
        return self.formula(sums[..., self.columns])


@dataclass(frozen=True, slots=True, eq=False)
class Stratum:
    """The items of one language (or translation direction), as statistics.

    Attributes:
        language: Canonical code.
        direction: ``"eng_Latn-deu_Latn"`` where a language occurs in both directions, else None.
        items: What names each item among those of all languages (`item_names`).
        stats: ``(items, columns)``.
        measures: What can be computed from the columns.
    """

    language: str
    direction: str | None
    items: tuple[Hashable, ...]
    stats: FloatArray
    measures: tuple[Measure, ...]

    def measure(self, name: str) -> Measure:
        """The measure of that name."""
        return next(measure for measure in self.measures if measure.name == name)

    def value(self, name: str) -> float:
        """The measure's value over all items."""
        return float(self.measure(name).of_sums(self.stats.sum(axis=0)))


def align_outputs(examples: Sequence[TaskExample], predictions: Predictions) -> list[str]:
    """The output of each example, in the examples' order.

    Raises:
        DataError: No examples, ids that occur twice, examples without a prediction, predictions of unknown ids.
    """
    if not examples:
        raise DataError("there are no examples to score; check the data path, the split and the languages")
    ids = [example.id for example in examples]
    _refuse([i for i in set(ids) if ids.count(i) > 1] if len(set(ids)) < len(ids) else [], "example ids occur twice")
    outputs: dict[str, str] = {}
    if isinstance(predictions, Mapping):
        outputs.update(predictions)
    else:
        into = {example.id: example.target_language for example in examples if example.task == "translation"}
        repeated, told = [], {}
        for prediction in predictions:
            if prediction.id in outputs:
                repeated.append(prediction.id)
            outputs[prediction.id] = prediction.prediction
            if prediction.target_language and prediction.id in into:
                told[prediction.id] = canonical(prediction.target_language, f"the prediction {prediction.id}")
        _refuse(repeated, "predictions repeat an id, so it is unclear which one counts")
        _refuse(
            [id_ for id_, code in told.items() if into.get(id_) not in (None, code)],
            "predictions are translations into another language than the references with their ids; score with the "
            "languages that were generated",
        )
    _refuse(
        [i for i in ids if i not in outputs],
        f"of {len(ids)} examples have no prediction, and leaving them out would raise the score; generate them "
        "(an interrupted generation can be resumed), or score with the split, languages and limit that were generated",
    )
    known = set(ids)
    _refuse(
        [i for i in outputs if i not in known],
        "predictions are of ids that the examples do not have, so they answer another test set; score with the data, "
        "split and languages that were generated",
    )
    return [outputs[i] for i in ids]


def _refuse(ids: Sequence[str], fault: str) -> None:
    if ids:
        shown = ", ".join(sorted(ids, key=natural_key)[:_SHOWN]) + (", ..." if len(ids) > _SHOWN else "")
        raise DataError(f"{len(ids)} {fault}. Ids: {shown}")


def natural_key(item_id: str) -> tuple[str, int, str]:
    """Sorts ``stem:2`` before ``stem:10``, so that resampling does not depend on the order of the input."""
    match = re.fullmatch(r"(.*):(\d{1,15})", item_id, flags=re.DOTALL)
    return (match[1], int(match[2]), "") if match else (item_id, -1, "")


def by_language(examples: Sequence[TaskExample], outputs: Sequence[T]) -> dict[str, list[tuple[TaskExample, T]]]:
    """Examples with a value each (their outputs) per language, languages and items in a fixed order."""
    found: dict[str, list[tuple[TaskExample, T]]] = {}
    for example, output in sorted(zip(examples, outputs, strict=True), key=lambda pair: natural_key(pair[0].id)):
        found.setdefault(example.language, []).append((example, output))
    return dict(sorted(found.items()))


def score_strata(
    strata: Sequence[Stratum], groups: Groups | None = None, resamples: int = RESAMPLES, seed: int = SEED
) -> list[Score]:
    """All measures per language and per group, with 95 % bootstrap intervals.

    Args:
        strata: One per language (or direction), each with the same measures by name.
        groups: Name to canonical language codes. A group none of whose languages is in the data is left out, with a
            warning.
        resamples: Number of bootstrap resamples.
        seed: The draw uses ``default_rng(seed)``, as sacreBLEU does.
    """
    suffix = settings(resamples, seed)
    drawn = [resampled_values([stratum], resamples, seed)[0] for stratum in strata]
    scores = []
    for stratum, values in zip(strata, drawn, strict=True):
        for measure in stratum.measures:
            low, high = percentiles(values[measure.name])
            scores.append(
                Score(
                    metric=measure.name,
                    value=stratum.value(measure.name),
                    low=low,
                    high=high,
                    n=len(stratum.stats),
                    signature=measure.signature + suffix,
                    language=stratum.language,
                    group=stratum.direction,
                )
            )
    for group, places in group_members(strata, groups).items():
        members = [strata[at] for at in places]
        together = [drawn[at] for at in places] if same_items(members) else resampled_values(members, resamples, seed)
        for name in (measure.name for measure in members[0].measures):
            low, high = percentiles(mean_draw(together, name))
            value = mean_value(members, name)
            n = sum(len(member.stats) for member in members)
            scores.append(Score(name, value, low, high, n, group_signature(name, members) + suffix, group=group))
    return scores


def settings(resamples: int, seed: int) -> str:
    """End of a signature: the settings that decide an interval."""
    return f"|bs:{resamples}|seed:{seed}|midalign:{version('midalign')}"


def resampled_values(members: Sequence[Stratum], resamples: int, seed: int = SEED) -> list[dict[str, FloatArray]]:
    """Every measure of each language, ``(resamples,)`` by name, all on the same resamples of the items."""
    sums = resample_together([m.stats for m in members], [m.items for m in members], resamples, seed)
    return [
        {measure.name: measure.of_sums(drawn) for measure in member.measures}
        for member, drawn in zip(members, sums, strict=True)
    ]


def mean_value(members: Sequence[Stratum], name: str) -> float:
    """A measure's mean over languages."""
    return float(np.mean([member.value(name) for member in members]))


def mean_draw(drawn: Sequence[Mapping[str, FloatArray]], name: str) -> FloatArray:
    """The mean over languages of a measure's `resampled_values`, ``(resamples,)``."""
    return np.asarray(np.mean([of_language[name] for of_language in drawn], axis=0), dtype=np.float64)


def same_items(members: Sequence[Stratum]) -> bool:
    """Whether all have items of the same names, so that what was drawn for each alone was drawn for all together."""
    return all(member.items == members[0].items for member in members)


def item_names(examples: Iterable[TaskExample]) -> tuple[Hashable, ...]:
    """What names each item of a language among the items of all languages: the number at the end of its id.

    Test sets in several languages number translations of one sentence alike (xSID, MASSIVE, FLORES). Where the items of
    two languages have nothing to do with each other, drawing them together does no harm: on average, it changes no
    interval. An id without a number has a name of its own; a number that a language has in several files has several.
    """
    seen: Counter[Hashable] = Counter()
    names: list[Hashable] = []
    for example in examples:
        stem, number, _ = natural_key(example.id)
        name: Hashable = number if number >= 0 else stem
        names.append((name, seen[name]))
        seen[name] += 1
    return tuple(names)


def group_signature(name: str, members: Sequence[Stratum]) -> str:
    """Signature of a group's score; its languages may differ, for example in the tokenizer of BLEU."""
    signatures = sorted({member.measure(name).signature for member in members})
    return " ".join(signatures) + f"|mean over languages:{len(members)}"


def group_members(strata: Sequence[Stratum], groups: Groups | None) -> dict[str, list[int]]:
    """The places of each group's strata, ``"all"`` first; groups without any are left out with a warning."""
    members = {ALL: list(range(len(strata)))}
    for name, languages in (groups or {}).items():
        found = [place for place, stratum in enumerate(strata) if stratum.language in languages]
        if found:
            members[name] = found
        else:
            logger.warning(
                "group %r is left out: none of its languages (%s) is in the data", name, ", ".join(languages)
            )
    return members


def f1(counts: FloatArray) -> FloatArray:
    """F1 from ``(..., 3)`` sums of true positives, false positives and false negatives; 0 where all are 0."""
    return _ratio(2 * counts[..., 0], 2 * counts[..., 0] + counts[..., 1] + counts[..., 2])


def precision(counts: FloatArray) -> FloatArray:
    """Precision from the same sums; 0 where nothing was predicted (as seqeval)."""
    return _ratio(counts[..., 0], counts[..., 0] + counts[..., 1])


def recall(counts: FloatArray) -> FloatArray:
    """Recall from the same sums; 0 where there is no gold."""
    return _ratio(counts[..., 0], counts[..., 0] + counts[..., 2])


def share(counts: FloatArray) -> FloatArray:
    """A share from ``(..., 2)`` sums: how many, of how many."""
    return _ratio(counts[..., 0], counts[..., 1])


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    return np.divide(above, below, out=np.zeros_like(above, dtype=np.float64), where=below > 0)
