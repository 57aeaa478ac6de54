"""The report's first table: every language before and after alignment, grouped by role."""

from __future__ import annotations

from typing import Any

from midalign.records import Score
from midalign.report.charts import interval_row, key_marker
from midalign.report.results import Results, score_key, style_of, with_interval
from midalign.report.views import Estimate
from midalign.report.words import (
    ROLE_MEANINGS,
    ROLES,
    SYMBOLS,
    group_name,
    metric_name,
    points,
    signed,
    system_name,
)

Span = tuple[float, float]


def language_table(results: Results) -> dict[str, Any] | None:
    """Language table: the scores of each language before and after, with intervals; one block per role, its mean first.

    Returns:
        What the template shows; None where no language has a score of the main metric.
    """
    keys = _keys(results)
    scores = [found for s in results.systems for key in keys if (found := results.score(s, key)) is not None]
    if not scores:
        return None
    span = (min(score.low for score in scores), max(score.high for score in scores))
    language_of = {score_key(score): score.language or "" for score in scores}
    blocks = []
    for role in (*ROLES, ""):
        members = {key: language_of[key] for key in keys if results.run.languages[language_of[key]].role == role}
        if members:
            blocks.append(_block(results, role, members, span))
    rows = [row for block in blocks for row in block["rows"]]
    return {
        "blocks": blocks,
        "changes": bool(results.before),
        "starred": any(row["change"].endswith("*") for row in rows),
        "metric": metric_name(results.main),
        "axis": (points(results.main, span[0]), points(results.main, span[1])),
        **_heads(results),
    }


def _keys(results: Results) -> list[str]:
    """The languages (or directions of translation) with a main score of the system after."""
    scores = results.run.scores.get(results.after, ())
    return [score_key(score) for score in scores if score.metric == results.main and score.language]


def _heads(results: Results) -> dict[str, Any]:
    """Names and markers of the two columns; empty where no scores of the system before are there."""
    heads: dict[str, Any] = {"before": "", "before_key": ""}
    for column, system in zip(("after", "before"), reversed(results.systems), strict=False):
        heads |= {column: system_name(system), f"{column}_key": key_marker(style_of(results.run, system))}
    return heads


def _block(results: Results, role: str, members: dict[str, str], span: Span) -> dict[str, Any]:
    """One role: its mean, where the run has one, and a row for each member (a key and its language)."""
    has_mean = bool(role) and results.score(results.after, role) is not None
    return {
        "name": group_name(role) if role else "",
        "meaning": ROLE_MEANINGS[role],
        "mean": _row(results, role, "mean", span) if has_mean else None,
        "rows": [_language_row(results, key, code, span) for key, code in members.items()],
    }


def _language_row(results: Results, key: str, code: str, span: Span) -> dict[str, Any]:
    language = results.run.languages[code]
    name = language.name if key == code else key
    return _row(results, key, name, span) | {"code": code, "low_resource": language.resource == "low"}


def _row(results: Results, key: str, name: str, span: Span) -> dict[str, Any]:
    """Before, after and their difference on one language or group, as text and as a drawing."""
    before, after = results.score(results.before, key), results.score(results.after, key)
    texts = [with_interval(results.main, score) for score in (before, after)]
    drawn = [
        (style_of(results.run, system), Estimate(score.value, score.low, score.high))
        for system, score in ((results.before, before), (results.after, after))
        if score is not None
    ]
    return {
        "name": name,
        "low_resource": False,
        "before": texts[0] if results.before in results.run.scores else None,
        "after": texts[1],
        "plot": interval_row(drawn, span, f"{name}: before {texts[0] or 'not known'}, after {texts[1]}"),
        **_change(results, key, before, after),
    }


def _change(results: Results, key: str, before: Score | None, after: Score | None) -> dict[str, str]:
    """The paired difference with its outcome; without one the plain difference, marked as not tested."""
    found = results.difference(results.after, key)
    if found is not None:
        star = "" if found.outcome == "unclear" or found.survives else " *"
        return {"change": found.text + star, "outcome": found.outcome, "symbol": SYMBOLS[found.outcome]}
    text = ""
    if before is not None and after is not None:
        text = f"{signed(results.main, after.value - before.value)} (not tested)"
    return {"change": text, "outcome": "", "symbol": ""}
