"""Sentence vectors of a batch of pairs, with gradients, and without computing padding.

1. rows are packed behind one another, and what all begin with stands once in a bin (`midalign.training.packing`);
2. blocks 1 to k, and nothing above, give the states of the aligned layers (`midalign.models.hidden`);
3. the states of each row are pooled (`midalign.functional.pooling`).

Value and gradient are those of a padded batch, in a single call of the model, dropout aside. How a model is told who
attends to whom is its `Packing`, and `find_packing` checks once that it understands.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from midalign.functional.pooling import pool_packed, token_weights
from midalign.models.hidden import states_up_to, unwrap
from midalign.training.packing import PADDING, Layout, fill_bins

logger = logging.getLogger(__name__)

Batch = dict[str, Tensor]
Vectors = dict[int, Tensor]
Packing = Literal["mask", "positions", "none"]
"""``mask``: a block-diagonal mask, which eager attention and SDPA take. ``positions``: positions that begin anew tell
where a row begins, as flash attention and flex attention do it; one bin. ``none``: the padded batch as it is."""

# Largest accepted ||packed - padded|| / ||padded|| of a vector. A token that sees another row's, or has a wrong
# position, changes it by far more.
_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4}
_TOLERANCE_HALF = 5e-2


def pair_vectors(
    model: nn.Module, batch: Batch, layers: Sequence[int], pooling: str, packing: Packing = "mask"
) -> Vectors:
    """Vectors of all rows of a batch at these layers, ``(rows, hidden)`` float32 each.

    Args:
        model: The outermost wrapped model.
        batch: ``input_ids``, ``attention_mask``, ``special_tokens_mask`` and ``pooled_mask``, each ``(rows, seq)``,
            right-padded, on the model's device; as from `midalign.training.pair_batches.PairCollator`.
        layers: 1 to the model's depth.
        pooling: One of `midalign.functional.pooling.POOLINGS`.
        packing: How rows are packed; from `find_packing`.
    """
    ids = batch["input_ids"]
    weights = token_weights(batch["pooled_mask"], pooling, batch["special_tokens_mask"])
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    config = unwrap(model).config.get_text_config()
    if max(lengths) > _window(config):
        packing = "none"  # a mask of ours would let every layer see the whole row
    shared = 0
    if packing == "mask":
        shared = _common_beginning(ids, weights, min(lengths))
        bins = fill_bins(lengths, shared, config.hidden_size)
    else:
        everything = list(range(len(ids)))
        bins = [everything] if packing == "positions" else [[row] for row in everything]
    layout = Layout.of(lengths, bins, shared).to(ids.device)
    states = states_up_to(
        model,
        layout.pack(ids),
        _mask(layout, packing, config),
        max(layers),
        None if packing == "none" else layout.column,
    )
    packed = layout.weights(weights)
    return {layer: pool_packed(states[layer], packed, pooling) for layer in layers}


def find_packing(model: nn.Module, layer: int) -> Packing:
    """How rows can be packed for this model; ``none``, with a word in the log, where it does not understand either way.

    Args:
        model: The model, before it is distributed.
        layer: The highest layer whose vectors are wanted.
    """
    config = unwrap(model).config.get_text_config()
    packing: Packing = "mask" if config._attn_implementation in ("sdpa", "eager") else "positions"
    parameter = next(model.parameters())
    ids = (torch.arange(36, device=parameter.device).reshape(4, 9) * 7 + 3) % int(config.vocab_size)
    ids[:, :2] = ids[0, :2]  # a common beginning
    mask = torch.ones_like(ids)
    mask[1, 4:] = mask[2, 7:] = 0
    pooled = mask.clone()
    pooled[:, :2] = 0
    batch = {"input_ids": ids, "attention_mask": mask, "special_tokens_mask": mask, "pooled_mask": pooled}
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            plain = pair_vectors(model, batch, [layer], "mean", "none")[layer]
            packed = pair_vectors(model, batch, [layer], "mean", packing)[layer]
    except (RuntimeError, ValueError, TypeError, IndexError) as fault:  # the model does not take such a mask
        error, reason = float("inf"), str(fault).partition("\n")[0]
    else:
        error = float(((packed - plain).norm(dim=1) / plain.norm(dim=1)).max())
        reason = f"vectors would differ by {error:.1e}"
    finally:
        model.train(training)
    if error <= _tolerance(model, parameter.dtype):
        return packing
    logger.info("%s cannot be given packed pairs (%s), so batches of pairs are padded", type(unwrap(model)), reason)
    return "none"


def _tolerance(model: nn.Module, dtype: torch.dtype) -> float:
    """Also half where the weights are not: inside of autocast, and where an earlier trainer put it around the model."""
    autocast = torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
    if autocast or "_original_forward" in vars(model):
        return _TOLERANCE_HALF
    return _TOLERANCE.get(dtype, _TOLERANCE_HALF)


def _mask(layout: Layout, packing: Packing, config: Any) -> Tensor | None:
    if packing == "positions":
        return None
    if packing == "none":
        return (layout.row != PADDING).long()
    seen = layout.attention_mask()
    if config._attn_implementation == "sdpa":
        return seen
    # Eager attention adds its mask to the scores.
    return torch.zeros(seen.shape, dtype=config.dtype, device=seen.device).masked_fill(
        ~seen, torch.finfo(config.dtype).min
    )


def _common_beginning(ids: Tensor, weights: Tensor, shortest: int) -> int:
    """How many tokens all rows begin with that no row's vector is made of."""
    same = (ids == ids[0]).all(dim=0) & (weights == 0).all(dim=0)
    return min(int(same.long().cumprod(dim=0).sum()), shortest - 1)


def _window(config: Any) -> float:
    """The longest row that every layer sees as a whole, in tokens."""
    limits = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    return min((limit for limit in limits if limit is not None), default=float("inf"))
