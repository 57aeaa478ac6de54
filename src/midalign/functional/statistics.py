"""Statistics of scores: confidence intervals, paired tests, correction for many tests, several seeds.

Everything works on *sufficient statistics*: an array ``(items, columns)`` whose sum over items determines the score.
Resampling then means summing rows again, never scoring text again. A ``Formula`` turns sums into scores and must
accept any leading axes: ``(..., columns) -> (...)``.

The paired bootstrap (Koehn 2004) and approximate randomisation (Riezler and Maxwell 2005) follow sacreBLEU
(``sacrebleu/significance.py``) down to the random numbers: on the same statistics and seed they give the same p-values,
with one correction. sacreBLEU counts trials *strictly* above the observed difference; midalign counts those at or above
it, as Noreen (1989) and Riezler and Maxwell (2005) do. For BLEU the two hardly ever differ; for scores with few
possible values, strict counting makes three differing items out of a hundred "significant", and two identical systems
too.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from midalign.errors import OptionError
from midalign.records import MOST_RESAMPLES, RESAMPLES, SEED

FloatArray = npt.NDArray[np.float64]
Formula = Callable[[FloatArray], FloatArray]
Seed = int | Sequence[int]

CONFIDENCE = 0.95
_BLOCK = 4_000_000  # random numbers held at once


@dataclass(frozen=True, slots=True)
class MeanInterval:
    """The mean of independent values, their sample standard deviation, and Student's t interval of the mean."""

    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedResult:
    """Two systems on the same items: ``a``, ``b``, their difference ``b - a`` with its interval, and p (two-sided)."""

    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True, slots=True)
class SeedSummary:
    """One system trained with several seeds.

    Attributes:
        values: The score of each seed.
        mean: Mean over seeds.
        sd: Sample standard deviation over seeds (0 for one seed).
        low: Lower end of the interval over seeds and items.
        high: Upper end of it.
    """

    values: tuple[float, ...]
    mean: float
    sd: float
    low: float
    high: float


def resample_sums(stats: npt.ArrayLike, resamples: int = RESAMPLES, seed: Seed = SEED) -> FloatArray:
    """Column sums of ``resamples`` samples of the items, drawn with replacement: ``(resamples, columns)``.

    The draw equals ``default_rng(seed).choice(items, (resamples, items))``, which is what sacreBLEU does. Errors as in
    `resample_together`.
    """
    return resample_together([stats], [range(len(_table(stats)))], resamples, seed)[0]


def resample_together(
    tables: Sequence[npt.ArrayLike],
    items: Sequence[Sequence[Hashable]],
    resamples: int = RESAMPLES,
    seed: Seed = SEED,
) -> list[FloatArray]:
    """Column sums of several tables on the same resamples: where an item is drawn, it is drawn in every table.

    The tables may be the languages of a test set whose items are translations of each other. An item that is hard in
    one language is then hard in the others too, and a mean over languages is less certain than if their items had
    nothing to do with each other (a cluster bootstrap; the clusters are the items).

    Args:
        tables: Statistics ``(items, columns)``, one for each language.
        items: What names each row's item; a name occurs once in a table.
        resamples: Number of resamples. Each draws as many items as there are names in all.
        seed: Seed of the draw. For tables of the same items it is that of `resample_sums`.

    Returns:
        For each table, ``(resamples, columns)``.

    Raises:
        ValueError: A table has no items.
        OptionError: A number of resamples, or a seed, that there cannot be.
    """
    if not 1 <= resamples <= MOST_RESAMPLES:
        raise OptionError(
            f"resamples is {resamples}, which gives no interval; write a number from 1 to {MOST_RESAMPLES}, such as "
            f"{RESAMPLES}"
        )
    if isinstance(seed, int) and seed < 0:
        raise OptionError(f"seed is {seed}, and the seed of a random generator is not negative; write 0 or more")
    found: list[list[FloatArray]] = [[] for _ in tables]
    places, names = _places(items)
    together = list(zip(found, map(_table, tables), places, strict=True))
    for block in _draws(names, resamples, np.random.default_rng(seed)):
        for sums, table, at in together:
            sums.append(block[:, at] @ table)
    return [np.concatenate(sums) for sums in found]


def percentiles(values: FloatArray) -> tuple[float, float]:
    """The two ends of the central 95 % of resampled scores."""
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def mean_interval(values: Sequence[float]) -> MeanInterval:
    """Student's t interval: the mean of independent values, one per run for example, with its 95 % interval.

    The mean plus or minus the t quantile of n - 1 degrees of freedom times sd / sqrt(n). One value has no interval: its
    bounds are infinite, and its standard deviation is 0.

    Raises:
        ValueError: There are no values.
    """
    table = np.asarray(values, dtype=np.float64)
    if not len(table):
        raise ValueError("a mean needs at least one value")
    mean = float(table.mean())
    if len(table) == 1:
        return MeanInterval(mean, 0.0, -np.inf, np.inf)
    sd = float(table.std(ddof=1))
    half = float(special.stdtrit(len(table) - 1, (1 + CONFIDENCE) / 2)) * sd / np.sqrt(len(table))
    return MeanInterval(mean, sd, mean - half, mean + half)


