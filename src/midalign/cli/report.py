"""``midalign report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midalign.cli.console import say_where
from midalign.cli.options import Out


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished midalign commands (their --out).")], out: Out
) -> None:
    """Write one page from run folders: what each language gained or lost, and why."""
    from midalign.report.page import write_report
    from midalign.runs import Run

    run = Run(out, "report", {"runs": [str(path) for path in runs]})
    page = write_report(runs, out)
    run.finish()
    say_where(page)
