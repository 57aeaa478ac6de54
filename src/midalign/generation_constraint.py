"""Answers that can only be JSON of a given form (extra ``constrained``), by llguidance.

1. a JSON schema is compiled once for a tokenizer: bytes of its tokens, so byte-level BPE and SentencePiece alike;
2. each row of a batch has a matcher, which says before every token which ones may follow;
3. all others get the logit minus infinity. An end token is allowed where the JSON is whole, and only there.

An answer that ends is valid by construction; one that runs into ``max_new_tokens`` is cut off as ever.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from midalign.errors import MissingExtraError, ModelError

# As `json.dumps` writes it, which is how the gold answers that a model was trained on look.
_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class JsonConstraint:
    """A JSON schema, compiled for a tokenizer.

    Args:
        schema: The schema; the keys of an object come in its order.
        tokenizer: A tokenizer of the tokenizers library (a "fast" one).
        stops: Ids of the tokens that end an answer.

    Raises:
        MissingExtraError: If llguidance is not installed.
        ModelError: If the tokenizer is of another library, or the schema cannot be compiled for it.
    """

    def __init__(self, schema: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, stops: Sequence[int]) -> None:
        try:
            from llguidance import LLMatcher
            from llguidance.hf import from_tokenizer
        except ImportError:
            raise MissingExtraError("llguidance", "constrained", "generation.constrained 'json'") from None
        try:
            tokens = from_tokenizer(tokenizer, eos_token=list(stops))
        except ValueError as fault:
            raise ModelError(
                f"generation.constrained 'json' needs a tokenizer of the tokenizers library, and cannot read this "
                f"{type(tokenizer).__name__} ({fault}); leave it out"
            ) from fault
        self._matcher = LLMatcher(tokens, LLMatcher.grammar_from_json_schema(dict(schema), overrides=_LAYOUT))
        _check(self._matcher)
        self._stops = frozenset(stops)

    def rows(self, count: int) -> ConstrainedRows:
        """What holds that many new answers to the schema."""
        return ConstrainedRows([self._matcher.deep_copy() for _ in range(count)], self._stops)


class ConstrainedRows(LogitsProcessor):  # type: ignore[misc]
    """Masks the logits of a batch; goes on over several calls of ``generate`` on the same, or fewer, rows."""

    def __init__(self, matchers: Sequence[Any], stops: Collection[int]) -> None:
        self._matchers: list[Any] = list(matchers)  # None for a row that has ended: it is padded until it leaves
        self._stops = stops
        self._begun = False

    def keep(self, places: Sequence[int]) -> None:
        """Go on with these rows only, in this order."""
        self._matchers = [self._matchers[place] for place in places]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores ``(rows, vocabulary)``, minus infinity where a token would leave the schema.

        Args:
            input_ids: ``(rows, tokens)``; each call after the first has one token more.
            scores: Logits of the next token; they may be wider than the tokenizer's vocabulary.

        Raises:
            ModelError: If the schema cannot be gone on with, as where the tokenizer cannot spell it.
        """
        if self._begun:
            for row, token in enumerate(input_ids[:, -1].tolist()):
                self._advance(row, token)
        self._begun = True
        allowed = np.ones(scores.shape, dtype=bool)
        for row, matcher in enumerate(self._matchers):
            if matcher is not None:
                bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
                _check(matcher)
                known = min(len(bits), scores.shape[1])
                allowed[row] = False
                allowed[row, :known] = bits[:known]
        return scores.masked_fill(~torch.from_numpy(allowed).to(scores.device), float("-inf"))

    def _advance(self, row: int, token: int) -> None:
        matcher = self._matchers[row]
        if matcher is None:
            return
        matcher.consume_token(token)
        _check(matcher)
        if token in self._stops:
            self._matchers[row] = None


def _check(matcher: Any) -> None:
    if matcher.is_error():
        raise ModelError(f"generation.constrained 'json' does not work with this tokenizer: {matcher.get_error()}")
