"""``midalign comet``: the environment of COMET, and scores with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midalign.cli.console import Languages, Out, codes, console, say_scores, say_where
from midalign.records import RESAMPLES, SEED

app = typer.Typer(no_args_is_help=True, help="COMET, which lives in an environment of its own.")

Env = Annotated[Path | None, typer.Option(help="Folder of COMET's environment; midalign's cache folder by default.")]


@app.command()
def setup(env: Env = None) -> None:
    """Make COMET's environment: a virtual environment with unbabel-comet, from PyPI."""
    from midalign.evaluation import comet

    folder = env or comet.environment()
    console.print(f"installing {comet.REQUIREMENT} and what it needs (torch too) into {folder}; this takes minutes")
    version = comet.set_up(folder)
    console.print(f"unbabel-comet {version} is ready; the model is downloaded at the first `midalign comet score`")
    say_where(folder)


@app.command()
def score(
    data: Annotated[str, typer.Option(help="Folder or file with the parallel corpus.")],
    predictions: Annotated[Path, typer.Option(help="predictions.jsonl, ours or anybody's, with the ids of the data.")],
    out: Out,
    model: Annotated[str, typer.Option(help="Checkpoint, folder with one, or hub name.")] = "Unbabel/wmt22-comet-da",
    env: Env = None,
    languages: Languages = None,
    format: Annotated[str, typer.Option(help="Format of the data; told by itself where possible.")] = "auto",  # noqa: A002
    split: Annotated[str, typer.Option(help="train, dev or test.")] = "test",
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples behind every interval.")] = RESAMPLES,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = SEED,
) -> None:
    """COMET of translations, per direction and over all, with intervals; segment scores beside them."""
    from midalign.answers.predictions import read_predictions
    from midalign.data.examples import read_examples
    from midalign.evaluation import comet
    from midalign.evaluation.score import SCORES, write_scores
    from midalign.runs import Run

    found, chosen = read_predictions(predictions), codes(languages)
    examples = read_examples("translation", data, format=format, languages=chosen, split=split)
    inputs = {"data": data, "split": split, "languages": chosen, "model": model, "resamples": resamples, "seed": seed}
    run = Run(out, "comet score", inputs, [data, predictions, model])
    with run.timed("comet"):
        scores, segments = comet.score_comet(examples, found, model=model, env=env, resamples=resamples, seed=seed)
    comet.write_segments(segments, found, out / comet.SEGMENTS)
    write_scores(scores, out / SCORES)
    run.finish(seeds=[seed])
    say_scores(scores)
    say_where(out / SCORES)


@app.command()
def add(
    run: Annotated[Path, typer.Argument(help="Folder of a finished `midalign run` on translation.")],
    model: Annotated[str, typer.Option(help="Checkpoint, folder with one, or hub name.")] = "Unbabel/wmt22-comet-da",
    env: Env = None,
) -> None:
    """COMET of every system of a finished run, into its scores, its paired comparisons and its report."""
    from midalign.experiment.comet import add_comet
    from midalign.report.page import PAGE

    for system, scores in add_comet(run, model=model, env=env).items():
        console.print(f"[bold]{system}[/bold]")
        say_scores(scores)
    say_where(run / PAGE)
