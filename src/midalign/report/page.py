"""The report: one self-contained page from one or more run folders.

1. `midalign.report.read` reads the folders; each of the other modules makes one part of the page, tables as plain rows
   and charts as SVG; `midalign.report.words` has the words.
2. ``page.html`` is filled in with every text escaped; ``page.css`` and ``page.js`` go inline, so
   that the page opens without any network, and its content security policy forbids one.

A part is None or an empty list where the run has nothing to show; the template then leaves it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from midalign.errors import RunError
from midalign.files import write_atomically
from midalign.report.correlations import correlations
from midalign.report.groups import group_charts, group_table
from midalign.report.heat_map import heat_data
from midalign.report.language_table import language_table
from midalign.report.layers import by_layer_charts, layer_chart, layer_table
from midalign.report.merge_table import merge_table
from midalign.report.provenance import provenance
from midalign.report.read import read_run
from midalign.report.results import Results
from midalign.report.score_table import comparison_table, score_table, signatures
from midalign.report.sentences import examples, fertility_table, projections
from midalign.report.side_by_side import named_apart, side_by_side
from midalign.report.training import cost, training_charts
from midalign.report.verdicts import lead, retrieval_sentence, verdicts
from midalign.report.views import RunView
from midalign.report.words import metric_name, system_name

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
    results = Results(run)
    return {
        "name": run.name,
        "task": str(run.summary.get("task", "")),
        "whole": run.is_whole,
        "command": str(run.manifest.get("command", "")),
        "before": system_name(results.before) if results.before else "Before",
        "after": system_name(results.after) if results.after else "After",
        "missing": run.missing,
        "metric": metric_name(results.main) if results.main else "",
        "verdicts": verdicts(results),
        "retrieval": retrieval_sentence(run),
        "lead": "" if run.scores else lead(run),
        "table": language_table(results),
        "layers": layer_chart(run),
        "layer_table": layer_table(run),
        "groups": group_table(results),
        "by_layer": by_layer_charts(run),
        "group_charts": group_charts(run),
        "cost": cost(run),
        "examples": examples(run),
        "scores": score_table(results),
        "comparisons": comparison_table(results),
        "heat": heat_data(run, results.after),
        "projections": projections(run),
        "fertility": fertility_table(run),
        "merge": merge_table(results),
        "training": training_charts(run),
        "correlations": correlations(results),
        "signatures": signatures(results),
        "provenance": provenance(run),
    }
