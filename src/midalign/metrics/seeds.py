"""One system trained with several seeds, scored on the same items: mean, standard deviation, interval over both.

Per language and per group, as in `midalign.metrics.scoring`. The interval is that of
`midalign.functional.statistics.seed_summary`: every resample draws seeds and, once for all of them, items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from midalign.errors import DataError
from midalign.functional.statistics import SeedSummary, seed_summary
from midalign.metrics.scoring import (
    Groups,
    Stratum,
    group_members,
    group_signature,
    mean_draw,
    mean_value,
    resampled_values,
    same_items,
    settings,
)
from midalign.records import RESAMPLES, SEED, Score


@dataclass(frozen=True, slots=True)
class SeedScore(Score):
    """A score over several seeds: ``value`` is their mean, ``low`` and ``high`` the interval over seeds and items.

    Attributes:
        values: The score of each seed, in the order given.
        sd: Their sample standard deviation.
    """

    values: tuple[float, ...] = ()
    sd: float = 0.0


def score_seeds(
    by_seed: Sequence[Sequence[Stratum]],
    groups: Groups | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> list[SeedScore]:
    """All measures per language and per group, over seeds.

    Args:
        by_seed: The strata of each seed, on the same items.
        groups: Name to canonical language codes; a group's score of one seed is the mean over its languages.
        resamples: Bootstrap resamples.
        seed: Bootstrap seed.

    Raises:
        DataError: Fewer than two seeds.
    """
    if len(by_seed) < 2:
        raise DataError(f"a mean over seeds needs the predictions of at least two seeds, got {len(by_seed)}")
    suffix = f"|seeds:{len(by_seed)}{settings(resamples, seed)}"
    first = by_seed[0]
    drawn = [[resampled_values([stratum], resamples, seed)[0] for stratum in strata] for strata in by_seed]
    scores = []
    for at, stratum in enumerate(first):
        for measure in stratum.measures:
            values = [strata[at].value(measure.name) for strata in by_seed]
            found = seed_summary(values, [draws[at][measure.name] for draws in drawn], seed)
            signature, n = measure.signature + suffix, len(stratum.stats)
            scores.append(_score(measure.name, found, n, signature, stratum.language, stratum.direction))
    for group, places in group_members(first, groups).items():
        members = [first[at] for at in places]
        together = [[own[at] for at in places] for own in drawn]
        if not same_items(members):
            together = [resampled_values([strata[at] for at in places], resamples, seed) for strata in by_seed]
        for measure in members[0].measures:
            values = [mean_value([strata[at] for at in places], measure.name) for strata in by_seed]
            found = seed_summary(values, [mean_draw(own, measure.name) for own in together], seed)
            signature, n = group_signature(measure.name, members) + suffix, sum(len(member.stats) for member in members)
            scores.append(_score(measure.name, found, n, signature, None, group))
    return scores


def _score(name: str, found: SeedSummary, n: int, signature: str, language: str | None, group: str | None) -> SeedScore:
    return SeedScore(
        name, found.mean, found.low, found.high, n, signature, language, group, values=found.values, sd=found.sd
    )
