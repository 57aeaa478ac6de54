"""``midalign comet``: the environment of COMET, and scores with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midalign.cli.console import console, do, say_scores, say_where
from midalign.cli.options import (
    Columns,
    Format,
    Languages,
    Limit,
    Out,
    Resamples,
    Seed,
    Split,
    TranslationDirections,
    codes,
    items_of,
)
from midalign.records import RESAMPLES, SEED

app = typer.Typer(no_args_is_help=True, help="Scores by COMET, which needs an environment of its own.")

Env = Annotated[Path | None, typer.Option(help="Folder of COMET's environment; midalign's cache folder by default.")]


@app.command()
def setup(env: Env = None) -> None:
    """Create COMET's environment: a virtual environment with unbabel-comet from PyPI."""
    from midalign.evaluation import comet

    folder = env or comet.environment()
    console.print(f"installing {comet.REQUIREMENT} and what it needs (torch too) into {folder}; this takes minutes")
    version = comet.set_up(folder)
    console.print(f"unbabel-comet {version} is ready; the model is downloaded at the first `midalign comet score`")
    say_where(folder)


@app.command()
def score(
    data: Annotated[str, typer.Option(help="Folder or file with the parallel corpus.")],
    predictions: Annotated[
        Path, typer.Option(help="predictions.jsonl of midalign or any other program, with the ids of the data.")
    ],
    out: Out,
    model: Annotated[str, typer.Option(help="Checkpoint, folder with one, or hub name.")] = "Unbabel/wmt22-comet-da",
    env: Env = None,
    languages: Languages = None,
    format: Format = "auto",  # noqa: A002
    split: Split = "test",
    columns: Columns = None,
    directions: TranslationDirections = "from_english",
    limit: Limit = None,
    resamples: Resamples = RESAMPLES,
    seed: Seed = SEED,
) -> None:
    """Score translations with COMET, per direction and over all, with intervals and segment scores."""
    from midalign.evaluation.job import CometJob

    items = items_of(
        "translation", data, format=format, languages=codes(languages), split=split, columns=columns,
        directions=directions, limit=limit,
    )  # fmt: skip
    job = CometJob(
        items,
        str(predictions),
        model=model,
        env=None if env is None else str(env),
        resamples=resamples,
        seed=seed,
    )
    scores = do(job, out)
    if scores is not None:
        say_scores(scores)
        say_where(out / job.result)


@app.command()
def add(
    run: Annotated[Path, typer.Argument(help="Folder of a finished `midalign run` on translation.")],
    model: Annotated[str, typer.Option(help="Checkpoint, folder with one, or hub name.")] = "Unbabel/wmt22-comet-da",
    env: Env = None,
) -> None:
    """Score every system of a finished run with COMET, and add that to its scores, comparisons and report."""
    from midalign.experiment.comet import add_comet
    from midalign.report.page import PAGE

    for system, scores in add_comet(run, model=model, env=env).items():
        console.print(f"[bold]{system}[/bold]")
        say_scores(scores)
    say_where(run / PAGE)
