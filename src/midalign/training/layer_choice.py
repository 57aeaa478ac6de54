"""Choosing the layer to align, for ``alignment.layer: auto``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch

from midalign.functional.margin import retrieval_accuracy
from midalign.models.hidden import find_decoder, pooled_states, unwrap
from midalign.models.limits import context_window
from midalign.models.tokens import sentence_tokenizer
from midalign.recipe.alignment import AlignmentConfig
from midalign.records import ParallelPair
from midalign.training.pair_batches import PairCollator, PairDataset

logger = logging.getLogger(__name__)


def choose_layer(
    model: Any, tokenizer: Any, pairs: Sequence[ParallelPair], config: AlignmentConfig, limit: int = 200
) -> tuple[int, dict[int, float]]:
    """The layer at which the base model retrieves translations best.

    Args:
        model: The base model.
        tokenizer: Its tokenizer.
        pairs: Pairs to retrieve among; of each pair of languages only the first `limit` are used.
        config: Gives the pooling.
        limit: See `pairs`.

    Returns:
        The best layer and the accuracy of every layer: retrieval by cosine, averaged over both directions and the pairs
        of languages. Among equal layers the lowest wins; layer 0 has no block to train and never wins.
    """
    tokenize = sentence_tokenizer(tokenizer, config.pooling)
    data = PairDataset(pairs, tokenize, context_window(unwrap(model).config, tokenizer))
    collate = PairCollator(tokenizer.pad_token_id or 0)
    device = next(model.parameters()).device
    depth = find_decoder(model).depth
    totals = dict.fromkeys(range(depth + 1), 0.0)
    groups = sorted(set(data.groups))
    for group in groups:
        members = [index for index, number in enumerate(data.groups) if number == group][:limit]
        parts = []
        for start in range(0, len(members), config.batch_size):
            batch = collate([data[index] for index in members[start : start + config.batch_size]])
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            pooled = pooled_states(
                model,
                batch["input_ids"],
                batch["attention_mask"],
                poolings=[config.pooling],
                special_tokens_mask=batch["special_tokens_mask"],
            )[config.pooling]
            parts.append(pooled.reshape(depth + 1, 2, -1, pooled.shape[-1]))
        sides = torch.cat(parts, dim=2)
        for layer in totals:
            found = retrieval_accuracy(sides[layer, 0], sides[layer, 1], margin="cosine", k=1)
            totals[layer] += sum(found) / 2 / len(groups)
    best = max(range(1, depth + 1), key=lambda layer: (totals[layer], -layer))
    logger.info("aligning layer %d: retrieval of the base model is best there (%.3f)", best, totals[best])
    return best, totals
