"""The ``midalign`` command: one verb per workflow. Heavy imports happen inside the verbs, so that --help is quick.

Exit codes: 0 success, 1 a bug in midalign, 2 a mistake of the user, 130 interrupted.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Annotated, Any

import typer
from rich.logging import RichHandler
from rich.markup import escape
from typer.core import TyperGroup

import midalign
from midalign.cli import comet, recipe, testbed
from midalign.cli.console import console
from midalign.cli.evaluate import evaluate
from midalign.cli.generate import generate
from midalign.cli.merge import merge
from midalign.cli.model import model
from midalign.cli.options import in_home
from midalign.cli.probe import probe
from midalign.cli.report import report
from midalign.cli.run import demo, run
from midalign.cli.train import train
from midalign.cli.validate import validate
from midalign.errors import UserError


class PathsInHome(TyperGroup):
    """Group of commands in whose arguments ``~/`` is the home folder, also where shells leave it (``--out=~/runs``)."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, of all commands below too."""
        return super().parse_args(ctx, [in_home(word) for word in args])


app = typer.Typer(
    cls=PathsInHome,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Middle-layer representation alignment: fine-tune a language model so that it works in languages without task "
    "data.\n\n"
    "Start with `midalign demo --out runs/demo`, then `midalign run RECIPE --out DIR` on your own data.",
)
for verb in (run, validate, probe, train, merge, generate, evaluate, report, demo, model):
    app.command()(verb)
app.add_typer(recipe.app, name="recipe")
app.add_typer(comet.app, name="comet")
app.add_typer(testbed.app, name="testbed")


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the log, with warnings of libraries.")] = False,
) -> None:
    """Settings of the whole command."""
    if version:
        typer.echo(f"midalign {midalign.__version__}")
        raise typer.Exit
    logging.basicConfig(
        level=logging.INFO if verbose else logging.ERROR,
        format="%(message)s",
        handlers=[RichHandler(console=console, show_path=False, show_time=False)],
        force=True,
    )
    logging.getLogger("midalign").setLevel(logging.INFO if verbose else logging.WARNING)
    if not verbose:
        warnings.filterwarnings("ignore")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


_INTERRUPTED = 130


def _interrupted() -> int:
    console.print("interrupted; the same command continues from here")
    return _INTERRUPTED


def main() -> None:
    """Run the command line; user mistakes become one message and exit code 2."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except UserError as fault:
        console.print(f"[red]error:[/red] {escape(str(fault))}", soft_wrap=True, highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(_interrupted())
    except SystemExit as end:  # into which typer turns an interrupt of a command
        sys.exit(_interrupted() if end.code == _INTERRUPTED else end.code)
