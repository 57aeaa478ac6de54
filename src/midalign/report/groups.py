"""The report's parts that show retrieval by group of languages: role, resource level, script, family."""

from __future__ import annotations

from typing import Any

from midalign.report.charts import interval_row, key_marker
from midalign.report.layers import layer_chart, percent_with_interval
from midalign.report.results import Results, style_of
from midalign.report.views import Estimate, ProbeLayer, RunView
from midalign.report.words import group_name, percent, system_name

Span = tuple[float, float]


def group_charts(run: RunView) -> list[dict[str, Any]]:
    """The layer chart of every group that the probes report."""
    names = dict.fromkeys(name for p in run.probes.values() for entry in p.layers for name in entry.groups)
    return [{"name": group_name(name), "chart": layer_chart(run, name)} for name in names if name != "all"]


def group_table(results: Results) -> dict[str, Any] | None:
    """Retrieval of every group at the aligned layer, else at the best one: the systems before and after, else all.

    Scripts and families are sorted by what the last system reaches.
    """
    run = results.run
    systems = [system for system in results.systems if system in run.probes] or list(run.probed)
    if not systems:
        return None
    layer = run.probes[systems[-1]].best_layer if run.aligned_layer is None else run.aligned_layer
    found = _by_group([run.probes[system].at(layer) for system in systems])
    known = [estimate for estimates in found.values() for estimate in estimates if estimate is not None]
    if not known:
        return None
    span = (0.0, max(e.value if e.high is None else e.high for e in known))
    styles = [style_of(run, system) for system in systems]
    return {
        "layer": layer,
        "systems": [(system_name(s), key_marker(style)) for s, style in zip(systems, styles, strict=True)],
        "axis": percent(span[1]),
        "rows": [_row(name, found[name], styles, span) for name in sorted(found, key=lambda n: _order(n, found[n]))],
    }


def _by_group(entries: list[ProbeLayer | None]) -> dict[str, list[Estimate | None]]:
    """Group to the estimates of all systems; None where a system has none."""
    names = dict.fromkeys(name for entry in entries if entry for name in entry.groups)
    return {name: [entry.groups.get(name) if entry else None for entry in entries] for name in names}


def _order(name: str, estimates: list[Estimate | None]) -> tuple[int, str, float]:
    """Groups that the recipe gives stay first, in their order; scripts and families follow, the highest first."""
    kind, is_derived, _ = name.partition(":")
    last = estimates[-1]
    return (1, kind, -(last.value if last else 0.0)) if is_derived else (0, "", 0.0)


def _row(name: str, estimates: list[Estimate | None], styles: list[int], span: Span) -> dict[str, Any]:
    texts = ["" if estimate is None else percent_with_interval(estimate) for estimate in estimates]
    drawn = [(style, estimate) for style, estimate in zip(styles, estimates, strict=True) if estimate is not None]
    plot = interval_row(drawn, span, f"{group_name(name)}: {', '.join(texts)}", width=150)
    return {"name": group_name(name), "cells": texts, "plot": plot}
