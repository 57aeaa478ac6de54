"""Choosing the layer to align, for ``alignment.layer: auto``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from midalign.functional.margin import retrieval_accuracy
from midalign.models.encoding import Encoder
from midalign.models.hidden import find_decoder, unwrap
from midalign.models.limits import context_window
from midalign.models.tokens import Tokens, sentence_tokenizer
from midalign.recipe.alignment import AlignmentConfig
from midalign.records import ParallelPair
from midalign.training.pair_batches import PairDataset

logger = logging.getLogger(__name__)


_ENOUGH = 200  # pairs of each two languages: the standard error of an accuracy is 3.5 points at most


def choose_layer(model: Any, tokenizer: Any, pairs: Sequence[ParallelPair], config: AlignmentConfig) -> int:
    """The layer at which the base model retrieves translations best.

    Among equal layers the lowest wins; layer 0 has no block to train and never wins. Arguments as of `accuracies`.
    """
    found = accuracies(model, tokenizer, pairs, config)
    best = max(range(1, len(found)), key=lambda layer: (found[layer], -layer))
    logger.info("aligning layer %d: retrieval of the base model is best there (%.3f)", best, found[best])
    return best


def accuracies(model: Any, tokenizer: Any, pairs: Sequence[ParallelPair], config: AlignmentConfig) -> dict[int, float]:
    """Retrieval of the base model at every layer, by cosine, averaged over both directions and the pairs of languages.

    Args:
        model: The base model.
        tokenizer: Its tokenizer.
        pairs: Pairs to retrieve among; of each two languages only the first 200 are used.
        config: Gives the pooling.
    """
    tokenize = sentence_tokenizer(tokenizer, config.pooling)
    data = PairDataset(pairs, tokenize, context_window(unwrap(model).config, tokenizer))
    depth = find_decoder(model).depth
    totals = dict.fromkeys(range(depth + 1), 0.0)
    encoder = Encoder(model, poolings=[config.pooling])
    encoder.rank, encoder.world = 0, 1  # every process needs the result, so none does a share
    groups = sorted(set(data.groups))
    for group in groups:
        members = [index for index, number in enumerate(data.groups) if number == group][:_ENOUGH]
        source, target = (
            encoder.encode(_tokens([data.tokens[index][side] for index in members]))[config.pooling] for side in (0, 1)
        )
        for layer in totals:
            found = retrieval_accuracy(source[layer], target[layer], margin="cosine", k=1)
            totals[layer] += sum(found) / 2 / len(groups)
    return totals


def _tokens(sides: Sequence[Any]) -> Tokens:
    """Tokenized sides of pairs, as `Encoder` takes them."""
    ids, special = (tuple(tuple(side[name]) for side in sides) for name in ("input_ids", "special_tokens_mask"))
    return Tokens(ids, special, tuple(len(mask) - sum(mask) for mask in special), 0)
