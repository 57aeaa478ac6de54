"""Answers that can only have the form that the task asks for (extra ``constrained``), by llguidance.

1. a grammar says what an answer may be: JSON of a schema (`json_grammar`, the same for all items), or slots whose
   values are words of the sentence (`slot_grammar`, one for each item);
2. it is compiled for a tokenizer: bytes of its tokens, so byte-level BPE and SentencePiece alike;
3. each row of a batch has a matcher, which says before every token which ones may follow;
4. all others get the logit minus infinity. An end token is allowed where the answer is whole, and only there.

A space may come first, since some tokenizers begin every text with one; answers are stripped. An answer that ends is
valid by construction; one that runs into ``max_new_tokens`` is cut off as ever.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from midalign.errors import MissingExtraError, ModelError
from midalign.metrics.completions import NO_SLOTS, CompletionStyle
from midalign.metrics.matching import word_offsets
from midalign.records import TaskExample

# As `json.dumps` writes it, which is how the gold answers that a model was trained on look.
_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_NAME = r"[^|;:\s\p{Cc}]+([ :][^|;:\s\p{Cc}]+)*"  # of an intent or a label; a colon inside it has no space after it


def json_grammar(schema: Mapping[str, Any]) -> str:
    """JSON of a schema, as `json.dumps` lays it out; the keys of an object come in its order."""
    return f'start: " "? json\njson: %json {json.dumps({**schema, "x-guidance": _LAYOUT})}'


def slot_grammar(example: TaskExample, completion_style: CompletionStyle = "slots") -> str:
    """Slots as `midalign.data.prompts.completion` writes them, each value one or more words of the sentence in a row.

    Labels and the intent may be any names without ``|`` and ``;``: which there are is the model's to say. Where the
    words do not spell the text, a value is whatever words they are, with spaces between. What cannot be written is a
    value and another slot after it where the sentence has a ``;`` right behind the value.
    """
    opening = "INTENT " if completion_style == "intent_slots" else ""
    slots = " | LABEL VALUE (NEXT VALUE)*" if any(word.strip() for word in example.words) else ""
    # A separator is part of the name before it, since the lexer of llguidance never goes back.
    return "\n".join(
        [
            f'start: " "? {opening}(NONE{slots})',
            rf"INTENT: /{_NAME} \| /",
            rf"LABEL: /{_NAME}: /",
            rf"NEXT: /; {_NAME}: /",
            f"NONE: {json.dumps(NO_SLOTS)}",
            f"WORDS: %regex {json.dumps({'substring_chunks': _pieces(example)}, ensure_ascii=False)}",
            r"VALUE: WORDS & /\S(.*\S)?/",
        ]
    )


def _pieces(example: TaskExample) -> list[str]:
    """The words of a sentence and the spaces between them, in order; a value is a run of these pieces."""
    offsets = word_offsets(example.text, example.words)
    pieces: list[str] = []
    for number, word in enumerate(example.words):
        if pieces and (offsets is None or offsets[number][0] > offsets[number - 1][1]):
            pieces.append(" ")
        pieces.append(" ".join(word.split()))
    return pieces


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
        """What holds new answers to a grammar each.

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
    """Masks the logits of a batch; goes on over several calls of ``generate`` on the same, or fewer, rows."""

    def __init__(self, matchers: Sequence[Any], stops: Collection[int]) -> None:
        self._matchers: list[Any] = list(matchers)  # None for a row that has ended: it is padded until it leaves
        self._stops = stops
        self._begun = False

    def keep(self, places: Sequence[int]) -> None:
        """Go on with these rows only, in this order."""
        self._matchers = [self._matchers[place] for place in places]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores ``(rows, vocabulary)``, minus infinity where a token would leave the grammar.

        Args:
            input_ids: ``(rows, tokens)``; each call after the first has one token more.
            scores: Logits of the next token; they may be wider than the tokenizer's vocabulary.

        Raises:
            ModelError: If the grammar cannot be gone on with, as where the tokenizer cannot spell it.
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
        raise ModelError(f"generation.constrained does not work with this tokenizer: {matcher.get_error()}")
