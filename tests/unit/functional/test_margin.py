"""Margin retrieval against plain loops in numpy that share no code with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from midalign.errors import ModelError, OptionError
from midalign.functional.margin import retrieval_accuracy, retrieve, retrieve_units, unit
from midalign.functional.names import CANDIDATES, MARGINS

SCORED = ("ratio", "distance", "cosine")


def languages(n, d, noise=1.0, seed=0, m=None):
    """Two languages of one meaning space: a shared direction (anisotropy), a sentence part, noise of their own."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(d, generator=generator)
    sentences = torch.randn(max(n, m or n), d, generator=generator)
    x = shared + sentences[:n] + noise * torch.randn(n, d, generator=generator)
    y = shared + sentences[: m or n] + noise * torch.randn(m or n, d, generator=generator)
    return x, y


def cosine(u, v):
    return float(np.dot(u, v) / (np.linalg.norm(u) * np.linalg.norm(v)))


def plain_xsim(x, y, k=4, margin="ratio"):
    """LASER's xsim (source/xsim.py) written out: for each x, the best margin among its k nearest in y."""
    x, y = x.double().numpy(), y.double().numpy()
    cos = [[cosine(u, v) for v in y] for u in x]
    near_x = [sorted(range(len(y)), key=lambda j, row=row: -row[j])[:k] for row in cos]
    near_y = [sorted(range(len(x)), key=lambda i, j=j: -cos[i][j])[:k] for j in range(len(y))]
    mean_x = [sum(cos[i][j] for j in near_x[i]) / k for i in range(len(x))]
    mean_y = [sum(cos[i][j] for i in near_y[j]) / k for j in range(len(y))]
    answers = []
    for i in range(len(x)):
        scores = []
        for j in near_x[i]:
            mean = (mean_x[i] + mean_y[j]) / 2
            scores.append(cos[i][j] / mean if margin == "ratio" else cos[i][j] - mean)
        answers.append(near_x[i][max(range(k), key=lambda c, scores=scores: scores[c])])
    return answers


def plain_scores(x, y, margin, k):
    """Scores of every pair, by the formulas of Artetxe and Schwenk 2019, one at a time."""
    x, y = x.double().numpy(), y.double().numpy()
    cos = np.array([[cosine(u, v) for v in y] for u in x])
    scores = np.empty_like(cos)
    for i in range(len(x)):
        for j in range(len(y)):
            near_i = sum(sorted(cos[i, :], reverse=True)[:k]) / k
            near_j = sum(sorted(cos[:, j], reverse=True)[:k]) / k
            if margin == "ratio":
                scores[i, j] = cos[i, j] / ((near_i + near_j) / 2)
            elif margin == "distance":
                scores[i, j] = cos[i, j] - (near_i + near_j) / 2
            else:
                scores[i, j] = cos[i, j]
    return scores


@pytest.mark.parametrize("margin", ["ratio", "distance"])
@pytest.mark.parametrize(("n", "d", "noise", "seed"), [(120, 32, 1.0, 1), (150, 8, 0.7, 2), (60, 128, 3.0, 3)])
def test_nearest_candidates_agree_with_plain_xsim_on_every_prediction_both_ways(n, d, noise, seed, margin):
    x, y = languages(n, d, noise, seed)
    forward, backward = retrieve(x, y, margin, candidates="nearest")
    assert forward.tolist() == plain_xsim(x, y, margin=margin)
    assert backward.tolist() == plain_xsim(y, x, margin=margin)
    assert 0.05 < (forward == torch.arange(n)).double().mean() < 1, "an easy case would show nothing"


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("k", [1, 4])
def test_all_candidates_agree_with_a_full_plain_loop_both_ways(margin, k):
    x, y = languages(60, 12, noise=1.2, seed=4)
    scores = plain_scores(x, y, margin, k)
    forward, backward = retrieve(x, y, margin, k)
    assert forward.tolist() == scores.argmax(axis=1).tolist()
    assert backward.tolist() == scores.argmax(axis=0).tolist()


