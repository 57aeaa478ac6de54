"""Token ids of prompts and answers, the same for training and generation.

Prompt and answer are tokenized separately and joined, so that the model is trained on exactly the prompt ids that it
gets at generation; a tokenizer might merge across the boundary. The answer ends in the end-of-sequence token; the
prompt never does, even if the tokenizer appends one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from transformers import PreTrainedTokenizerBase

from midalign.answers.format import AnswerFormat
from midalign.answers.write import completion
from midalign.data.control_tokens import cut, marked
from midalign.data.prompts import Prompt, render
from midalign.errors import DataError
from midalign.records import TaskExample, TaskName

logger = logging.getLogger(__name__)

IGNORED = -100  # the label that cross-entropy skips


def prompt_ids(prompt: Prompt, tokenizer: Any) -> list[int]:
    """Ids of a prompt; special tokens are added only where no chat template has written them, and never at its end."""
    first, *rest = prompt.pieces
    ids = list(tokenizer(first, add_special_tokens=False)["input_ids"])
    if not prompt.from_template:
        ids = _opened(ids, list(tokenizer(first)["input_ids"]))
    return ids + _continued(rest, tokenizer)


def _opened(bare: list[int], whole: list[int]) -> list[int]:
    """Ids of a text with the special tokens that the tokenizer puts before it, without those that it appends."""
    starts = range(len(whole) - len(bare) + 1)
    return next((whole[: start + len(bare)] for start in starts if whole[start : start + len(bare)] == bare), whole)


def answer_ids(answer: str, tokenizer: Any) -> list[int]:
    """Ids of an answer and the end-of-sequence token; control tokens in the answer are text."""
    first, *rest = cut(marked(answer, tokenizer))
    ids = list(tokenizer(first, add_special_tokens=False)["input_ids"])
    return [*ids, *_continued(rest, tokenizer), tokenizer.eos_token_id]


def _continued(pieces: Sequence[str], tokenizer: Any) -> list[int]:
    """Ids of what follows a cut.

    The text is tokenized after a line break, which is removed again, because some tokenizers put a space before a text.
    """
    ids: list[int] = []
    line_break = list(tokenizer("\n", add_special_tokens=False)["input_ids"])
    for piece in pieces:
        found = list(tokenizer("\n" + piece, add_special_tokens=False)["input_ids"])
        if found[: len(line_break)] == line_break:
            ids += found[len(line_break) :]
        else:
            ids += tokenizer(piece, add_special_tokens=False)["input_ids"]
    return ids


def training_rows(
    examples: Sequence[TaskExample],
    tokenizer: Any,
    answer_format: AnswerFormat = AnswerFormat(),
    *,
    max_length: int | None = None,
) -> list[dict[str, list[int]]]:
    """``input_ids`` and ``labels`` of each example; the loss is on the answer only, the prompt is masked.

    The log says how many answers contain names of control tokens; the model learns them as text.

    Raises:
        DataError: If an example is longer than `max_length` tokens; truncated, it would teach the model to stop
            half-way.
        ModelError: If the chat template leaves out what is asked.
    """
    rows, odd = [], []
    for example in examples:
        question = prompt_ids(render(example, tokenizer, answer_format), tokenizer)
        answer = completion(example, answer_format.style)
        row = answered_row(question, answer, tokenizer)
        if marked(answer, tokenizer) != answer:
            odd.append(example.id)
        if max_length is not None and len(row["input_ids"]) > max_length:
            raise DataError(
                f"item {example.id}: prompt and answer are {len(row['input_ids'])} tokens, more than "
                f"training.max_length or the model's window allows ({max_length}). Raise it, or leave the item out: "
                "cut off, it would teach the model to stop half-way."
            )
        rows.append(row)
    if odd:
        logger.warning(
            "%d of %d answers have the name of a control token in them, such as that of item %s; it is taught as text",
            len(odd), len(rows), odd[0],
        )  # fmt: skip
    return rows


def answered_row(question: list[int], answer: str, tokenizer: Any) -> dict[str, list[int]]:
    """``input_ids`` and ``labels`` of a prompt's ids and an answer; the prompt is masked."""
    reply = answer_ids(answer, tokenizer)
    return {"input_ids": question + reply, "labels": [IGNORED] * len(question) + reply}


class InTaskPrompt:
    r"""Tokenizer that puts a sentence into the task's prompt, so that it is aligned there; for `PairDataset`.

    Args:
        tokenizer: Any tokenizer of transformers.
        task: Slot filling or extraction, whose prompt names no language; or chat, where the sentence is the only turn
            after the system text.
        answer_format: As `training_rows`.

    Examples:
        >>> ask = midalign.InTaskPrompt(tokenizer, "slots")
        >>> row = ask("turn on the light")
        >>> pooled = [token for token, counts in zip(row["input_ids"], row["pooled_mask"]) if counts]
        >>> tokenizer.decode(pooled)
        'turn on the light\nAnswer:\n'
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, task: TaskName, answer_format: AnswerFormat = AnswerFormat()
    ) -> None:
        self.tokenizer = tokenizer
        self.task = task
        self.answer_format = answer_format
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self._special = {*tokenizer.all_special_ids, *(token for token, it in added.items() if it.special)}
        ids = self._ids("0")
        self._opening = ids[: shared_beginning([ids, self._ids("?")])]

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        """``input_ids``, ``special_tokens_mask``, and ``pooled_mask``: 0 up to the sentence, 1 from it to the end.

        Tokens after the sentence have read it, so they are pooled; those before it are the same for all sentences.
        """
        ids = self._ids(text)
        before = shared_beginning([ids, self._opening])
        return {
            "input_ids": ids,
            "special_tokens_mask": [int(token in self._special) for token in ids],
            "pooled_mask": [0] * before + [1] * (len(ids) - before),
        }

    def _ids(self, text: str) -> list[int]:
        turn = {"role": "user", "content": text}
        messages = (turn,) if self.task == "chat" else ()
        example = TaskExample(id="", task=self.task, language="", text=text, messages=messages)
        return prompt_ids(render(example, self.tokenizer, self.answer_format), self.tokenizer)


def shared_beginning(rows: Sequence[list[int]]) -> int:
    """Number of ids that all rows begin with."""
    first, last = min(rows), max(rows)  # in the order of lists, so all others begin with what these two share
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
