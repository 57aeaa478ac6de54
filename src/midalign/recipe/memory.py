"""GPU memory that training takes, by a rule of thumb: arithmetic, not a measurement."""

from __future__ import annotations

NF4 = 4.127 / 8
"""Bytes of a weight in NF4 with double quantisation: 4 bits, and 0.127 of scales (QLoRA, arXiv 2305.14314)."""
_BFLOAT16 = 2
_ON_TOP = 1.2  # copies of single layers, and what the allocator holds unused
_BESIDE_THE_WEIGHTS = 6  # GB of adapter, optimizer, activations and logits, in the batches of `midalign.recipe.new`


def training_memory(linear: float, other: float, *, four_bits: bool = False) -> float:
    """GB of GPU memory to train an adapter on a model.

    Args:
        linear: Billions of weights in linear layers without the head: what QLoRA holds in four bits.
        other: Billions of other weights: embeddings, head, norms.
        four_bits: Whether the linear layers are in four bits; in bfloat16 otherwise.
    """
    weights = linear * (NF4 if four_bits else _BFLOAT16) + other * _BFLOAT16
    return weights * _ON_TOP + _BESIDE_THE_WEIGHTS
