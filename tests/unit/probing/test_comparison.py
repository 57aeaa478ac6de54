"""Comparison of two probes and correlation with transfer, on probes made from known hits."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from midalign.errors import DataError, LanguageError, RunError
from midalign.probing.comparison import compare, correlate, correlate_gains, scores_by_language
from midalign.probing.probe import ProbeResult
from midalign.probing.statistics import find_groups, spearman

CODES = ["eng_Latn", "deu_Latn", "rus_Cyrl", "tha_Thai", "fra_Latn", "fin_Latn"]
N = 60


def made_result(chances, seed=0, **changes):
    """A probe whose direction (a, b) hits with the mean of the two languages' chances, by layer ``chances[layer][a]``.

    The same seed draws the same random numbers, so that raising a chance only turns misses into hits.
    """
    rng = np.random.default_rng(seed)
    layers, hits = [], []
    for place, by_language in enumerate(chances):
        thresholds = rng.random((len(CODES), len(CODES), N))
        rate = (np.add.outer(by_language, by_language) / 2)[:, :, None]
        found = thresholds < rate
        found[range(len(CODES)), range(len(CODES))] = False
        hits.append((found.sum(axis=0) + found.sum(axis=1)).astype(np.uint16))
        matrix = [[None if a == b else float(found[a, b].mean()) for b in range(len(CODES))] for a in range(len(CODES))]
        accuracy = float(found.sum() / (N * len(CODES) * (len(CODES) - 1)))
        layers.append({"layer": place, "accuracy": accuracy, "matrix": matrix})
    content = {
        "languages": CODES, "n": N, "data": "d", "margin": "ratio", "k": 4, "candidates": "all", "pooling": "mean",
        "groups": find_groups(CODES, {"low_resource": ["tha_Thai", "fin_Latn"]}), "layers": layers, "best_layer": 0,
    }  # fmt: skip
    return ProbeResult(content | changes, np.stack(hits))


LOW, HIGH = np.full(6, 0.4), np.array([0.4, 0.4, 0.4, 0.9, 0.4, 0.4])


def test_a_gain_is_found_at_its_layer_and_language_and_nowhere_else():
    before, after = made_result([LOW, LOW]), made_result([LOW, HIGH])
    found = compare(before, after)
    assert [entry["layer"] for entry in found["layers"]] == [0, 1]
    same, better = found["layers"]
    assert same["difference"] == same["low"] == same["high"] == 0
    assert better["difference"] == pytest.approx(after.accuracy[1] - before.accuracy[1], abs=1e-6)
    assert better["low"] > 0
    thai, english = better["by_language"]["tha_Thai"], better["by_language"]["eng_Latn"]
    assert thai["difference"] > 0.2 > 0.15 > english["difference"]
    assert thai["low"] <= thai["difference"] <= thai["high"]
    assert thai["p_value"] == pytest.approx(1 / 1001, abs=1e-5)
    assert thai["p_holm"] == pytest.approx(6 / 1001, abs=1e-4)
    low = better["groups"]["low_resource"]["difference"]
    expected = (thai["difference"] + better["by_language"]["fin_Latn"]["difference"]) / 2
    assert low == pytest.approx(expected, abs=1e-6)
    json.dumps(found, allow_nan=False)


def test_the_paired_interval_equals_a_plain_bootstrap_of_differences():
    before, after = made_result([LOW]), made_result([HIGH], seed=1)
    entry = compare(before, after, resamples=3000)["layers"][0]
    differences = (after.hits[0].astype(float) - before.hits[0].astype(float)).sum(axis=0) / (6 * 10)
    rng = np.random.default_rng(9)
    draws = differences[rng.integers(N, size=(3000, N))].mean(axis=1)
    assert entry["low"] == pytest.approx(np.percentile(draws, 2.5), abs=0.005)
    assert entry["high"] == pytest.approx(np.percentile(draws, 97.5), abs=0.005)


def test_an_unchanged_model_differs_by_nothing():
    entry = compare(made_result([HIGH]), made_result([HIGH]))["layers"][0]
    assert {found["p_value"] for found in entry["by_language"].values()} == {1.0}


@pytest.mark.parametrize(
    "changes", [{"n": 61}, {"data": "other"}, {"margin": "distance"}, {"k": 3}, {"pooling": "last"}, {"languages": []}]
)
def test_probes_of_other_data_or_options_are_not_compared(changes):
    with pytest.raises(RunError, match=next(iter(changes))):
        compare(made_result([LOW]), made_result([LOW], **changes))


def test_a_probe_without_its_hits_is_not_compared():
    with pytest.raises(RunError, match=r"hits\.safetensors"):
        compare(ProbeResult(made_result([LOW]).content), made_result([LOW]))


def test_only_layers_of_both_probes_are_compared():
    after = made_result([LOW, LOW])
    after.content["layers"][0]["layer"] = 5
    assert [entry["layer"] for entry in compare(made_result([LOW, LOW]), after)["layers"]] == [1]
    after.content["layers"][1]["layer"] = 6
    with pytest.raises(RunError, match="no layer in common"):
        compare(made_result([LOW, LOW]), after)


def exact_p(x, y):
    """Spearman's two-sided p by trying every order: twice the smaller tail."""
    observed = stats.spearmanr(x, y).statistic
    rhos = np.array([stats.spearmanr(order, y).statistic for order in itertools.permutations(x)])
    tails = np.mean(rhos >= observed - 1e-9), np.mean(rhos <= observed + 1e-9)
    return min(1.0, 2 * min(tails))


