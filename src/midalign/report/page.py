"""The report: one self-contained page from one or more run folders, and the closing table of the command line.

1. `midalign.report.runs` reads the folders, `midalign.report.sections` makes tables and charts of them,
   `midalign.report.words` says what they mean.
2. ``page.html`` is filled in with every text escaped; ``page.css`` and ``page.js`` go inline, so
   that the page opens without any network, and its content security policy forbids one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from rich.markup import escape
from rich.table import Table

from midalign.errors import RunError
from midalign.files import write_atomically
from midalign.report import probes, sections
from midalign.report.runs import RunView, read_run
from midalign.report.together import named_apart, side_by_side
from midalign.report.words import SYMBOLS, comparisons, group_name, metric_name, points, system_name

PAGE = "report.html"


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Write ``report.html`` for one or more run folders; whole or not at all.

    Args:
        runs: Folders of ``midalign run``, ``demo``, ``probe``, ``train`` or ``evaluate``.
        out: Folder to write into.

    Returns:
        The path of the page.

    Raises:
        RunError: No folder, a folder without any result, a damaged file, or `out` cannot be written to.
    """
    page = render_report(runs)
    path = out / PAGE
    write_atomically(path, page)
    return path


def render_report(runs: Sequence[Path]) -> str:
    """The page as HTML; parts that a run has no files for are left out, and a whole run's gaps are named.

    Raises:
        RunError: As `write_report`.
    """
    if not runs:
        raise RunError("there is no run to report; give at least one folder that midalign wrote")
    views = named_apart([read_run(Path(run)) for run in runs])
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_resource),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = _score_markup
    template = environment.get_template("page.html")
    return template.render(
        runs=[_context(view) for view in views],
        together=side_by_side(views) if len(views) > 1 else None,
        style=_resource("page.css"),
        script=_resource("page.js"),
    )


def _resource(name: str) -> str:
    return resources.files("midalign.report").joinpath(name).read_text(encoding="utf-8")


def _score_markup(text: str) -> Markup:
    """A score with its interval, the interval in small print."""
    value, _, interval = text.partition(" (")
    return Markup('{} <span class="range">{}</span>').format(value, interval.rstrip(")").replace(" to ", "\N{EN DASH}"))


def _context(run: RunView) -> dict[str, Any]:
    """Everything that the template shows of one run."""
    results = sections.Results(run)
    return {
        "name": run.name,
        "task": str(run.summary.get("task", "")),
        "command": str(run.manifest.get("command", "")),
        "before": system_name(results.before) if results.before else "Before",
        "after": system_name(results.after) if results.after else "After",
        "missing": run.missing,
        "metric": metric_name(results.main) if results.main else "",
        "verdicts": sections.verdicts(run, results),
        "retrieval": sections.retrieval_sentence(run),
        "lead": "" if run.scores else probes.lead(run),
        "table": sections.language_table(run, results),
        "layers": probes.layer_chart(run),
        "layer_table": probes.layer_table(run),
        "groups": probes.group_table(run, results),
        "by_layer": probes.by_layer_charts(run),
        "group_charts": probes.group_charts(run),
        "cost": sections.cost(run),
        "examples": sections.examples(run),
        "scores": sections.score_table(run, results),
        "comparisons": sections.comparison_table(results),
        "heat": probes.heat_data(run, results.after),
        "projections": probes.projections(run),
        "fertility": probes.fertility_table(run),
        "merge": sections.merge(run, results),
        "training": sections.training_charts(run),
        "correlations": probes.correlations(run, results),
        "signatures": sections.signatures(run),
        "provenance": sections.provenance(run),
    }


def summary_table(summary: Mapping[str, Any], scores: Mapping[str, Iterable[Mapping[str, Any]]]) -> Table:
    """The closing table of the command line: groups down, systems across, and the change that training brought.

    Args:
        summary: The content of ``summary.json``.
        scores: By system, the entries of its ``scores.json``.

    Returns:
        A rich table: the main metric in points with its 95 % interval, and every comparison with the baseline as
        difference and interval, marked as better, worse or unclear.
    """
    metric = str(summary.get("main_metric") or "")
    rows: dict[str, dict[str, str]] = {}
    for system, entries in scores.items():
        for entry in entries:
            group = entry.get("group")
            if entry["metric"] == metric and group and not entry.get("language"):
                low, high = points(metric, entry["low"]), points(metric, entry["high"])
                rows.setdefault(str(group), {})[system] = f"{points(metric, entry['value'])} [dim]{low} to {high}[/dim]"
    systems = [name for name in summary.get("systems", scores) if name in scores]
    found = [c for c in comparisons(summary.get("comparisons", ())) if c.metric == metric and c.key in rows]
    pairs = list(dict.fromkeys((c.baseline, c.system) for c in found))
    name = escape(str(summary.get("name") or "Results"))
    table = Table(title=f"{name}: {metric_name(metric)}, points out of 100, 95 % intervals")
    table.add_column("Languages")
    for system in systems:
        table.add_column(system_name(system), justify="right")
    for baseline, system in pairs:
        table.add_column(f"{system} − {baseline}", justify="right")
    colours = {"better": "green", "worse": "red", "unclear": "default"}
    for group, cells in rows.items():
        by_pair = {(c.baseline, c.system): c for c in found if c.key == group}
        changes = []
        for pair in pairs:
            c = by_pair.get(pair)
            text = f"[{colours[c.outcome]}]{SYMBOLS[c.outcome]} {c.text}[/]" if c else ""
            changes.append(text)
        table.add_row(group_name(group), *(cells.get(system, "") for system in systems), *changes)
    return table
