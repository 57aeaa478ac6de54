"""Merging LoRA updates: the factor pairs of one module in, one factor pair out; no files, no models.

The field uses the same words for different formulas. Here each formula has its own name:

1. `merge_sum` is the exact weighted sum of the updates; its rank is the sum of their ranks (PEFT: ``cat``).
2. `merge_svd` is that sum, truncated to a rank; the error of the truncation is returned.
3. `merge_parameters` averages the factors, which is *not* an average of the updates.
4. `merge_peft_linear` is what PEFT calls ``linear``: the sum of the updates plus cross terms.
5. `merge_ties` and `merge_dare` work on the dense updates and are truncated to a rank, as `merge_svd` is.

An adapter that does not change a module is left out of the lists; in every formula that equals factors of zero. All
arithmetic is in float32, or in float64 where the factors are, and the result always has ``scale`` 1.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from midalign.errors import ModelError, did_you_mean
from midalign.functional.lora import LoraFactors, core, exact


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge gave for one module.

    Attributes:
        factors: The merged update, with ``scale`` 1.
        lost: Frobenius norm of what truncation to a rank cut off from the method's own formula; 0 for methods that need
            no truncation.
    """

    factors: LoraFactors
    lost: float = 0.0


def merge_sum(factors: Sequence[LoraFactors], weights: Sequence[float]) -> Merged:
    """Exact weighted sum of updates: ``dW = sum_i w_i s_i B_i A_i``.

    Held as ``B = [w_1 s_1 B_1, w_2 s_2 B_2, ...]`` and ``A = [A_1; A_2; ...]``, so that the rank is the sum
    of ranks.

    Args:
        factors: One pair per adapter that touches the module; ranks and scales may differ.
        weights: One weight per pair; zero and negative weights are fine.

    Returns:
        The sum; nothing is lost.

    Raises:
        ModelError: If the updates differ in shape, or the counts do not match.
    """
    _check(factors, weights)
    b = torch.cat([exact(f.b) * (w * f.scale) for f, w in zip(factors, weights, strict=True)], dim=1)
    a = torch.cat([exact(f.a) for f in factors], dim=0)
    return Merged(LoraFactors(a, b))


def merge_parameters(factors: Sequence[LoraFactors], weights: Sequence[float]) -> Merged:
    """Weighted sum of the factors: ``B = sum_i w_i sqrt(s_i) B_i``, ``A = sum_i w_i sqrt(s_i) A_i``.

    With a common scale this is ``s (sum_i w_i B_i)(sum_i w_i A_i)``, "weight averaging" taken literally. It contains
    each update with weight ``w_i**2`` and adds cross terms ``w_i w_j B_i A_j``. It is the average of the updates only
    for copies of one adapter with weights that add up to 1.

    Args:
        factors: One pair per adapter that touches the module, all of one rank.
        weights: One weight per pair.

    Returns:
        The product of the averaged factors, of the rank of each; nothing is lost.

    Raises:
        ModelError: If ranks or shapes differ, or the counts do not match.
    """
    _check(factors, weights)
    _check_equal_ranks("parameters", factors)
    roots = [w * _root(f.scale) for f, w in zip(factors, weights, strict=True)]
    signs = [math.copysign(1.0, f.scale) for f in factors]
    b = sum(exact(f.b) * root for f, root in zip(factors, roots, strict=True))
    a = sum(exact(f.a) * (root * sign) for f, root, sign in zip(factors, roots, signs, strict=True))
    return Merged(LoraFactors(torch.as_tensor(a), torch.as_tensor(b)))


