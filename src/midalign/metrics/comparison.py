"""Paired comparison of two systems on the same test set: differences, intervals and p-values, for any task.

Per language: paired bootstrap (interval of the difference and p), approximate randomisation (p), and the latter's p
corrected by Holm over the languages of one metric. Per group: the same tests on the mean over its languages; an item is
drawn or swapped in all of them at once (`scoring.item_names`). No correction, as each group is one question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from midalign.functional.statistics import (
    FloatArray,
    holm,
    paired_result,
    randomization_p_value,
    randomize_together,
    resample_together,
)
from midalign.metrics.scoring import Groups, Stratum, group_members, group_signature, same_items
from midalign.records import RESAMPLES, SEED, TRIALS


@dataclass(frozen=True, slots=True)
class PairedScore:
    """One metric of two systems on the same items.

    Attributes:
        metric: Name of the metric.
        a: The first system's score (the baseline).
        b: The second system's score.
        difference: ``b - a``.
        low: Lower end of the 95 % paired bootstrap interval of the difference.
        high: Upper end of it.
        p_bootstrap: Two-sided p of the paired bootstrap.
        p_randomization: Two-sided p of approximate randomisation.
        p_holm: `p_randomization` corrected over the languages of this metric; None for a group.
        n: Number of items.
        signature: How the metric and the tests were computed.
        language: Canonical code, or None for a group.
        group: Name of the group, or the direction of a translation, or None.

    Examples:
        >>> examples = midalign.read_task("slots", languages=["en"])
        >>> nothing = {example.id: "None" for example in examples}
        >>> found = midalign.compare_runs(examples, nothing, nothing)[0]
        >>> found.metric, found.difference, found.p_randomization
        ('slot_f1', 0.0, 1.0)
    """

    metric: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    p_bootstrap: float
    p_randomization: float
    p_holm: float | None
    n: int
    signature: str
    language: str | None = None
    group: str | None = None

    def as_dict(self) -> dict[str, object]:
        """The comparison as a JSON object, without the keys that are None."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def compare_strata(
    first: Sequence[Stratum],
    second: Sequence[Stratum],
    *,
    groups: Groups | None = None,
    metrics: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    trials: int = TRIALS,
    seed: int = SEED,
) -> list[PairedScore]:
    """Compare two systems metric by metric, per language and per group.

    Args:
        first: Statistics of the first system (the baseline).
        second: Statistics of the other system on the same items, row by row.
        groups: Group name to canonical codes; ``"all"`` is always there.
        metrics: Names to compare; None compares all of the task.
        resamples: Resamples of the paired bootstrap.
        trials: Trials of the approximate randomisation.
        seed: The tests use ``default_rng(seed)``, as sacreBLEU does.
    """
    names = list(metrics or [measure.name for measure in first[0].measures])
    pairs = list(zip(first, second, strict=True))
    draws = [_draws([pair], names, resamples, trials, seed)[0] for pair in pairs]
    places_of = group_members(first, groups)
    of_groups = {
        group: [draws[at] for at in places]
        if same_items([first[at] for at in places])
        else _draws([pairs[at] for at in places], names, resamples, trials, seed)
        for group, places in places_of.items()
    }
    settings = f"|bs:{resamples}|ar:{trials}|seed:{seed}"
    comparisons = []
    for name in names:
        comparisons += _languages(first, [of_language[name] for of_language in draws], name, settings)
        for group, places in places_of.items():
            members = [first[at] for at in places]
            mean = _mean([of_language[name] for of_language in of_groups[group]])
            n = sum(len(member.stats) for member in members)
            signature = group_signature(name, members) + settings
            comparisons.append(_paired_score(name, mean, n, signature, group=group))
    return comparisons


@dataclass(frozen=True, slots=True)
class _Draws:
    """One measure of two systems in one language or group: values, resampled values, randomised differences."""

    a: float
    b: float
    resampled_a: FloatArray
    resampled_b: FloatArray
    randomized: FloatArray


def _draws(
    pairs: Sequence[tuple[Stratum, Stratum]], names: Sequence[str], resamples: int, trials: int, seed: int
) -> list[dict[str, _Draws]]:
    """Resample and shuffle once, for all measures and languages."""
    items = [a.items for a, _ in pairs]
    both = [np.hstack([a.stats, b.stats]) for a, b in pairs]  # the same items for both systems
    resampled = resample_together(both, items, resamples, seed)
    shuffled = randomize_together([(a.stats, b.stats) for a, b in pairs], items, trials, seed)
    return [
        {name: _of_measure(a, b, name, sums, swapped) for name in names}
        for (a, b), sums, swapped in zip(pairs, resampled, shuffled, strict=True)
    ]


def _of_measure(a: Stratum, b: Stratum, name: str, sums: FloatArray, swapped: tuple[FloatArray, FloatArray]) -> _Draws:
    measure, columns = a.measure(name), a.stats.shape[1]
    one, other = (measure.of_sums(side) for side in swapped)
    resampled = measure.of_sums(sums[:, :columns]), measure.of_sums(sums[:, columns:])
    return _Draws(a.value(name), b.value(name), *resampled, one - other)


def _mean(draws: Sequence[_Draws]) -> _Draws:
    """The mean over languages."""
    return _Draws(
        a=float(np.mean([draw.a for draw in draws])),
        b=float(np.mean([draw.b for draw in draws])),
        resampled_a=np.mean([draw.resampled_a for draw in draws], axis=0),
        resampled_b=np.mean([draw.resampled_b for draw in draws], axis=0),
        randomized=np.mean([draw.randomized for draw in draws], axis=0),
    )


def _languages(strata: Sequence[Stratum], draws: Sequence[_Draws], name: str, settings: str) -> list[PairedScore]:
    found = [
        _paired_score(
            name,
            drawn,
            len(stratum.stats),
            stratum.measure(name).signature + settings,
            language=stratum.language,
            group=stratum.direction,
        )
        for stratum, drawn in zip(strata, draws, strict=True)
    ]
    corrected = holm({str(index): one.p_randomization for index, one in enumerate(found)})
    return [replace(one, p_holm=corrected[str(index)]) for index, one in enumerate(found)]


def _paired_score(
    name: str, draws: _Draws, n: int, signature: str, *, language: str | None = None, group: str | None = None
) -> PairedScore:
    paired = paired_result(draws.a, draws.b, draws.resampled_a, draws.resampled_b)
    return PairedScore(
        metric=name,
        a=paired.a,
        b=paired.b,
        difference=paired.difference,
        low=paired.low,
        high=paired.high,
        p_bootstrap=paired.p_value,
        p_randomization=randomization_p_value(draws.randomized, paired.difference),
        p_holm=None,
        n=n,
        signature=signature,
        language=language,
        group=group,
    )
