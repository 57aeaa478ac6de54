"""Tables of what the arms of run.py gained over SFT and over shuffled pairs, with intervals over seeds and items.

    python -m experiments.real.evidence --model MODEL --pairs PAIRS --out RUNS

A difference is taken within a seed and a language, on the same test items, and averaged over the languages of a group
and over seeds. Its 95 % interval is a bootstrap of both: every resample draws seeds, and within each language items.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from experiments.real.run import ARMS, RECIPES, recipe_of
from midalign.answers.predictions import PREDICTIONS, read_predictions
from midalign.evaluation.score import strata_of
from midalign.metrics.scoring import Stratum
from midalign.probing.result import ProbeResult
from midalign.recipe.data import read_task_data
from midalign.records import RESAMPLES, SEED, TaskExample

METRICS = {"slot_f1": "slot F1", "label_f1": "label F1", "value_f1": "value F1", "intent_accuracy": "intent"}
GROUPS = ("supervised", "aligned", "unseen", "all")


@dataclass(frozen=True)
class Gain:
    """A difference in points, with its 95 % interval, over so many seeds."""

    value: float
    low: float
    high: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.value:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


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
        return read_task_data(recipe_of(self.name, 0, "sft", *self.more)).test

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
        file = self.out / self.name / f"seed{seed}" / arm / PREDICTIONS
        found = strata_of(
            self.items(), read_predictions(file), recipe_of(self.name, seed, arm, *self.more).answer_format
        )
        return {stratum.language: stratum for stratum in found}

    def languages(self, group: str) -> list[str]:
        """The languages of a group that have test items."""
        there = {item.language for item in self.items()}
        return [code for code in recipe_of(self.name, 0, "sft").languages.groups().get(group, ()) if code in there]

    def gain(self, arm: str, baseline: str, languages: Sequence[str], metric: str) -> Gain | None:
        """What an arm has more than another in a group; None where there is nothing to compare."""
        seeds = self.seeds(arm, baseline)
        if not seeds or not languages:
            return None
        point = np.zeros(len(seeds))
        draws = np.zeros((RESAMPLES, len(seeds)))
        for number, language in enumerate(languages):
            for place, seed in enumerate(seeds):
                n = len(self.strata(seed, arm)[language].stats)
                times = np.random.default_rng([SEED, number]).multinomial(n, np.full(n, 1 / n), RESAMPLES)
                for sign, which in ((1, arm), (-1, baseline)):
                    stratum = self.strata(seed, which)[language]
                    measure = stratum.measure(metric)
                    point[place] += sign * 100 * stratum.value(metric) / len(languages)
                    draws[:, place] += sign * 100 * measure.of_sums(times @ stratum.stats) / len(languages)
        chosen = np.random.default_rng(SEED).integers(len(seeds), size=draws.shape)
        means = np.take_along_axis(draws, chosen, axis=1).mean(axis=1)
        low, high = np.quantile(means, (0.025, 0.975))
        return Gain(float(point.mean()), float(low), float(high), len(seeds))

    def level(self, arm: str, languages: Sequence[str], metric: str) -> float | None:
        """The mean over seeds and languages, in points."""
        seeds = self.seeds(arm)
        if not seeds or not languages:
            return None
        return float(np.mean([100 * self.strata(s, arm)[code].value(metric) for s in seeds for code in languages]))

    def retrieval(self, arm: str, layer: int) -> float | None:
        """Retrieval at a layer between English and the aligned languages, in points: mean over directions and seeds."""
        found = []
        for file in sorted(self.out.glob(f"{self.name}/seed*/{arm}/probe/probe.json")):
            probe = ProbeResult.from_file(file)
            matrix = next(each["matrix"] for each in probe.content["layers"] if each["layer"] == layer)
            english = probe.languages.index("eng_Latn")
            aligned = [probe.languages.index(c) for c in self.languages("aligned") if c in probe.languages]
            found += [100 * (matrix[english][other] + matrix[other][english]) / 2 for other in aligned]
        return float(np.mean(found)) if found else None


def shown(value: object) -> str:
    """A cell."""
    return "" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


def table(runs: Runs, metric: str) -> list[str]:
    """Every arm that was run: its level and what it has more than SFT and than shuffled pairs, by group."""
    lines = [
        f"{runs.name}, {METRICS[metric]}, {len(runs.items())} test items",
        "",
        "| arm | seeds | " + " | ".join(f"{group} | less SFT | less shuffled" for group in GROUPS) + " |",
        "|---" * (2 + 3 * len(GROUPS)) + "|",
    ]
    for arm in ARMS:
        if not runs.seeds(arm):
            continue
        cells = [arm, str(len(runs.seeds(arm)))]
        for group in GROUPS:
            codes = runs.languages(group)
            against = [None if arm == other else runs.gain(arm, other, codes, metric) for other in ("sft", "shuffled")]
            cells += [shown(runs.level(arm, codes, metric)), *map(shown, against)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--layer", type=int, default=15, help="the layer whose retrieval is shown")
    parser.add_argument("--set", nargs="*", default=[], help="the overrides that the runs were given")
    given = parser.parse_args()
    places = {"REAL_MODEL": given.model, "REAL_DATA": given.data, "REAL_PAIRS": given.pairs}
    os.environ |= {name: str(path.resolve()) for name, path in places.items()}
    for name in RECIPES:
        runs = Runs(given.out, name, tuple(given.set))
        if not list(given.out.glob(f"{name}/seed*/*/{PREDICTIONS}")):
            continue
        for metric in METRICS:
            print("\n".join(table(runs, metric)) + "\n")
        levels = {arm: runs.retrieval(arm, given.layer) for arm in ARMS}
        found = ", ".join(f"{arm} {level:.1f}" for arm, level in levels.items() if level is not None)
        print(f"retrieval at layer {given.layer}, English and aligned languages: {found}\n")


if __name__ == "__main__":
    main()
