"""Tokenised sentences: with the special tokens that the tokenizer adds, truncated at the model's window."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from midalign.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tokens:
    """The sentences of one language as token ids.

    Attributes:
        ids: Token ids of each sentence, special tokens as the tokenizer adds them, cut at the model's window.
        special: 1 at the tokens that the tokenizer added, parallel to `ids`.
        content: Number of tokens of each sentence before cutting, without special ones.
        truncated: Number of sentences that were truncated.
    """

    ids: tuple[tuple[int, ...], ...]
    special: tuple[tuple[int, ...], ...]
    content: tuple[int, ...]
    truncated: int

    @property
    def sha256(self) -> str:
        """Hash of what the model will see."""
        return hashlib.sha256(repr((self.ids, self.special)).encode()).hexdigest()


def tokenize(
    tokenizer: PreTrainedTokenizerBase, sentences: Sequence[str], longest: int | None = None, name: str = "the corpus"
) -> Tokens:
    """Tokenise the sentences of one language.

    Args:
        tokenizer: Any tokenizer of transformers.
        sentences: One text each.
        longest: Largest number of tokens, special ones included; longer sentences are truncated by the tokenizer. None
            does not truncate.
        name: Name of the sentences in error messages, such as the language.

    Raises:
        DataError: If a sentence is empty, or gives no token at all.
    """
    for index, sentence in enumerate(sentences):
        if not sentence.strip():
            raise DataError(f"{name}: sentence {index} is empty, so it has no vector. Remove it from all languages.")
    options: dict[str, Any] = dict(return_special_tokens_mask=True, return_attention_mask=False, verbose=False)
    found = tokenizer(list(sentences), **options)
    ids, special = list(found["input_ids"]), list(found["special_tokens_mask"])
    content = tuple(len(mask) - sum(mask) for mask in special)
    too_long = [index for index, row in enumerate(ids) if longest is not None and len(row) > longest]
    if too_long:
        cut = tokenizer([sentences[index] for index in too_long], truncation=True, max_length=longest, **options)
        for index, row, mask in zip(too_long, cut["input_ids"], cut["special_tokens_mask"], strict=True):
            ids[index], special[index] = row, mask
        logger.warning(
            "%s: %d of %d sentences are longer than the window of %d tokens and were cut",
            name, len(too_long), len(ids), longest,
        )  # fmt: skip
    for index, row in enumerate(ids):
        if not row:
            raise DataError(f"{name}: the tokenizer gives no token for sentence {index}: {sentences[index]!r}")
    return Tokens(tuple(map(tuple, ids)), tuple(map(tuple, special)), content, len(too_long))
