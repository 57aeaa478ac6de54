"""The report's parts about training: cost and loss curves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from midalign.report.charts import Series, line_chart
from midalign.report.form import number
from midalign.report.results import style_of
from midalign.report.views import Curve, Estimate, RunView
from midalign.report.words import seconds, system_name

_MOST_LOGGED = 300
_LOSSES = {"task_loss": "Task loss", "alignment_loss": "Alignment loss", "loss": "Loss", "eval_loss": "Dev loss"}


def cost(run: RunView) -> dict[str, Any] | None:
    """Seconds and updates of each training, against task fine-tuning alone, and the time of each stage."""
    rows = _cost_rows(run)
    timings = _known({**(run.manifest.get("timings") or {}), **(run.summary.get("timings") or {})})
    if not rows and not timings:
        return None
    # A resumed run's own total is that of its last call; the stages of all calls together may be more.
    total = max(timings.get("total", 0.0), sum(value for name, value in timings.items() if name != "total"))
    return {
        "rows": rows,
        "stages": [(name, seconds(value)) for name, value in timings.items()],
        "total": seconds(total) if total else "",
    }


def _cost_rows(run: RunView) -> list[dict[str, Any]]:
    trained: Mapping[str, Mapping[str, Any]] = run.summary.get("training") or run.logs
    spent = _known({system: entry.get("seconds") for system, entry in trained.items()})
    reference = spent.get("sft")
    return [
        {
            "name": system_name(system),
            "seconds": seconds(value),
            "ratio": f"{value / reference:.2f}" if reference and system != "sft" else "",
            "updates": trained[system].get("updates", ""),
        }
        for system, value in spent.items()
    ]


def _known(values: Mapping[str, Any]) -> dict[str, float]:
    """The entries that are finite numbers."""
    return {str(name): plain for name, value in values.items() if (plain := number(value)) is not None}


def training_charts(run: RunView) -> list[dict[str, Any]]:
    """Task loss and alignment loss by step, a line for each training that logs it."""
    charts: list[dict[str, Any]] = []
    for key, name in _LOSSES.items():
        if key == "loss" and charts:
            continue  # the Trainer's own loss mixes both objectives; shown only where nothing better was logged
        curves = {system: _logged(log, key) for system, log in run.logs.items()}
        series = [Series(system_name(system), style_of(run, system), curve) for system, curve in curves.items()]
        chart = line_chart(series, "update", name.lower(), f"{name} by update", from_zero=False)
        if chart:
            charts.append({"name": name, "chart": chart})
    return charts


def _logged(log: Mapping[str, Any], key: str) -> Curve:
    """One quantity of a training log by step, thinned to what a chart can show."""
    found = [(float(e["step"]), value) for e in log["log_history"] if (value := number(e.get(key))) is not None]
    every = math.ceil(len(found) / _MOST_LOGGED) or 1
    return [(step, Estimate(value)) for step, value in found[::every]]