def test_margins_and_candidates_are_really_different_on_noisy_data():
    x, y = languages(300, 16, noise=1.2, seed=5)
    answers = {(m, c): tuple(retrieve(x, y, m, candidates=c)[0].tolist()) for m in SCORED for c in CANDIDATES}
    assert len({answers["ratio", "all"], answers["distance", "all"], answers["cosine", "all"]}) == 3
    assert answers["ratio", "all"] != answers["ratio", "nearest"]
    assert answers["cosine", "all"] == answers["cosine", "nearest"]


@given(
    n=st.integers(2, 12),
    m=st.integers(2, 12),
    d=st.integers(2, 6),
    seed=st.integers(0, 10_000),
    data=st.data(),
)
@settings(deadline=None, max_examples=60)
def test_the_choice_has_the_best_plain_score_whatever_the_shape_and_block(n, m, d, seed, data):
    k = data.draw(st.integers(1, min(n, m)))
    margin, candidates = data.draw(st.sampled_from(SCORED)), data.draw(st.sampled_from(CANDIDATES))
    block = data.draw(st.integers(1, n + 1))
    generator = torch.Generator().manual_seed(seed)
    # Cosines above 0, as language models give them: a ratio over a denominator near 0 has no float32 answer.
    x = torch.rand(n, d, generator=generator) + 0.1
    y = torch.rand(m, d, generator=generator) + 0.1
    both = retrieve(x, y, margin, k, candidates, block)
    scores, cos = plain_scores(x, y, margin, k), plain_scores(x, y, "cosine", k)
    for chosen, score, near in ((both[0], scores, cos), (both[1], scores.T, cos.T)):
        for i, j in enumerate(chosen.tolist()):
            kth = sorted(near[i], reverse=True)[k - 1]
            allowed = [c for c in range(len(near[i])) if candidates == "all" or near[i, c] >= kth + 1e-6]
            assert candidates == "all" or near[i, j] >= kth - 1e-6
            assert score[i, j] >= max((score[i, c] for c in allowed), default=-np.inf) - 1e-5


@pytest.mark.parametrize("candidates", CANDIDATES)
@pytest.mark.parametrize("margin", MARGINS)
def test_blocks_of_any_size_give_the_same_predictions(margin, candidates):
    x, y = languages(97, 24, noise=1.5, seed=6, m=83)
    expected = retrieve(x, y, margin, candidates=candidates)
    for block in (1, 2, 3, 10, 50, 96, 97, 98, 10_000):
        found = retrieve(x, y, margin, candidates=candidates, block=block)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation returns."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.size = max(self.size, tensor.numel())
        return result


@pytest.mark.parametrize(("n", "m", "d", "k"), [(300, 300, 24, 4), (257, 301, 64, 1), (60, 50, 8, 7)])
def test_faiss_retrieves_the_same_both_ways_with_every_margin(monkeypatch, n, m, d, k):
    faiss = pytest.importorskip("faiss", reason="faiss-cpu is not installed here (extra faiss)")
    x, y = (unit(each) for each in languages(n, d, m=m))
    others = torch.stack([y, unit(y + 0.5), y.roll(1, 0)])
    expected = retrieve_units(x, others, MARGINS, k, "nearest", None)
    searched, index = [], faiss.IndexFlatIP
    monkeypatch.setattr(faiss, "IndexFlatIP", lambda size: searched.append(1) or index(size))
    monkeypatch.setattr("midalign.functional.margin._FAISS_FROM", max(n, m))
    retrieve_units(x, others, MARGINS, k, "nearest", None)
    assert not searched, "only past that size"
    monkeypatch.setattr("midalign.functional.margin._FAISS_FROM", max(n, m) - 1)
    found = retrieve_units(x, others, MARGINS, k, "nearest", None)
    assert len(searched) == 1 + len(others)
    for margin in MARGINS:
        for ours, theirs in zip(expected[margin], found[margin], strict=True):
            assert torch.equal(ours, theirs), margin
    retrieve_units(x, others, MARGINS, k, "all", None)
    assert len(searched) == 1 + len(others), "all scores every sentence, which no index does"


