"""What the runs of run.py left, as numbers: scores, retrieval, times, and differences between arms with intervals.

The unit is a run: one base and one seed. A difference is taken within a run and then averaged over runs; its 95 %
interval is Student's t over runs. ``p`` is approximate randomisation over all items of all runs, paired by item.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy import stats

from experiments.claims.run import HERE, recipe_of
from midalign.answers.format import AnswerFormat
from midalign.answers.predictions import PREDICTIONS, read_predictions
from midalign.evaluation.score import SCORES, score, strata_of
from midalign.metrics.comparison import compare_strata
from midalign.recipe.data import read_task_data
from midalign.recipe.sections import LanguagesSection
from midalign.records import TaskExample
from midalign.testbed.tasks import of_other_domain
from midalign.training.train import TRAINING_FILE

LANGUAGES = LanguagesSection(**yaml.safe_load((HERE / "recipe.yaml").read_text())["languages"])
LOW = set(LANGUAGES.low_resource)
_FOUND = LANGUAGES.groups()
GROUPS: dict[str, tuple[str, ...]] = {
    "supervised": _FOUND["supervised"],
    "aligned": _FOUND["aligned"],
    "aligned, high": tuple(code for code in _FOUND["aligned"] if code not in LOW),
    "aligned, low": tuple(code for code in _FOUND["aligned"] if code in LOW),
    "unseen": _FOUND["unseen"],
    "transfer": _FOUND["transfer"],
    "transfer, Latin": _FOUND["latin"],
    "transfer, other scripts": _FOUND["non_latin"],
}
WITH_INTENT = AnswerFormat("intent_slots")
METRICS = {"slot_f1": "slot F1", "label_f1": "label F1", "value_f1": "value F1", "intent_accuracy": "intent"}


@dataclass(frozen=True)
class Estimate:
    """A mean over runs, in points, with the 95 % interval of Student's t; and the values that it is the mean of."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean."""
        return float(np.mean(self.values))

    @property
    def interval(self) -> tuple[float, float]:
        """The interval; without bounds where there is one run only."""
        if len(self.values) < 2:
            return (-np.inf, np.inf)
        half = stats.t.ppf(0.975, len(self.values) - 1) * stats.sem(self.values)
        return (self.mean - half, self.mean + half)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.mean:+.1f} [{low:+.1f}, {high:+.1f}]"

    def verdict(self, sign: int = 1) -> str:
        """Whether the value is above zero (``sign`` 1) or below (-1)."""
        low, high = sorted(sign * bound for bound in self.interval)
        return "holds" if low > 0 else "contradicted" if high < 0 else "not shown"


