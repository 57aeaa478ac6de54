"""Tokenised sentences: with the special tokens of the tokenizer, or after a sink token; truncated at the window."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from transformers import PreTrainedTokenizerBase

from midalign.errors import DataError, ModelError
from midalign.functional.names import BEHIND_SINK

logger = logging.getLogger(__name__)


SINK = "\n"
"""What is put before a sentence to which the tokenizer adds nothing (`BehindSink`)."""


@dataclass(frozen=True)
class Tokens:
    """The sentences of one language as token ids.

    Attributes:
        ids: Token ids of each sentence, special tokens as the tokenizer adds them, cut at the model's window.
        special: 1 at the tokens that are no part of the sentence, parallel to `ids`.
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


class BehindSink:
    """Tokenises one sentence behind a sink token, for `mean_after_sink`.

    Decoders give the first token of a text a state of huge norm, an *attention sink* (Xiao et al. 2024, arXiv
    2309.17453), whatever it is. Where a tokenizer adds no token of its own at the beginning that is the first word, and
    the mean over the tokens is little more than it. Here a line break is put before the sentence then, as a special
    token, which the pooling leaves out; what a tokenizer adds by itself stays as it is.

    A line break, because any model has seen sentences behind one (measured in LOG.md, 2026-11-26): the token that a
    chat model names its begin or end of sequence may be a mark of turns, behind which the first word can be a second
    sink. Those two are only taken, in this order, if the tokenizer gives no token for a line break.

    Args:
        tokenizer: Any tokenizer of transformers.

    Attributes:
        sink: The token ids that are put before a sentence; none where the tokenizer adds its own.

    Raises:
        ModelError: If the tokenizer has none of the three.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.sink: tuple[int, ...] = ()
        if not tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"][0]:
            marks = [number for number in (tokenizer.bos_token_id, tokenizer.eos_token_id) if number is not None]
            self.sink = tuple(tokenizer(SINK, add_special_tokens=False)["input_ids"] or marks[:1])
            if not self.sink:
                raise ModelError(
                    "pooling mean_after_sink needs a token before the sentence, but the tokenizer has none for a line "
                    "break, and neither a begin-of-sequence nor an end-of-sequence token. Write pooling: mean_no_first."
                )

    def __call__(self, text: str, *, return_special_tokens_mask: bool = True) -> dict[str, list[int]]:
        """``input_ids`` and ``special_tokens_mask`` of one sentence."""
        found = self.tokenizer(text, return_special_tokens_mask=return_special_tokens_mask, split_special_tokens=True)
        ids, special = found["input_ids"], found["special_tokens_mask"]
        return {"input_ids": [*self.sink, *ids], "special_tokens_mask": [1] * len(self.sink) + list(special)}


def sentence_tokenizer(tokenizer: PreTrainedTokenizerBase, pooling: str) -> Any:
    """What tokenises single sentences for a pooling: the tokenizer itself, or `BehindSink`.

    Names of control tokens in a sentence (``</s>``) are text.
    """
    return BehindSink(tokenizer) if pooling in BEHIND_SINK else partial(tokenizer, split_special_tokens=True)


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    sentences: Sequence[str],
    longest: int | None = None,
    name: str = "the corpus",
    *,
    sink: Sequence[int] = (),
) -> Tokens:
    """Tokenise the sentences of one language.

    Args:
        tokenizer: Any tokenizer of transformers.
        sentences: One text each.
        longest: Largest number of tokens, special ones included; longer sentences are truncated by the tokenizer. None
            does not truncate.
        name: Name of the sentences in error messages, such as the language.
        sink: Token ids to put before each sentence, which count as special (`BehindSink`).

    Raises:
        DataError: If a sentence is empty, or gives no token at all.
    """
    for index, sentence in enumerate(sentences):
        if not sentence.strip():
            raise DataError(f"{name}: sentence {index} is empty, so it has no vector. Remove it from all languages.")
    options: dict[str, Any] = dict(return_special_tokens_mask=True, return_attention_mask=False, verbose=False)
    options |= {"split_special_tokens": True}  # names of control tokens in a sentence are text
    found = tokenizer(list(sentences), **options)
    ids, special = list(found["input_ids"]), list(found["special_tokens_mask"])
    content = tuple(len(mask) - sum(mask) for mask in special)
    room = None if longest is None else longest - len(sink)
    too_long = [index for index, row in enumerate(ids) if room is not None and len(row) > room]
    if too_long:
        cut = tokenizer([sentences[index] for index in too_long], truncation=True, max_length=room, **options)
        for index, row, mask in zip(too_long, cut["input_ids"], cut["special_tokens_mask"], strict=True):
            ids[index], special[index] = row, mask
        logger.warning(
            "%s: %d of %d sentences are longer than the window of %d tokens and were cut",
            name, len(too_long), len(ids), longest,
        )  # fmt: skip
    for index, row in enumerate(ids):
        if not row:
            raise DataError(f"{name}: the tokenizer gives no token for sentence {index}: {sentences[index]!r}")
    rows = tuple((*sink, *row) for row in ids)
    masks = tuple((1,) * len(sink) + tuple(mask) for mask in special)
    return Tokens(rows, masks, content, len(too_long))