def merge_peft_linear(factors: Sequence[LoraFactors], weights: Sequence[float]) -> Merged:
    """PEFT's ``linear``: ``B = sum_i sqrt|w_i s_i| B_i``, ``A = sum_i sign(w_i s_i) sqrt|w_i s_i| A_i``.

    That is the weighted sum of updates plus the cross terms ``sqrt|w_i s_i w_j s_j| B_i A_j``, which for
    adapters trained apart are about as large as the sum itself (relative error 0.86 on independent adapters,
    PEFT 0.21).

    Args:
        factors: One pair per adapter that touches the module, all of one rank.
        weights: One weight per pair.

    Returns:
        The product, of the rank of each adapter; nothing is lost.

    Raises:
        ModelError: If ranks or shapes differ, or the counts do not match.
    """
    _check(factors, weights)
    _check_equal_ranks("peft_linear", factors)
    scaled = [w * f.scale for f, w in zip(factors, weights, strict=True)]
    b = sum(exact(f.b) * _root(x) for f, x in zip(factors, scaled, strict=True))
    a = sum(exact(f.a) * math.copysign(_root(x), x) for f, x in zip(factors, scaled, strict=True))
    return Merged(LoraFactors(torch.as_tensor(a), torch.as_tensor(b)))


def merge_svd(factors: Sequence[LoraFactors], weights: Sequence[float], *, rank: int | None = None) -> Merged:
    """The weighted sum of updates truncated to a rank: the best of that rank in the Frobenius norm.

    The dense update is never formed: with ``B = Q_b R_b`` and ``A^T = Q_a R_a`` the singular values of ``B
    A`` are those of the small core ``R_b R_a^T``, whose side is the sum of the ranks.

    Args:
        factors: One pair per adapter that touches the module; ranks and scales may differ.
        weights: One weight per pair.
        rank: Largest rank of the result; None takes the largest rank among `factors` (PEFT's default for
            ``svd``).

    Returns:
        Factors of rank ``min(rank, sum of ranks, out, in)``, each carrying the square root of the singular
        values, and the norm of what was cut off.

    Raises:
        ModelError: If `rank` is below 1, the updates differ in shape, or the counts do not match.
    """
    total = merge_sum(factors, weights).factors
    keep = max(f.rank for f in factors) if rank is None else rank
    _check_rank(keep)
    (q_b, q_a), small = core(total.b, total.a)
    u, s, vh = torch.linalg.svd(small, full_matrices=False)
    root = s[:keep].sqrt()
    b = q_b @ u[:, :keep] * root
    a = root[:, None] * vh[:keep] @ q_a.T
    return Merged(LoraFactors(a, b), float(torch.linalg.vector_norm(s[keep:])))


def merge_ties(
    factors: Sequence[LoraFactors], weights: Sequence[float], *, density: float = 0.2, rank: int | None = None
) -> Merged:
    """TIES on the weighted dense updates (Yadav et al. 2023, arXiv 2306.01708), then truncated to a rank.

    With ``T_i`` the update ``w_i s_i B_i A_i`` cut to its ``density`` share of largest entries: an entry's
    sign is that of ``sum_i T_i`` (plus where that is 0), and its value the mean of those ``T_i`` that have
    that sign. Done by PEFT's ``ties`` on updates that already carry their weights, so that the election is
    weighted and a weight of 0 casts no vote (PEFT itself elects before weighting; for equal positive weights
    the two agree).

    Args:
        factors: One pair per adapter that touches the module.
        weights: One weight per pair.
        density: Share of the entries of each update that is kept, above 0 and at most 1 (default: 20 %, the
            paper's).
        rank: Largest rank of the result; None takes the sum of the ranks, the size of `merge_sum`'s result.
            At ``min(out, in)`` nothing is cut; below,
            the result is within about 1 % of the best.

    Returns:
        The truncated factors and the norm of what was cut off.

    Raises:
        ModelError: If `density` or `rank` is out of range, the updates differ in shape, or the counts do not
            match.
    """
    from peft.utils.merge_utils import calculate_majority_sign_mask, disjoint_merge, magnitude_based_pruning

    _check(factors, weights)
    _check_density(density)
    trimmed = torch.stack(
        [magnitude_based_pruning(f.update() * w, density) for f, w in zip(factors, weights, strict=True)]
    )
    merged = disjoint_merge(trimmed, calculate_majority_sign_mask(trimmed, method="total"))
    return _truncate(merged, sum(f.rank for f in factors) if rank is None else rank)


