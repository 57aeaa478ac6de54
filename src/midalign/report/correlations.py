"""The report's correlations: scatter charts of retrieval and the main score over languages, first levels, then changes.

``transfer.json`` and ``gains.json`` have all numbers, coefficients included; here they are only drawn.
"""

from __future__ import annotations

from typing import Any

from midalign.report.charts import Dot, scatter_chart
from midalign.report.results import Results
from midalign.report.views import Coefficient, RunView, Transfer
from midalign.report.words import LEVEL, MINUS, metric_name, scale, system_name

_STYLES = {"aligned": 2, "unseen": 1}


def correlations(results: Results) -> list[dict[str, Any]]:
    """One chart for each system that has levels or changes; none where they do not differ between languages.

    Levels are shown at the probe's best layer, changes at the aligned one.
    """
    run = results.run
    charts = []
    for system, transfer in run.transfers.items():
        layer = run.probes[system].best_layer
        axes = (
            f"retrieval, {system_name(system).lower()}, layer {layer}, %",
            metric_name(transfer.metric) + (f", {system_name(results.before).lower()}" if run.is_whole else ""),
        )
        charts.append(_chart(run, transfer, layer, axes, "Does retrieval predict transfer?"))
    for system, gains in run.gains.items():
        layer = run.probes[system].best_layer if run.aligned_layer is None else run.aligned_layer
        axes = (f"change of retrieval at layer {layer}, points", f"change of {metric_name(gains.metric)}, points")
        question = f"Does more alignment bring more transfer? {system_name(system)}"
        charts.append(_chart(run, gains, layer, axes, question))
    return [chart for chart in charts if chart is not None]


def _chart(run: RunView, transfer: Transfer, layer: int, axes: tuple[str, str], question: str) -> dict[str, Any] | None:
    """One scatter chart with its coefficients in words and its numbers as a table."""
    found = transfer.layers.get(layer)
    if found is None or found.pearson is None or found.spearman is None:
        return None
    languages = [run.languages[code] for code in transfer.languages]
    xs = [100 * value for value in found.retrieval]
    ys = [value * scale(transfer.metric) for value in transfer.scores]
    x_label, y_label = axes
    dots = [
        Dot(x, y, language.code[:3], f"{language.name}: {x:.1f}, {y:.1f}", _STYLES.get(language.role, 0))
        for language, x, y in zip(languages, xs, ys, strict=True)
    ]
    return {
        "question": question,
        "chart": scatter_chart(dots, x_label, y_label, f"{y_label} against {x_label}, one point per language"),
        "text": _text(found.pearson, found.spearman, len(languages)),
        "rows": [(language.name, f"{x:.1f}", f"{y:.1f}") for language, x, y in zip(languages, xs, ys, strict=True)],
    }


def _text(pearson: Coefficient, spearman: Coefficient, languages: int) -> str:
    """``Pearson 0.71 (95 % interval 0.42 to 0.90, p = 0.003), Spearman ..., 12 languages``."""
    low, high = pearson.estimate.low, pearson.estimate.high
    interval = "" if low is None or high is None else f"95 % interval {low:.2f} to {high:.2f}, "
    # Over few languages the bootstrap's interval is on the narrow side, so the p-value has a say as well.
    is_clear = pearson.p_value < LEVEL and (low is None or high is None or not low <= 0 <= high)
    return (
        f"Pearson {pearson.estimate.value:.2f} ({interval}p = {pearson.p_value:.2g}), "
        f"Spearman {spearman.estimate.value:.2f} (p = {spearman.p_value:.2g}), {languages} languages"
        + ("" if is_clear else ". No clear relation")
    ).replace("-", MINUS)
