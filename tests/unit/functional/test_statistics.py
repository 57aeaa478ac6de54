from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from midalign.errors import OptionError
from midalign.functional import statistics as significance
from midalign.functional.statistics import (
    holm,
    paired_result,
    percentiles,
    randomization_p_value,
    randomize_together,
    randomized_sums,
    resample_sums,
    resample_together,
    seed_summary,
)
from midalign.metrics.scoring import f1, share
from midalign.records import SEED

RNG = np.random.default_rng(0)
COUNTS = RNG.integers(0, 4, size=(57, 3)).astype(float)


def coin(n: int, right: int) -> np.ndarray:
    return np.array([[1.0, 1.0]] * right + [[0.0, 1.0]] * (n - right))


def interval(stats, formula, resamples=1000, seed=SEED):
    return percentiles(formula(resample_sums(stats, resamples, seed)))


def paired(a, b, formula):
    return paired_result(formula(a.sum(0)), formula(b.sum(0)), *(formula(resample_sums(side)) for side in (a, b)))


def randomization(a, b, formula, trials=10000, seed=SEED):
    one, other = (formula(sums) for sums in randomized_sums(a, b, trials, seed))
    return randomization_p_value(one - other, formula(b.sum(0)) - formula(a.sum(0)))


def over_seeds(systems, formula, seed=SEED):
    values = [formula(stats.sum(0)) for stats in systems]
    return seed_summary(values, [formula(resample_sums(stats, seed=seed)) for stats in systems], seed)


def test_resampled_sums_equal_a_plain_loop_over_the_drawn_rows() -> None:
    drawn = np.random.default_rng(7).choice(len(COUNTS), size=(20, len(COUNTS)), replace=True)
    plain = [sum(COUNTS[row] for row in rows) for rows in drawn]
    np.testing.assert_array_equal(resample_sums(COUNTS, 20, 7), plain)


@given(
    names=st.lists(st.sets(st.integers(0, 9), min_size=1), min_size=1, max_size=4),
    seed=st.integers(0, 99),
    block=st.sampled_from([1, 40, 10_000]),
)
def test_tables_are_resampled_and_swapped_as_one_table_of_all_their_items_would_be(names, seed, block):
    items = [sorted(each) for each in names]
    order = list(dict.fromkeys(name for each in items for name in each))
    tables = [np.array([[name + 1.0, number] for name in each]) for number, each in enumerate(items)]
    wide = np.zeros((len(order), 2 * len(items)))  # a row for each item; nothing where a table lacks it
    for number, (each, table) in enumerate(zip(items, tables, strict=True)):
        wide[[order.index(name) for name in each], 2 * number : 2 * number + 2] = table
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(significance, "_BLOCK", block)
        drawn = resample_together(tables, items, 70, seed)
        swapped = randomize_together([(table, 2 * table) for table in tables], items, 70, seed)
    np.testing.assert_allclose(np.hstack(drawn), resample_sums(wide, 70, seed))
    for got, expected in zip(zip(*swapped, strict=True), randomized_sums(wide, 2 * wide, 70, seed), strict=True):
        np.testing.assert_allclose(np.hstack(got), expected)


def test_drawing_in_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = resample_sums(COUNTS, 50, 3)
    monkeypatch.setattr(significance, "_BLOCK", 200)
    np.testing.assert_array_equal(resample_sums(COUNTS, 50, 3), whole)
    assert randomization(COUNTS, COUNTS[::-1] + 1, f1, trials=50) > 0


def test_the_interval_of_a_share_is_close_to_scipys_bootstrap() -> None:
    right = coin(200, 140)
    ours = interval(right, share, resamples=4000, seed=1)
    theirs = scipy_stats.bootstrap((right[:, 0],), np.mean, n_resamples=4000, method="percentile", rng=1)
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=0.01)


def test_the_interval_of_a_constant_is_a_point() -> None:
    assert interval(coin(9, 9), share) == (1.0, 1.0)


def test_95_percent_intervals_hold_the_truth_about_95_percent_of_the_time() -> None:
    rng = np.random.default_rng(5)
    inside = 0
    for trial in range(300):
        sample = np.stack([rng.random(150) < 0.6, np.ones(150)], axis=1).astype(float)
        low, high = interval(sample, share, resamples=400, seed=trial)
        inside += low <= 0.6 <= high
    assert 0.91 <= inside / 300 <= 0.98


