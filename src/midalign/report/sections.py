"""The parts of the report page, each from one run's records: tables as plain rows, charts as SVG.

Every function returns None or an empty list where the run has nothing to show; the template then leaves the part out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import yaml

from midalign.records import Score
from midalign.report.charts import Series, interval_row, key_marker, line_chart
from midalign.report.runs import Estimate, RunView, number, recipe_of
from midalign.report.words import (
    GROUP_NAMES,
    ROLE_MEANINGS,
    SYMBOLS,
    Comparison,
    comparisons,
    group_name,
    metric_name,
    p_text,
    percent,
    points,
    scale,
    seconds,
    signed,
    system_name,
    verdict,
)

ROLES = ("supervised", "aligned", "unseen", "")
_STYLES = {"base": 0, "sft": 1, "joint": 2, "merged": 3, "alignment": 4, "shuffled": 5}
_MOST_LOGGED = 300


class Results:
    """Scores and comparisons of a run, by what people ask for: system, metric, and language or group."""

    def __init__(self, run: RunView) -> None:
        self.run = run
        self.by_key: dict[tuple[str, str, str], Score] = {
            (system, score.metric, score_key(score)): score for system, scores in run.scores.items() for score in scores
        }
        self.comparisons: list[Comparison] = comparisons(run.summary.get("comparisons", ()))
        self.metrics: tuple[str, ...] = tuple(dict.fromkeys(metric for _, metric, _ in self.by_key))
        self.main: str = str(run.summary.get("main_metric") or (self.metrics[0] if self.metrics else ""))
        systems = [system for system in run.systems if system in run.scores]
        self.after: str = next((s for s in ("joint", "merged") if s in systems), systems[-1] if systems else "")
        before = [system for system in ("sft", "base", *systems) if system in systems and system != self.after]
        self.before: str = before[0] if before else ""

    def score(self, system: str, key: str, metric: str = "") -> Score | None:
        """The score of a system on a language or group, by the main metric unless another is named."""
        return self.by_key.get((system, metric or self.main, key))

    def value(self, system: str, key: str, metric: str = "") -> float | None:
        """Its value."""
        score = self.score(system, key, metric)
        return None if score is None else score.value

    def comparison(self, system: str, key: str, metric: str = "") -> Comparison | None:
        """The paired comparison of a system with the one before, on a language or group."""
        wanted = (self.before, system, metric or self.main, key)
        return next((c for c in self.comparisons if (c.baseline, c.system, c.metric, c.key) == wanted), None)


def score_key(score: Score) -> str:
    """What a score is about: its language, its group, or the direction where it has both."""
    return score.group or score.language or "all"


def style_of(run: RunView, system: str) -> int:
    """The number of a system's line style: fixed for the usual ones, the second for that of a single verb."""
    if system in _STYLES:
        return _STYLES[system]
    others = [name for name in dict.fromkeys([*run.systems, *run.logs, *run.changes]) if name not in _STYLES]
    return len(_STYLES) + others.index(system) if run.is_whole else 1


def groups_of(run: RunView, results: Results) -> list[str]:
    """The groups that have scores or comparisons, roles first."""
    found = dict.fromkeys(s.group for scores in run.scores.values() for s in scores if s.group and not s.language)
    found |= dict.fromkeys(c.key for c in results.comparisons if c.key not in run.languages)
    order = [name for name in (*ROLES[:3], *GROUP_NAMES) if name in found]
    return list(dict.fromkeys([*order, *found]))


def verdicts(run: RunView, results: Results) -> list[dict[str, Any]]:
    """One entry per group of roles (or per group, where there are no roles): the sentence, and the other systems."""
    groups = groups_of(run, results)
    shown = [name for name in groups if name in ROLES] or groups
    entries = []
    for group in shown:
        after, before = results.value(results.after, group), results.value(results.before, group)
        found = results.comparison(results.after, group)
        members = sum(language.role == group for language in run.languages.values())
        entry: dict[str, Any] = {"group": group_name(group), "members": members, "others": []}
        if found is not None:
            entry |= {"outcome": found.outcome, "symbol": SYMBOLS[found.outcome]}
            entry["sentence"] = verdict(found, before, after)
        elif before is not None and after is not None:
            entry |= {"outcome": "unclear", "symbol": "?"}
            entry["sentence"] = (
                f"{points(results.main, before)} \N{RIGHTWARDS ARROW} {points(results.main, after)} in "
                f"{metric_name(results.main)}; the run has no paired comparison, so no verdict."
            )
        else:
            continue
        for system in run.systems:
            other = results.comparison(system, group)
            if other is not None and system != results.after:
                entry["others"].append(
                    {"name": system_name(system), "symbol": SYMBOLS[other.outcome], "outcome": other.outcome}
                    | {"text": other.text}
                )
        entries.append(entry)
    return entries


