"""Limits of a model: the context window, and the token ids that it has embeddings for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from midalign.errors import DataError, ModelError

_UNLIMITED = 10**9  # tokenizers without a limit say 1e30


def context_window(config: Any, tokenizer: Any = None) -> int | None:
    """Context window: the longest sequence that a model and its tokenizer allow, in tokens.

    Args:
        config: The model's configuration (`transformers.PretrainedConfig`).
        tokenizer: Its tokenizer, which may state a limit of its own.

    Returns:
        The lower of the two limits; None where neither states one (ALiBi).
    """
    stated = (
        getattr(config.get_text_config(), "max_position_embeddings", None),
        getattr(tokenizer, "model_max_length", None),
    )
    limits = [int(limit) for limit in stated if limit is not None and 0 < limit < _UNLIMITED]
    return min(limits, default=None)


def longest_row(max_length: int | None, config: Any, tokenizer: Any) -> int | None:
    """The longest row in tokens: as asked for, within the context window; None where neither is limited."""
    limits = [limit for limit in (max_length, context_window(config, tokenizer)) if limit is not None]
    return min(limits, default=None)


def check_vocabulary(tokenizer: Any, rows: int, name: str) -> None:
    """Refuse a tokenizer with tokens that the model has no embedding for.

    Added tokens that are neither begin, end or padding tokens nor part of the chat template are allowed: the tokenizers
    of some models have a few that no text produces. `check_ids` finds those that a text does produce.

    Args:
        tokenizer: A tokenizer of transformers.
        rows: Number of rows of the model's embeddings.
        name: Name of the model in the error message.

    Raises:
        ModelError: Naming the first such token.
    """
    template = str(tokenizer.chat_template or "")
    asked = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    added = tokenizer.added_tokens_decoder
    unasked = {number for number, token in added.items() if number not in asked and str(token) not in template}
    beyond = {number: token for token, number in tokenizer.get_vocab().items() if number >= rows}
    beyond = {number: token for number, token in beyond.items() if number not in unasked}
    if beyond:
        first = min(beyond)
        raise ModelError(
            f"the tokenizer of {name!r} gives {len(beyond)} tokens that the model has no embedding for, such as "
            f"{beyond[first]!r} ({first}): the model has {rows}. It is the tokenizer of another model, or tokens were "
            "added to it and resize_token_embeddings() was forgotten. Give the model its own tokenizer."
        )


def check_ids(sequences: Iterable[Sequence[int]], tokenizer: Any, config: Any, name: str) -> None:
    """Refuse token ids that the model has no embedding for, before the forward pass fails.

    Args:
        sequences: Token ids of each text.
        tokenizer: What made them, to name the token.
        config: The model's configuration.
        name: What the message calls the texts.

    Raises:
        DataError: Naming the first such text and token.
    """
    rows = int(config.get_text_config().vocab_size)
    for index, ids in enumerate(sequences):
        if ids and max(ids) >= rows:
            token = tokenizer.convert_ids_to_tokens(max(ids))
            raise DataError(
                f"{name}: text {index} holds the token {token!r} ({max(ids)}), but the model has embeddings for {rows} "
                "only. It is a token that was added to the tokenizer and not to the model: take it out of the text, or "
                "give the model its own tokenizer."
            )
