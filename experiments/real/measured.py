"""What the runs of run.py measured: levels, gains over another arm with intervals, retrieval, times.

A difference is taken within a seed and a language, on the same test items, and averaged over the languages of a group
and over seeds. Its 95 % interval is a bootstrap of both: every resample draws seeds, and items, which are translations
of each other: where one is drawn, it is drawn in every language.
With three seeds it is on the narrow side. Retrieval has one value a seed, and Student's t interval over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from experiments.arms import SETTINGS
from experiments.real.run import ARMS, recipe_of
from midalign.answers.predictions import PREDICTIONS, read_predictions
from midalign.evaluation.score import main_metric, strata_of
from midalign.experiment.named import resolve_names
from midalign.files import read_json
from midalign.functional.statistics import FloatArray, mean_interval, seed_summary
from midalign.merging.job import MERGE_FILE
from midalign.metrics.scoring import Stratum, mean_draw, mean_value, resampled_values
from midalign.probing.result import PROBE_FILE, ProbeResult
from midalign.recipe.data import read_task_data
from midalign.records import RESAMPLES, TaskExample
from midalign.training.train import TRAINING_FILE

METRICS = {
    "slot_f1": "slot F1",
    "label_f1": "label F1",
    "value_f1": "value F1",
    "intent_accuracy": "intent accuracy",
    "entity_f1": "entity F1",
    "chrf": "chrF",
    "bleu": "BLEU",
    "loss": "loss of the gold answers, in hundredths of a nat a token (better when lower)",
}
IN_POINTS = ("chrf", "bleu")  # sacreBLEU's own scale; the others are shares, or nats
ENGLISH = "eng_Latn"


@dataclass(frozen=True)
class Gain:
    """A difference in points, with its 95 % interval, over so many seeds."""

    value: float
    low: float
    high: float
    seeds: int


@dataclass(frozen=True)
class Runs:
    """The runs of one recipe.

    Attributes:
        out: Where run.py wrote them.
        name: The recipe.
        more: Overrides that the runs were given, such as a limit on test items.
    """

    out: Path
    name: str
    more: tuple[str, ...] = ()

    @cache  # noqa: B019 - one object a recipe
    def items(self) -> list[TaskExample]:
        """The test items."""
        return read_task_data(resolve_names(recipe_of(self.name, 0, "sft", *self.more))).test

    def seeds(self, *arms: str) -> list[int]:
        """The seeds that all of these arms were run with."""
        found = [
            {
                int(file.parts[-3].removeprefix("seed"))
                for file in self.out.glob(f"{self.name}/seed*/{arm}/{PREDICTIONS}")
            }
            for arm in arms
        ]
        return sorted(set.intersection(*found))

    @cache  # noqa: B019
    def strata(self, seed: int, arm: str) -> dict[str, Stratum]:
        """The statistics of every item, by language."""
        file = self.folder(seed, arm) / PREDICTIONS
        wanted = {item.id for item in self.items()}  # an arm may have answered more items than are compared
        answers = [prediction for prediction in read_predictions(file) if prediction.id in wanted]
        found = strata_of(self.items(), answers, recipe_of(self.name, seed, arm, *self.more).answer_format)
        return {stratum.language: stratum for stratum in found}

    def folder(self, seed: int, arm: str) -> Path:
        """Where run.py wrote an arm."""
        return self.out / self.name / f"seed{seed}" / arm

    def languages(self, group: str) -> list[str]:
        """The languages of a group that have test items."""
        there = {item.language for item in self.items()}
        return [code for code in recipe_of(self.name, 0, "sft").languages.groups().get(group, ()) if code in there]

    def has(self, metric: str, *arms: str) -> bool:
        """Whether the answers of these arms, of every seed, have a metric; older ones have no loss."""
        strata = [s for arm in arms for seed in self.seeds(arm) for s in self.strata(seed, arm).values()]
        return all(metric in [measure.name for measure in stratum.measures] for stratum in strata)

    def gain(
        self, arm: str, baseline: str, languages: Sequence[str], metric: str, beside: Sequence[str] = ()
    ) -> Gain | None:
        """What an arm has more than another in a group; None where there is nothing to compare.

        Only seeds that arms `beside` were run with too.
        """
        seeds = self.seeds(arm, baseline, *beside)
        if not seeds or not languages or not self.has(metric, arm, baseline):
            return None
        points, draws = [], []
        for seed in seeds:
            with_arm, without = (self._mean(seed, which, languages, metric) for which in (arm, baseline))
            points.append(with_arm[0] - without[0])
            draws.append(with_arm[1] - without[1])
        found = seed_summary(points, draws)
        return Gain(found.mean, found.low, found.high, len(seeds))

    @cache  # noqa: B019
    def _drawn(self, seed: int, arm: str, languages: tuple[str, ...]) -> list[dict[str, FloatArray]]:
        strata = self.strata(seed, arm)
        return resampled_values([strata[code] for code in languages], RESAMPLES)

    def _mean(self, seed: int, arm: str, languages: Sequence[str], metric: str) -> tuple[float, FloatArray]:
        """The mean over languages in points, and its values on resamples of the items, the same for every arm."""
        value = mean_value([self.strata(seed, arm)[code] for code in languages], metric)
        drawn = mean_draw(self._drawn(seed, arm, tuple(languages)), metric)
        return _scale(metric) * value, _scale(metric) * drawn

    def level(self, arm: str, languages: Sequence[str], metric: str) -> float | None:
        """The mean over seeds and languages, in points."""
        seeds = self.seeds(arm)
        if not seeds or not languages or not self.has(metric, arm):
            return None
        values = [self.strata(seed, arm)[code].value(metric) for seed in seeds for code in languages]
        return _scale(metric) * float(np.mean(values))

    def retrieval(self, arm: str) -> dict[int, list[float]]:
        """Retrieval at each layer between English and the aligned languages, in per cent, by seed; also of the base."""
        found = {}
        for file in sorted(self.out.glob(f"{self.name}/seed*/{arm}/probe/{PROBE_FILE}")):
            probe = ProbeResult.from_file(file)
            curves = with_english(probe, [code for code in self.languages("aligned") if code in probe.languages])
            found[int(file.parts[-4].removeprefix("seed"))] = np.mean(curves, axis=0).tolist()
        return found


def _scale(metric: str) -> int:
    return 1 if metric in IN_POINTS else 100


def measure(runs: Runs, layer: int) -> dict[str, Any]:
    """All that the page shows of one task, as plain data."""
    recipe = recipe_of(runs.name, 0, "sft", *runs.more)
    arms = {arm: _arm(runs, arm, layer) for arm in ARMS if runs.seeds(arm) or runs.retrieval(arm)}
    return {
        "metric": main_metric(recipe.task.name),
        "items": len(runs.items()),
        "languages": {name: runs.languages(name) for name in ("supervised", "aligned", "unseen")},
        "low_resource": list(recipe.languages.low_resource),
        "updates": read_json(runs.folder(runs.seeds("sft")[0], "sft") / SETTINGS)["training"]["max_steps"],
        "layer": layer,
        "arms": arms,
    }


def measure_probe(result: ProbeResult, layer: int) -> dict[str, Any]:
    """A probe in many languages, in per cent: retrieval by layer, also with English, and by language at the middle.

    ``matrix`` is that of one layer, a row for each language that is asked from, null on the diagonal.
    """
    middle = result.layers[-1] // 2
    others = [code for code in result.languages if code != ENGLISH]
    return {
        "languages": len(result.languages),
        "directions": len(result.languages) * (len(result.languages) - 1),
        "sentences": result.content["n"],
        "pooling": result.content["pooling"],
        "accuracy": [round(100 * value, 2) for value in result.accuracy.tolist()],
        "intervals": [[round(100 * (end or 0), 2) for end in entry["interval"]] for entry in result.content["layers"]],
        "by_language": {code: round(100 * value, 2) for code, value in result.by_language(middle).items()},
        "matrix": {
            code: [None if np.isnan(value) else round(100 * float(value), 1) for value in row]
            for code, row in zip(result.languages, result.matrix(layer), strict=True)
        },
        "with_english": {
            code: [round(value, 2) for value in curve]
            for code, curve in zip(others, with_english(result, others), strict=True)
        },
    }


def with_english(result: ProbeResult, codes: Sequence[str]) -> list[list[float]]:
    """Retrieval between English and each language, the mean of both directions, in per cent by layer."""
    english = result.languages.index(ENGLISH)
    matrices = [result.matrix(layer) for layer in result.layers]
    places = [result.languages.index(code) for code in codes]
    return [[100 * float(m[english, at] + m[at, english]) / 2 for m in matrices] for at in places]


def _arm(runs: Runs, arm: str, layer: int) -> dict[str, Any]:
    groups = _groups(runs)
    others = {"sft": "sft", "shuffled": _control(runs, arm)}
    if arm == "joint" and runs.seeds("two_languages"):
        others["two_languages"] = "two_languages"
    found: dict[str, Any] = {"seeds": runs.seeds(arm), "levels": {}, "gains": {other: {} for other in others}}
    for metric in METRICS:
        levels = {group: runs.level(arm, codes, metric) for group, codes in groups.items()}
        found["levels"][metric] = {group: round(level, 2) for group, level in levels.items() if level is not None}
        for other, which in others.items():
            found["gains"][other][metric] = {} if arm == which else _gains(runs, arm, which, groups, metric)
    metric = main_metric(recipe_of(runs.name, 0, "sft").task.name)
    same = runs.gain("joint", "sft", groups["aligned"], metric, beside=[arm])
    found["joint_on_its_seeds"] = _rounded(same) if same else None
    found["retrieval"] = {seed: [round(v, 2) for v in curve] for seed, curve in runs.retrieval(arm).items()}
    rise = _rise(runs, arm, layer)
    if rise is not None:
        found["retrieval_gain"] = rise
    found["seconds"] = {seed: _seconds(runs, seed, arm) for seed in found["seeds"]}
    merged = [runs.folder(seed, arm) / MERGE_FILE for seed in found["seeds"]]
    if merged and all(file.exists() for file in merged):
        found["weights"] = [read_json(file)["chosen"] for file in merged]
    return found


def _gains(runs: Runs, arm: str, over: str, groups: dict[str, list[str]], metric: str) -> dict[str, Any]:
    gains = {group: runs.gain(arm, over, codes, metric) for group, codes in groups.items()}
    return {group: _rounded(gain) for group, gain in gains.items() if gain}


def _control(runs: Runs, arm: str) -> str:
    """The control of an arm, with shuffled pairs: its own, or joint training's where that has more of its seeds."""
    own = f"{arm}_shuffled"
    return own if own in ARMS and len(runs.seeds(arm, own)) >= len(runs.seeds(arm, "shuffled")) else "shuffled"


