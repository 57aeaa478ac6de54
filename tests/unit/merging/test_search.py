"""Search of merge weights: which candidate wins, what each search tries, and which candidates noise explains."""

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from midalign.merging.search import Memo, Outcome, choose, clearly_worse, coordinate, golden, golden_evaluations, grid


def outcome(value, alignment=0.0, task=1.0, draws=None):
    return Outcome({"task": task, "alignment": alignment}, value, np.full(50, value) if draws is None else draws)


def on_items(matrix, resamples=2000, seed=0):
    """Candidates whose score is the mean of their row of item scores, with paired bootstrap draws."""
    n = matrix.shape[1]
    drawn = np.random.default_rng(seed).integers(n, size=(resamples, n))
    return [outcome(float(row.mean()), float(i), draws=row[drawn].mean(axis=1)) for i, row in enumerate(matrix)]


def surface(function):
    """A memo of a score that is known exactly, and the list of the calls it makes."""
    calls = []

    def evaluate(weights):
        calls.append(weights)
        return outcome(function(weights["task"], weights["alignment"]), weights["alignment"], weights["task"])

    return Memo(evaluate), calls


@pytest.mark.parametrize(
    ("values", "chosen"),
    [
        ([0.1, 0.2, 0.9, 0.3, 0.4, 0.5], (0.5, 2.0)),
        ([0.5, 0.5, 0.5, 0.5, 0.5, 0.5], (0.5, 0.0)),
        ([0.1, 0.5, 0.5, 0.1, 0.5, 0.5], (0.5, 0.7)),
        ([0.50, 0.51, 0.52, 0.53, 0.54, 0.54], (1.0, 0.7)),
    ],
)
def test_the_best_wins_and_ties_go_to_less_alignment(values, chosen):
    scores = iter(values)
    memo, calls = surface(lambda *_: next(scores))
    grid(memo, (0.5, 1.0), (0.0, 0.7, 2.0))
    best = choose(memo.outcomes)
    assert (best.weights["task"], best.weights["alignment"]) == chosen
    assert [(c["task"], c["alignment"]) for c in calls] == [(t, a) for t in (0.5, 1.0) for a in (0.0, 0.7, 2.0)]


def test_bands_count_as_much_alignment_as_their_mean():
    first, second = outcome(0.5, [0.0, 0.9]), outcome(0.5, [0.4, 0.4])
    assert choose([first, second]) is second


@settings(deadline=None, max_examples=60)
@given(st.floats(0, 1), st.sampled_from([0.2, 0.05, 0.01]))
def test_golden_section_finds_a_peak_wherever_it_lies(peak, tolerance):
    memo, calls = surface(lambda _, a: -abs(a - peak))
    golden(memo, 1.0, 0.0, 1.0, tolerance)
    assert abs(choose(memo.outcomes).weights["alignment"] - peak) <= tolerance
    assert len(calls) == golden_evaluations(0.0, 1.0, tolerance)
    assert len({c["alignment"] for c in calls}) == len(calls)


def test_golden_section_on_a_plain_keeps_to_the_least_alignment():
    memo, _ = surface(lambda *_: 0.5)
    golden(memo, 1.0, 0.0, 1.0, 0.05)
    assert choose(memo.outcomes).weights["alignment"] == 0.0


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from([0.0, 0.2, 0.4, 0.8]), min_size=3, max_size=3), st.sampled_from([0.5, 1.0, 1.5]))
def test_coordinate_search_finds_a_peak_over_bands_and_task(peaks, task_peak):
    """Separable in the weights, so that one weight at a time is enough; full enumeration is the oracle."""
    values, tasks = (0.0, 0.2, 0.4, 0.8), (0.5, 1.0, 1.5)

    def score_of(task, bands):
        return -abs(task - task_peak) - sum(abs(a - p) for a, p in zip(bands, peaks, strict=True))

    memo, calls = surface(score_of)
    coordinate(memo, tasks, values, 3)
    best = choose(memo.outcomes)
    whole = max(score_of(t, b) for t in tasks for b in itertools.product(values, repeat=3))
    assert best.value == pytest.approx(whole)
    assert len({(c["task"], *c["alignment"]) for c in calls}) == len(calls) < len(tasks) * len(values) ** 3


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 2))
def test_coordinate_search_ends_where_no_single_change_helps(seed, bands):
    noise = np.random.default_rng(seed).integers(0, 4, size=(3, 4, 4))  # few values, so that many are equal
    values, tasks = (0.0, 0.2, 0.4, 0.8), (0.5, 1.0, 1.5)

    def score_of(task, alignment):
        own = alignment if bands > 1 else [alignment, alignment]
        return float(noise[tasks.index(task), values.index(own[0]), values.index(own[1])])

    memo, calls = surface(score_of)
    coordinate(memo, tasks, values, bands)
    best = choose(memo.outcomes)
    task = best.weights["task"]
    own = best.weights["alignment"] if bands > 1 else [best.weights["alignment"]]
    near = [(t, own) for t in tasks] + [(task, [*own[:b], v, *own[b + 1 :]]) for b in range(bands) for v in values]
    assert max(score_of(t, a if bands > 1 else a[0]) for t, a in near) <= best.value
    assert len({str(c) for c in calls}) == len(calls)


def test_equally_good_candidates_are_seldom_called_worse():
    """25 candidates that differ by luck alone: at 95 % over all, about one experiment in 20 may call one worse."""
    wrong = 0
    for seed in range(60):
        items = np.random.default_rng(seed).random((25, 80))
        outcomes = on_items(items, 500, seed)
        wrong += any(clearly_worse(outcomes, choose(outcomes)))
    assert wrong <= 9  # binomial(60, 0.05) exceeds 9 once in 3,000


def test_a_candidate_that_is_behind_on_most_items_is_called_worse():
    rng = np.random.default_rng(1)
    base = (rng.random(200) < 0.6).astype(float)
    slightly, clearly = base.copy(), base.copy()
    slightly[np.flatnonzero(base)[:1]] = 0
    clearly[np.flatnonzero(base)[:30]] = 0
    outcomes = on_items(np.stack([base, slightly, clearly, base]))
    assert clearly_worse(outcomes, outcomes[0]) == [False, False, True, False]


def test_with_two_candidates_noise_is_that_of_the_paired_bootstrap():
    """scipy's basic bootstrap of the paired differences is the oracle."""
    for seed, shift in itertools.product(range(4), (0.0, 0.03, 0.06, 0.2)):
        rng = np.random.default_rng(seed)
        first = rng.random(150)
        second = first - shift + 0.3 * rng.standard_normal(150)
        outcomes = on_items(np.stack([first, second]))
        best = choose(outcomes)
        gap = np.abs(first.mean() - second.mean())
        sign = np.sign(first.mean() - second.mean())
        found = scipy.stats.bootstrap(
            ((first - second) * sign,), np.mean, method="basic", n_resamples=5000, rng=np.random.default_rng(9)
        ).confidence_interval
        if abs(found.low) > 0.004:  # too close to call by two different sets of resamples
            assert any(clearly_worse(outcomes, best)) == (found.low > 0), (seed, shift, gap)


def test_candidates_with_the_same_answers_are_flat_and_one_alone_too():
    same = on_items(np.tile(np.random.default_rng(0).random(40), (3, 1)))
    assert clearly_worse(same, same[0]) == [False] * 3
    assert clearly_worse(same[:1], same[0]) == [False]
