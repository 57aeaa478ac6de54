"""Poolings against plain loops over single tokens in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from midalign.errors import OptionError
from midalign.functional.names import POOLINGS
from midalign.functional.pooling import pool, pool_all, token_weights


def plain_vector(tokens, special, pooling):
    """The vector of one sentence from its real tokens only, ``tokens`` (length, hidden) float64."""
    count = len(tokens)
    if pooling in ("mean_no_special", "mean_after_sink"):
        kept = [token for token, flag in zip(tokens, special, strict=True) if not flag] or list(tokens)
        return sum(kept) / len(kept)
    if pooling == "mean_no_first":
        kept = list(tokens[1:]) if count > 1 else list(tokens)
        return sum(kept) / len(kept)
    if pooling == "mean_unit":
        return sum(token / np.linalg.norm(token) for token in tokens) / count
    if pooling == "last":
        return tokens[-1]
    if pooling == "weighted":
        total = sum(range(1, count + 1))
        return sum((i + 1) * token / total for i, token in enumerate(tokens))
    return sum(tokens) / count


def batch(lengths, hidden=5, seed=0, side="right", extra=0, filler=0.0):
    """States, attention mask and special-token mask; the real tokens are the same whatever the padding.

    The first real token is special, as a sink is.
    """
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths) + extra
    states = torch.full((len(lengths), width, hidden), filler)
    mask, special = (torch.zeros(len(lengths), width, dtype=torch.int64) for _ in range(2))
    for row, length in enumerate(lengths):
        place = slice(0, length) if side == "right" else slice(width - length, width)
        states[row, place] = torch.randn(length, hidden, generator=generator)
        special[row] = row % 2  # some tokenizers call padding special, some do not
        special[row, place] = torch.randint(0, 2, (length,), generator=generator)
        special[row, place.start] = 1
        mask[row, place] = 1
    return states, mask, special


@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
    side=st.sampled_from(["left", "right"]),
    extra=st.integers(0, 3),
    pooling=st.sampled_from(POOLINGS),
)
@settings(deadline=None, max_examples=150)
def test_every_pooling_equals_a_plain_loop_over_the_real_tokens(lengths, seed, side, extra, pooling):
    states, mask, special = batch(lengths, seed=seed, side=side, extra=extra, filler=7.0)
    vectors = pool(states, mask, pooling, special)
    assert vectors.dtype == torch.float32
    for row in range(len(lengths)):
        real = mask[row].bool()
        expected = plain_vector(states[row, real].double().numpy(), special[row, real].tolist(), pooling)
        assert np.allclose(vectors[row].double().numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("filler", [1e4, float("nan"), float("inf")])
def test_padding_of_any_amount_side_and_content_changes_nothing(pooling, filler):
    states, mask, special = batch([3, 1, 6], seed=1)
    expected = pool(states, mask, pooling, special)
    for side in ("left", "right"):
        for extra in (0, 1, 9):
            padded = batch([3, 1, 6], seed=1, side=side, extra=extra, filler=filler)
            assert torch.allclose(pool(padded[0], padded[1], pooling, padded[2]), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_weights_sum_to_one_and_padding_has_none(pooling):
    _, mask, special = batch([1, 4, 9], seed=2, side="left")
    weights = token_weights(mask, pooling, special)
    assert weights.dtype == torch.float32
    assert weights.shape == mask.shape
    assert torch.allclose(weights.sum(dim=1), torch.ones(3))
    assert (weights[mask == 0] == 0).all()
    assert (weights >= 0).all()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_row_order_changes_nothing(pooling):
    states, mask, special = batch([3, 1, 6, 2], seed=3)
    order = torch.tensor([2, 0, 3, 1])
    expected = pool(states, mask, pooling, special)[order]
    assert torch.allclose(pool(states[order], mask[order], pooling, special[order]), expected, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_states_are_summed_in_float32_also_under_autocast(pooling, dtype):
    states, mask, special = batch([200, 120], hidden=16, seed=4)
    states = (states + 3).to(dtype)
    expected = pool(states.double().float(), mask, pooling, special)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pool(states, mask, pooling, special)
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradients_equal_finite_differences_of_the_plain_loop_and_padding_gets_none(pooling):
    states, mask, special = batch([3, 5], hidden=4, seed=5, filler=float("nan"))
    direction = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    states.requires_grad_()
    (pool(states, mask, pooling, special) * direction).sum().backward()
    assert states.grad is not None
    assert (states.grad[mask == 0] == 0).all()

    def objective(values):
        total = 0.0
        for row in range(2):
            real = mask[row].bool().numpy()
            vector = plain_vector(values[row, real], special[row][mask[row].bool()].tolist(), pooling)
            total += float(np.dot(vector, direction[row].double().numpy()))
        return total

    base = states.detach().double().numpy()
    for row, token, unit in [(0, 0, 1), (0, 2, 3), (1, 1, 0), (1, 4, 2)]:
        up, down = base.copy(), base.copy()
        up[row, token, unit] += 1e-5
        down[row, token, unit] -= 1e-5
        slope = (objective(up) - objective(down)) / 2e-5
        assert float(states.grad[row, token, unit]) == pytest.approx(slope, abs=1e-5)


def test_several_poolings_in_one_pass_equal_one_at_a_time():
    states, mask, special = batch([3, 1, 6], seed=6)
    weights = {pooling: token_weights(mask, pooling, special) for pooling in reversed(POOLINGS)}
    together = pool_all(states, weights)
    assert list(together) == list(reversed(POOLINGS))
    for pooling in POOLINGS:
        assert torch.allclose(together[pooling], pool(states, mask, pooling, special), atol=1e-6)


def test_a_sink_token_dominates_the_mean_but_not_the_mean_of_unit_states():
    states, mask, _ = batch([8], hidden=32, seed=7)
    sink = states.clone()
    sink[0, 0] *= 1000
    assert torch.allclose(pool(sink, mask, "mean_unit"), pool(states, mask, "mean_unit"), atol=1e-6)
    towards_sink = torch.cosine_similarity(pool(sink, mask), sink[:, 0])
    assert float(towards_sink) > 0.999
    assert torch.allclose(pool(sink, mask, "mean_no_first"), pool(states, mask, "mean_no_first"))


def test_weighted_counts_positions_from_the_first_real_token():
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]])
    weights = token_weights(mask, "weighted")
    assert torch.allclose(weights[0], torch.tensor([0.0, 0.0, 1 / 6, 2 / 6, 3 / 6]))
    assert torch.allclose(weights[1], torch.tensor([1 / 6, 2 / 6, 3 / 6, 0.0, 0.0]))


def test_a_row_that_would_lose_all_its_tokens_keeps_its_real_ones():
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    only_special = token_weights(mask, "mean_no_special", torch.tensor([[1, 1, 1], [0, 1, 1]]))
    assert only_special.tolist() == [[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]
    assert token_weights(mask, "mean_no_first").tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]


def test_the_default_is_the_papers_mean_over_all_real_tokens():
    states, mask, special = batch([4, 2], seed=8)
    assert torch.equal(pool(states, mask), pool(states, mask, "mean", special))


def test_a_row_of_padding_is_refused():
    states, mask, _ = batch([4, 2, 3])
    mask[1] = 0
    with pytest.raises(ValueError, match=r"rows \[1\] of the batch are all padding"):
        pool(states, mask)


def test_an_unknown_name_is_refused_with_the_nearest_one():
    states, mask, _ = batch([4])
    with pytest.raises(OptionError, match=r"unknown pooling 'meen'.*mean_unit.*Did you mean 'mean'"):
        pool(states, mask, "meen")


def test_no_special_without_its_mask_is_refused_and_never_a_plain_mean():
    states, mask, _ = batch([4])
    with pytest.raises(ValueError, match="return_special_tokens_mask=True"):
        pool(states, mask, "mean_no_special")


def test_a_sentence_that_begins_with_a_word_has_no_mean_after_a_sink():
    states, mask, special = batch([4, 2], side="left", extra=1)
    pool(states, mask, "mean_after_sink", special)
    special[1, 3] = 0
    with pytest.raises(ValueError, match="a row begins with a word"):
        pool(states, mask, "mean_after_sink", special)
    with pytest.raises(ValueError, match="mean_after_sink needs special_tokens_mask"):
        pool(states, mask, "mean_after_sink")


@pytest.mark.parametrize("pooling", ["mean", "mean_unit"])
def test_shapes_that_do_not_fit_are_refused(pooling):
    states, mask, special = batch([4, 2])
    with pytest.raises(ValueError, match=r"expected \(batch, seq\) and \(batch, seq, hidden\)"):
        pool(states[:, :3], mask, pooling)
    with pytest.raises(ValueError, match=r"must be \(batch, seq\)"):
        pool(states, mask[0], pooling)
    with pytest.raises(ValueError, match="special_tokens_mask is"):
        pool(states, mask, "mean_no_special", special[:, :3])
