"""Pooling: one sentence vector from the hidden states of the tokens, by the mean or a variant of it.

A pooling is a set of weights, one per token, that sum to 1 over the real tokens of a row:

1. `token_weights` turns masks into weights ``(batch, seq)``; this needs no hidden states, so it is done once a batch.
2. `pool_all` applies the weights of several poolings to the states of one layer in one product, in float32.
3. `pool` is both for one pooling. Training and probing go through the same code.

| name              | the sentence vector is                                                                       |
|-------------------|----------------------------------------------------------------------------------------------|
| `mean`            | mean over real tokens, special ones included (arXiv 2502.14830, as its reference does)       |
| `mean_no_special` | mean without special tokens (BOS is an attention sink of huge norm in Llama)                 |
| `mean_no_first`   | mean without the first real token (a model without BOS makes its first word the sink)        |
| `mean_after_sink` | mean without special tokens, of a sentence behind a sink token (`midalign.models.tokens`)     |
| `mean_unit`       | mean of the token states scaled to unit length, so that no sink can dominate                 |
| `last`            | the last real token's state                                                                  |
| `weighted`        | position-weighted mean, weight i / sum of positions (SGPT, arXiv 2202.08904, section 4.1)    |
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from midalign.errors import OptionError, did_you_mean
from midalign.functional.names import POOLINGS


def pool(
    states: Tensor, attention_mask: Tensor, pooling: str = "mean", special_tokens_mask: Tensor | None = None
) -> Tensor:
    """Pool the hidden states of one layer into one vector per row; differentiable.

    Args:
        states: Hidden states ``(batch, seq, hidden)``, any float dtype.
        attention_mask: ``(batch, seq)``, non-zero at real tokens; padding may stand on either side.
        pooling: One of `POOLINGS`.
        special_tokens_mask: ``(batch, seq)``, non-zero at special tokens; only `mean_no_special` and `mean_after_sink`
            read it.

    Returns:
        Sentence vectors ``(batch, hidden)`` in float32, not scaled to unit length.

    Raises:
        OptionError: If ``pooling`` is unknown.
        ValueError: As `token_weights` and `pool_all`.
    """
    weights = token_weights(attention_mask, pooling, special_tokens_mask)
    return pool_all(states, {pooling: weights})[pooling]


def token_weights(attention_mask: Tensor, pooling: str = "mean", special_tokens_mask: Tensor | None = None) -> Tensor:
    """The weight of each token in its sentence vector.

    A row that loses all its tokens (only special tokens under `mean_no_special` and `mean_after_sink`, a single token
    under `mean_no_first`) keeps all its real tokens instead, so that every sentence has a vector.

    Args:
        attention_mask: ``(batch, seq)``, non-zero at real tokens; padding may stand on either side.
        pooling: One of `POOLINGS`. `mean_unit` has the weights of `mean`: it differs in the states.
        special_tokens_mask: ``(batch, seq)``, non-zero at special tokens; only `mean_no_special` and `mean_after_sink`
            read it.

    Returns:
        Weights ``(batch, seq)`` in float32; rows sum to 1, padding has weight 0.

    Raises:
        OptionError: If ``pooling`` is unknown.
        ValueError: If a row is all padding, if the shapes do not fit, if `mean_no_special` or `mean_after_sink` gets no
            mask, or if under `mean_after_sink` a row does not begin with a special token.
    """
    check_pooling(pooling)
    real = attention_mask.bool()
    if real.ndim != 2:
        raise ValueError(f"attention_mask must be (batch, seq), not of shape {tuple(attention_mask.shape)}")
    empty = (~real.any(dim=1)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(
            f"rows {empty[:8]} of the batch are all padding: an empty sentence has no vector. "
            "Remove empty sentences before tokenising."
        )
    position = real.cumsum(dim=1)  # 1 at the first real token, whichever side the padding is on
    if pooling == "weighted":
        counts = position * real
    elif pooling == "last":
        counts = (position == position[:, -1:]) & real
    elif pooling == "mean_no_first":
        counts = real & (position > 1)
    elif pooling in ("mean_no_special", "mean_after_sink"):
        special = _special(special_tokens_mask, real, pooling)
        if pooling == "mean_after_sink" and not bool(special[(position == 1) & real].all()):
            raise ValueError(
                "mean_after_sink is of sentences read behind a sink token, but a row begins with a word, which would "
                "be the sink. Tokenise with midalign.models.tokens.sentence_tokenizer."
            )
        counts = real & ~special
    else:
        counts = real
    counts = torch.where(counts.any(dim=1, keepdim=True), counts, real).float()
    return counts / counts.sum(dim=1, keepdim=True)


def pool_all(states: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Apply the weights of several poolings to the states of one layer; differentiable.

    The sum runs in float32 whatever the dtype of the states and whatever autocast says: in bfloat16, cosines near
    0.97 keep 7 distinct values in a 32 x 32 matrix. Tokens that no pooling counts are never read, so a NaN at a
    padded position does no harm.

    Args:
        states: Hidden states ``(batch, seq, hidden)``, any float dtype.
        weights: Name of each pooling and what `token_weights` gave for it, ``(batch, seq)``.

    Returns:
        Sentence vectors ``(batch, hidden)`` in float32 for each name, in the order of ``weights``.

    Raises:
        ValueError: If the shapes do not fit.
    """
    for name, weight in weights.items():
        if weight.shape != states.shape[:2]:
            raise ValueError(
                f"the {name} weights are {tuple(weight.shape)} but the states {tuple(states.shape)}: "
                "expected (batch, seq) and (batch, seq, hidden)"
            )
    plain = [name for name in weights if name != "mean_unit"]
    with torch.autocast(states.device.type, enabled=False):
        counted = torch.stack([weight.to(states.device) for weight in weights.values()]).any(dim=0)
        values = states.float().masked_fill(~counted.unsqueeze(-1), 0.0)
        vectors: dict[str, Tensor] = {}
        if plain:
            stacked = torch.stack([weights[name].to(values.device) for name in plain], dim=1)
            vectors.update(zip(plain, torch.bmm(stacked, values).unbind(dim=1), strict=True))
        if "mean_unit" in weights:
            unit_weights = weights["mean_unit"].to(values.device).unsqueeze(1)
            vectors["mean_unit"] = torch.bmm(unit_weights, F.normalize(values, dim=-1)).squeeze(1)
    return {name: vectors[name] for name in weights}


