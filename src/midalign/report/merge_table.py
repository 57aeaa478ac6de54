"""The report's table of merge weights: the candidates on dev, and the chosen one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from midalign.report.charts import Series, line_chart
from midalign.report.form import number
from midalign.report.results import Results
from midalign.report.views import Estimate
from midalign.report.words import metric_name, points, scale


def merge_table(results: Results) -> dict[str, Any] | None:
    """Merge table: all candidates on dev, with a mark at the chosen one."""
    content = results.run.summary.get("merge")
    if not content or not content.get("table"):
        return None
    chosen = dict(content.get("chosen") or {})
    names = list(dict.fromkeys(name for entry in content["table"] for name in entry["weights"]))
    metric = str(content.get("metric") or results.main)
    return {
        "method": content.get("method", ""),
        "metric": metric_name(metric),
        "flat": bool(content.get("flat")),
        "names": names,
        "rows": [_merge_row(entry, names, chosen, metric) for entry in content["table"]],
        "chart": _merge_chart(content["table"], chosen.get("alignment"), metric),
    }


def _merge_row(entry: Mapping[str, Any], names: list[str], chosen: Mapping[str, Any], metric: str) -> dict[str, Any]:
    weights = [entry["weights"].get(name, "") for name in names]
    found = _dev_score(entry)
    interval = ""
    if found.low is not None and found.high is not None:
        interval = f" ({points(metric, found.low)} to {points(metric, found.high)})"
    return {
        "weights": [_shown(weight) for weight in weights],
        "chosen": weights == [chosen.get(name, "") for name in names],
        "score": points(metric, found.value) + interval,
    }


def _merge_chart(table: list[Mapping[str, Any]], mark: Any, metric: str) -> Markup:
    """Dev score by the weight of the alignment adapter, a line for each weight of the task adapter."""
    lines: dict[Any, list[tuple[float, Estimate]]] = {}
    for entry in table:
        weights = entry["weights"]
        lines.setdefault(weights.get("task"), []).append((_mean(weights.get("alignment", 0.0)), _dev_score(entry)))
    series = [
        Series(f"task weight {task:g}" if task is not None else "", 3 + i, sorted(line, key=lambda p: p[0]))
        for i, (task, line) in enumerate(lines.items())
    ]
    is_fraction = scale(metric) > 1
    return line_chart(
        series,
        "weight of the alignment adapter",
        f"dev {metric_name(metric)}" + (", %" if is_fraction else ""),
        "Dev score by weight of the alignment adapter",
        None if mark is None else (_mean(mark), "chosen"),
        percent=is_fraction,
        from_zero=False,
    )


def _dev_score(entry: Mapping[str, Any]) -> Estimate:
    return Estimate(float(entry["score"]), number(entry.get("low")), number(entry.get("high")))


def _mean(weight: Any) -> float:
    """One number for a weight: the mean where there is one per band of layers."""
    return sum(weight) / len(weight) if isinstance(weight, list) else float(weight)


def _shown(weight: Any) -> Any:
    return " / ".join(f"{w:g}" for w in weight) if isinstance(weight, list) else weight
