"""``midalign train``."""

from __future__ import annotations

from typing import Annotated

import typer

from midalign.cli.console import console, do, progress_bars, say_where
from midalign.cli.options import Out, Overrides, RecipeFile, choice, recipe_of


def train(
    recipe: RecipeFile,
    out: Out,
    overrides: Overrides = None,
    objective: Annotated[
        str, typer.Option(help="joint, task (SFT alone) or align (an adapter for merging).")
    ] = "joint",
) -> None:
    """Fine-tune LoRA on the task loss and the middle-layer alignment loss in turn; the same command resumes a run."""
    checked = recipe_of(recipe, overrides)
    chosen = choice("objective", objective, ("joint", "task", "align"))
    from midalign.experiment.named import resolve_names
    from midalign.training.job import TrainJob

    with progress_bars() as progress:
        job = TrainJob(resolve_names(checked, progress), chosen)
    summary = do(job, out)
    if summary is not None:
        layer = "" if summary["layer"] is None else f", alignment at layer {summary['layer']}"
        console.print(f"{summary['updates']} updates in {summary['seconds']:.0f} s{layer}")
        say_where(out / job.result)
