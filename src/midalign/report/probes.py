"""The report's parts that show retrieval: layer curves, heat maps, projections, and retrieval against scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from scipy import stats

from midalign.report.charts import Dot, Series, interval_row, key_marker, line_chart, projection_chart, scatter_chart
from midalign.report.runs import Estimate, Probe, RunView, number
from midalign.report.sections import Results, style_of
from midalign.report.words import group_name, metric_name, percent, scale, system_name

_FEWEST_TO_CORRELATE = 4
_MATRIX_CHARACTERS = 1_600_000  # of the page's 3 MB; two characters a cell
_MISSING_CELL = "zz"


def layer_chart(run: RunView, group: str = "") -> Any:
    """Retrieval by layer, a line for each probed system; over all languages or of one group."""
    series = []
    for system in run.systems:
        if system not in run.probes:
            continue
        entries = [
            (float(entry.layer), entry.groups.get(group) if group else entry.accuracy)
            for entry in run.probes[system].layers
        ]
        known = [(layer, estimate) for layer, estimate in entries if estimate is not None]
        series.append(Series(system_name(system), style_of(run, system), known))
    layer = run.aligned_layer
    title = f"Share of sentences that retrieve their translation, by layer, {group_name(group or 'all').lower()}"
    mark = None if layer is None else (float(layer), f"aligned layer {layer}")
    return line_chart(series, "layer (0 = embeddings)", "retrieval accuracy, %", title, mark, percent=True)


def lead(run: RunView) -> str:
    """What a probe without scores says, in two sentences."""
    sentences = []
    for system in run.systems:
        probe = run.probes.get(system)
        best = probe.at(probe.best_layer) if probe else None
        if probe is None or best is None:
            continue
        name = f"{system_name(system)}: " if run.is_whole else ""
        first, last = probe.layers[0], probe.layers[-1]
        sentences.append(
            f"{name}at its best layer, {best.layer} of {last.layer}, {percent(best.accuracy.value)} of the sentences "
            f"find their translation; {percent(first.accuracy.value)} at layer {first.layer} and "
            f"{percent(last.accuracy.value)} at layer {last.layer}."
        )
        if probe.best_share is not None:
            sentences.append(
                f"It stays the best layer in {100 * probe.best_share:.0f} % of resamples of the sentences."
            )
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)


def layer_table(run: RunView) -> dict[str, Any] | None:
    """The numbers behind the layer chart: per layer and system the accuracy, its interval and the anisotropy."""
    systems = [system for system in run.systems if system in run.probes]
    if not systems:
        return None
    layers = sorted({entry.layer for system in systems for entry in run.probes[system].layers})
    rows: list[tuple[int, list[tuple[str, str]]]] = []
    for layer in layers:
        cells = []
        for system in systems:
            entry = run.probes[system].at(layer)
            cells.append(_layer_cells(entry.accuracy, entry.anisotropy) if entry else ("", ""))
        rows.append((layer, cells))
    best = [f"{system_name(s)}: layer {run.probes[s].best_layer}" for s in systems]
    anisotropy = any(cell[1] for _, cells in rows for cell in cells)
    facts = [f"{system_name(s)}: {_facts(run.probes[s])}" for s in systems]
    distinct = {_facts(run.probes[s]) for s in systems}
    return {
        "systems": [system_name(system) for system in systems],
        "rows": rows,
        "best": best,
        "spread": " or ".join(sorted({run.probes[s].spread for s in systems})),
        "anisotropy": anisotropy,
        "facts": [distinct.pop()] if len(distinct) == 1 else facts,
    }


def _facts(probe: Probe) -> str:
    words = [f"{len(probe.languages)} languages, {len(probe.languages) * (len(probe.languages) - 1)} directions"]
    words += [f"{key} = {value}" for key, value in probe.facts.items()]
    if isinstance(probe.facts.get("n"), int) and probe.facts["n"] > 0:
        words.append(f"chance {percent(1 / probe.facts['n'])}")
    return ", ".join(words)


def _layer_cells(accuracy: Estimate, anisotropy: float | None) -> tuple[str, str]:
    text = percent(accuracy.value)
    if accuracy.low is not None and accuracy.high is not None:
        text += f" ({100 * accuracy.low:.1f} to {100 * accuracy.high:.1f})"
    return text, "" if anisotropy is None else f"{anisotropy:.3f}"


def by_layer_charts(run: RunView) -> list[dict[str, Any]]:
    """Change of retrieval against the model before, and its correlation with downstream scores, layer by layer."""
    mark = None if run.aligned_layer is None else (float(run.aligned_layer), f"aligned layer {run.aligned_layer}")
    kinds = (
        ("Change of retrieval by layer", "change, points", run.changes, True),
        ("Does retrieval predict transfer, by layer?", "Pearson's r", run.transfers, False),
    )
    charts = []
    for name, y_label, curves, percent_axis in kinds:
        series = [Series(system_name(s), style_of(run, s), curve) for s, curve in curves.items()]
        chart = line_chart(series, "layer (0 = embeddings)", y_label, name, mark, percent=percent_axis)
        if chart:
            charts.append({"name": name, "chart": chart})
    return charts


def group_charts(run: RunView) -> list[dict[str, Any]]:
    """The layer chart of every group that the probes report."""
    names = dict.fromkeys(name for p in run.probes.values() for entry in p.layers for name in entry.groups)
    return [{"name": group_name(name), "chart": layer_chart(run, name)} for name in names if name != "all"]


def group_table(run: RunView, results: Results) -> dict[str, Any] | None:
    """Retrieval of every group at the aligned layer, else at the best one: the systems before and after, else all.

    Scripts and families are sorted by what the last system reaches.
    """
    pair = [system for system in (results.before, results.after) if system in run.probes]
    systems = pair or [system for system in run.systems if system in run.probes]
    if not systems:
        return None
    layer = run.probes[systems[-1]].best_layer if run.aligned_layer is None else run.aligned_layer
    entries = [run.probes[system].at(layer) for system in systems]
    names = dict.fromkeys(name for entry in entries if entry for name in entry.groups)
    found = {name: [entry.groups.get(name) if entry else None for entry in entries] for name in names}
    known = [e for estimates in found.values() for e in estimates if e is not None]
    if not known:
        return None
    span = (0.0, max(e.value if e.high is None else e.high for e in known))

    def order(name: str) -> tuple[int, str, float]:
        kind, is_derived, _ = name.partition(":")
        last = found[name][-1]
        return (1, kind, -(last.value if last else 0.0)) if is_derived else (0, "", 0.0)

    rows = []
    for name in sorted(names, key=order):
        texts = ["" if e is None else _layer_cells(e, None)[0] for e in found[name]]
        drawn = [(style_of(run, s), e) for s, e in zip(systems, found[name], strict=True) if e is not None]
        plot = interval_row(drawn, span, f"{group_name(name)}: {', '.join(texts)}", width=150)
        rows.append({"name": group_name(name), "cells": texts, "plot": plot})
    return {
        "layer": layer,
        "systems": [(system_name(system), key_marker(style_of(run, system))) for system in systems],
        "axis": percent(span[1]),
        "rows": rows,
    }


def heat_data(run: RunView, shown: str) -> dict[str, Any] | None:
    """The retrieval matrices for the page's script: per cell two base-36 digits of the accuracy times 1,000.

    The page starts with the system ``shown``, where it was probed.

    Where all layers of all systems would not fit into the page, evenly spread ones stay, with the first, the last, the
    aligned and the best ones.
    """
    probes = {s: run.probes[s] for s in run.systems if s in run.probes and run.probes[s].layers[0].matrix}
    if not probes:
        return None
    characters = sum(2 * len(p.languages) ** 2 * len(p.layers) for p in probes.values())
    every = max(1, math.ceil(characters / _MATRIX_CHARACTERS))
    codes = list(dict.fromkeys(code for probe in probes.values() for code in probe.languages))
    keys = ("name", "script", "family", "role", "resource")
    default = run.aligned_layer
    return {
        "languages": {code: {key: getattr(run.languages[code], key) for key in keys} for code in codes},
        "layer": next(iter(probes.values())).best_layer if default is None else default,
        "shown": list(probes).index(shown) if shown in probes else 0,
        "thinned": every > 1,
        "systems": [
            {"name": system_name(system), "codes": probe.languages, "layers": _layer_cells_encoded(run, probe, every)}
            for system, probe in probes.items()
        ],
    }


def _layer_cells_encoded(run: RunView, probe: Probe, every: int) -> dict[str, str]:
    always = {probe.layers[0].layer, probe.layers[-1].layer, probe.best_layer, run.aligned_layer}
    kept = [e for i, e in enumerate(probe.layers) if e.matrix and (i % every == 0 or e.layer in always)]
    return {str(e.layer): "".join(_digits(cell) for row in e.matrix for cell in row) for e in kept}


def _digits(cell: float | None) -> str:
    if cell is None:
        return _MISSING_CELL
    value = min(1000, max(0, round(1000 * cell)))
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    return digits[value // 36] + digits[value % 36]


def projections(run: RunView) -> list[dict[str, Any]]:
    """The 2-D projections that the probes hold, one chart per system and layer."""
    names = {code: language.name for code, language in run.languages.items()}
    charts = []
    for system in run.systems:
        probe = run.probes.get(system)
        for entry in probe.projection if probe else ():
            points_by_code = entry["points"]
            if not isinstance(points_by_code, Mapping):
                points_by_code = dict(zip(probe.languages if probe else (), points_by_code, strict=True))
            title = system_name(system) + (f", layer {entry['layer']}" if "layer" in entry else "")
            chart = projection_chart(points_by_code, names, f"Projection of the same sentences: {title}")
            sentences = max(len(p) for p in points_by_code.values())
            charts.append({"title": title, "chart": chart, "codes": list(points_by_code), "sentences": sentences})
    return charts


def fertility_table(run: RunView) -> dict[str, Any] | None:
    """Tokens per character and per word by language, from the first probe that has them."""
    found = next((run.probes[s].fertility for s in run.systems if s in run.probes and run.probes[s].fertility), None)
    if not found:
        return None
    columns: dict[str, None] = {}
    rows = []
    for code, entry in found.items():
        values = {key: value for key, value in entry.items() if key.startswith("tokens_per")}
        columns |= dict.fromkeys(values)
        language = run.languages.get(code)
        rows.append((language.name if language else code, language.script if language else "", values))
    texts = [
        (name, script, ["" if (v := number(values.get(c))) is None else f"{v:.2f}" for c in columns])
        for name, script, values in rows
    ]
    return {"columns": [column.replace("_", " ") for column in columns], "rows": texts}


def correlations(run: RunView, results: Results) -> list[dict[str, Any]]:
    """Retrieval against the main score over languages: levels before alignment, and changes by it.

    Retrieval of a language is the mean over its directions both ways. Levels take the base model's probe (else that of
    the system before) at its best layer, and languages without task data, as the paper's figure does.
    """
    before, after = run.probes.get(results.before), run.probes.get(results.after)
    base = run.probes.get("base") or before
    charts = []
    transfer = {code for code, language in run.languages.items() if language.role != "supervised"}
    if base is not None and results.before:
        retrieval = base.language_accuracy(base.best_layer)
        pairs = {c: (r, results.value(results.before, c)) for c, r in retrieval.items() if c in transfer}
        source = "base model" if "base" in run.probes else system_name(results.before).lower()
        x_label = f"retrieval, {source}, layer {base.best_layer}, %"
        y_label = f"{metric_name(results.main)}, {system_name(results.before).lower()}"
        charts.append(_correlation(run, results, pairs, x_label, y_label, "Does retrieval predict transfer?"))
    layer = run.aligned_layer if run.aligned_layer is not None else (after.best_layer if after else 0)
    if before is not None and after is not None:
        old, new = before.language_accuracy(layer), after.language_accuracy(layer)
        changes: dict[str, tuple[float, float | None]] = {}
        for code in [c for c in new if c in old and c in transfer]:
            first, second = results.value(results.before, code), results.value(results.after, code)
            changes[code] = (new[code] - old[code], None if first is None or second is None else second - first)
        x_label = f"change of retrieval at layer {layer}, points"
        y_label = f"change of {metric_name(results.main)}, points"
        charts.append(_correlation(run, results, changes, x_label, y_label, "Does more alignment bring more transfer?"))
    return [chart for chart in charts if chart is not None]


def _correlation(
    run: RunView,
    results: Results,
    pairs: Mapping[str, tuple[float, float | None]],
    x_label: str,
    y_label: str,
    question: str,
) -> dict[str, Any] | None:
    known = {code: (100 * x, y * scale(results.main)) for code, (x, y) in pairs.items() if y is not None}
    xs, ys = [x for x, _ in known.values()], [y for _, y in known.values()]
    if len(known) < _FEWEST_TO_CORRELATE or len(set(xs)) < 2 or len(set(ys)) < 2:
        return None
    pearson, spearman = stats.pearsonr(xs, ys), stats.spearmanr(xs, ys)
    interval = pearson.confidence_interval()
    clear = "" if interval.low > 0 or interval.high < 0 else ". No clear relation: the interval covers 0"
    styles = {"aligned": 2, "unseen": 1}
    dots = [
        Dot(x, y, code[:3], f"{run.languages[code].name}: {x:.1f}, {y:.1f}", styles.get(run.languages[code].role, 0))
        for code, (x, y) in known.items()
    ]
    return {
        "question": question,
        "chart": scatter_chart(dots, x_label, y_label, f"{y_label} against {x_label}, one point per language"),
        "text": f"Pearson {pearson.statistic:.2f} (95 % interval {interval.low:.2f} to {interval.high:.2f}, "
        f"p = {pearson.pvalue:.2g}), Spearman {spearman.statistic:.2f} (p = {spearman.pvalue:.2g}), "
        f"{len(known)} languages{clear}".replace("-", "\N{MINUS SIGN}"),
        "rows": [(run.languages[code].name, f"{x:.1f}", f"{y:.1f}") for code, (x, y) in known.items()],
    }
