"""Every merge method against its formula written plainly, in float64 and on dense updates."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.utils import merge_utils

from midalign.errors import ModelError
from midalign.functional.lora import LoraFactors
from midalign.functional.merge_methods import METHODS, OPTIONS, distance, merge, weight_at

OUT, IN = 7, 9


def pair(seed, rank=3, scale=1.0, out=OUT, inner=IN, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(rank, inner, generator=generator, dtype=torch.float64)
    b = torch.randn(out, rank, generator=generator, dtype=torch.float64)
    return LoraFactors(a.to(dtype), b.to(dtype), scale)


def dense(factors):
    """The update as a plain triple loop."""
    a, b = factors.a.double().tolist(), factors.b.double().tolist()
    return np.array(
        [
            [factors.scale * sum(b[o][r] * a[r][i] for r in range(len(a))) for i in range(len(a[0]))]
            for o in range(len(b))
        ]
    )


def plain_sum(factors, weights):
    return sum(w * dense(f) for f, w in zip(factors, weights, strict=True))


adapters = st.lists(
    st.tuples(st.integers(0, 99), st.integers(1, 5), st.sampled_from([0.5, 1.0, 2.0, 4 / math.sqrt(3)])),
    min_size=1,
    max_size=4,
).map(lambda items: [pair(*item) for item in items])
weight = st.one_of(st.just(0.0), st.floats(-2, 2))


@settings(deadline=None, max_examples=60)
@given(adapters, st.data())
def test_sum_is_the_plain_sum_of_the_updates_and_its_rank_the_sum_of_ranks(factors, data):
    weights = data.draw(st.lists(weight, min_size=len(factors), max_size=len(factors)))
    merged = merge("sum", factors, weights)
    np.testing.assert_allclose(merged.factors.update().numpy(), plain_sum(factors, weights), atol=1e-12)
    assert merged.factors.rank == sum(f.rank for f in factors)
    assert merged.factors.scale == 1.0
    assert merged.lost == 0.0


@settings(deadline=None, max_examples=60)
@given(adapters, st.data())
def test_sum_is_linear_in_the_weights(factors, data):
    weights = st.lists(weight, min_size=len(factors), max_size=len(factors))
    first, second, factor = data.draw(weights), data.draw(weights), data.draw(st.floats(-3, 3))
    combined = [x + factor * y for x, y in zip(first, second, strict=True)]
    left = merge("sum", factors, combined).factors.update()
    right = merge("sum", factors, first).factors.update() + factor * merge("sum", factors, second).factors.update()
    torch.testing.assert_close(left, right, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("sum", {}),
        ("parameters", {}),
        ("peft_linear", {}),
        ("svd", {}),
        ("ties", {"density": 1.0}),
        ("dare", {"density": 1.0}),
    ],
)
@pytest.mark.parametrize("scale", [2.0, 0.3, -1.5])
def test_merge_of_one_adapter_at_weight_1_is_that_adapter(method, options, scale):
    one = pair(5, scale=scale)
    merged = merge(method, [one], [1.0], **options)
    np.testing.assert_allclose(merged.factors.update().numpy(), dense(one), atol=1e-9)
    assert merged.lost < 1e-9


def test_parameters_multiplies_the_weighted_sums_of_the_factors():
    factors, weights = [pair(1, scale=2.0), pair(2, scale=0.5), pair(3, scale=2.0)], [0.7, -0.4, 1.5]
    b = sum(w * math.sqrt(f.scale) * f.b.numpy() for f, w in zip(factors, weights, strict=True))
    a = sum(w * math.sqrt(f.scale) * f.a.numpy() for f, w in zip(factors, weights, strict=True))
    np.testing.assert_allclose(merge("parameters", factors, weights).factors.update().numpy(), b @ a, atol=1e-12)


def test_parameters_with_one_scale_is_the_scale_times_the_plain_averages():
    factors = [pair(1, scale=2.0), pair(2, scale=2.0)]
    b, a = (factors[0].b + factors[1].b) / 2, (factors[0].a + factors[1].a) / 2
    merged = merge("parameters", factors, [0.5, 0.5]).factors.update()
    torch.testing.assert_close(merged, 2.0 * b @ a, rtol=0, atol=1e-12)


def test_copies_at_half_weight_average_to_themselves_by_parameters_and_double_by_peft_linear():
    one = pair(4, scale=2.0)
    average = merge("parameters", [one, one], [0.5, 0.5]).factors.update()
    linear = merge("peft_linear", [one, one], [0.5, 0.5]).factors.update()
    np.testing.assert_allclose(average.numpy(), dense(one), atol=1e-12)
    np.testing.assert_allclose(linear.numpy(), 2 * dense(one), atol=1e-12)


def test_peft_linear_takes_roots_of_weight_times_scale_with_the_sign_on_one_side():
    factors, weights = [pair(1, scale=2.0), pair(2, scale=0.5)], [0.7, -0.4]
    b = math.sqrt(1.4) * factors[0].b + math.sqrt(0.2) * factors[1].b
    a = math.sqrt(1.4) * factors[0].a - math.sqrt(0.2) * factors[1].a
    torch.testing.assert_close(merge("peft_linear", factors, weights).factors.update(), b @ a, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(adapters, st.integers(1, 12), st.data())
def test_svd_is_the_truncated_svd_of_the_dense_sum_and_so_is_its_error(factors, rank, data):
    weights = data.draw(st.lists(st.floats(0.1, 2), min_size=len(factors), max_size=len(factors)))
    total = plain_sum(factors, weights)
    u, s, vh = np.linalg.svd(total)
    best = u[:, :rank] * s[:rank] @ vh[: min(rank, OUT)] if rank < OUT else total
    merged = merge("svd", factors, weights, rank=rank)
    assert merged.factors.rank <= min(rank, OUT)
    assert np.linalg.norm(total - best) == pytest.approx(merged.lost, abs=1e-9)
    assert np.linalg.norm(total - merged.factors.update().numpy()) == pytest.approx(merged.lost, abs=1e-9)


def test_svd_keeps_the_largest_rank_of_the_adapters_unless_told():
    assert merge("svd", [pair(1, rank=2), pair(2, rank=4)], [1.0, 1.0]).factors.rank == 4


def plain_ties(updates, density):
    """TIES entry by entry; the updates carry their weights."""
    count = int(density * OUT * IN)
    trimmed = []
    for update in updates:
        largest = sorted(((abs(update[o, i]), o, i) for o in range(OUT) for i in range(IN)), reverse=True)[:count]
        kept = {(o, i) for _, o, i in largest}
        trimmed.append({(o, i): update[o, i] if (o, i) in kept else 0.0 for o in range(OUT) for i in range(IN)})
    merged = np.zeros((OUT, IN))
    for o in range(OUT):
        for i in range(IN):
            values = [t[o, i] for t in trimmed]
            sign = 1 if sum(values) >= 0 else -1
            agreeing = [v for v in values if v * sign > 0]
            merged[o, i] = sum(agreeing) / len(agreeing) if agreeing else 0.0
    return merged


@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.9, 0.2, 0.5], [1.0, -0.5, 0.3]])
def test_ties_is_the_plain_loop(density, weights):
    factors = [pair(1), pair(2, rank=2, scale=2.0), pair(3, rank=4)]
    expected = plain_ties([w * dense(f) for f, w in zip(factors, weights, strict=True)], density)
    merged = merge("ties", factors, weights, density=density, rank=OUT)
    np.testing.assert_allclose(merged.factors.update().numpy(), expected, atol=1e-12)
    assert merged.lost == 0.0


def test_ties_with_equal_weights_is_pefts():
    factors = [pair(1), pair(2, scale=2.0)]
    expected = merge_utils.ties([f.update() for f in factors], torch.tensor([0.5, 0.5]), density=0.3)
    merged = merge("ties", factors, [0.5, 0.5], density=0.3, rank=OUT).factors.update()
    torch.testing.assert_close(merged, expected, rtol=0, atol=1e-12)


def test_an_adapter_of_weight_0_casts_no_vote_in_ties():
    factors = [pair(1), pair(2)]
    alone = merge("ties", factors[:1], [1.0], density=0.5, rank=OUT).factors.update()
    beside = merge("ties", factors, [1.0, 0.0], density=0.5, rank=OUT).factors.update()
    torch.testing.assert_close(alone, beside)


def test_dare_is_pefts_dare_linear_with_the_seed():
    factors, weights = [pair(1), pair(2, scale=2.0)], [0.7, -0.4]
    torch.manual_seed(3)
    expected = merge_utils.dare_linear([f.update().float() for f in factors], torch.tensor(weights), density=0.4)
    merged = merge("dare", factors, weights, density=0.4, seed=3, rank=OUT).factors.update()
    torch.testing.assert_close(merged.float(), expected, rtol=0, atol=1e-5)


def test_dare_averages_to_the_exact_sum_over_seeds():
    factors, weights = [pair(1), pair(2)], [0.7, -0.4]
    draws = [merge("dare", factors, weights, density=0.5, seed=s, rank=OUT).factors.update() for s in range(800)]
    exact = merge("sum", factors, weights).factors.update()
    # Each entry has a standard error of at most |entry| / sqrt(800).
    assert float((torch.stack(draws).mean(0) - exact).abs().max()) < 0.35
    assert float((draws[0] - exact).abs().max()) > 0.5


@pytest.mark.parametrize(("out", "inner"), [(40, 60), (60, 40)])
@pytest.mark.parametrize("method", ["ties", "dare"])
def test_truncation_of_a_dense_update_is_near_the_best_and_says_what_it_lost(method, out, inner):
    factors = [pair(seed, rank=4, out=out, inner=inner) for seed in (1, 2)]
    options = {"density": 0.5}
    full = merge(method, factors, [1.0, 0.5], rank=40, **options)
    cut = merge(method, factors, [1.0, 0.5], **options)
    target = full.factors.update().numpy()
    s = np.linalg.svd(target, compute_uv=False)
    assert full.lost == 0.0
    assert cut.factors.rank == 8
    assert np.linalg.norm(target - cut.factors.update().numpy()) == pytest.approx(cut.lost, rel=1e-9)
    assert cut.lost == pytest.approx(np.linalg.norm(s[8:]), rel=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_merging_leaves_the_random_state_alone(method):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    merge(method, [pair(1, out=30, inner=30), pair(2, out=30, inner=30)], [1.0, 1.0])
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("method", METHODS)
def test_leaving_an_adapter_out_equals_factors_of_zero(method):
    zero = LoraFactors(torch.zeros(3, IN, dtype=torch.float64), torch.zeros(OUT, 3, dtype=torch.float64))
    options = {"rank": OUT} if "rank" in OPTIONS[method] else {}
    without = merge(method, [pair(1), pair(2)], [1.0, 0.5], **options).factors.update()
    with_zero = merge(method, [pair(1), pair(2), zero], [1.0, 0.5, 2.0], **options).factors.update()
    torch.testing.assert_close(without, with_zero, rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_factors_are_merged_in_float32(method):
    factors = [pair(1, dtype=torch.bfloat16), pair(2, dtype=torch.bfloat16)]
    merged = merge(method, factors, [0.3, 0.3]).factors
    assert merged.a.dtype == merged.b.dtype == torch.float32
    doubles = [LoraFactors(f.a.double(), f.b.double(), f.scale) for f in factors]
    expected = merge(method, doubles, [0.3, 0.3]).factors.update()
    torch.testing.assert_close(merged.update().double(), expected, rtol=0, atol=1e-5)


def test_norm_and_distance_are_those_of_the_dense_updates():
    first, second = pair(1, scale=-2.0), pair(2, rank=5, scale=0.5)
    assert first.norm() == pytest.approx(np.linalg.norm(dense(first)))
    assert distance(first, second) == pytest.approx(np.linalg.norm(dense(first) - dense(second)))
    assert distance(first, first) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("model.layers.0.mlp.up_proj", 1.0),
        ("model.layers.1.mlp.up_proj", 1.0),
        ("transformer.h.2.attn.c_attn", 2.0),
        ("layers.4.self_attn.q_proj", 3.0),
        ("model.layers.3.mlp.experts.0.up_proj", 2.0),
        ("lm_head", 3.0),
    ],
)
def test_bands_cut_the_blocks_from_the_bottom_up(module, expected):
    assert weight_at([1.0, 2.0, 3.0], module, n_blocks=5) == expected
    assert weight_at(7.0, module, n_blocks=0) == 7.0


@settings(deadline=None)
@given(st.integers(1, 80), st.data())
def test_bands_are_in_order_all_used_and_differ_in_size_by_at_most_one(n_blocks, data):
    bands = data.draw(st.integers(1, n_blocks))
    used = [int(weight_at([float(i) for i in range(bands)], f"layers.{i}.x", n_blocks)) for i in range(n_blocks)]
    sizes = [used.count(band) for band in range(bands)]
    assert used == sorted(used)
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: merge("summ", [pair(1)], [1.0]), "Did you mean 'sum'"),
        (lambda: merge("sum", [pair(1)], [1.0], rank=3), "no option 'rank'"),
        (lambda: merge("sum", [pair(1)], [1.0, 2.0]), "a weight for each"),
        (lambda: merge("sum", [], []), "at least one"),
        (lambda: merge("sum", [pair(1)], [math.nan]), "not a finite number"),
        (lambda: merge("sum", [pair(1), pair(2, inner=4)], [1.0, 1.0]), "different sizes"),
        (lambda: merge("parameters", [pair(1), pair(2, rank=4)], [1.0, 1.0]), "needs equal ranks"),
        (lambda: merge("peft_linear", [pair(1), pair(2, rank=4)], [1.0, 1.0]), "needs equal ranks"),
        (lambda: merge("svd", [pair(1)], [1.0], rank=0), "rank 0"),
        (lambda: merge("ties", [pair(1)], [1.0], density=0.0), "density 0.0"),
        (lambda: merge("ties", [pair(1)], [1.0], rank=0), "rank 0"),
        (lambda: merge("dare", [pair(1)], [1.0], density=1.1), "density 1.1"),
        (lambda: LoraFactors(torch.zeros(3, 4), torch.zeros(5, 2)), "not the factors"),
        (lambda: LoraFactors(torch.zeros(3, 4, 1, 1), torch.zeros(5, 3, 1, 1)), "convolutions"),
        (lambda: weight_at([], "layers.0.x", 4), "0 weights"),
        (lambda: weight_at([1.0] * 5, "layers.0.x", 4), "5 weights"),
    ],
)
def test_what_cannot_be_merged_is_refused_by_name(call, message):
    with pytest.raises(ModelError, match=message):
        call()
