"""The tokens that all prompts of a batch begin with (the system text), computed once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from midalign.data.prompt_tokens import shared_beginning


def shared_prompt(model: Any, config: Any, rows: Sequence[list[int]], most: int) -> tuple[DynamicCache, int]:
    """Key-value cache of what all rows begin with, repeated for each row, and its number of tokens.

    It is empty for a single row, and for a model whose cache is not a plain one: a sliding window would count the
    padding of other rows, and recurrent states know no padding.

    Args:
        model: A causal language model, plain or with adapters.
        config: Its configuration.
        rows: Token ids of each row.
        most: Largest number of tokens to compute once; at least one of each row has to be left.
    """
    cache = DynamicCache(config=config.get_text_config(decoder=True))
    plain = {type(layer) for layer in cache.layers} <= {DynamicLayer}
    shared = min(shared_beginning(rows), most) if plain and len(rows) > 1 else 0
    if shared:
        ids = torch.tensor([rows[0][:shared]], device=next(model.parameters()).device)
        model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache.batch_repeat_interleave(len(rows))
    return cache, shared
