"""``midalign evaluate``: scores of any predictions, over seeds, against a baseline, with COMET."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midalign.answers.format import STYLES, AnswerFormat
from midalign.cli.console import console, do, say_comparisons, say_scores, say_where
from midalign.cli.options import (
    Columns,
    CompletionStyle,
    Format,
    Labels,
    Languages,
    Limit,
    Metric,
    Out,
    Resamples,
    Seed,
    Split,
    Task,
    TranslationDirections,
    choice,
    codes,
    items_of,
)
from midalign.records import RESAMPLES, SEED


def evaluate(
    data: Annotated[str, typer.Option(help="Folder or file with the gold data.")],
    predictions: Annotated[
        list[Path],
        typer.Option(
            help="predictions.jsonl of any program, with the ids of the data; give it several times for seeds of one "
            "system."
        ),
    ],
    out: Out,
    task: Annotated[Task, typer.Option(help="The task of the data.")] = Task.slots,
    languages: Languages = None,
    format: Format = "auto",  # noqa: A002
    split: Split = "test",
    columns: Columns = None,
    labels: Labels = None,
    directions: TranslationDirections = "from_english",
    limit: Limit = None,
    baseline: Annotated[
        Path | None,
        typer.Option(help="Predictions of another system for the same items, to compare with by paired tests."),
    ] = None,
    comet: Annotated[
        list[Path] | None, typer.Option(help="segments.jsonl of `midalign comet score`, one for each --predictions.")
    ] = None,
    baseline_comet: Annotated[Path | None, typer.Option(help="segments.jsonl of the baseline.")] = None,
    completion_style: CompletionStyle = "slots",
    metric: Metric = None,
    resamples: Resamples = RESAMPLES,
    seed: Seed = SEED,
) -> None:
    """Score predictions of any program, per language and over all, with intervals; no model needed."""
    from midalign.evaluation.job import EvaluateJob, answered_languages
    from midalign.evaluation.score import COMPARISONS

    files = tuple(str(path) for path in predictions)
    chosen = codes(languages)
    if chosen is None and (chosen := answered_languages(task.value, files[0])) is not None:
        console.print(f"scoring the languages that were answered: {', '.join(chosen)} (--languages asks for others)")
    items = items_of(
        task.value, data, format=format, languages=chosen, split=split, columns=columns, labels=labels,
        directions=directions, limit=limit,
    )  # fmt: skip
    job = EvaluateJob(
        items,
        files,
        answer_format=AnswerFormat(
            choice("completion-style", completion_style, STYLES), metrics=tuple(metric or ("exact_match",))
        ),
        baseline=None if baseline is None else str(baseline),
        comet=tuple(str(path) for path in comet or []),
        baseline_comet=None if baseline_comet is None else str(baseline_comet),
        resamples=resamples,
        seed=seed,
    )
    found = do(job, out)
    if found is None:
        return
    say_scores(found.scores)
    if found.comparisons:
        say_comparisons(found.comparisons)
        say_where(out / COMPARISONS)
    say_where(out / job.result)
