"""The report's table of all scores, of all paired comparisons, and of the metrics' signatures."""

from __future__ import annotations

from typing import Any

from midalign.report.results import Results, score_key, with_interval
from midalign.report.words import SYMBOLS, group_name, metric_name, p_text, scale, system_name


def score_table(results: Results) -> dict[str, Any] | None:
    """Every score of every system: a row per metric and group, then per metric and language."""
    systems = [system for system in results.run.systems if system in results.run.scores]
    if not systems:
        return None
    by_language = [s for scores in results.run.scores.values() for s in scores if s.language]
    keys = dict.fromkeys([*results.groups, *map(score_key, by_language)])
    metrics = sorted(results.metrics, key=lambda name: name != results.main)
    rows = [_row(results, metric, key, systems) for metric in metrics for key in keys]
    return {
        "systems": [system_name(system) for system in systems],
        "metrics": [metric_name(metric) for metric in metrics],
        "change": f"{system_name(results.after)} against {system_name(results.before)}" if results.before else "",
        "rows": [row for row in rows if row is not None],
    }


def _row(results: Results, metric: str, key: str, systems: list[str]) -> dict[str, Any] | None:
    """One metric on one language or group, over systems; None where no system has it."""
    scores = [results.score(system, key, metric) for system in systems]
    known = [score for score in scores if score is not None]
    if not known:
        return None
    found = results.difference(results.after, key, metric)
    return {
        "metric": metric_name(metric),
        "n": known[0].n,
        "cells": [("" if s is None else s.value * scale(metric), with_interval(metric, s)) for s in scores],
        "change": (found.difference * scale(metric), f"{SYMBOLS[found.outcome]} {found.text}") if found else ("", ""),
        **(_group_names(key) if key in results.groups else _language_names(results, key, known[0].language or "")),
    }


def _group_names(key: str) -> dict[str, str]:
    return {"name": group_name(key), "kind": "group"}


def _language_names(results: Results, key: str, code: str) -> dict[str, str]:
    """Name and role of a language; a direction of translation keeps its own name."""
    language = results.run.languages.get(code)
    if language is None:
        return {"name": key, "kind": ""}
    return {"name": language.name if key == code else key, "kind": language.role}


def comparison_table(results: Results) -> list[dict[str, Any]]:
    """Comparison table: every paired comparison of groups with its p-values (languages are in the first table)."""
    groups = set(results.groups)
    return [
        {
            "what": f"{system_name(found.system)} against {system_name(found.baseline)}",
            "where": group_name(found.key),
            "metric": metric_name(found.metric),
            "value": found.difference,
            "text": found.text,
            "symbol": SYMBOLS[found.outcome],
            "p": p_text(found.p),
            "p_holm": p_text(found.p_holm),
        }
        for found in results.differences
        if found.key in groups
    ]


def signatures(results: Results) -> list[tuple[str, str]]:
    """Each metric with its distinct signatures."""
    found = dict.fromkeys((score.metric, score.signature) for score in results.scores.values())
    return [(metric_name(metric), signature) for metric, signature in found]
