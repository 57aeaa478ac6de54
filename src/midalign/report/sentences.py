"""The report's parts about sentences: 2-D projection, tokens per word, and answers that changed."""

from __future__ import annotations

from typing import Any

from midalign.report.charts import projection_chart
from midalign.report.form import number
from midalign.report.views import RunView
from midalign.report.words import system_name


def projections(run: RunView) -> list[dict[str, Any]]:
    """The 2-D projections that the probes hold, one chart per system."""
    names = {code: language.name for code, language in run.languages.items()}
    charts = []
    for system, probe in run.probed.items():
        if probe.projection is None:
            continue
        points = probe.projection["points"]
        title = f"{system_name(system)}, layer {probe.projection['layer']}"
        chart = projection_chart(points, names, f"Projection of the same sentences: {title}")
        sentences = max(map(len, points.values()))
        charts.append({"title": title, "chart": chart, "codes": list(points), "sentences": sentences})
    return charts


def fertility_table(run: RunView) -> dict[str, Any] | None:
    """Tokens per sentence, character and word by language, from the first probe that has them."""
    found = next((probe.fertility for probe in run.probed.values() if probe.fertility), None)
    if not found:
        return None
    columns = dict.fromkeys(key for entry in found.values() for key in entry if key.startswith("tokens_per"))
    rows = [
        (run.languages[code].name, run.languages[code].script, [_two_decimals(entry.get(c)) for c in columns])
        for code, entry in found.items()
    ]
    return {"columns": [column.replace("_", " ") for column in columns], "rows": rows}


def _two_decimals(value: Any) -> str:
    plain = number(value)
    return "" if plain is None else f"{plain:.2f}"


def examples(run: RunView) -> list[dict[str, Any]]:
    """Sentences whose answer changed, helped ones first, with their language's name and a tag for the browser."""
    found = [{**entry, **_language(run, str(entry.get("language", "")))} for entry in run.summary.get("examples", ())]
    return sorted(found, key=lambda entry: entry.get("kind") != "helped")


def _language(run: RunView, code: str) -> dict[str, str]:
    language = run.languages.get(code)
    if language is None:
        return {"language_name": code, "tag": "", "role": ""}
    return {"language_name": language.name, "tag": f"{code[:3]}-{language.script}", "role": language.role}
