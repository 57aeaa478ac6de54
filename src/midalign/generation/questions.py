"""Questions: the prompt of each example as text and tokens, and checks of all prompts before a model is loaded."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from midalign.answers.format import AnswerFormat
from midalign.answers.grammar import json_grammar, slot_grammar
from midalign.answers.parse import ENTITY_SCHEMA
from midalign.answers.write import completion
from midalign.data.prompt_check import check_prompt
from midalign.data.prompt_tokens import answer_ids, prompt_ids
from midalign.data.prompts import render
from midalign.errors import DataError
from midalign.generation.constraint import Constraint
from midalign.models.limits import check_ids, context_window
from midalign.records import TaskExample

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Question:
    """One example with its prompt.

    Attributes:
        example: The example.
        prompt: The text of the prompt.
        ids: Its token ids.
        grammar: Grammar that constrains the answer; None for no constraint.
    """

    example: TaskExample
    prompt: str
    ids: list[int]
    grammar: str | None = None


def questions(
    examples: Sequence[TaskExample], tokenizer: PreTrainedTokenizerBase, answer_format: AnswerFormat
) -> list[Question]:
    """The question of every example.

    Raises:
        DataError: If the constraint is for another task.
        ModelError: If the tokenizer or its chat template drops or changes what is asked.
    """
    for example in examples[:1]:
        check_prompt(example, tokenizer, answer_format)
    for task in {example.task for example in examples}:
        answer_format.check_task(task)
    prompts = [render(example, tokenizer, answer_format) for example in examples]
    return [
        Question(example, prompt.text, prompt_ids(prompt, tokenizer), _grammar(example, answer_format))
        for example, prompt in zip(examples, prompts, strict=True)
    ]


def _grammar(example: TaskExample, answer_format: AnswerFormat) -> str | None:
    if answer_format.constrained == "json":
        return json_grammar(ENTITY_SCHEMA)
    if answer_format.constrained == "slots":
        return slot_grammar(example, answer_format.style)
    return None


def batches_by_length(asked: Sequence[Question], new_tokens: int, batch_tokens: int) -> Iterator[list[Question]]:
    """Batches of questions of similar length, longest first, so that memory runs out at once or not at all.

    A batch holds at most `batch_tokens` tokens, counting every row as the longest plus `new_tokens`; at least one row.
    """
    ordered = sorted(asked, key=lambda question: -len(question.ids))
    while ordered:
        size = max(1, batch_tokens // (len(ordered[0].ids) + new_tokens))
        yield ordered[:size]
        ordered = ordered[size:]


def check_limits(
    config: Any, tokenizer: PreTrainedTokenizerBase, asked: Sequence[Question], max_new_tokens: int
) -> None:
    """Refuse prompts that leave no room for an answer, or contain a token that the model has no embedding for.

    Args:
        config: The model's configuration.
        tokenizer: Its tokenizer.
        asked: The questions.
        max_new_tokens: Longest answer.

    Raises:
        DataError: Naming the longest such item, or the first such token.
    """
    check_ids([question.ids for question in asked], tokenizer, config, "the prompts")
    window = context_window(config, tokenizer)
    longest = max(asked, key=lambda question: len(question.ids), default=None)
    if window and longest is not None and len(longest.ids) + max_new_tokens > window:
        raise DataError(
            f"item {longest.example.id}: its prompt has {len(longest.ids)} tokens, and with max_new_tokens = "
            f"{max_new_tokens} it does not fit into the model's window of {window}. Lower max_new_tokens, or shorten "
            "the system text."
        )


def check_questions(
    config: Any,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[TaskExample],
    answer_format: AnswerFormat,
    max_new_tokens: int,
) -> None:
    """Check before a model is loaded that all prompts are usable, and that the constraint allows the gold answers.

    The log says how many gold answers the constraint does not allow.

    Args:
        config: The model's configuration.
        tokenizer: Its tokenizer.
        examples: The examples to ask.
        answer_format: Style of the answers, and the constraint on them.
        max_new_tokens: Longest answer.

    Raises:
        DataError: If a prompt is too long, or the constraint allows no gold answer.
        MissingExtraError: If there is a constraint, and llguidance is not installed.
        ModelError: If the chat template leaves out what is asked, or llguidance cannot read the tokenizer.
    """
    asked = questions(examples, tokenizer, answer_format)
    check_limits(config, tokenizer, asked, max_new_tokens)
    if answer_format.constrained is not None:
        _check_gold(tokenizer, asked, answer_format)


def _check_gold(tokenizer: PreTrainedTokenizerBase, asked: Sequence[Question], answer_format: AnswerFormat) -> None:
    constraint = Constraint(tokenizer, [tokenizer.eos_token_id])
    barred = []
    for question in asked:
        gold = completion(question.example, answer_format.style)
        if question.grammar and not constraint.allows(question.grammar, answer_ids(gold, tokenizer)):
            barred.append(f"item {question.example.id} ({gold!r})")
    if not barred:
        return
    found = (
        f"generation.constrained {answer_format.constrained!r}: {len(barred)} of {len(asked)} gold answers could not "
        f"be written, such as that of {barred[0]}"
    )
    if len(barred) == len(asked):
        raise DataError(f"{found}. Every answer would be wrong: leave it out.")
    logger.warning("%s; they will count as the model's mistakes", found)