def retrieval_sentence(run: RunView) -> str:
    """What alignment did to translation retrieval at the aligned layer, in one sentence."""
    layer = run.aligned_layer
    if layer is None:
        return ""
    parts = []
    for system in run.systems:
        entry = run.probes[system].at(layer) if system in run.probes else None
        if entry is not None:
            parts.append(f"{system_name(system).lower()} {percent(entry.accuracy.value)}")
    return f"Sentences that find their translation at layer {layer}: {', '.join(parts)}." if parts else ""


def language_table(run: RunView, results: Results) -> dict[str, Any] | None:
    """Per language before and after with intervals, grouped by role, each group with its mean first."""
    if not results.after or not results.main:
        return None
    keys = [score_key(s) for s in run.scores[results.after] if s.metric == results.main and s.language]
    shown = [results.score(s, k) for s in (results.before, results.after) for k in keys]
    known = [score for score in shown if score is not None]
    if not known:
        return None
    span = (min(score.low for score in known), max(score.high for score in known))
    language_of = {score_key(score): score.language or "" for score in known}
    blocks: list[dict[str, Any]] = []
    for role in ROLES:
        members = [key for key in keys if run.languages[language_of[key]].role == role]
        if not members:
            continue
        rows = [_language_row(run, results, key, language_of[key], span) for key in members]
        mean = _row(results, role, "mean", span) if role and results.score(results.after, role) else None
        blocks.append(
            {"name": group_name(role) if role else "", "meaning": ROLE_MEANINGS[role], "rows": rows, "mean": mean}
        )
    rows = [row for block in blocks for row in block["rows"]]
    return {
        "blocks": blocks,
        "starred": any(row["change"].endswith("*") for row in rows),
        "metric": metric_name(results.main),
        "before": system_name(results.before) if results.before else "",
        "after": system_name(results.after),
        "before_key": key_marker(style_of(run, results.before)) if results.before else "",
        "after_key": key_marker(style_of(run, results.after)),
        "axis": (points(results.main, span[0]), points(results.main, span[1])),
    }


def _language_row(run: RunView, results: Results, key: str, code: str, span: tuple[float, float]) -> dict[str, Any]:
    language = run.languages[code]
    name = language.name if key == code else key
    return _row(results, key, name, span) | {"code": code, "low_resource": language.resource == "low"}


def _row(results: Results, key: str, name: str, span: tuple[float, float]) -> dict[str, Any]:
    """Before, after and their difference on one language or group, as text and as a drawing."""
    found = results.comparison(results.after, key)
    scores = [(system, results.score(system, key)) for system in (results.before, results.after)]
    texts = [with_interval(results.main, score) for _, score in scores]
    drawn = [
        (style_of(results.run, system), Estimate(score.value, score.low, score.high))
        for system, score in scores
        if score is not None
    ]
    before, after = (score for _, score in scores)
    change, outcome = "", ""
    if found is not None:
        change, outcome = found.text, found.outcome
        change += "" if outcome == "unclear" or found.survives else " *"
    elif before is not None and after is not None:
        change = f"{signed(results.main, after.value - before.value)} (not tested)"
    return {
        "name": name,
        "low_resource": False,
        "before": texts[0] if results.before else None,
        "after": texts[1],
        "change": change,
        "outcome": outcome,
        "symbol": SYMBOLS[found.outcome] if found else "",
        "n": after.n if after else "",
        "plot": interval_row(drawn, span, f"{name}: before {texts[0] or 'not known'}, after {texts[1]}"),
    }


def with_interval(metric: str, score: Score | None) -> str:
    """``55.5 (53.1 to 57.8)``, or the empty string for no score."""
    if score is None:
        return ""
    return f"{points(metric, score.value)} ({points(metric, score.low)} to {points(metric, score.high)})"