def test_four_languages_in_the_same_order_are_not_significant():
    assert spearman([1, 2, 3, 4], [10, 30, 31, 70]) == pytest.approx((1.0, 2 / 24))


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=4, max_size=6))
def test_spearmans_p_over_few_languages_is_exact_also_with_ties(points):
    x, y = zip(*points, strict=True)
    assume(len(set(x)) > 1 and len(set(y)) > 1)
    assert spearman(x, y) == pytest.approx((stats.spearmanr(x, y).statistic, exact_p(x, y)))


def test_spearmans_p_over_many_languages_is_scipys():
    x, y = np.random.default_rng(0).random((2, 12))
    assert spearman(x, y) == pytest.approx(tuple(stats.spearmanr(x, y)))


def test_coefficients_equal_scipys_and_unprobed_languages_are_named():
    result = made_result([np.linspace(0.1, 0.9, 6), np.full(6, 0.5)])
    scores = {"en": 30.0, "de": 45.0, "rus": 41.0, "tha_Thai": 60.0, "fr": 77.0, "fin": 71.5, "swh": 3.0}
    found = correlate(result, scores)
    assert found["languages"] == CODES
    assert found["left_out"] == ["swh_Latn"]
    accuracy = list(result.by_language(0).values())
    given = [30.0, 45.0, 41.0, 60.0, 77.0, 71.5]
    entry = found["layers"][0]
    for name, expected in (
        ("pearson", stats.pearsonr(accuracy, given)),
        ("spearman", stats.spearmanr(accuracy, given)),
    ):
        assert entry[name]["value"] == pytest.approx(expected.statistic, abs=1e-5)
        exact = exact_p(accuracy, given) if name == "spearman" else expected.pvalue
        assert entry[name]["p_value"] == pytest.approx(exact, rel=0.01)
        assert entry[name]["low"] <= entry[name]["value"] <= entry[name]["high"] <= 1.0
    assert entry["pearson"]["value"] > 0.8
    json.dumps(found, allow_nan=False)


def test_the_interval_of_a_correlation_equals_a_plain_bootstrap_with_scipy():
    result = made_result([np.linspace(0.1, 0.9, 6)])
    given = np.array([30.0, 45.0, 41.0, 60.0, 77.0, 71.5])
    found = correlate(result, dict(zip(CODES, given, strict=True)), resamples=300, seed=4)["layers"][0]
    accuracy = np.array(list(result.by_language(0).values()))
    drawn = np.random.default_rng(4).integers(6, size=(300, 6))
    for name, test in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        values = [test(accuracy[rows], given[rows]).statistic for rows in drawn if len(set(rows)) > 1]
        low, high = np.percentile(values, [2.5, 97.5])
        assert (found[name]["low"], found[name]["high"]) == (
            pytest.approx(low, abs=1e-4),
            pytest.approx(high, abs=1e-4),
        )


def test_gains_set_the_change_of_each_language_against_the_change_of_its_score():
    before, after = made_result([LOW, LOW]), made_result([LOW, np.linspace(0.4, 0.9, 6)])
    gains = dict(zip(CODES[1:], [0.02, 0.05, -0.01, 0.11, 0.07], strict=True))  # English is supervised and left out
    found = correlate_gains(compare(before, after), gains)
    assert found["languages"] == CODES[1:]
    assert found["layers"][0]["pearson"]["value"] is None, "nothing changed at layer 0"
    old, new = before.by_language(1), after.by_language(1)
    rises = [new[code] - old[code] for code in CODES[1:]]
    assert found["layers"][1]["accuracy"] == pytest.approx(rises, abs=1e-5)
    for name, test in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        expected = test(rises, list(gains.values()))
        assert found["layers"][1][name]["value"] == pytest.approx(expected.statistic, abs=1e-4)
        exact = exact_p(rises, list(gains.values())) if name == "spearman" else expected.pvalue
        assert found["layers"][1][name]["p_value"] == pytest.approx(exact, rel=0.01)


def test_equal_scores_have_no_correlation_and_give_null():
    entry = correlate(made_result([LOW]), dict.fromkeys(CODES, 50.0))["layers"][0]
    assert entry["pearson"] == {"value": None, "p_value": None, "low": None, "high": None}


def test_too_few_languages_or_unknown_ones_are_an_error():
    with pytest.raises(DataError, match="3 languages have both"):
        correlate(made_result([LOW]), {"en": 1.0, "de": 2.0, "ru": 3.0, "swh": 4.0})
    with pytest.raises(LanguageError, match="transfer scores"):
        correlate(made_result([LOW]), {"klingon": 1.0})


def test_scores_by_language_are_those_of_the_first_metric_and_the_mean_of_both_directions(tmp_path):
    rows = [
        {"metric": "chrf", "language": "deu_Latn", "group": "deu_Latn-eng_Latn", "value": 40},
        {"metric": "bleu", "language": "deu_Latn", "value": 3},
        {"metric": "chrf", "language": "deu_Latn", "group": "eng_Latn-deu_Latn", "value": 20.0},
        {"metric": "chrf", "group": "all", "value": 30.0},
        {"metric": "chrf", "language": "fra_Latn"},
    ]
    (tmp_path / "scores.json").write_text(json.dumps({"scores": rows}))
    assert scores_by_language(tmp_path / "scores.json") == ("chrf", {"deu_Latn": 30.0})
    assert scores_by_language(tmp_path / "scores.json", "bleu") == ("bleu", {"deu_Latn": 3.0})
    for content in ({"scores": [{"metric": "chrf", "language": "deu_Latn"}]}, {"scores": 3}, []):
        (tmp_path / "scores.json").write_text(json.dumps(content))
        with pytest.raises(DataError, match="no score of metric"):
            scores_by_language(tmp_path / "scores.json")
