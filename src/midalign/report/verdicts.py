"""The report's sentences: a verdict for each group of languages, and the change of retrieval."""

from __future__ import annotations

from typing import Any

from midalign.report.results import Results
from midalign.report.views import Probe, RunView
from midalign.report.words import (
    ROLES,
    SYMBOLS,
    Difference,
    group_name,
    metric_name,
    percent,
    points,
    system_name,
    verdict,
)


def verdicts(results: Results) -> list[dict[str, Any]]:
    """One entry per role of languages (per group, where there are no roles): the sentence, and the other systems."""
    groups = [name for name in results.groups if name in ROLES] or results.groups
    scored = {score.language for score in results.scores.values()}
    entries = []
    for group in groups:
        found = _verdict(results, group)
        if found is not None:
            members = sum(language.role == group for code, language in results.run.languages.items() if code in scored)
            entries.append({"group": group_name(group), "members": members, "others": _others(results, group)} | found)
    return entries


def _verdict(results: Results, group: str) -> dict[str, str] | None:
    """Outcome, symbol and sentence; None where one of the two systems has no score of the group."""
    before, after = results.value(results.before, group), results.value(results.after, group)
    found = results.difference(results.after, group)
    if found is not None:
        return _marked(found) | {"sentence": verdict(found, before, after)}
    if before is None or after is None:
        return None
    sentence = (
        f"{points(results.main, before)} \N{RIGHTWARDS ARROW} {points(results.main, after)} in "
        f"{metric_name(results.main)}; the run has no paired comparison, so no verdict."
    )
    return {"outcome": "unclear", "symbol": "?", "sentence": sentence}


def _others(results: Results, group: str) -> list[dict[str, str]]:
    """The differences of the systems that the verdict is not about."""
    others = [system for system in results.run.systems if system != results.after]
    found = [(system, results.difference(system, group)) for system in others]
    return [{"name": system_name(s), "text": d.text} | _marked(d) for s, d in found if d is not None]


def _marked(found: Difference) -> dict[str, str]:
    return {"outcome": found.outcome, "symbol": SYMBOLS[found.outcome]}


def retrieval_sentence(run: RunView) -> str:
    """What alignment did to translation retrieval at the aligned layer, in one sentence."""
    layer = run.aligned_layer
    if layer is None:
        return ""
    entries = [(system, probe.at(layer)) for system, probe in run.probed.items()]
    parts = [f"{system_name(s).lower()} {percent(entry.accuracy.value)}" for s, entry in entries if entry is not None]
    return f"Sentences that find their translation at layer {layer}: {', '.join(parts)}." if parts else ""


def lead(run: RunView) -> str:
    """What probes without scores say: two sentences for each."""
    return " ".join(
        sentence[0].upper() + sentence[1:]
        for system, probe in run.probed.items()
        for sentence in _probe_sentences(f"{system_name(system)}: " if run.is_whole else "", probe)
    )


def _probe_sentences(name: str, probe: Probe) -> list[str]:
    best, first, last = probe.at(probe.best_layer), probe.layers[0], probe.layers[-1]
    if best is None:
        return []
    sentence = (
        f"{name}at its best layer, {best.layer} of {last.layer}, {percent(best.accuracy.value)} of the sentences "
        f"find their translation; {percent(first.accuracy.value)} at layer {first.layer} and "
        f"{percent(last.accuracy.value)} at layer {last.layer}."
    )
    if probe.best_share is None:
        return [sentence]
    return [sentence, f"It stays the best layer in {100 * probe.best_share:.0f} % of resamples of the sentences."]
