"""InfoNCE against a plain restatement of its formula."""

import math

import pytest
import torch

from midalign.functional.info_nce import info_nce


def plain(source, target, temperature, skip=lambda i, j: False):
    """The formula of the paper, one pair at a time."""
    cos = lambda a, b: float(torch.dot(a, b) / (a.norm() * b.norm()))  # noqa: E731
    total = 0.0
    for i in range(len(source)):
        scores = [cos(source[i], target[j]) / temperature for j in range(len(target)) if j == i or not skip(i, j)]
        own = cos(source[i], target[i]) / temperature
        total -= own - math.log(sum(math.exp(score) for score in scores))
    return total / len(source)


@pytest.fixture
def vectors():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 5, generator=generator), torch.randn(6, 5, generator=generator)


@pytest.mark.parametrize("temperature", [0.1, 1.5])
def test_forward_equals_the_formula(vectors, temperature):
    got = info_nce(*vectors, temperature=temperature, direction="forward").item()
    assert got == pytest.approx(plain(*vectors, temperature), rel=1e-5)


def test_symmetric_is_the_mean_of_both_directions(vectors):
    source, target = vectors
    expected = (plain(source, target, 0.1) + plain(target, source, 0.1)) / 2
    assert info_nce(source, target).item() == pytest.approx(expected, rel=1e-5)


def test_false_negatives_are_left_out_but_never_the_diagonal(vectors):
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[1, 3] = mask[3, 1] = True
    mask.fill_diagonal_(True)
    got = info_nce(*vectors, direction="forward", false_negatives=mask).item()
    assert got == pytest.approx(plain(*vectors, 0.1, skip=lambda i, j: bool(mask[i, j])), rel=1e-5)


def test_order_of_the_pairs_changes_nothing(vectors):
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    a, b = (info_nce(*vs) for vs in (vectors, [v[order] for v in vectors]))
    assert torch.allclose(a, b, atol=1e-6)


def test_half_precision_vectors_are_compared_in_float32(vectors):
    low = [v.bfloat16() for v in vectors]
    assert info_nce(*low).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = info_nce(*low)
    assert torch.equal(inside, info_nce(*low))


def test_a_single_pair_has_no_negatives_and_no_loss():
    assert info_nce(torch.ones(1, 3), torch.ones(1, 3)).item() == 0.0


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_not_positive_is_an_error(vectors, temperature):
    with pytest.raises(ValueError, match="temperature must be positive"):
        info_nce(*vectors, temperature=temperature)


def test_an_unknown_direction_is_an_error(vectors):
    with pytest.raises(ValueError, match="symmetric"):
        info_nce(*vectors, direction="backward")
