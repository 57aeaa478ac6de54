"""A run's scores and paired differences, by system, metric, and language or group."""

from __future__ import annotations

from midalign.records import Score
from midalign.report.views import RunView
from midalign.report.words import GROUP_NAMES, ROLES, Difference, points, shown_groups

_STYLES = {"base": 0, "sft": 1, "joint": 2, "merged": 3, "alignment": 4, "shuffled": 5}


class Results:
    """Scores and differences of a run.

    Attributes:
        run: The run.
        scores: By system, metric, and language or group (`score_key`).
        differences: Every paired comparison.
        metrics: Names, in the order of the score files.
        main: The metric that verdicts are about.
        after: The system that the page is about: joint training, else merged adapters, else the last one.
        before: What it is compared with: task fine-tuning, else the base model, else the first other one; else the
            baseline of a single evaluation, which has no scores here.
    """

    def __init__(self, run: RunView) -> None:
        self.run = run
        self.scores: dict[tuple[str, str, str], Score] = {
            (system, score.metric, score_key(score)): score for system, scores in run.scores.items() for score in scores
        }
        self.differences: list[Difference] = list(run.comparisons)
        self.metrics: tuple[str, ...] = tuple(dict.fromkeys(metric for _, metric, _ in self.scores))
        self.main: str = str(run.summary.get("main_metric") or next(iter(self.metrics), ""))
        systems = [system for system in run.systems if system in run.scores]
        self.after: str = _first_of(["joint", "merged", *systems[::-1]], systems)
        self.before: str = _first_of(
            ["sft", "base", *systems], [name for name in systems if name != self.after]
        ) or next((found.baseline for found in self.differences if found.system == self.after), "")

    @property
    def systems(self) -> list[str]:
        """The system before and the one after, where they have scores."""
        return [system for system in (self.before, self.after) if system in self.run.scores]

    def score(self, system: str, key: str, metric: str = "") -> Score | None:
        """The score of a system on a language or group, by the main metric unless another is named."""
        return self.scores.get((system, metric or self.main, key))

    def value(self, system: str, key: str) -> float | None:
        """Its value on a language or group, by the main metric."""
        score = self.score(system, key)
        return None if score is None else score.value

    def difference(self, system: str, key: str, metric: str = "") -> Difference | None:
        """The paired difference of a system to the one before, on a language or group."""
        wanted = (self.before, system, metric or self.main, key)
        return next((d for d in self.differences if (d.baseline, d.system, d.metric, d.key) == wanted), None)

    @property
    def groups(self) -> list[str]:
        """The groups that have scores or differences, roles first; a direction of translation is none."""
        scores = [score for scores in self.run.scores.values() for score in scores]
        scored = [s.group for s in scores if s.group and not s.language]
        single = {*self.run.languages, *(score_key(s) for s in scores if s.language)}
        compared = [found.key for found in self.differences if found.key not in single]
        known = shown_groups([*scored, *compared])
        return list(dict.fromkeys([*(name for name in (*ROLES, *GROUP_NAMES) if name in known), *known]))


def score_key(score: Score) -> str:
    """Key of a score: its language, its group, or the direction if it has both."""
    return score.group or score.language or "all"


def style_of(run: RunView, system: str) -> int:
    """The number of a system's line style: fixed for the usual ones, the second for that of a single verb."""
    if system in _STYLES:
        return _STYLES[system]
    others = [name for name in dict.fromkeys([*run.systems, *run.logs, *run.changes]) if name not in _STYLES]
    return len(_STYLES) + others.index(system) if run.is_whole else 1


def with_interval(metric: str, score: Score | None) -> str:
    """``55.5 (53.1 to 57.8)``, or the empty string for no score."""
    if score is None:
        return ""
    return f"{points(metric, score.value)} ({points(metric, score.low)} to {points(metric, score.high)})"


def _first_of(wanted: list[str], there: list[str]) -> str:
    """The first wanted name that is there, or the empty string."""
    return next((name for name in wanted if name in there), "")