def test_in_blocks_no_tensor_is_larger_than_a_block_or_the_input():
    x, y = languages(400, 8, seed=7)
    with LargestTensor() as whole:
        retrieve(x, y, candidates="nearest")
    with LargestTensor() as blocked:
        retrieve(x, y, candidates="nearest", block=10)
    assert whole.size == 400 * 400
    assert blocked.size == 10 * 400


def test_a_default_block_keeps_a_hundred_thousand_sentences_within_the_budget(monkeypatch):
    seen = []

    class SpyError(Exception):
        pass

    def spy(similarities, spans, k):
        seen.extend(spans)
        raise SpyError

    monkeypatch.setattr("midalign.functional.margin._nearest", spy)
    x = torch.ones(100_000, 1)
    with pytest.raises(SpyError):
        retrieve_units(x, x.unsqueeze(0), ("ratio",), 4, "all", None)
    assert max(span.stop - span.start for span in seen) * 100_000 * 12 <= 2**30
    assert seen[0].start == 0
    assert seen[-1].stop >= 100_000


@pytest.mark.parametrize("candidates", CANDIDATES)
def test_permuting_rows_permutes_the_answers(candidates):
    x, y = languages(80, 16, seed=8)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    plain, _ = retrieve(x, y, candidates=candidates)
    permuted_queries, _ = retrieve(x[order], y, candidates=candidates)
    permuted_targets, _ = retrieve(x, y[order], candidates=candidates)
    assert torch.equal(permuted_queries, plain[order])
    assert torch.equal(order[permuted_targets], plain)


@pytest.mark.parametrize("margin", SCORED)
def test_swapping_the_languages_swaps_the_directions(margin):
    x, y = languages(70, 16, seed=9, m=50)
    forward, backward = retrieve(x, y, margin)
    again_backward, again_forward = retrieve(y, x, margin)
    assert torch.equal(forward, again_forward)
    assert torch.equal(backward, again_backward)


def test_the_length_and_dtype_of_vectors_change_nothing():
    x, y = (v.bfloat16() for v in languages(50, 16, seed=10))
    scales = torch.logspace(-3, 4, 50).unsqueeze(1)
    expected = retrieve(x, y)
    for found in (retrieve(x.float() * scales, y.double()), retrieve(x, y.float() * scales.flip(0))):
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])


