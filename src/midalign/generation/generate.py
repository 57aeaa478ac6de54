"""Greedy generation of answers to the prompts of a task, into ``predictions.jsonl``.

1. prompts are sorted by length and put into batches of at most `batch_tokens` padded tokens; batches depend on the data
   only;
2. each batch is answered by an engine (`midalign.generation.engine`), every row until its own end-of-sequence token;
3. if asked for, one forward pass gives the loss of each gold answer;
4. finished batches are appended to a partial file, so that an interrupted run can resume;
5. at the end ``predictions.jsonl`` is written whole, in the order of the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn
from transformers import PreTrainedTokenizerBase

from midalign.answers.format import AnswerFormat, Style
from midalign.answers.predictions import append_predictions, read_partial
from midalign.answers.write import completion
from midalign.data.prompt_tokens import answered_row
from midalign.generation.engine import Engine, TransformersEngine
from midalign.generation.questions import Question, batches_by_length, check_limits, questions
from midalign.models.limits import context_window
from midalign.models.memory import in_halves
from midalign.progress import Progress
from midalign.records import Prediction, TaskExample


def generate(
    model: nn.Module | Engine,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[TaskExample],
    answer_format: AnswerFormat = AnswerFormat(),
    *,
    adapter: Path | None = None,
    max_new_tokens: int = 128,
    batch_tokens: int = 8192,
    losses: bool = False,
    partial: Path | None = None,
    progress: Progress | None = None,
) -> list[Prediction]:
    """Greedy generation: the answer of a model to every example.

    Args:
        model: A causal language model, plain or with an adapter, or an `Engine`.
        tokenizer: Its tokenizer.
        examples: The examples to answer.
        answer_format: Style of the answers, and the constraint on them (`midalign.generation.constraint`).
        adapter: PEFT folder to answer with; it is merged into the weights of `model` if that gives the same logits.
        max_new_tokens: Largest number of tokens of an answer; longer answers are cut off.
        batch_tokens: Prompt and answer tokens of a batch, padding included.
        losses: Also compute the loss of each gold answer (`Prediction.gold_loss`), by one more forward pass. An engine
            that has no logits (vLLM), and a gold answer that does not fit into the model's window, have none.
        partial: File of finished batches, to resume from; None keeps nothing.
        progress: Called with a description, the number of answered examples and the total.

    Returns:
        One prediction per example, in their order. Special tokens are stripped, spaces at both ends too.

    Raises:
        DataError: If a prompt and its answer do not fit into the model's window, or the constraint is for another task.
        MissingExtraError: If a constraint is asked for and llguidance is not installed.
        MissingFileError: If the adapter is not there.
        ModelError: If the adapter does not fit the model, the constraint the engine or the tokenizer, or the chat
            template leaves out what is asked.
        RunError: If `partial` cannot be written to, or a single prompt does not fit into memory.

    Examples:
        >>> examples = midalign.read_task("slots", languages=["en"])
        >>> answers = midalign.generate(model, tokenizer, examples, midalign.AnswerFormat(system=""), max_new_tokens=4)
        >>> answers[0].id, len(answers) == len(examples)
        ('en.test:0', True)
    """
    asked = questions(examples, tokenizer, answer_format)
    engine = model if isinstance(model, Engine) else TransformersEngine(model, tokenizer)
    check_limits(engine.config, tokenizer, asked, max_new_tokens)
    done = read_partial(partial) if partial is not None else {}
    batches = list(batches_by_length(asked, max_new_tokens, batch_tokens * engine.batch_factor))
    if adapter is not None and batches:
        engine.use_adapter(adapter, [question.ids for question in batches[0]])
    answered = 0
    for batch in batches:
        if any(question.example.id not in done for question in batch):  # else answered before an interruption
            fresh = _answer(engine, tokenizer, batch, max_new_tokens)
            if losses:
                fresh = _with_losses(fresh, engine, tokenizer, batch, answer_format.style, batch_tokens)
            done |= {prediction.id: prediction for prediction in fresh}
            if partial is not None:
                append_predictions(partial, fresh)
        answered += len(batch)
        if progress is not None:
            progress("generating", answered, len(asked))
    return [done[example.id] for example in examples]


def _answer(
    engine: Engine, tokenizer: PreTrainedTokenizerBase, batch: Sequence[Question], max_new_tokens: int
) -> list[Prediction]:
    """Answer one whole batch. A resumed run has the same padding: batches are split only where memory runs out."""

    def answer(part: Sequence[Question]) -> list[list[int]]:
        grammars = [question.grammar for question in part if question.grammar is not None]
        return engine.answer([question.ids for question in part], max_new_tokens, grammars or None)

    answers = in_halves(answer, batch, "prompt with its answer")
    texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
    return [
        Prediction(
            question.example.id,
            question.example.language,
            question.prompt,
            text.strip(),
            target_language=question.example.target_language or None,
        )
        for question, text in zip(batch, texts, strict=True)
    ]


def _with_losses(
    predictions: Sequence[Prediction],
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    batch: Sequence[Question],
    style: Style,
    batch_tokens: int,
) -> list[Prediction]:
    """The predictions of a batch with the losses of its gold answers, after the prompts that the model was given."""
    window = context_window(engine.config, tokenizer)
    rows = [answered_row(question.ids, completion(question.example, style), tokenizer) for question in batch]
    fitting = [place for place, row in enumerate(rows) if window is None or len(row["input_ids"]) <= window]
    found = engine.losses([rows[place] for place in fitting], batch_tokens) if fitting else None
    with_losses = list(predictions)
    for place, (loss, tokens) in zip(fitting, found if found is not None else (), strict=found is not None):
        with_losses[place] = replace(predictions[place], gold_loss=float(loss), gold_tokens=int(tokens))
    return with_losses