def paired_result(a: float, b: float, resampled_a: FloatArray, resampled_b: FloatArray) -> PairedResult:
    """The paired bootstrap's result from the two scores and their scores on the same resamples.

    p = (1 + number of resamples whose absolute difference exceeds its mean by at least the observed difference)
    / (1 + resamples), as in sacreBLEU (after multeval); the interval is of the signed difference. Where only a few
    items differ, p is too small: prefer approximate randomisation, which is exact in the limit.
    """
    distances = np.abs(resampled_b - resampled_a)
    p_value = _share_at_or_above(distances - distances.mean(), abs(b - a))
    low, high = percentiles(resampled_b - resampled_a)
    return PairedResult(a, b, b - a, low, high, p_value)


def randomization_p_value(differences: FloatArray, observed: float) -> float:
    """The p-value (1 + trials whose absolute difference is at least the observed one) / (1 + trials)."""
    return _share_at_or_above(np.abs(differences), abs(observed))


def randomized_sums(first: FloatArray, second: FloatArray, trials: int, seed: Seed) -> tuple[FloatArray, FloatArray]:
    """Column sums of the two systems after swapping a random half of the items: twice ``(trials, columns)``.

    The draw equals ``default_rng(seed).integers(2, size=(trials, items), dtype=bool)``, as in sacreBLEU.
    """
    return randomize_together([(first, second)], [range(len(first))], trials, seed)[0]


def randomize_together(
    pairs: Sequence[tuple[FloatArray, FloatArray]], items: Sequence[Sequence[Hashable]], trials: int, seed: Seed
) -> list[tuple[FloatArray, FloatArray]]:
    """`randomized_sums` of several languages: where an item is swapped, it is swapped in every language.

    Args:
        pairs: Statistics of both systems, one pair for each language.
        items: What names each row's item, as in `resample_together`.
        trials: Number of trials.
        seed: Seed of the draw. For languages of the same items it is that of `randomized_sums`.
    """
    found: list[list[FloatArray]] = [[] for _ in pairs]
    places, names = _places(items)
    together = [(sums, a - b, at) for sums, (a, b), at in zip(found, pairs, places, strict=True)]
    random = np.random.default_rng(seed)
    rows = max(1, _BLOCK // names // 32) * 32  # 32 flags are one random number: blocks draw what the whole would
    for start in range(0, trials, rows):
        keep = random.integers(2, size=(min(rows, trials - start), names), dtype=bool)
        for sums, difference, at in together:
            sums.append(keep[:, at] @ difference)
    ones = [np.concatenate(sums) + b.sum(0) for sums, (_, b) in zip(found, pairs, strict=True)]
    return [(one, a.sum(0) + b.sum(0) - one) for one, (a, b) in zip(ones, pairs, strict=True)]


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's (1979) step-down correction: p-values that may be compared with the level of the whole family.

    Args:
        p_values: One p-value per test (per language, say).

    Returns:
        Adjusted p-values under the same keys; each at least the raw one and at most 1.
    """
    adjusted: dict[str, float] = {}
    running = 0.0
    for rank, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_value))
        adjusted[name] = running
    return {name: adjusted[name] for name in p_values}


def seed_summary(values: Sequence[float], resampled: Sequence[FloatArray], seed: Seed = SEED) -> SeedSummary:
    """Mean, standard deviation and interval of one system trained with several seeds, on the same items.

    The interval is a two-level bootstrap: each resample draws seeds with replacement and, once for all of them, items
    with replacement, and averages the drawn seeds' scores. With few seeds it is too narrow.

    Args:
        values: The score of each seed.
        resampled: Each seed's scores on the same resamples of the items, ``(resamples,)``.
        seed: Of the draw of seeds.
    """
    scores, draws = np.array(values, dtype=np.float64), np.stack(resampled)
    drawn = np.random.default_rng([*np.atleast_1d(seed), 1]).integers(len(draws), size=draws.shape)
    low, high = percentiles(np.take_along_axis(draws, drawn, axis=0).mean(axis=0))
    sd = float(scores.std(ddof=1)) if len(scores) > 1 else 0.0
    return SeedSummary(tuple(scores.tolist()), float(scores.mean()), sd, low, high)


def _table(stats: npt.ArrayLike) -> FloatArray:
    table = np.asarray(stats, dtype=np.float64)
    if table.ndim != 2 or not len(table):
        raise ValueError(f"statistics must have the shape (items, columns) with items > 0, got {table.shape}")
    return table


def _places(items: Sequence[Sequence[Hashable]]) -> tuple[list[npt.NDArray[np.int64]], int]:
    """The number of each row's item among all names, which are numbered as they come; and how many names there are."""
    numbers: dict[Hashable, int] = {}
    places = [np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64) for names in items]
    return places, len(numbers)


def _draws(items: int, resamples: int, rng: np.random.Generator) -> Iterator[FloatArray]:
    """How often each item is drawn in each resample, in blocks of ``(rows, items)``."""
    rows = max(1, _BLOCK // items)
    for start in range(0, resamples, rows):
        height = min(rows, resamples - start)
        drawn = rng.integers(items, size=(height, items)) + items * np.arange(height)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=height * items)
        yield counts.reshape(height, items).astype(np.float64)


def _share_at_or_above(values: FloatArray, threshold: float) -> float:
    """The p-value: the share at or above the threshold, with one added to both counts; rounding does not matter."""
    tolerance = 1e-9 * max(1.0, abs(threshold))
    return float((np.sum(values >= threshold - tolerance) + 1) / (len(values) + 1))
