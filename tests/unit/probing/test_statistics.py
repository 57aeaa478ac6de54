"""The numbers of a probe on toys whose answers are known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from midalign.functional.retrieval import accuracy, retrieve_all
from midalign.probing.statistics import (
    best_layer_bootstrap,
    clean,
    fertility,
    find_groups,
    hit_counts,
    interval,
    layer_numbers,
    project,
    resampled,
    shares,
)

CODES = ["eng_Latn", "deu_Latn", "tha_Thai"]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(4, 12))
def test_means_of_shares_equal_means_over_the_directions_of_the_matrix(seed, n):
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(n, 6, generator=generator)
    vectors = {code: common + torch.randn(n, 6, generator=generator) for code in CODES}
    predictions = retrieve_all(vectors)["ratio"]
    matrix = accuracy(predictions).numpy()
    means = shares(hit_counts(predictions)[None], CODES, {"pair": CODES[:2], "one": CODES[2:]}).mean(axis=0)[0]
    by_language = [(np.nanmean(matrix[i]) + np.nanmean(matrix[:, i])) / 2 for i in range(3)]
    expected = [np.nanmean(matrix), np.mean(by_language[:2]), by_language[2], *by_language]
    assert means == pytest.approx(expected)


def test_the_interval_has_the_width_that_statistics_books_give():
    hits = np.zeros((1, 2, 400), dtype=np.uint16)
    hits[0, :, :100] = 2  # a quarter of the sentences hit in both directions
    draws = resampled(shares(hits, ["eng_Latn", "deu_Latn"], {}), seed=1, resamples=4000)
    low, high = interval(draws[:, 0, 0])
    spread = 1.96 * math.sqrt(0.25 * 0.75 / 400)
    assert (low, high) == (pytest.approx(0.25 - spread, abs=0.005), pytest.approx(0.25 + spread, abs=0.005))


def test_a_layer_that_is_better_on_every_sentence_wins_every_resample():
    table = np.stack([np.full(50, 0.5), np.linspace(0.6, 0.9, 50), np.full(50, 0.5)], axis=1)[:, :, None]
    draws = resampled(table, seed=0)[:, :, 0]
    found = best_layer_bootstrap([3, 4, 5], table.mean(axis=0)[:, 0], draws, 1)
    assert list(found["neighbours"]) == ["3", "5"]
    assert found["neighbours"]["3"]["low"] > 0.1
    assert found["neighbours"]["5"]["p_value"] == pytest.approx(1 / 1001, abs=1e-6)
    assert found["share_best"] == {"3": 0.0, "4": 1.0, "5": 0.0}


def test_two_layers_that_differ_by_chance_are_not_told_apart():
    rng = np.random.default_rng(0)
    table = rng.random((300, 2, 1))
    draws = resampled(table, seed=0)[:, :, 0]
    means = table.mean(axis=0)[:, 0]
    best = int(means.argmax())
    (neighbour,) = best_layer_bootstrap([0, 1], means, draws, best)["neighbours"].values()
    assert neighbour["low"] < 0 < neighbour["high"]
    assert neighbour["p_value"] > 0.05


def test_groups_keep_the_given_ones_first_and_leave_out_what_is_not_probed():
    found = find_groups(CODES, {"low_resource": ["tha_Thai", "swh_Latn"], "none": ["rus_Cyrl"]})
    assert next(iter(found)) == "low_resource"
    assert "none" not in found
    assert found["low_resource"]["languages"] == ["tha_Thai"]
    assert found["script:Latn"]["languages"] == CODES[:2]


def test_one_script_or_family_is_no_group():
    assert find_groups(CODES[:2], None) == {}


def test_fertility_counts_code_points_and_words_and_knows_scripts_without_spaces():
    assert fertility("deu_Latn", ["ab cd", "efg"], [4, 2]) == {
        "tokens_per_sentence": 3.0,
        "tokens_per_character": 0.75,
        "tokens_per_word": 2.0,
    }
    assert fertility("tha_Thai", ["กข ค"], [8])["tokens_per_word"] is None
    assert fertility("kor_Hang", ["가 나"], [4])["tokens_per_word"] == 2.0


def test_what_is_not_finite_becomes_null():
    assert [clean(value) for value in (float("nan"), float("inf"), 0.12345678)] == [None, None, 0.123457]


def test_the_map_equals_scikit_style_principal_components_up_to_sign():
    generator = torch.Generator().manual_seed(0)
    vectors = {code: torch.randn(9, 5, generator=generator) + 2 for code in CODES}
    found = project(vectors, [0, 3, 8])
    points = torch.cat([torch.nn.functional.normalize(v[[0, 3, 8]], dim=1) for v in vectors.values()]).double().numpy()
    centred = points - points.mean(axis=0)
    values, directions = np.linalg.eigh(np.cov(centred.T))
    expected = centred @ directions[:, ::-1][:, :2]
    ours = np.array([point for code in CODES for point in found["points"][code]])
    for axis in range(2):
        assert np.allclose(np.abs(ours[:, axis]), np.abs(expected[:, axis]), atol=1e-5)
        assert ours[np.abs(ours[:, axis]).argmax(), axis] > 0
    assert found["explained"] == pytest.approx((values[::-1] / values.sum())[:2].tolist(), abs=1e-5)


def test_hubs_and_anisotropy_of_a_layer_where_one_sentence_attracts_all():
    centre = torch.zeros(8, 16)
    centre[:, 0] = 5  # a large common direction: everything is similar to everything
    generator = torch.Generator().manual_seed(0)
    vectors = {code: centre + torch.randn(8, 16, generator=generator) for code in CODES}
    predictions = {"cosine": torch.zeros(3, 3, 8, dtype=torch.int32)}
    predictions["cosine"][range(3), range(3)] = -1
    entry = layer_numbers(7, vectors, predictions, "cosine")
    assert (entry["layer"], entry["accuracy"], entry["stderr"]) == (7, 0.125, 0.0)
    assert entry["hubness"]["top_share"] == 1.0
    assert entry["hubness"]["never"] == 0.875
    plain = [
        torch.cosine_similarity(vectors[a][i], vectors[b][j], dim=0).item()
        for a in CODES for b in CODES for i in range(8) for j in range(8) if a != b and i != j
    ]  # fmt: skip
    assert entry["anisotropy"] == pytest.approx(np.mean(plain), abs=1e-5)
    assert entry["anisotropy"] > 0.4