def score_table(run: RunView, results: Results) -> dict[str, Any] | None:
    """Every score of every system: a row per metric and language or group."""
    systems = [system for system in run.systems if system in run.scores]
    if not systems:
        return None
    groups = groups_of(run, results)
    keys = dict.fromkeys([(key, True) for key in groups])
    keys |= dict.fromkeys((score_key(s), False) for scores in run.scores.values() for s in scores if s.language)
    rows = []
    for metric in sorted(results.metrics, key=lambda name: name != results.main):
        for key, is_group in keys:
            scores = [results.score(system, key, metric) for system in systems]
            if any(scores):
                rows.append(_score_row(run, results, metric, key, is_group, scores))
    return {
        "systems": [system_name(system) for system in systems],
        "metrics": [metric_name(metric) for metric in sorted(results.metrics, key=lambda n: n != results.main)],
        "change": f"{system_name(results.after)} against {system_name(results.before)}" if results.before else "",
        "rows": rows,
    }


def _score_row(
    run: RunView, results: Results, metric: str, key: str, is_group: bool, scores: Sequence[Score | None]
) -> dict[str, Any]:
    known = next(score for score in scores if score is not None)
    language = run.languages.get(known.language or "")
    found = results.comparison(results.after, key, metric)
    return {
        "metric": metric_name(metric),
        "name": group_name(key) if is_group else (language.name if language and key == language.code else key),
        "kind": "group" if is_group else (language.role if language else ""),
        "n": known.n,
        "cells": [("" if s is None else s.value * scale(metric), with_interval(metric, s)) for s in scores],
        "change": (found.difference * scale(metric), f"{SYMBOLS[found.outcome]} {found.text}") if found else ("", ""),
    }


def comparison_table(results: Results) -> list[dict[str, Any]]:
    """Every paired comparison with its p-values, groups only (languages stand in the first table)."""
    return [
        {
            "what": f"{system_name(c.system)} against {system_name(c.baseline)}",
            "where": group_name(c.key),
            "metric": metric_name(c.metric),
            "value": c.difference,
            "text": c.text,
            "symbol": SYMBOLS[c.outcome],
            "p": p_text(c.p),
            "p_holm": p_text(c.p_holm),
        }
        for c in results.comparisons
        if c.key not in results.run.languages
    ]


def cost(run: RunView) -> dict[str, Any] | None:
    """Seconds and updates of each training, against task fine-tuning alone, and the time of each stage."""
    training = dict(run.summary.get("training") or {name: log for name, log in run.logs.items() if "seconds" in log})
    reference = number((training.get("sft") or {}).get("seconds"))
    rows = []
    for name, entry in training.items():
        spent = number(entry.get("seconds"))
        if spent is None:
            continue
        ratio = f"{spent / reference:.2f}" if reference and name != "sft" else ""
        rows.append(
            {"name": system_name(name), "seconds": seconds(spent), "ratio": ratio, "updates": entry.get("updates", "")}
        )
    timings = {**(run.manifest.get("timings") or {}), **(run.summary.get("timings") or {})}
    known = {str(name): value for name, entry in timings.items() if (value := number(entry)) is not None}
    stages = [(name, seconds(value)) for name, value in known.items()]
    if not rows and not stages:
        return None
    # A resumed run's own total is that of its last call; the stages of all calls together may be more.
    total = max(known.get("total", 0.0), sum(value for name, value in known.items() if name != "total"))
    return {"rows": rows, "stages": stages, "total": seconds(total) if total else ""}


def examples(run: RunView) -> list[dict[str, Any]]:
    """The run's example sentences with their language's name and a language tag for the browser."""
    found = []
    for entry in run.summary.get("examples", ()):
        language = run.languages.get(str(entry.get("language")))
        tag = f"{language.code[:3]}-{language.script}" if language else ""
        name = language.name if language else str(entry.get("language", ""))
        found.append({**entry, "language_name": name, "tag": tag, "role": language.role if language else ""})
    return sorted(found, key=lambda entry: entry.get("kind") != "helped")