def merge_dare(
    factors: Sequence[LoraFactors],
    weights: Sequence[float],
    *,
    density: float = 0.5,
    seed: int = 0,
    rank: int | None = None,
) -> Merged:
    """DARE on the dense updates (Yu et al. 2024, arXiv 2311.03099), then truncated to a rank.

    ``dW = sum_i w_i M_i * (s_i B_i A_i) / density`` where every entry of the mask ``M_i`` is 1 with
    probability
    ``density``: its expectation is the exact sum.

    Args:
        factors: One pair per adapter that touches the module.
        weights: One weight per pair.
        density: Probability that an entry is kept, above 0 and at most 1 (the paper keeps 10 % to 90 %).
        seed: Seed of the masks; give each module one of its own.
        rank: Largest rank of the result; None takes the sum of the ranks. At ``min(out, in)`` nothing is cut; below,
            the result is within about 1 % of the best.

    Returns:
        The truncated factors and the norm of what was cut off.

    Raises:
        ModelError: If `density` or `rank` is out of range, the updates differ in shape, or the counts do not
            match.
    """
    _check(factors, weights)
    _check_density(density)
    generator = torch.Generator().manual_seed(seed)
    shape, dtype = factors[0].shape, exact(factors[0].a).dtype
    merged = torch.zeros(shape, dtype=dtype, device=factors[0].a.device)
    for factor, weight in zip(factors, weights, strict=True):
        # Drawn on the CPU, so that a seed means the same masks on every device.
        mask = torch.bernoulli(torch.full(shape, density), generator=generator).to(merged)
        merged += mask * factor.update() * (weight / density)
    return _truncate(merged, sum(f.rank for f in factors) if rank is None else rank)


METHODS: dict[str, Callable[..., Merged]] = {
    "sum": merge_sum,
    "parameters": merge_parameters,
    "peft_linear": merge_peft_linear,
    "svd": merge_svd,
    "ties": merge_ties,
    "dare": merge_dare,
}
"""Every method by its name (`midalign.functional.names.MERGE_METHODS`); ``sum`` is the default."""

OPTIONS: dict[str, tuple[str, ...]] = {
    name: tuple(p.name for p in inspect.signature(method).parameters.values() if p.kind is p.KEYWORD_ONLY)
    for name, method in METHODS.items()
}
"""The options that each method takes beside factors and weights."""


def merge(method: str, factors: Sequence[LoraFactors], weights: Sequence[float], **options: Any) -> Merged:
    """Merge one module by the named method.

    Args:
        method: A key of `METHODS`.
        factors: One pair per adapter that touches the module.
        weights: One weight per pair.
        **options: Options of the method, see `OPTIONS`.

    Returns:
        The merged factors, and the norm of what truncation cut off, if any.

    Raises:
        ModelError: If the method is unknown or does not take an option, or as the method itself raises.
    """
    check_method(method, options)
    return METHODS[method](factors, weights, **options)


def check_method(method: str, options: Iterable[str]) -> None:
    """Check that a method exists and takes the named options.

    Args:
        method: What should be a key of `METHODS`.
        options: Names of options.

    Raises:
        ModelError: If it does not.
    """
    if method not in METHODS:
        raise ModelError(
            f"Unknown merge method {method!r}; the methods are {', '.join(METHODS)}.{did_you_mean(method, METHODS)}"
        )
    for option in options:
        if option not in OPTIONS[method]:
            takes = ", ".join(OPTIONS[method]) or "no options"
            raise ModelError(
                f"Merge method {method!r} has no option {option!r}, so it would have no effect; it takes {takes}."
            )


def check_merge(method: str, factors: Sequence[LoraFactors], options: Mapping[str, Any]) -> None:
    """Check a merge of one module, as far as that is possible before its weights are known.

    Args:
        method: A key of `METHODS`.
        factors: One pair per adapter that touches the module.
        options: Options of the method.

    Raises:
        ModelError: As `merge` would raise it.
    """
    check_method(method, options)
    _check(factors, [1.0] * len(factors))
    if method in ("parameters", "peft_linear"):
        _check_equal_ranks(method, factors)
    if options.get("rank") is not None:
        _check_rank(options["rank"])
    if options.get("density") is not None:
        _check_density(options["density"])