class Runs:
    """What run.py left, by arm and run."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.runs = sorted(path.parent for path in out.glob("*/seed*/sft") if (path / SCORES).exists())

    def having(self, *arms: str) -> list[Path]:
        """The runs in which all of these arms are done."""
        return [run for run in self.runs if all((run / arm / SCORES).exists() for arm in arms)]

    @cache  # noqa: B019
    def scores(self, run: Path, arm: str) -> dict[tuple[str, str], float]:
        """Percent by (metric, language)."""
        rows = json.loads((run / arm / SCORES).read_text())["scores"]
        return {(row["metric"], row["language"]): 100 * row["value"] for row in rows if row.get("language")}

    def score(self, run: Path, arm: str, metric: str, codes: Sequence[str]) -> float:
        """The mean over languages."""
        return float(np.mean([self.scores(run, arm)[metric, code] for code in codes]))

    @cache  # noqa: B019
    def probe(self, run: Path, arm: str, sentences: str = "probe") -> np.ndarray[Any, Any]:
        """Retrieval in percent, ``(layers, languages, languages)``, with the languages' codes in `probed`."""
        found = json.loads((run / arm / sentences / "probe.json").read_text())
        matrices = [[[np.nan if x is None else x for x in row] for row in layer["matrix"]] for layer in found["layers"]]
        return 100 * np.array(matrices, dtype=float)

    @cache  # noqa: B019
    def probed(self, run: Path) -> list[str]:
        """The languages of a probe, in order."""
        return list(json.loads((run / "sft" / "probe" / "probe.json").read_text())["languages"])

    def retrieval(
        self, run: Path, arm: str, layer: int, codes: Sequence[str] | None = None, sentences: str = "probe"
    ) -> float:
        """Mean retrieval at a layer: over all directions, or between English and these languages."""
        matrix = self.probe(run, arm, sentences)[layer]
        if codes is None:
            return float(np.nanmean(matrix))
        names = self.probed(run)
        english = names.index("eng_Latn")
        rows = [names.index(code) for code in codes if code != "eng_Latn"]
        return float(np.mean([(matrix[english, i] + matrix[i, english]) / 2 for i in rows]))

    def layer(self, run: Path, arm: str = "joint") -> int:
        """The aligned layer; that of joint for an arm that aligns none."""
        file = run / arm / TRAINING_FILE
        layer = json.loads(file.read_text())["layer"] if file.exists() else None  # a merge has no training of its own
        return self.layer(run) if layer is None else int(layer)

    def seconds(self, run: Path, arm: str) -> float:
        """Wall time of training."""
        return float(json.loads((run / arm / TRAINING_FILE).read_text())["seconds"])

    def gain(self, arm: str, group: str, metric: str = "slot_f1", over: str = "sft") -> Estimate:
        """Score of an arm less that of another, within each run."""
        codes = GROUPS[group]
        return Estimate(
            tuple(
                self.score(run, arm, metric, codes) - self.score(run, over, metric, codes)
                for run in self.having(arm, over)
            )
        )

    def rise(self, arm: str) -> Estimate:
        """Retrieval of an arm less that of SFT, at the layer that the arm aligned, English and aligned languages."""
        values = []
        for run in self.having(arm, "sft"):
            layer = self.layer(run, arm)
            of_arm, of_sft = (self.retrieval(run, each, layer, GROUPS["aligned"]) for each in (arm, "sft"))
            values.append(of_arm - of_sft)
        return Estimate(tuple(values))

    def test_items(self, run: Path, arm: str) -> list[TaskExample]:
        """The test items of a run."""
        base = json.loads((run / "base.json").read_text())["path"]
        name, _, _ = arm.partition("/")  # "joint/free": the free answers of an arm
        return read_task_data(recipe_of(Path(base), int(run.name.removeprefix("seed")), name)).test

    @cache  # noqa: B019
    def about_the_house(self, run: Path, arm: str) -> float:
        """Slot F1 over the aligned languages, in percent, on commands that are not about timers or shopping lists."""
        kept = [item for item in self.test_items(run, arm) if not of_other_domain(item.intent)]
        ids = {item.id for item in kept}
        answers = [answer for answer in read_predictions(run / arm / PREDICTIONS) if answer.id in ids]
        found = score(kept, answers, WITH_INTENT, groups={"aligned": GROUPS["aligned"]}, resamples=10)
        return 100 * next(one.value for one in found if one.metric == "slot_f1" and one.group == "aligned")

    def p_value(self, arm: str, group: str, over: str = "sft", metric: str = "slot_f1") -> float:
        """Approximate randomisation over the items of all runs, paired."""
        examples, first, second = [], [], []
        for run in self.having(arm, over):
            name = f"{run.parent.name}/{run.name}"
            examples += [replace(item, id=f"{name}/{item.id}") for item in self.test_items(run, arm)]
            for kept, side in ((first, over), (second, arm)):
                kept += [replace(p, id=f"{name}/{p.id}") for p in read_predictions(run / side / PREDICTIONS)]
        sides = (strata_of(examples, answers, WITH_INTENT) for answers in (first, second))
        found = compare_strata(*sides, groups={group: GROUPS[group]}, metrics=[metric])
        return next(one.p_randomization for one in found if one.group == group)


def shown_p(p: float) -> str:
    """A p-value with three decimals."""
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"