def pool_packed(states: Tensor, weights: Tensor, pooling: str) -> Tensor:
    """Pool rows that stand behind one another; differentiable, and in float32 as `pool_all`.

    Args:
        states: ``(bins, seq, hidden)``, any float dtype.
        weights: ``(rows, bins, seq)`` float32: those of `token_weights`, wherever the tokens of a row stand.
        pooling: What `weights` are of.

    Returns:
        Sentence vectors ``(rows, hidden)`` in float32.
    """
    with torch.autocast(states.device.type, enabled=False):
        values = states.float().masked_fill(~weights.any(dim=0).unsqueeze(-1), 0.0)
        if pooling == "mean_unit":
            values = F.normalize(values, dim=-1)
        return weights.flatten(1) @ values.flatten(0, 1)


def check_pooling(pooling: str) -> None:
    """Refuse a name that is not in `POOLINGS`.

    Raises:
        OptionError: With the allowed names and the nearest one.
    """
    if pooling not in POOLINGS:
        raise OptionError(
            f"unknown pooling {pooling!r}: there would be no sentence vectors. Write one of "
            f"{', '.join(POOLINGS)}.{did_you_mean(pooling, POOLINGS)}"
        )


def _special(special_tokens_mask: Tensor | None, real: Tensor, pooling: str) -> Tensor:
    if special_tokens_mask is None:
        raise ValueError(
            f"{pooling} needs special_tokens_mask: without it every token would count. "
            "Tokenise with return_special_tokens_mask=True."
        )
    if special_tokens_mask.shape != real.shape:
        raise ValueError(
            f"special_tokens_mask is {tuple(special_tokens_mask.shape)} but attention_mask {tuple(real.shape)}"
        )
    return special_tokens_mask.to(real.device).bool()