Weight = float | Sequence[float]
"""The weight of one adapter: one number, or one per band of decoder blocks, from the bottom up (see `weight_at`)."""

_BLOCK = re.compile(r"(?:^|\.)(\d+)\.")


def weight_at(weight: Weight, module: str, n_blocks: int) -> float:
    """The weight that applies to one module.

    A sequence of n weights cuts the decoder blocks into n bands, as equal as can be: block i (from 0) is in band
    ``i * n // n_blocks``. A module outside the blocks (an output head) takes the top band's weight.

    Args:
        weight: One number for all modules, or one per band.
        module: Name of the module; its first number is the index of its block, as in ``model.layers.3.mlp.up_proj``.
        n_blocks: Number of decoder blocks of the model; not used where `weight` is a number.

    Returns:
        The weight of the module.

    Raises:
        ModelError: If there are no bands, or more bands than blocks.
    """
    if isinstance(weight, int | float):
        return float(weight)
    bands = list(weight)
    if not 1 <= len(bands) <= n_blocks:
        raise ModelError(
            f"{len(bands)} weights, one per band of layers, do not fit a model of {n_blocks} decoder blocks. "
            f"Give one number, or 1 to {n_blocks} weights."
        )
    block = _BLOCK.search(module)
    return float(bands[int(block[1]) * len(bands) // n_blocks] if block else bands[-1])


def distance(first: LoraFactors, second: LoraFactors) -> float:
    """Frobenius norm of the difference of two updates (scales included), without forming either."""
    return merge_sum([first, second], [1.0, -1.0]).factors.norm()


def _root(value: float) -> float:
    return math.sqrt(abs(value))


def _truncate(update: Tensor, rank: int) -> Merged:
    """A dense update, ``(out, in)``, as factors: exact where the rank allows, else near the best of that rank.

    A full SVD of a 4096 x 14336 update takes about a minute of CPU time, times 200 modules; six rounds of randomised
    subspace iteration (Halko et al. 2011, in torch) take a second and lose under 1 % more. The loss is measured and
    reported.
    """
    _check_rank(rank)
    out, inner = update.shape
    if rank >= min(out, inner):
        one = torch.eye(min(out, inner), dtype=update.dtype, device=update.device)
        return Merged(LoraFactors(update, one) if out <= inner else LoraFactors(one, update))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        u, s, v = torch.svd_lowrank(update, q=min(rank + 10, out, inner), niter=6)
    root = s[:rank].sqrt()
    kept = LoraFactors(root[:, None] * v[:, :rank].T, u[:, :rank] * root)
    return Merged(kept, float(torch.linalg.matrix_norm(update - kept.update())))


def _check(factors: Sequence[LoraFactors], weights: Sequence[float]) -> None:
    if not factors or len(factors) != len(weights):
        raise ModelError(
            f"A merge needs at least one update and a weight for each: got {len(factors)} and {len(weights)}."
        )
    if bad := [w for w in weights if not math.isfinite(w)]:
        raise ModelError(f"Merge weight {bad[0]} is not a finite number; the merged weights would not be either.")
    shapes = sorted({f.shape for f in factors})
    if len(shapes) > 1:
        raise ModelError(
            f"Updates of shape {shapes[0]} and {shapes[1]} cannot be merged: the adapters were trained on models of "
            "different sizes. Merge adapters of one base model."
        )


def _check_equal_ranks(method: str, factors: Sequence[LoraFactors]) -> None:
    ranks = sorted({f.rank for f in factors})
    if len(ranks) > 1:
        raise ModelError(
            f"Merge method {method!r} adds factors entry by entry and needs equal ranks, but these are {ranks}. "
            "Use 'sum' (exact, any ranks) or 'svd' (any ranks, truncated)."
        )


def _check_rank(rank: int) -> None:
    if rank < 1:
        raise ModelError(f"rank {rank} leaves nothing of the merged update; write a rank of at least 1.")


def _check_density(density: float) -> None:
    if not 0 < density <= 1:
        raise ModelError(f"density {density} is not a share of entries to keep; write a number above 0 and at most 1.")
