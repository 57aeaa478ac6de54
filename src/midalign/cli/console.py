"""Output of the command: tables, progress bars, paths of results."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import rich.progress
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from midalign.probing.content import ProbeContent
from midalign.progress import Progress
from midalign.records import Score

if TYPE_CHECKING:
    from midalign.metrics.comparison import PairedScore
    from midalign.runs import Job


T = TypeVar("T")

# Under a launcher with several processes only the first one speaks.
console = Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0")


def say_probe(result: ProbeContent) -> None:
    """Print the layers of a probe, the best in bold."""
    table = Table(title=f"translation retrieval, {result['n']} sentences, {len(result['languages'])} languages")
    for column in ("layer", "accuracy %", "standard error"):
        table.add_column(column, justify="right")
    for layer in result["layers"]:
        best = layer["layer"] == result["best_layer"]
        cells = (str(layer["layer"]), f"{100 * layer['accuracy']:.1f}", f"{100 * (layer['stderr'] or 0):.1f}")
        table.add_row(*cells, style="bold" if best else None)
    Console().print(table)


def say_scores(scores: Sequence[Score]) -> None:
    """Print scores with their intervals; of several seeds, with their standard deviation."""
    over_seeds = any(hasattr(found, "sd") for found in scores)
    value = ("mean over seeds", "sd of seeds") if over_seeds else ("value",)
    table = Table()
    for column in ("language or group", "metric", *value, "95 % interval", "n"):
        table.add_column(column)
    for found in scores:
        where = found.group or found.language  # a direction has both
        numbers = [f"{found.value:.4f}", *([f"{getattr(found, 'sd', 0.0):.4f}"] if over_seeds else [])]
        table.add_row(where, found.metric, *numbers, f"{found.low:.4f} to {found.high:.4f}", str(found.n))
    Console().print(table)


def say_comparisons(comparisons: Sequence[PairedScore]) -> None:
    """Print paired differences with intervals and p-values; those of groups are not corrected."""
    table = Table(title="difference to the baseline, on the same items")
    for column in ("language or group", "metric", "difference", "95 % interval", "p", "p (Holm)"):
        table.add_column(column)
    for found in comparisons:
        corrected = "" if found.p_holm is None else f"{found.p_holm:.4f}"
        interval = f"{found.low:+.4f} to {found.high:+.4f}"
        where, p_value = found.group or found.language, f"{found.p_randomization:.4f}"
        table.add_row(where, found.metric, f"{found.difference:+.4f}", interval, p_value, corrected)
    Console().print(table)


def say_where(path: Path) -> None:
    """Print the path of the result."""
    console.print(f"written: {path}", soft_wrap=True, highlight=False)


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Progress callback with the time left: a bar in a terminal, lines in a log."""
    if not console.is_terminal:
        yield _lines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def report(description: str, done: int, total: int) -> None:
            key = description.partition(" (")[0]
            if key not in tasks:
                tasks[key] = bars.add_task(description, total=total)
            bars.update(tasks[key], description=description, completed=done, total=total)
            if done >= total:
                bars.remove_task(tasks.pop(key))

        yield report


def _lines() -> Progress:
    """Progress callback for logs: a line every 20 seconds, with the time left."""
    started: dict[str, tuple[float, int]] = {}
    said = time.monotonic()

    def report(description: str, done: int, total: int) -> None:
        nonlocal said
        now = time.monotonic()
        key = description.partition(" (")[0]
        start, before = started.setdefault(key, (now, done))
        if done >= total:
            del started[key]
        if now - said < 20 or done <= before or done >= total:
            return
        said = now
        left = (now - start) / (done - before) * (total - done)
        console.print(f"{description}: {done}/{total}, about {left:.0f} s left", highlight=False, soft_wrap=True)

    return report


def quiet_libraries() -> None:
    """Switch the progress bars of transformers and datasets off, except for downloads."""
    from datasets.utils.logging import disable_progress_bar
    from huggingface_hub.utils.tqdm import enable_progress_bars
    from transformers.utils import logging as transformers_logging

    disable_progress_bar()
    transformers_logging.disable_progress_bar()
    enable_progress_bars()


def do(job: Job[T], out: Path) -> T | None:
    """Run a job into its folder, with progress; None if an earlier call with the same inputs has finished it.

    Raises:
        UserError: From the job.
    """
    quiet_libraries()
    run = job.start(out)
    if run.was_done and (out / job.result).exists():
        console.print("done by an earlier call with the same inputs; delete the folder to run it again")
        say_where(out / job.result)
        return None
    with progress_bars() as progress:
        return job.finish(run, progress)
