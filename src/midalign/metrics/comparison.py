"""Paired comparison of two systems on the same test set: differences, intervals and p-values, for any task.

Per language: paired bootstrap (interval of the difference and p), approximate randomisation (p), and the latter's p
corrected by Holm over the languages of one metric. Per group: the same tests on the mean over its languages, items
resampled or swapped within each language; no correction, as each group is one question.
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
    randomized_sums,
    resample_sums,
)
from midalign.metrics.scoring import Groups, Stratum, group_members, group_signature, mean_over
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
        seed: A language's tests use ``default_rng(seed)``, as sacreBLEU does; see `scoring.mean_over` for groups.
    """
    names = list(metrics or [measure.name for measure in first[0].measures])
    draws = {id(a): _draws(a, b, names, resamples, trials, seed) for a, b in zip(first, second, strict=True)}
    settings = f"|bs:{resamples}|ar:{trials}|seed:{seed}"
    comparisons = []
    for name in names:
        comparisons += _languages(first, draws, name, settings)
        for group, members in group_members(first, groups).items():
            pooled = _pooled(members, [draws[id(member)][name] for member in members], seed)
            n = sum(len(member.stats) for member in members)
            signature = group_signature(name, members) + settings
            comparisons.append(_paired_score(name, pooled, n, signature, group=group))
    return comparisons


@dataclass(frozen=True, slots=True)
class _Draws:
    """One measure of two systems in one language or group: values, resampled values, randomised differences."""

    a: float
    b: float
    resampled_a: FloatArray
    resampled_b: FloatArray
    randomized: FloatArray


def _draws(a: Stratum, b: Stratum, names: Sequence[str], resamples: int, trials: int, seed: int) -> dict[str, _Draws]:
    """Resample and shuffle once, for all measures."""
    columns = a.stats.shape[1]
    sums = resample_sums(np.hstack([a.stats, b.stats]), resamples, seed)  # the same items for both systems
    shuffled = randomized_sums(a.stats, b.stats, trials, seed)
    found = {}
    for name in names:
        measure = a.measure(name)
        one, other = (measure.of_sums(side) for side in shuffled)
        resampled = measure.of_sums(sums[:, :columns]), measure.of_sums(sums[:, columns:])
        found[name] = _Draws(a.value(name), b.value(name), *resampled, one - other)
    return found


def _pooled(members: Sequence[Stratum], draws: Sequence[_Draws], seed: int) -> _Draws:
    """The mean over languages; both systems' resamples are put in the same order, so that they stay paired."""
    return _Draws(
        a=float(np.mean([draw.a for draw in draws])),
        b=float(np.mean([draw.b for draw in draws])),
        resampled_a=mean_over(members, [draw.resampled_a for draw in draws], seed),
        resampled_b=mean_over(members, [draw.resampled_b for draw in draws], seed),
        randomized=mean_over(members, [draw.randomized for draw in draws], seed),
    )


def _languages(
    strata: Sequence[Stratum], draws: dict[int, dict[str, _Draws]], name: str, settings: str
) -> list[PairedScore]:
    found = [
        _paired_score(
            name,
            draws[id(stratum)][name],
            len(stratum.stats),
            stratum.measure(name).signature + settings,
            language=stratum.language,
            group=stratum.direction,
        )
        for stratum in strata
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