def test_a_system_against_itself_is_never_significant() -> None:
    result = paired(COUNTS, COUNTS, f1)
    assert (result.difference, result.low, result.high) == (0, 0, 0)
    assert result.p_value == 1
    assert randomization(COUNTS, COUNTS, f1, trials=100) == 1


def test_three_differing_items_of_a_hundred_are_not_significant() -> None:
    a, b = coin(100, 50), coin(100, 53)
    assert randomization(a, b, share) == pytest.approx(2 / 8, abs=0.02)  # the sign test on three items


def test_p_values_of_independent_equal_systems_are_about_uniform() -> None:
    rng = np.random.default_rng(6)
    p_values = []
    for trial in range(200):
        a, b = (np.stack([rng.random(80) < 0.5, np.ones(80)], axis=1).astype(float) for _ in range(2))
        p_values.append(randomization(a, b, share, trials=300, seed=trial))
    assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.1


def test_randomization_is_close_to_the_exact_test_over_all_swaps() -> None:
    a, b = coin(10, 3), coin(10, 9)[::-1]
    difference = a[:, 0] - b[:, 0]
    signs = np.array(np.meshgrid(*[[-1, 1]] * 10)).reshape(10, -1).T
    exact = np.mean(np.abs(signs @ difference) >= abs(difference.sum()))
    assert randomization(a, b, share, trials=20000) == pytest.approx(exact, abs=0.01)


def test_a_clear_difference_is_significant_in_both_tests() -> None:
    a, b = coin(300, 150), coin(300, 200)
    assert paired(a, b, share).p_value < 0.01
    assert paired(a, b, share).low > 0
    assert randomization(a, b, share, trials=1000) < 0.01


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_equals_its_definition_and_scipys_ordering(p_values: list[float]) -> None:
    named = {str(index): p for index, p in enumerate(p_values)}
    adjusted = holm(named)
    assert list(adjusted) == list(named)
    m = len(p_values)
    ranked = sorted(p_values)
    for name, p in named.items():
        # the largest of (m - i) p_(i) over all smaller or equal p-values, cut at 1
        plain = min(1.0, max((m - i) * q for i, q in enumerate(ranked) if q <= p))
        assert adjusted[name] == pytest.approx(plain)
        assert adjusted[name] >= p


def test_holm_of_a_textbook_example() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8).filter(lambda values: np.std(values) > 1e-6))
def test_the_interval_of_a_mean_is_scipys_t_interval(values: list[float]) -> None:
    found = significance.mean_interval(values)
    expected = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert (found.mean, found.sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)))


def test_one_value_has_no_interval_and_none_no_mean() -> None:
    assert significance.mean_interval([3.0]) == significance.MeanInterval(3.0, 0.0, -np.inf, np.inf)
    with pytest.raises(ValueError, match="at least one"):
        significance.mean_interval([])


def test_seeds_are_summarised_by_mean_and_sample_standard_deviation() -> None:
    summary = over_seeds([coin(100, 60), coin(100, 70), coin(100, 80)], share)
    assert summary.values == pytest.approx((0.6, 0.7, 0.8))
    assert (summary.mean, summary.sd) == pytest.approx((0.7, 0.1))
    assert summary.low < 0.62
    assert summary.high > 0.78


def test_one_seed_has_the_interval_over_items() -> None:
    summary = over_seeds([COUNTS], f1, seed=4)
    assert (summary.low, summary.high, summary.sd) == (*interval(COUNTS, f1, seed=4), 0.0)


@pytest.mark.parametrize("stats", [np.zeros((0, 3)), np.zeros(3), []])
def test_no_items_is_an_error(stats: np.ndarray) -> None:
    with pytest.raises(ValueError, match="items > 0"):
        resample_sums(stats)


@pytest.mark.parametrize(
    ("options", "says"),
    [({"resamples": 0}, "resamples is 0"), ({"resamples": 10**30}, "from 1 to 1000000"), ({"seed": -1}, "seed is -1")],
)
def test_numbers_of_resamples_and_seeds_that_there_cannot_be_are_refused(options, says):
    with pytest.raises(OptionError, match=says):
        resample_sums([[1.0], [2.0]], **options)
