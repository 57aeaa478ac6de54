"""``midalign recipe``: the shipped recipes, a new one for your own data, the JSON schema for editors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from midalign.cli.console import console, say_where
from midalign.cli.options import Task, codes
from midalign.errors import RunError, UserError, did_you_mean

app = typer.Typer(no_args_is_help=True, help="List, show and write recipes.")

_ASKED = {
    "model": "Model (hub name or folder)",
    "task": f"Task ({', '.join(Task)})",
    "data": "Task data (file or folder)",
    "supervised": "Languages with task data to train on, such as eng,deu",
    "aligned": "Languages without task data that should gain, such as swh,cym",
    "parallel": "Parallel sentences of these languages with English (file or folder)",
    "gpu_memory": "Memory of the GPU in GB (0 for none)",
}


@app.command("list")
def list_() -> None:
    """List the recipes that come with midalign; every command takes their names."""
    from midalign.recipe.shipped import shipped, summary

    table = Table("name", "what it is")
    for name, path in shipped().items():
        table.add_row(name, summary(path))
    Console().print(table)


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name of a shipped recipe, see `midalign recipe list`.")]) -> None:
    """Print a shipped recipe with its comments: `midalign recipe show demo > mine.yaml`."""
    from midalign.recipe.shipped import SCHEMA, folder, shipped

    found = shipped()
    if name not in found:
        raise RunError(f"no shipped recipe is named {name!r}; there are {', '.join(found)}.{did_you_mean(name, found)}")
    text = found[name].read_text(encoding="utf-8")
    typer.echo(text.replace(f"$schema={SCHEMA}", f"$schema={folder() / SCHEMA}", 1), nl=False)  # it is read elsewhere


@app.command()
def new(
    out: Annotated[Path, typer.Option(help="The file to write; never overwritten.")] = Path("recipe.yaml"),
    model: Annotated[str | None, typer.Option(help=_ASKED["model"])] = None,
    task: Annotated[Task | None, typer.Option(help="The task; chat is any data of prompts and answers.")] = None,
    data: Annotated[str | None, typer.Option(help=_ASKED["data"])] = None,
    supervised: Annotated[str | None, typer.Option("--languages", "--supervised", help=_ASKED["supervised"])] = None,
    aligned: Annotated[str | None, typer.Option(help=_ASKED["aligned"])] = None,
    parallel: Annotated[str | None, typer.Option(help=_ASKED["parallel"])] = None,
    gpu_memory: Annotated[float | None, typer.Option(min=0, help=_ASKED["gpu_memory"])] = None,
    unseen: Annotated[str | None, typer.Option(help="Languages for evaluation only.")] = None,
    probe: Annotated[
        str | None,
        typer.Option(help="Corpus parallel over all languages; by default some of the parallel sentences."),
    ] = None,
    metric: Annotated[str, typer.Option(help="Metric of the task chat.")] = "exact_match",
    name: Annotated[str | None, typer.Option(help="Name of the run; by default that of the file.")] = None,
) -> None:
    """Write a commented recipe for your own data; what is not given is asked for."""
    from midalign.files import write_atomically
    from midalign.recipe.file import load_recipe
    from midalign.recipe.new import NewRecipe

    if out.exists():
        raise RunError(f"--out {str(out)!r} exists, and a recipe is never overwritten; give another file")
    given = {
        "model": model, "task": task, "data": data, "supervised": supervised, "aligned": aligned, "parallel": parallel,
        "gpu_memory": gpu_memory,
    }  # fmt: skip
    answers = _asked(given)
    text = NewRecipe(
        name=name or out.stem,
        model=answers["model"],
        task=Task(answers["task"]).value,
        data=answers["data"],
        supervised=codes(answers["supervised"]) or (),
        aligned=codes(answers["aligned"], "aligned") or (),
        parallel=answers["parallel"],
        unseen=codes(unseen, "unseen") or (),
        probe=probe,
        gpu_memory=float(answers["gpu_memory"]),
        metric=metric,
    ).text()
    write_atomically(out, text)
    say_where(out)
    try:
        from midalign.experiment.validate import ValidateJob

        found = ValidateJob(load_recipe(out), str(out)).check()
    except UserError as fault:
        console.print(f"It is not valid yet:\n{fault}", markup=False, highlight=False, soft_wrap=True)
        return
    for place, counted in found.items():
        console.print(f"{place}: {counted}")
    console.print(f"{out} is valid: midalign run {out} --out runs/{out.stem}", style="green", soft_wrap=True)


@app.command()
def schema(
    out: Annotated[Path | None, typer.Option(help="File to write; printed by default.")] = None,
) -> None:
    """Write the JSON schema of recipes for editors; a recipe names it by `# yaml-language-server: $schema=FILE`."""
    from midalign.files import write_atomically
    from midalign.recipe.reference import schema_text

    text = schema_text()
    if out is None:
        typer.echo(text, nl=False)
        return
    write_atomically(out, text)
    say_where(out)


def _can_ask() -> bool:
    """Whether somebody is at the terminal."""
    return sys.stdin.isatty()


def _asked(given: dict[str, Any]) -> dict[str, Any]:
    """The answers, asked for at a terminal where they are missing.

    Raises:
        RunError: If some are missing and nobody can be asked.
    """
    missing = [key for key, value in given.items() if value is None]
    if missing and not _can_ask():
        options = ", ".join("--" + {"supervised": "languages"}.get(key, key).replace("_", "-") for key in missing)
        raise RunError(
            f"these options are missing: {options}. Give them, or run the command in a terminal, where it asks"
        )
    kinds: dict[str, Any] = {"gpu_memory": float, "task": Task}
    return given | {key: typer.prompt(_ASKED[key], type=kinds.get(key, str), show_choices=False) for key in missing}
