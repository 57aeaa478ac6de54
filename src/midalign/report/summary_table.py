"""The closing table of the command line: groups down, systems across, and the change that training brought."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from midalign.report.words import (
    SYMBOLS,
    Difference,
    differences,
    group_name,
    metric_name,
    points,
    shown_groups,
    system_name,
)

_COLOURS = {"better": "green", "worse": "red", "unclear": "default"}


def summary_table(summary: Mapping[str, Any], scores: Mapping[str, Iterable[Mapping[str, Any]]]) -> Table:
    """The main metric of every group and system, and what each system changed.

    Args:
        summary: The content of ``summary.json``.
        scores: By system, the entries of its ``scores.json``.

    Returns:
        A rich table: the main metric in points with its 95 % interval, and every comparison with the baseline as
        difference and interval, marked as better, worse or unclear.
    """
    metric = str(summary.get("main_metric") or "")
    cells = {system: _group_scores(metric, entries) for system, entries in scores.items()}
    groups = shown_groups(group for by_group in cells.values() for group in by_group)
    found = {
        (change.baseline, change.system, change.key): change
        for change in differences(summary.get("comparisons", ()))
        if change.metric == metric and change.key in groups
    }
    systems = [name for name in summary.get("systems", scores) if name in scores]
    pairs = list(dict.fromkeys((baseline, system) for baseline, system, _ in found))

    name = escape(str(summary.get("name") or "Results"))
    table = Table(title=f"{name}: {metric_name(metric)}, points out of 100, 95 % intervals")
    table.add_column("Languages")
    for system in systems:
        table.add_column(system_name(system), justify="right")
    for baseline, system in pairs:
        table.add_column(f"{system} − {baseline}", justify="right")
    for group in groups:
        levels = [cells[system].get(group, "") for system in systems]
        table.add_row(group_name(group), *levels, *(_change(found.get((*pair, group))) for pair in pairs))
    return table


def _group_scores(metric: str, entries: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """By group, the value of one metric with its interval."""
    values = {}
    for entry in entries:
        if entry["metric"] == metric and entry.get("group") and not entry.get("language"):
            value, low, high = (points(metric, entry[name]) for name in ("value", "low", "high"))
            values[str(entry["group"])] = f"{value} [dim]{low} to {high}[/dim]"
    return values


def _change(found: Difference | None) -> str:
    return f"[{_COLOURS[found.outcome]}]{SYMBOLS[found.outcome]} {found.text}[/]" if found else ""
