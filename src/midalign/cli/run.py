"""``midalign run`` and ``midalign demo``: all steps of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from midalign.cli.console import console, progress_bars, quiet_libraries, say_where
from midalign.cli.options import Out, Overrides, RecipeFile, recipe_of


def run(recipe: RecipeFile, out: Out, overrides: Overrides = None) -> None:
    """Run all steps of a recipe: probe, train, merge, evaluate, report; the same command resumes an interrupted run."""
    _run_recipe(recipe_of(recipe, overrides), out)


def demo(
    out: Out,
    seeds: Annotated[int, typer.Option(min=1, help="Number of training seeds.")] = 1,
    real: Annotated[
        bool,
        typer.Option("--real", help="Use a real pretrained model, SmolLM2-135M: twenty minutes, a download of 93 MB."),
    ] = False,
) -> None:
    """Run all steps with the small model and data that come with midalign; no download, no GPU."""
    from midalign.errors import RunError
    from midalign.files import MANIFEST
    from midalign.recipe.file import load_recipe
    from midalign.recipe.shipped import shipped

    if seeds > 1 and (out / MANIFEST).exists():
        raise RunError(f"{str(out)!r} holds a run of one seed, whose report would be overwritten; give another --out")
    if seeds == 1 and (out / "seed-0").exists():
        raise RunError(
            f"{str(out)!r} holds runs of several seeds, whose report would be overwritten; give another --out, or as "
            "many --seeds as before to continue them"
        )
    path = shipped()["demo_real" if real else "demo"]
    for seed in range(seeds):
        folder = out if seeds == 1 else out / f"seed-{seed}"
        _run_recipe(load_recipe(path, [f"seed={seed}"]), folder)
    if seeds > 1:
        from midalign.report.page import write_report

        say_where(write_report([out / f"seed-{seed}" for seed in range(seeds)], out))
    else:
        console.print(
            "This is one seed of one small model: with another seed, a gain may become a loss. --seeds 5 shows how "
            "much the differences vary; docs/evidence_world.md has the results of more runs."
        )


def _run_recipe(recipe: Any, out: Path) -> None:
    from midalign.evaluation.score import SCORES
    from midalign.experiment.experiment import Experiment
    from midalign.experiment.named import resolve_names
    from midalign.files import read_json
    from midalign.report.summary_table import summary_table

    quiet_libraries()
    with progress_bars() as progress:
        checked = resolve_names(recipe, progress)
        summary = Experiment(checked, out, progress, announce=lambda text: console.print(f"[bold]{text}[/bold]")).run()
    scores = {system: read_json(out / "evaluation" / system / SCORES)["scores"] for system in summary["systems"]}
    console.print(summary_table(summary, scores))
    say_where(out / "report.html")
