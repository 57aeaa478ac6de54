"""``midalign generate``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from midalign.answers.format import CONSTRAINED_HELP, CONSTRAINED_TASK, ENTITY_TYPES, STYLES, TYPES_HELP, AnswerFormat
from midalign.cli.console import console, do, say_where
from midalign.cli.options import (
    AdapterPath,
    Columns,
    CompletionStyle,
    Dtype,
    Format,
    GgufFile,
    Labels,
    Languages,
    Limit,
    ModelName,
    Out,
    Revision,
    Split,
    Task,
    TranslationDirections,
    TrustRemoteCode,
    choice,
    codes,
    items_of,
    model_of,
    template_arguments_of,
)
from midalign.errors import RunError, listed
from midalign.records import BACKENDS


def generate(
    model: ModelName,
    data: Annotated[str, typer.Option(help="Folder or file with the task data.")],
    out: Out,
    task: Annotated[Task, typer.Option(help="The task of the data.")] = Task.slots,
    adapter: AdapterPath = None,
    gguf_file: GgufFile = None,
    revision: Revision = None,
    languages: Languages = None,
    format: Format = "auto",  # noqa: A002
    split: Split = "test",
    columns: Columns = None,
    labels: Labels = None,
    directions: TranslationDirections = "from_english",
    limit: Limit = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Largest number of tokens of an answer.")] = 128,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Padded tokens in a batch.")] = 8192,
    system: Annotated[str | None, typer.Option(help="System text instead of midalign's own.")] = None,
    completion_style: CompletionStyle = "slots",
    types: Annotated[list[str] | None, typer.Option(help=f"{TYPES_HELP} Give it several times.")] = None,
    constrained: Annotated[str, typer.Option(help=f"none, or a constraint on answers: {CONSTRAINED_HELP}")] = "none",
    backend: Annotated[
        str, typer.Option(help=f"Library that generates: {listed(BACKENDS)} (needs the extra of that name).")
    ] = "transformers",
    dtype: Dtype = "auto",
    trust_remote_code: TrustRemoteCode = False,
    chat_template_kwargs: Annotated[
        str | None,
        typer.Option(help="""Arguments of the chat template as JSON, such as '{"enable_thinking": false}'."""),
    ] = None,
) -> None:
    """Answer a task's prompts greedily, into predictions.jsonl; the same command resumes an interrupted run."""
    style = choice("completion-style", completion_style, STYLES)
    held = choice("constrained", constrained, ("none", *CONSTRAINED_TASK))
    choice("backend", backend, BACKENDS)
    from midalign.generation.job import GenerateJob

    items = items_of(
        task.value, data, format=format, languages=codes(languages), split=split, columns=columns, labels=labels,
        directions=directions, limit=limit,
    )  # fmt: skip
    job = GenerateJob(
        model_of(
            model,
            revision=revision,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            gguf_file=gguf_file,
            chat_template_kwargs=template_arguments_of(chat_template_kwargs),
        ),
        items,
        adapter=None if adapter is None else str(adapter),
        answer_format=AnswerFormat(
            style,
            system,
            None if held == "none" else held,
            types=_types_of(types) if types else ENTITY_TYPES,
        ),
        max_new_tokens=max_new_tokens,
        batch_tokens=batch_tokens,
        backend=backend,
    )
    predictions = do(job, out)
    if predictions is not None:
        console.print(f"{len(predictions)} answers")
        say_where(out / job.result)


def _types_of(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Entity types with their meanings, from ``name=meaning`` or names alone.

    Raises:
        RunError: If a name is empty or comes twice.
    """
    found = [(name.strip(), meaning.strip()) for name, _, meaning in (text.partition("=") for text in texts)]
    names = [name for name, _ in found]
    if not all(names) or len(set(names)) < len(names):
        raise RunError(f"--types is {', '.join(texts)}; give each name once, such as PER=people")
    return tuple(found)