def merge(run: RunView, results: Results) -> dict[str, Any] | None:
    """The merge weights that were tried on dev, with the chosen ones."""
    content = run.summary.get("merge")
    if not content or not content.get("table"):
        return None
    chosen = dict(content.get("chosen") or {})
    chosen_weights = chosen.get("weights", chosen)
    names = list(dict.fromkeys(name for entry in content["table"] for name in entry["weights"]))
    metric = str(content.get("metric") or results.main)
    rows: list[dict[str, Any]] = []
    lines: dict[Any, list[tuple[float, Estimate]]] = {}
    for entry in content["table"]:
        low, high = number(entry.get("low")), number(entry.get("high"))
        estimate = Estimate(float(entry["score"]), low, high)
        interval = "" if low is None or high is None else f" ({points(metric, low)} to {points(metric, high)})"
        is_chosen = all(entry["weights"].get(name) == chosen_weights.get(name) for name in names)
        rows.append({"weights": [_shown(entry["weights"].get(name, "")) for name in names], "chosen": is_chosen})
        rows[-1]["score"] = points(metric, estimate.value) + interval
        task = entry["weights"].get("task")
        lines.setdefault(task, []).append((_mean(entry["weights"].get("alignment", 0.0)), estimate))
    series = [
        Series(f"task weight {task:g}" if task is not None else "", 3 + i, sorted(line, key=lambda p: p[0]))
        for i, (task, line) in enumerate(lines.items())
    ]
    mark = chosen_weights.get("alignment")
    chart = line_chart(
        series,
        "weight of the alignment adapter",
        f"dev {metric_name(metric)}" + (", %" if scale(metric) > 1 else ""),
        "Dev score by weight of the alignment adapter",
        None if mark is None else (_mean(mark), "chosen"),
        percent=scale(metric) > 1,
        from_zero=False,
    )
    return {
        "method": content.get("method", ""),
        "flat": bool(content.get("flat")),
        "names": names,
        "rows": rows,
        "chart": chart,
    }


def _mean(weight: Any) -> float:
    """One number for a weight, also where there is one per band of layers."""
    return sum(weight) / len(weight) if isinstance(weight, list) else float(weight)


def _shown(weight: Any) -> Any:
    return " / ".join(f"{w:g}" for w in weight) if isinstance(weight, list) else weight


def training_charts(run: RunView) -> list[dict[str, Any]]:
    """Task loss and alignment loss by step, a line for each training that logs it."""
    charts: list[dict[str, Any]] = []
    names = {"task_loss": "Task loss", "alignment_loss": "Alignment loss", "loss": "Loss", "eval_loss": "Dev loss"}
    for key, name in names.items():
        series = []
        for system, log in run.logs.items():
            found = [(float(e["step"]), value) for e in log["log_history"] if (value := number(e.get(key))) is not None]
            every = math.ceil(len(found) / _MOST_LOGGED) or 1
            line = [(step, Estimate(value)) for step, value in found[::every]]
            series.append(Series(system_name(system), style_of(run, system), line))
        if key == "loss" and charts:
            continue  # the Trainer's own loss mixes both objectives; shown only where nothing better was logged
        chart = line_chart(series, "update", name.lower(), f"{name} by update", from_zero=False)
        if chart:
            charts.append({"name": name, "chart": chart})
    return charts


def signatures(run: RunView) -> list[tuple[str, str]]:
    """Each metric with its distinct signatures."""
    found = dict.fromkeys((s.metric, s.signature) for scores in run.scores.values() for s in scores)
    return [(metric_name(metric), signature) for metric, signature in found]


def provenance(run: RunView) -> dict[str, Any]:
    """Versions, commit, seeds, data hashes and the recipe as YAML."""
    manifest, recipe = run.manifest, recipe_of(run)
    seeds = run.summary.get("seeds") or ([recipe["seed"]] if "seed" in recipe else [])
    facts = [
        ("folder", str(run.folder)),
        ("command", manifest.get("command", "")),
        ("started", manifest.get("started", "")),
        ("git commit", manifest.get("git_commit") or ""),
        ("seeds", ", ".join(map(str, seeds))),
    ]
    hashes = manifest.get("data") or manifest.get("data_hashes") or {}
    text = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True) if recipe else ""
    return {
        "facts": [(name, str(value)) for name, value in facts if value],
        "versions": sorted((manifest.get("versions") or {}).items()),
        "data": sorted(hashes.items()),
        "recipe": text,
        "seeds": len(seeds),
    }
