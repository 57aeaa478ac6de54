"""Constrained decoding with llguidance (extra ``constrained``): every answer has the task's format.

1. a grammar says what an answer may be: JSON of a schema (`json_grammar`, the same for all items), or slots whose
   values are words of the sentence (`slot_grammar`, one for each item);
2. it is compiled for a tokenizer, over the bytes of its tokens, so byte-level BPE and SentencePiece both work;
3. each row of a batch has a matcher, which knows the tokens that may come next;
4. all other tokens get the logit minus infinity. An end token is allowed only where the answer is complete.

An answer may begin with a space, since some tokenizers begin every text with one; answers are stripped. An answer that
ends is valid by construction. One that reaches ``max_new_tokens`` is cut off.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from midalign.errors import MissingExtraError, ModelError


class Constraint:
    """Grammars, compiled for a tokenizer.

    Args:
        tokenizer: A tokenizer of the tokenizers library (a "fast" one).
        stops: Ids of the tokens that end an answer.

    Raises:
        MissingExtraError: If llguidance is not installed.
        ModelError: If the tokenizer is of another library.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[int]) -> None:
        load_llguidance()
        from llguidance.hf import from_tokenizer

        try:
            self._tokens = from_tokenizer(tokenizer, eos_token=list(stops))
        except ValueError as fault:
            raise ModelError(
                f"generation.constrained needs a tokenizer of the tokenizers library, and cannot read this "
                f"{type(tokenizer).__name__} ({fault}); leave it out"
            ) from fault
        self._stops = frozenset(stops)
        self._matcher = lru_cache(maxsize=1)(self._compile)  # one grammar may be that of all answers

    def allows(self, grammar: str, ids: Sequence[int]) -> bool:
        """Whether an answer of these tokens, the last of which ends it, could be written under a grammar.

        Raises:
            ModelError: If the grammar cannot be compiled for the tokenizer.
        """
        return bool(self._matcher(grammar).validate_tokens(list(ids)) == len(ids))

    def rows(self, grammars: Sequence[str]) -> ConstrainedRows:
        """The logits processor of new answers, with one grammar per row.

        Raises:
            ModelError: If a grammar cannot be compiled for the tokenizer.
        """
        return ConstrainedRows([self._matcher(grammar).deep_copy() for grammar in grammars], self._stops)

    def _compile(self, grammar: str) -> Any:
        matcher = load_llguidance().LLMatcher(self._tokens, grammar)
        _check(matcher)
        return matcher


def load_llguidance() -> Any:
    """The library.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        import llguidance
    except ImportError:
        raise MissingExtraError("llguidance", "constrained", "generation.constrained") from None
    return llguidance


class ConstrainedRows(LogitsProcessor):  # type: ignore[misc]
    """Logits processor that constrains a batch, over several calls of ``generate`` on the same or fewer rows."""

    def __init__(self, matchers: Sequence[Any], stops: Collection[int]) -> None:
        self._matchers: list[Any] = list(matchers)  # None for a row that has ended: it is padded until it leaves
        self._stops = stops
        self._begun = False

    def keep(self, places: Sequence[int]) -> None:
        """Keep only these rows, in this order."""
        self._matchers = [self._matchers[place] for place in places]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores ``(rows, vocabulary)``, minus infinity where a token would leave the grammar.

        Args:
            input_ids: ``(rows, tokens)``; each call after the first has one token more.
            scores: Logits of the next token; they may be wider than the tokenizer's vocabulary.

        Raises:
            ModelError: If no token may follow, for example because the tokenizer cannot spell what the grammar asks
                for.
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
        raise ModelError(
            f"generation.constrained does not work with this tokenizer; leave it out: {matcher.get_error()}"
        )
