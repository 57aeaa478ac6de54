"""Comparison of a run's probes, and correlation of their retrieval with scores."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from midalign.evaluation.score import SCORES
from midalign.files import read_json, write_json
from midalign.probing.comparison import (
    COMPARISON_FILE,
    FEWEST_LANGUAGES,
    GAINS_FILE,
    TRANSFER_FILE,
    correlate,
    correlate_gains,
    scores_by_language,
    write_comparison,
)
from midalign.probing.result import ProbeResult


def compare_probes(folder: Path, before: Mapping[str, str]) -> None:
    """Write ``comparison.json`` beside each probe: the change of retrieval from the system before.

    Args:
        folder: The run folder; the probes are in ``probe/<system>/``.
        before: Maps each system to the system before it.
    """
    probes = {system: ProbeResult.from_file(folder / "probe" / system) for system in {*before, *before.values()}}
    for system, earlier in before.items():
        write_comparison(probes[earlier], probes[system], folder / "probe" / system)


def correlate_transfer(
    folder: Path, metric: str, languages: Collection[str], *, baseline: str, systems: Collection[str]
) -> None:
    """Correlate retrieval with scores over languages without task data; with too few languages, write nothing.

    ``transfer.json`` beside the base's probe correlates its retrieval with the scores of `baseline`. ``gains.json``
    beside the probe of each of `systems` correlates changes of retrieval with changes of scores, both from `baseline`.

    Args:
        folder: The run folder, with the probes, their comparisons (`compare_probes`) and ``evaluation/<system>/``.
        metric: Name of the score.
        languages: Canonical codes of the languages without task data.
        baseline: The system trained on the task alone.
        systems: The systems to compare with it.
    """
    base = ProbeResult.from_file(folder / "probe" / "base")
    levels = _scores(folder, baseline, metric, languages)
    if len(set(levels) & set(base.languages)) < FEWEST_LANGUAGES:
        return
    write_json(folder / "probe" / "base" / TRANSFER_FILE, {"metric": metric, **correlate(base, levels)})
    for system in systems:
        place = folder / "probe" / system
        after = _scores(folder, system, metric, languages)
        gains = {code: after[code] - level for code, level in levels.items() if code in after}
        found = correlate_gains(read_json(place / COMPARISON_FILE), gains)
        write_json(place / GAINS_FILE, {"metric": metric, **found})


def _scores(folder: Path, system: str, metric: str, languages: Collection[str]) -> dict[str, float]:
    _, found = scores_by_language(folder / "evaluation" / system / SCORES, metric)
    return {language: value for language, value in found.items() if language in languages}
