"""How the command speaks to people: options of several verbs, tables, progress bars, reading what they typed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import rich.progress
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from midalign.answers.format import STYLE_HELP
from midalign.errors import RunError, did_you_mean
from midalign.languages import canonical
from midalign.progress import Progress
from midalign.records import Score

if TYPE_CHECKING:
    from midalign.metrics.comparison import PairedScore

Out = Annotated[Path, typer.Option(help="Folder for the results; made if needed, never overwritten with another run.")]
CompletionStyle = Annotated[str, typer.Option(help=STYLE_HELP)]
Languages = Annotated[str | None, typer.Option(help="Comma-separated codes of any kind, such as eng,deu or en,de.")]


class Task(StrEnum):
    """The downstream tasks."""

    slots = "slots"
    translation = "translation"
    extraction = "extraction"


# Under a launcher with several processes only the first one speaks.
console = Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0")


def choice(name: str, value: str, allowed: tuple[str, ...]) -> Any:
    """The value of an option that has a few names.

    Raises:
        RunError: If it is none of them, with the nearest.
    """
    if value not in allowed:
        raise RunError(f"--{name} {value!r} is not one of {', '.join(allowed)}.{did_you_mean(value, allowed)}")
    return value


def codes(text: str | None) -> list[str] | None:
    """The canonical codes of a comma-separated list.

    Raises:
        LanguageError: If a code is not known.
    """
    if text is None:
        return None
    return [canonical(code.strip(), "--languages") for code in text.split(",") if code.strip()]


def named(option: str, values: Sequence[str]) -> dict[str, str]:
    """Values of the form ``name=value``, by name.

    Raises:
        RunError: If one is not of that form.
    """
    found = {}
    for value in values:
        name, equals, path = value.partition("=")
        if not equals or not name or not path:
            raise RunError(f"--{option} {value!r} is not of the form name=value, such as task=runs/sft/adapter")
        found[name] = path
    return found


def weights_of(text: str) -> dict[str, float | list[float]]:
    """Weights of the form ``name=number,name=number``; ``0.2/0.5/0.8`` is one number per band of layers.

    Raises:
        RunError: If they are not of that form.
    """
    try:
        given = named("weights", text.split(","))
        bands = {name: [float(number) for number in value.split("/")] for name, value in given.items()}
    except ValueError:
        raise RunError(
            f"--weights {text!r}: a weight is a number, or one per band of layers from the lowest to the highest, such "
            "as task=1.0,alignment=0.5 or task=1.0,alignment=0.2/0.5/0.8"
        ) from None
    return {name: values[0] if len(values) == 1 else values for name, values in bands.items()}


def say_probe(result: dict[str, Any]) -> None:
    """Print the layers of a probe, the best in bold."""
    table = Table(title=f"translation retrieval, {result['n']} sentences, {len(result['languages'])} languages")
    for column in ("layer", "accuracy %", "standard error"):
        table.add_column(column, justify="right")
    for layer in result["layers"]:
        best = layer["layer"] == result["best_layer"]
        cells = (str(layer["layer"]), f"{100 * layer['accuracy']:.1f}", f"{100 * layer['stderr']:.1f}")
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
        where = found.language or found.group
        numbers = [f"{found.value:.4f}", *([f"{getattr(found, 'sd', 0.0):.4f}"] if over_seeds else [])]
        table.add_row(where, found.metric, *numbers, f"{found.low:.4f} to {found.high:.4f}", str(found.n))
    Console().print(table)


def say_comparisons(comparisons: Sequence[PairedScore]) -> None:
    """Print paired differences with their intervals and p-values; of groups, no correction was made."""
    table = Table(title="difference to the baseline, on the same items")
    for column in ("language or group", "metric", "difference", "95 % interval", "p", "p (Holm)"):
        table.add_column(column)
    for found in comparisons:
        corrected = "" if found.p_holm is None else f"{found.p_holm:.4f}"
        interval = f"{found.low:+.4f} to {found.high:+.4f}"
        where, p_value = found.language or found.group, f"{found.p_randomization:.4f}"
        table.add_row(where, found.metric, f"{found.difference:+.4f}", interval, p_value, corrected)
    Console().print(table)


def say_where(path: Path) -> None:
    """Say which file or folder holds the result."""
    console.print(f"written: {path}", soft_wrap=True, highlight=False)


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Progress with time left, as the callback that workflows report to: a bar in a terminal, lines in a log."""
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


def _lines(every: float = 20.0) -> Progress:
    """Progress for logs, where a bar cannot be redrawn: a line every `every` seconds, with the time left."""
    started: dict[str, tuple[float, int]] = {}
    said = time.monotonic()

    def report(description: str, done: int, total: int) -> None:
        nonlocal said
        now = time.monotonic()
        key = description.partition(" (")[0]
        start, before = started.setdefault(key, (now, done))
        if done >= total:
            del started[key]
        if now - said < every or done <= before or done >= total:
            return
        said = now
        left = (now - start) / (done - before) * (total - done)
        console.print(f"{description}: {done}/{total}, about {left:.0f} s left", highlight=False, soft_wrap=True)

    return report


def quiet_libraries() -> None:
    """Keep the progress bars of transformers and datasets out of ours; downloads keep theirs."""
    from datasets.utils.logging import disable_progress_bar
    from huggingface_hub.utils.tqdm import enable_progress_bars
    from transformers.utils import logging as transformers_logging

    disable_progress_bar()
    transformers_logging.disable_progress_bar()
    enable_progress_bars()
