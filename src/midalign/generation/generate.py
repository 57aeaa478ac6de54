"""Greedy answers of a model to the prompts of a task, into ``predictions.jsonl``.

1. prompts are sorted by length and put into batches of at most so many padded tokens, which depends on the data only;
2. each batch is answered by an engine (`midalign.generation.engine`), every row until its own end-of-sequence token;
3. finished batches are appended to a partial file, so that an interrupted run goes on where it stopped;
4. at the end ``predictions.jsonl`` is written whole, in the order of the data.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from midalign.answers.format import AnswerFormat
from midalign.answers.grammar import json_grammar, slot_grammar
from midalign.answers.parse import ENTITY_SCHEMA
from midalign.answers.predictions import append_predictions, read_partial
from midalign.answers.write import completion
from midalign.data.prompt_tokens import prompt_ids
from midalign.data.prompts import render
from midalign.errors import DataError
from midalign.generation.constraint import Constraint
from midalign.generation.engine import Engine, TransformersEngine
from midalign.progress import Progress
from midalign.records import Prediction, TaskExample

logger = logging.getLogger(__name__)


def generate(
    model: nn.Module | Engine,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[TaskExample],
    answer_format: AnswerFormat = AnswerFormat(),
    *,
    adapter: Path | None = None,
    max_new_tokens: int = 128,
    batch_tokens: int = 8192,
    partial: Path | None = None,
    progress: Progress | None = None,
) -> list[Prediction]:
    """Greedy answers to every example.

    Args:
        model: A causal language model, plain or with an adapter, or an `Engine`.
        tokenizer: Its tokenizer.
        examples: What to answer.
        answer_format: What is asked for, and what the answers are held to (`midalign.generation.constraint`).
        adapter: PEFT folder to answer with; merged into the weights of `model` where that gives the same logits.
        max_new_tokens: Longest answer; a longer one is cut off there.
        batch_tokens: Prompt and answer tokens of a batch, padding included.
        partial: File that finished batches are appended to and read back from; None keeps nothing.
        progress: Called with a description, the number of answered examples, and how many there are.

    Returns:
        One prediction per example, in their order. Special tokens are stripped, spaces at both ends too.

    Raises:
        DataError: If a prompt and its answer do not fit into the model's window, or the constraint is for another task.
        MissingExtraError: If a constraint is asked for and llguidance is not installed.
        MissingFileError: If the adapter is not there.
        ModelError: If the adapter does not fit the model, or the constraint the engine or the tokenizer.
        RunError: If `partial` cannot be written to.

    Example:
        >>> examples = midalign.read_task("slots", languages=["en"])
        >>> answers = midalign.generate(model, tokenizer, examples, midalign.AnswerFormat(system=""), max_new_tokens=4)
        >>> answers[0].id, len(answers) == len(examples)
        ('en.test:0', True)
    """
    for task in {example.task for example in examples}:
        answer_format.check_task(task)
    engine = model if isinstance(model, Engine) else TransformersEngine(model, tokenizer)
    prompts = [render(example, tokenizer, answer_format)[0] for example in examples]
    rows = [prompt_ids(prompt, tokenizer) for prompt in prompts]
    check_window(engine.config, examples, rows, max_new_tokens)
    grammars = _grammars(examples, answer_format)
    done = read_partial(partial) if partial is not None else {}
    lengths = [len(row) for row in rows]
    batches = list(batches_by_length(lengths, max_new_tokens, batch_tokens * engine.batch_factor))
    if adapter is not None and batches:
        engine.use_adapter(adapter, [rows[index] for index in batches[0]])
    answered = 0
    for batch in batches:
        if any(examples[index].id not in done for index in batch):  # else it was answered before an interruption
            held = [grammars[index] for index in batch] if grammars is not None else None
            answers = engine.answer([rows[index] for index in batch], max_new_tokens, held)
            fresh = [
                Prediction(examples[index].id, examples[index].language, prompts[index], text.strip())
                for index, text in zip(batch, tokenizer.batch_decode(answers, skip_special_tokens=True), strict=True)
            ]
            done |= {prediction.id: prediction for prediction in fresh}
            if partial is not None:
                append_predictions(partial, fresh)
        answered += len(batch)
        if progress is not None:
            progress("generating", answered, len(examples))
    return [done[example.id] for example in examples]


def _grammars(examples: Sequence[TaskExample], answer_format: AnswerFormat) -> list[str] | None:
    """What the answer to each example is held to; None where the model is free."""
    if answer_format.constrained is None:
        return None
    if answer_format.constrained == "json":
        return [json_grammar(ENTITY_SCHEMA)] * len(examples)
    return [slot_grammar(example, answer_format.style) for example in examples]


def check_constraint(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[TaskExample], answer_format: AnswerFormat
) -> None:
    """Find out before a training whether the gold answers could be written; the log says how many could not.

    Without a constraint every answer can.

    Raises:
        MissingExtraError: If llguidance is not installed.
        ModelError: If it cannot read the tokenizer.
        DataError: If none of the gold answers could be written.
    """
    grammars = _grammars(examples, answer_format)
    if grammars is None:
        return
    constraint = Constraint(tokenizer, [tokenizer.eos_token_id])
    barred = []
    for example, grammar in zip(examples, grammars, strict=True):
        gold = completion(example, answer_format.style)
        ids = [*tokenizer(gold, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        if not constraint.allows(grammar, ids):
            barred.append(f"item {example.id} ({gold!r})")
    if not barred:
        return
    found = (
        f"generation.constrained {answer_format.constrained!r}: {len(barred)} of {len(examples)} gold answers could "
        f"not be written, such as that of {barred[0]}"
    )
    if len(barred) == len(examples):
        raise DataError(f"{found}. Every answer would be wrong: leave it out.")
    logger.warning("%s; they will count as the model's mistakes", found)


def batches_by_length(lengths: Sequence[int], new_tokens: int, batch_tokens: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, longest first, so that memory runs out at once or not at all.

    A batch holds at most `batch_tokens` tokens, counting every row as the longest plus `new_tokens`; at least one row.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // (lengths[order[start]] + new_tokens))
        yield order[start : start + size]
        start += size


def check_window(
    config: Any, examples: Sequence[TaskExample], tokens: Sequence[list[int]], max_new_tokens: int
) -> None:
    """Refuse prompts that leave no room for an answer in the model's window.

    Args:
        config: The model's configuration.
        examples: What is asked, for its ids.
        tokens: Prompt tokens of each example.
        max_new_tokens: Longest answer.

    Raises:
        DataError: Naming the longest such item.
    """
    window = getattr(config.get_text_config(), "max_position_embeddings", None)
    longest = max(range(len(tokens)), key=lambda index: len(tokens[index]), default=None)
    if window and longest is not None and len(tokens[longest]) + max_new_tokens > window:
        raise DataError(
            f"item {examples[longest].id}: its prompt has {len(tokens[longest])} tokens, and with max_new_tokens = "
            f"{max_new_tokens} it does not fit into the model's window of {window}. Lower max_new_tokens, or shorten "
            "the system text."
        )