def _groups(runs: Runs) -> dict[str, list[str]]:
    """The languages of every group whose mean is shown, and every language as a group of its own."""
    low = recipe_of(runs.name, 0, "sft", *runs.more).languages.low_resource
    groups = {name: runs.languages(name) for name in ("supervised", "aligned", "unseen", "all")}
    groups["aligned, low"] = [code for code in groups["aligned"] if code in low]
    groups["aligned, high"] = [code for code in groups["aligned"] if code not in low]
    return groups | {code: [code] for code in groups["all"]}


def _rise(runs: Runs, arm: str, layer: int) -> dict[str, float] | None:
    """How far retrieval at a layer rises over SFT, with Student's t interval over seeds."""
    before, after = runs.retrieval("sft"), runs.retrieval(arm)
    rises = [after[seed][layer] - before[seed][layer] for seed in after if seed in before]
    if arm == "sft" or len(rises) < 2:  # one seed has no interval
        return None
    rise = mean_interval(rises)
    return {"value": round(rise.mean, 1), "low": round(rise.low, 1), "high": round(rise.high, 1)}


def _rounded(gain: Gain) -> dict[str, float | int]:
    return {name: round(value, 2) for name, value in asdict(gain).items()}


def _seconds(runs: Runs, seed: int, arm: str) -> float | None:
    """Seconds that training took, where training.json says so."""
    file = runs.folder(seed, arm) / TRAINING_FILE
    return read_json(file).get("seconds") if file.exists() else None
