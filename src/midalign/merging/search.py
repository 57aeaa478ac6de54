"""Search of merge weights: which weights to try next, and which candidates are clearly worse than the best.

1. A search asks a `Memo` for the outcome of weights; the memo evaluates no combination twice and keeps the order.
2. `grid` tries every combination; `golden` narrows an interval of the alignment weight by golden section (Kiefer
   1953); `coordinate` changes one weight at a time until no change helps.
3. `choose` takes the best candidate; among equal ones, that with the least alignment.
4. `clearly_worse` tests which candidates are behind the best by more than the noise of the dev data.

Nothing here knows models or files. A *loss* is searched with its negative value.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from midalign.functional.merge_methods import Weight
from midalign.functional.statistics import CONFIDENCE, FloatArray

GOLDEN = (math.sqrt(5) - 1) / 2
Weights = dict[str, Weight]
_ROUNDING = 1e-9  # scores that differ by less are equal


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """Result of one candidate on dev.

    Attributes:
        weights: ``task`` and ``alignment``; the latter a list where there is one per band of layers.
        value: The score; higher is better.
        draws: The score on each bootstrap resample of the dev items, ``(resamples,)``; the same items for every
            candidate, so that differences are paired.
    """

    weights: Weights
    value: float
    draws: FloatArray

    @property
    def alignment(self) -> float:
        """The amount of alignment: the mean absolute weight over the bands."""
        return float(np.mean(np.abs(self.weights["alignment"])))


class Memo:
    """Memo of outcomes: evaluates no combination of weights twice.

    Attributes:
        outcomes: The outcomes, in the order of evaluation.

    Args:
        evaluate: The outcome of weights; expensive.
        known: Outcomes of the same search that was interrupted, in the order of evaluation.
    """

    def __init__(self, evaluate: Callable[[Weights], Outcome], known: Iterable[Outcome] = ()) -> None:
        self._evaluate = evaluate
        self._known = {_key(outcome.weights["task"], outcome.weights["alignment"]): outcome for outcome in known}

    def __call__(self, task: float, bands: Sequence[float]) -> Outcome:
        """The outcome of a task weight and of one alignment weight per band; one band is written as a number."""
        key = _key(task, bands)
        if key not in self._known:
            alignment: Weight = key[1] if len(key) == 2 else list(key[1:])
            self._known[key] = self._evaluate({"task": key[0], "alignment": alignment})
        return self._known[key]

    @property
    def outcomes(self) -> list[Outcome]:
        """What was evaluated, in that order."""
        return list(self._known.values())


def _key(task: Weight, alignment: Weight) -> tuple[float, ...]:
    return tuple(float(value) for value in np.hstack([task, alignment]))


def grid(memo: Memo, task_weights: Sequence[float], alignment_weights: Sequence[float]) -> None:
    """Try every pair of weights."""
    for task, alignment in itertools.product(task_weights, alignment_weights):
        memo(task, [alignment])


def golden(memo: Memo, task: float, low: float, high: float, tolerance: float) -> None:
    """Golden section search of the alignment weight, with a fixed task weight.

    Both ends are tried first. Each further candidate shrinks the interval to 0.618 of its length, until it is not
    longer than `tolerance`. The search finds the maximum of a score that rises and then falls; otherwise it may find a
    local maximum. Where two inner points are equal, the half with less alignment is kept.

    Args:
        memo: Gives the outcomes.
        task: Weight of the task adapter.
        low: Lower end of the alignment weight.
        high: Upper end.
        tolerance: The search stops when the interval is this long.
    """
    memo(task, [low])
    memo(task, [high])
    inner = [high - GOLDEN * (high - low), low + GOLDEN * (high - low)]
    while high - low > tolerance:
        left, right = (memo(task, [point]) for point in inner)
        if choose([left, right]) is left:
            high = inner[1]
            inner = [high - GOLDEN * (high - low), inner[0]]
        else:
            low = inner[0]
            inner = [inner[1], low + GOLDEN * (high - low)]


def golden_evaluations(low: float, high: float, tolerance: float) -> int:
    """Number of candidates that `golden` tries: both ends, two in the first step, one in each further step."""
    steps = 0
    while (high - low) * GOLDEN**steps > tolerance:
        steps += 1
    return 2 + (steps + 1 if steps else 0)


def coordinate(memo: Memo, task_weights: Sequence[float], alignment_weights: Sequence[float], bands: int) -> None:
    """Coordinate search: change one weight at a time to its best value of the list, until no single change is better.

    The coordinates are, in turn: the alignment weight of all bands together, that of each band if there are several,
    and the task weight. The search starts at the first task weight and the least alignment. A weight is changed only
    for a better score, or for an equal one with less alignment, so the search ends, possibly at a local maximum.

    Args:
        memo: Gives the outcomes.
        task_weights: Values to try for the task adapter.
        alignment_weights: Values to try for the alignment adapter, in every band.
        bands: Number of bands of layers with a weight of their own.
    """
    point = (float(task_weights[0]), *[float(min(alignment_weights, key=abs))] * bands)
    axes = [(range(1, bands + 1), alignment_weights)]
    if bands > 1:
        axes += [(range(band, band + 1), alignment_weights) for band in range(1, bands + 1)]
    axes.append((range(1), task_weights))
    best = memo(point[0], point[1:])
    improved = True
    while improved:
        start = best
        for axis, values in axes:
            points = [tuple(value if i in axis else old for i, old in enumerate(point)) for value in values]
            found = {id(memo(p[0], p[1:])): p for p in points} | {id(best): point}
            best = choose([best, *(memo(p[0], p[1:]) for p in points)])
            point = found[id(best)]
        improved = best is not start


def choose(outcomes: Sequence[Outcome]) -> Outcome:
    """The best candidate; among equal ones, that with the least alignment, then that tried first."""
    return max(outcomes, key=lambda outcome: (outcome.value, -outcome.alignment))


def clearly_worse(outcomes: Sequence[Outcome], best: Outcome) -> list[bool]:
    """Test which candidates are behind the best by more than noise, at 95 % over all candidates together.

    The best was picked out of many, so an interval for one pair would call too many candidates worse: of 25 equally
    good ones, the lowest is far behind the highest by luck alone. Hence Tukey's comparison of all pairs, with the
    bootstrap in place of the normal distribution (max-T; Westfall and Young 1993, section 2): a candidate is clearly
    worse if its distance from the best, divided by the standard error of that distance, exceeds what the *largest* such
    ratio over all pairs exceeds in 5 % of the resamples, each candidate's resampled scores being centred on its score.
    For two candidates this is a plain paired bootstrap test.

    Args:
        outcomes: All candidates; each with the same resamples.
        best: One of them.

    Returns:
        One answer per candidate, in order.
    """
    values = np.array([outcome.value for outcome in outcomes])
    draws = np.stack([outcome.draws for outcome in outcomes])
    noise = draws - draws.mean(axis=1, keepdims=True)
    largest = np.zeros(draws.shape[1])
    for row in range(len(noise) - 1):
        distances = np.abs(noise[row + 1 :] - noise[row])
        errors = np.sqrt(np.mean(distances**2, axis=1))
        moving = errors > _ROUNDING
        if moving.any():
            largest = np.maximum(largest, (distances[moving] / errors[moving, None]).max(axis=0))
    critical = float(np.quantile(largest, CONFIDENCE))
    position = next(number for number, outcome in enumerate(outcomes) if outcome is best)
    behind = values[position] - values
    errors = np.sqrt(np.mean((noise - noise[position]) ** 2, axis=1))
    return [bool(gap > critical * error + _ROUNDING) for gap, error in zip(behind, errors, strict=True)]
