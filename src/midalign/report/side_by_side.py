"""The report's part that sets several runs side by side, and sums up runs that differ in their seed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from midalign.functional.statistics import mean_interval
from midalign.report.charts import Series, line_chart
from midalign.report.results import Results, with_interval
from midalign.report.views import Probe, RunView
from midalign.report.words import SYMBOLS, Difference, group_name, metric_name, percent, points, system_name

_SHOWN_GROUPS = ("supervised", "aligned", "unseen", "transfer", "all")


def named_apart(runs: Sequence[RunView]) -> list[RunView]:
    """The runs, those of equal names with their folder behind it, and as many parents as tell them apart."""
    folders: dict[str, list[Path]] = {}
    for run in runs:
        folders.setdefault(run.name, []).append(run.folder.resolve())
    return [
        replace(run, name=f"{run.name}, {_end_of(run.folder.resolve(), alike)}") if len(alike) > 1 else run
        for run in runs
        for alike in [folders[run.name]]
    ]


def _end_of(folder: Path, folders: Sequence[Path]) -> Path:
    """The shortest end of a path that no other folder has; the whole path if there is none."""
    for length in range(1, len(folder.parts)):
        if sum(each.parts[-length:] == folder.parts[-length:] for each in folders) == 1:
            return Path(*folder.parts[-length:])
    return folder


def side_by_side(runs: Sequence[RunView]) -> dict[str, Any]:
    """Several runs in one table, a row per run and system, and for each system one chart with a line per run."""
    results = [Results(run) for run in runs]
    groups = list(dict.fromkeys(name for found in results for name in found.groups if name in _SHOWN_GROUPS))
    rows = [
        {"index": index, "run": found.run.name} | _row(found, system, groups)
        for index, found in enumerate(results)
        for system in found.run.systems
    ]
    return {
        "groups": [group_name(group) for group in groups],
        "rows": rows,
        "seeds": over_seeds(results, groups),
        "not_averaged": _other_test(results) if _one_recipe(results) else "",
        "charts": charts_of_runs(runs),
        "shows": {name: any(row[name] for row in rows) for name in ("system", "metric", "retrieval")},
    }


def _row(results: Results, system: str, groups: Sequence[str]) -> dict[str, Any]:
    """One system of one run: its main scores by group, and its best retrieval."""
    run = results.run
    probe = run.probes.get(system)
    best = probe.at(probe.best_layer) if probe else None
    return {
        "system": system_name(system) if run.is_whole else "",
        "metric": metric_name(results.main) if system in run.scores else "",
        "cells": [with_interval(results.main, results.score(system, group)) for group in groups],
        "retrieval": f"{percent(best.accuracy.value)} at layer {best.layer}" if best else "",
    }


def over_seeds(results: Sequence[Results], groups: Sequence[str]) -> dict[str, Any] | None:
    """Means over runs of one recipe: each system's mean and standard deviation, and the change with its t interval.

    None unless the runs have one recipe, with the same settings, systems and data, each a seed of its own, and their
    scores are of the same items and metric. Intervals are over the runs.
    """
    if not _one_recipe(results) or _other_test(results):
        return None
    first = results[0]
    rows = [row for group in groups if (row := _seeds_row(results, group)) is not None]
    names = (system_name(first.before), system_name(first.after))
    return {"n": len(results), "metric": metric_name(first.main), "systems": names, "rows": rows} if rows else None


def _one_recipe(results: Sequence[Results]) -> bool:
    """Whether the runs are of one recipe, with the same systems, and each has a seed of its own."""
    first = results[0]
    kinds = {(_settings(found), found.run.systems, found.main) for found in results}
    seeds = {found.run.recipe.get("seed") for found in results}
    return len(kinds) == 1 and len(seeds) == len(results) and bool(first.run.summary and first.before)


def _other_test(results: Sequence[Results]) -> str:
    """Why runs of one recipe are no runs of one test: other data, items or signatures; empty where they are."""
    data = [found.run.manifest.get("data") or {} for found in results]
    if len({tuple(sorted(hashes.values())) for hashes in data}) > 1:
        paths = dict.fromkeys(path for hashes in data for path in hashes)
        changed = [path for path in paths if len({hashes.get(path) for hashes in data}) > 1]
        return f"the content of {' and '.join(changed)} was not the same in all runs"
    of_main = [(system, key) for system, metric, key in results[0].scores if metric == results[0].main]
    return next((why for system, key in of_main if (why := _other_score(results, system, key))), "")


def _other_score(results: Sequence[Results], system: str, key: str) -> str:
    """Why a score of the main metric is not one number in all runs; empty where it is."""
    scores = [score for found in results if (score := found.score(system, key)) is not None]
    language = results[0].run.languages.get(key)
    where = language.name if language else group_name(key)
    what = f"{metric_name(results[0].main)} of {system_name(system)} on {where}"
    counts = sorted({score.n for score in scores})
    if len(counts) > 1:
        return f"{what} is {' and '.join(f'over {n}' for n in counts)} items"
    if len({score.signature for score in scores}) > 1:
        return f"{what} was computed in different ways (see the signatures of the scores)"
    return ""


def _settings(found: Results) -> str:
    """All that the recipe of a run says, but for the seed."""
    return json.dumps({name: value for name, value in found.run.recipe.items() if name != "seed"}, sort_keys=True)


def _seeds_row(results: Sequence[Results], group: str) -> dict[str, Any] | None:
    """One group; None where fewer than two runs have it, which give no interval."""
    first = results[0]
    pairs = [(found.value(first.before, group), found.value(first.after, group)) for found in results]
    known = [(before, after) for before, after in pairs if before is not None and after is not None]
    if len(known) < 2:
        return None
    before, after = (mean_interval([pair[side] for pair in known]) for side in (0, 1))
    changes = [after - before for before, after in known]
    change = mean_interval(changes)
    found = Difference(
        first.before, first.after, first.main, group, change.mean, change.low, change.high, p=None, p_holm=None
    )
    return {
        "name": group_name(group),
        "cells": [f"{points(first.main, s.mean)} (SD {points(first.main, s.sd)})" for s in (before, after)],
        "text": f"{found.text}, higher in {sum(value > 0 for value in changes)} of {len(changes)}",
        "outcome": found.outcome,
        "symbol": SYMBOLS[found.outcome],
    }


def charts_of_runs(runs: Sequence[RunView]) -> list[dict[str, Any]]:
    """For each system that runs have in common (or the one of a single verb), its layer curve in every run.

    Where the models differ in depth, layers are shown as a share of it.
    """
    by_system: dict[str, list[tuple[str, Probe]]] = {}
    for run in runs:
        for system, probe in run.probed.items():
            by_system.setdefault(system_name(system) if run.is_whole else "", []).append((run.name, probe))
    return [{"name": name, "chart": _curves(name, probes)} for name, probes in by_system.items()]


def _curves(name: str, probes: Sequence[tuple[str, Probe]]) -> Markup:
    """One line per run."""
    depths = {probe.layers[-1].layer for _, probe in probes}
    same_depth = len(depths) == 1
    series = []
    for i, (run, probe) in enumerate(probes):
        unit = 1.0 if same_depth else max(probe.layers[-1].layer, 1) / 100
        series.append(Series(run, i, [(entry.layer / unit, entry.accuracy) for entry in probe.layers]))
    x_label = "layer (0 = embeddings)" if same_depth else "layer, % of the model's depth"
    return line_chart(series, x_label, "retrieval accuracy, %", f"Retrieval by layer, {name}", percent=True)