def test_autocast_around_a_probe_changes_nothing():
    x, y = languages(200, 64, noise=1.5, seed=12)
    expected = retrieve(x, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (x @ y.T).dtype == torch.bfloat16
        found = retrieve(x, y)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_several_margins_at_once_equal_one_at_a_time():
    x, y = languages(90, 16, noise=1.5, seed=11)
    for candidates in CANDIDATES:
        together = retrieve_units(unit(x), unit(y).unsqueeze(0), MARGINS, 4, candidates, 40)
        for margin in MARGINS:
            alone = retrieve(x, y, margin, candidates=candidates, block=40)
            assert torch.equal(together[margin][0][0], alone[0])
            assert torch.equal(together[margin][1][0], alone[1])


def test_a_hub_wins_by_cosine_but_not_by_ratio():
    # y0 lies between all x (cosine 0.8 to each); each x has its own y at 0.75, near to nothing else.
    x = torch.eye(3)
    own = torch.cat([0.75 * torch.eye(3), (1 - 0.75**2) ** 0.5 * torch.eye(3)], dim=1)
    hub = torch.tensor([[0.57735, 0.57735, 0.57735, 0.0, 0.0, 0.0]])
    x, y = torch.cat([x, torch.zeros(3, 3)], dim=1), torch.cat([hub, own * 0.7])
    x = x + 0.5 * hub  # pulls every x towards the hub
    by_cosine, _ = retrieve(x, y, "cosine", k=3)
    by_ratio, _ = retrieve(x, y, "ratio", k=3)
    assert by_cosine.tolist() == [0, 0, 0]
    assert by_ratio.tolist() == [1, 2, 3]


def test_equal_scores_go_to_the_lowest_index_and_all_ties_are_candidates():
    # Exact in floats: y1, y2 and y3 are the same point, which is also x1's, x2's and x3's.
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    for margin in MARGINS:
        for candidates in CANDIDATES:
            for block in (None, 1, 2):
                forward, backward = retrieve(x, x, margin, 1, candidates, block)
                assert forward.tolist() == [0, 1, 1, 1]
                assert backward.tolist() == [0, 1, 1, 1]


def test_negative_denominators_divide_as_laser_does():
    x = torch.tensor([[1.0, 0.2], [1.0, -0.3]])
    y = torch.tensor([[-1.0, 0.1], [-1.0, 0.4]])
    scores = plain_scores(x, y, "ratio", 2)
    assert (scores > 0).all(), "negative cosines over negative means"
    forward, backward = retrieve(x, y, "ratio", k=2)
    assert forward.tolist() == scores.argmax(axis=1).tolist()
    assert backward.tolist() == scores.argmax(axis=0).tolist()


def test_a_denominator_of_zero_counts_as_a_score_of_zero_and_not_as_nan():
    # x0, x1, y1 and y2 are near to nothing. x0 scores 0 / 0.5 with y0 and 0 / 0 with y1: equal, so y0, the first.
    x = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    y = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    forward, backward = retrieve(x, y, "ratio", k=1)
    assert forward.tolist() == [0, 0, 0]
    assert backward.tolist() == [2, 0, 0]


def test_accuracy_is_the_share_of_own_translations_in_each_direction():
    x = torch.eye(4)
    y = torch.eye(4)[[0, 1, 3, 2]]
    y[3] = torch.tensor([0.0, 0.0, 0.5, 0.6])
    assert retrieval_accuracy(x, y, "cosine", k=1) == (0.5, 0.75)
    assert retrieval_accuracy(x, x) == (1.0, 1.0)
    with pytest.raises(ValueError, match="row i of one must translate row i"):
        retrieval_accuracy(x, y[:3])


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"margin": "ration"}, OptionError, "unknown margin 'ration'.*Did you mean 'ratio'"),
        ({"candidates": "near"}, OptionError, "unknown candidates 'near'.*all, nearest"),
        ({"k": 0}, OptionError, "k = 0 .*from 1 to 6"),
        ({"k": 7}, OptionError, "k = 7 .*6 sentences.*from 1 to 6"),
        ({"block": 0}, ValueError, "less than 1"),
        ({"block": -3}, ValueError, "less than 1"),
        ({"y": torch.ones(6, 5)}, ValueError, "3 dimensions but y 5"),
        ({"y": torch.ones(6)}, ValueError, r"y: expected \(n, d\), not shape \(6,\)"),
        ({"y": torch.ones(0, 3)}, OptionError, "0 sentences"),
    ],
)
def test_what_cannot_be_computed_is_refused_with_its_value(change, error, says):
    arguments = {"x": torch.ones(6, 3), "y": torch.ones(6, 3)} | change
    with pytest.raises(error, match=says):
        retrieve(**arguments)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_is_named_by_sentence(value):
    vectors = torch.ones(5, 3)
    vectors[2, 1] = value
    with pytest.raises(ModelError, match="deu_Latn: the vector of sentence 2 holds NaN or infinity"):
        unit(vectors, "deu_Latn")
    with pytest.raises(ValueError, match=r"^y: .*sentence 2"):
        retrieve(torch.ones(5, 3), vectors)


def test_a_zero_vector_is_refused_by_sentence():
    vectors = torch.ones(5, 3)
    vectors[4] = 0
    with pytest.raises(ModelError, match="sentence 4 is all zeros"):
        unit(vectors)


def test_unit_vectors_have_length_one_for_tiny_and_huge_values_too():
    vectors = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    for scale in (1e-25, 1.0, 1e25):
        lengths = unit(vectors * scale).double().norm(dim=1)
        assert torch.allclose(lengths, torch.ones(4, dtype=torch.float64), atol=1e-6)
