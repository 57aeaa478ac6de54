"""The report's parts that show retrieval layer by layer: curves, and the numbers behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from midalign.report.charts import Series, line_chart
from midalign.report.results import style_of
from midalign.report.views import Curve, Estimate, Probe, ProbeLayer, RunView
from midalign.report.words import group_name, percent, system_name

_LAYER_AXIS = "layer (0 = embeddings)"


def layer_chart(run: RunView, group: str = "") -> Markup:
    """Retrieval by layer, a line for each probed system; over all languages or of one group."""
    title = f"Share of sentences that retrieve their translation, by layer, {group_name(group or 'all').lower()}"
    curves = {system: _curve(probe, group) for system, probe in run.probed.items()}
    return _chart(run, curves, "retrieval accuracy, %", title)


def by_layer_charts(run: RunView) -> list[dict[str, Any]]:
    """Change of retrieval against the model before, and its correlation with downstream scores, layer by layer."""
    correlations = {
        system: [
            (float(layer), found.pearson.estimate)
            for layer, found in transfer.layers.items()
            if found.pearson is not None  # where all languages have the same accuracy there is no correlation
        ]
        for system, transfer in run.transfers.items()
    }
    change, transfer = "Change of retrieval by layer", "Does retrieval predict transfer, by layer?"
    charts = {
        change: _chart(run, run.changes, "change, points", change),
        transfer: _chart(run, correlations, "Pearson's r", transfer, percent_axis=False),
    }
    return [{"name": name, "chart": chart} for name, chart in charts.items() if chart]


def _curve(probe: Probe, group: str) -> Curve:
    found = [(float(e.layer), e.groups.get(group) if group else e.accuracy) for e in probe.layers]
    return [(layer, estimate) for layer, estimate in found if estimate is not None]


def _chart(run: RunView, curves: Mapping[str, Curve], y_label: str, title: str, *, percent_axis: bool = True) -> Markup:
    """A line for each system, with the aligned layer marked."""
    series = [Series(system_name(system), style_of(run, system), curve) for system, curve in curves.items()]
    mark = None if run.aligned_layer is None else (float(run.aligned_layer), f"aligned layer {run.aligned_layer}")
    return line_chart(series, _LAYER_AXIS, y_label, title, mark, percent=percent_axis)


def layer_table(run: RunView) -> dict[str, Any] | None:
    """The numbers behind the layer chart: per layer and system the accuracy, its interval and the anisotropy."""
    probes = run.probed
    if not probes:
        return None
    layers = sorted({entry.layer for probe in probes.values() for entry in probe.layers})
    rows = [(layer, [_cells(probe.at(layer)) for probe in probes.values()]) for layer in layers]
    facts = {system_name(system): _facts(probe) for system, probe in probes.items()}
    same = len(set(facts.values())) == 1
    return {
        "systems": list(facts),
        "rows": rows,
        "best": [f"{system_name(system)}: layer {probe.best_layer}" for system, probe in probes.items()],
        "anisotropy": any(anisotropy for _, cells in rows for _, anisotropy in cells),
        "facts": [*facts.values()][:1] if same else [f"{name}: {text}" for name, text in facts.items()],
    }


def _facts(probe: Probe) -> str:
    """How the probe was made: ``16 languages, 240 directions, n = 500, ..., chance 0.2 %``."""
    languages = len(probe.languages)
    words = [f"{languages} languages, {languages * (languages - 1)} directions"]
    words += [f"{key} = {value}" for key, value in probe.facts.items()]
    sentences = probe.facts.get("n")
    if isinstance(sentences, int) and sentences > 0:
        words.append(f"chance {percent(1 / sentences)}")
    return ", ".join(words)


def _cells(entry: ProbeLayer | None) -> tuple[str, str]:
    """Accuracy and anisotropy as text; empty where the layer was not probed."""
    if entry is None:
        return "", ""
    return percent_with_interval(entry.accuracy), "" if entry.anisotropy is None else f"{entry.anisotropy:.3f}"


def percent_with_interval(accuracy: Estimate) -> str:
    """``45.2 % (43.1 to 47.0)``, or the percentage alone where no interval is known."""
    text = percent(accuracy.value)
    if accuracy.low is not None and accuracy.high is not None:
        text += f" ({100 * accuracy.low:.1f} to {100 * accuracy.high:.1f})"
    return text
