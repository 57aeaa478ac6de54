"""``midalign validate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midalign.cli.console import console, do, say_where
from midalign.cli.options import Overrides, RecipeFile


def validate(
    recipe: RecipeFile,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for validation.json and the manifest; none by default.")
    ] = None,
) -> None:
    """Check a recipe and the data it names without running anything; all faults are reported at once."""
    from midalign.recipe.file import load_recipe

    checked = load_recipe(recipe, overrides or [])
    from midalign.experiment.validate import ValidateJob

    job = ValidateJob(checked, str(recipe))
    found = job.check() if out is None else do(job, out)
    if found is None:
        return
    for place, text in found.items():
        console.print(f"{place}: {text}")
    console.print(f"[green]{recipe} is valid[/green]")
    if out is not None:
        say_where(out / job.result)
