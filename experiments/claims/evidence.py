"""Writes docs/evidence.md from the runs of run.py: every claim, the paper's figure, ours, and whether it holds.

    python experiments/claims/evidence.py --out RUNS [--claim N] [--write docs/evidence.md]

The unit is a run: one base and one seed. A difference is taken within a run and then averaged over runs; its 95 %
interval is Student's t over runs. ``p`` is approximate randomisation over all items of all runs, paired by item.
A claim *holds* where the interval lies on its side of zero, is *contradicted* where it lies on the other, and is
*not shown* otherwise.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from run import HERE, NEEDED, recipe_of
from scipy import stats

from midalign.answers.predictions import PREDICTIONS, read_predictions
from midalign.evaluation.score import SCORES
from midalign.metrics.comparison import compare
from midalign.metrics.slots import score_slots
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
        found = score_slots(kept, answers, groups={"aligned": GROUPS["aligned"]}, style="intent_slots", resamples=10)
        return 100 * next(one.value for one in found if one.metric == "slot_f1" and one.group == "aligned")

    def p_value(self, arm: str, group: str, over: str = "sft", metric: str = "slot_f1") -> float:
        """Approximate randomisation over the items of all runs, paired."""
        examples, first, second = [], [], []
        for run in self.having(arm, over):
            name = f"{run.parent.name}/{run.name}"
            examples += [replace(item, id=f"{name}/{item.id}") for item in self.test_items(run, arm)]
            for kept, side in ((first, over), (second, arm)):
                kept += [replace(p, id=f"{name}/{p.id}") for p in read_predictions(run / side / PREDICTIONS)]
        found = compare(
            examples, first, second, "slots", groups={group: GROUPS[group]}, metrics=[metric],
            style="intent_slots",
        )  # fmt: skip
        return next(one.p_randomization for one in found if one.group == group)


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    number: int
    claim: str
    paper: str
    ours: str
    verdict: str


def shown_p(p: float) -> str:
    """A p-value with three decimals."""
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def middle_layers(runs: Runs) -> Row:
    """Claim 1: of the base, the middle and the best inner layer against the better of the two ends."""
    done = {run.parent: run for run in runs.having("base")}.values()
    curves = [np.array([runs.retrieval(run, "base", k) for k in range(len(runs.probe(run, "base")))]) for run in done]
    mean = np.mean(curves, axis=0)
    depth = len(mean) - 1
    best, middle = int(mean[1:-1].argmax()) + 1, depth // 2
    gaps = {k: Estimate(tuple(float(c[k] - max(c[0], c[-1])) for c in curves)) for k in (best, middle)}
    ours = (
        f"best is layer {best} with {mean[best]:.1f} %, the middle has {mean[middle]:.1f}, the ends {mean[0]:.1f} and "
        f"{mean[-1]:.1f}; best less the better end {gaps[best]}, middle less it {gaps[middle]} (bases, untrained)"
    )
    verdict = gaps[middle].verdict()
    if verdict == "holds" and not depth / 4 <= best <= 3 * depth / 4:
        verdict = "in part: above both ends, but not the best"
    return Row(1, "middle layers retrieve best", "middle of the depth peaks", ours, verdict)


def retrieval_predicts_transfer(runs: Runs) -> Row:
    """Claim 2: over transfer languages, retrieval of the base with English at the middle layer against slot F1."""
    found = []
    for run in runs.having("base", "sft"):
        layer = (len(runs.probe(run, "base")) - 1) // 2
        codes = GROUPS["transfer"]
        retrieval = [runs.retrieval(run, "base", layer, [code]) for code in codes]
        found.append(float(stats.spearmanr(retrieval, [runs.scores(run, "sft")["slot_f1", c] for c in codes])[0]))
    rho = Estimate(tuple(found))
    low, high = rho.interval
    ours = f"Spearman {rho.mean:.2f} [{max(low, -1):.2f}, {min(high, 1):.2f}] over {len(GROUPS['transfer'])} languages"
    return Row(2, "retrieval correlates with transfer", "significant correlation", ours, rho.verdict())


def sft_does_not_align(runs: Runs) -> Row:
    """Claim 3: what SFT alone does to retrieval, beside what joint training does, at the aligned layer."""
    done = runs.having("base", "sft", "joint")
    at = {run: runs.layer(run) for run in done}
    change = Estimate(tuple(runs.retrieval(r, "sft", at[r]) - runs.retrieval(r, "base", at[r]) for r in done))
    joint = Estimate(tuple(runs.retrieval(r, "joint", at[r]) - runs.retrieval(r, "base", at[r]) for r in done))
    high = change.interval[1]
    verdict = "holds" if high < joint.interval[0] and high < 5 else "not shown"
    if verdict == "holds" and change.interval[0] > 0:
        verdict = "in part: a rise, small beside that of alignment"
    return Row(3, "SFT alone does not raise alignment", "no rise", f"SFT {change}, joint {joint} points", verdict)


def retrieval_gain(runs: Runs) -> Row:
    """The paper's 39.4 to 73.2 %: retrieval at the aligned layer between English and aligned languages."""
    done = runs.having("sft", "joint")
    codes = GROUPS["aligned"]
    before = [runs.retrieval(run, "sft", runs.layer(run), codes) for run in done]
    after = [runs.retrieval(run, "joint", runs.layer(run), codes) for run in done]
    gain = runs.rise("joint")
    kinds = {
        "ordinary sentences": "probe_ordinary",
        "in the task's prompt, all of whose tokens are pooled": "probe_asked",
    }
    ours = f"without names and digits {np.mean(before):.1f} to {np.mean(after):.1f} %: {gain}"
    for what, kind in kinds.items():
        probed = [run for run in done if all((run / arm / kind / "probe.json").exists() for arm in ("sft", "joint"))]
        levels = {
            arm: np.array([runs.retrieval(run, arm, runs.layer(run), codes, kind) for run in probed])
            for arm in ("sft", "joint")
        }
        change = Estimate(tuple(levels["joint"] - levels["sft"]))
        ours += f"; {what} {levels['sft'].mean():.1f} to {levels['joint'].mean():.1f} %: {change}"
    return Row(0, "alignment raises retrieval at its layer (aligned languages)", "39.4 to 73.2 %: +33.8", ours,
               gain.verdict())  # fmt: skip


def aligned_gain(runs: Runs) -> Row:
    """Claim 4: aligned languages gain, low-resource ones more than high-resource ones."""
    every, low, high = (runs.gain("joint", group) for group in ("aligned", "aligned, low", "aligned, high"))
    more = Estimate(tuple(np.subtract(low.values, high.values)))
    control = Estimate(
        tuple(np.subtract(runs.gain("joint", "aligned").values, runs.gain("shuffled", "aligned").values))
    )
    p = runs.p_value("joint", "aligned")
    ours = f"{every} ({shown_p(p)}); low {low}, high {high}, low less high {more}; over shuffled pairs {control}"
    verdict = every.verdict()
    if verdict == "holds":
        verdict = f"holds (over shuffled pairs: {control.verdict()}); low more than high: {more.verdict()}"
    return Row(4, "aligned languages gain most, low-resource ones more", "+3.8 low, +0.7 high", ours, verdict)


def supervised_do_not_lose(runs: Runs) -> Row:
    """Claim 5."""
    gain = runs.gain("joint", "supervised")
    verdict = "holds" if gain.interval[0] > -0.5 else "contradicted" if gain.interval[1] < -0.5 else "not shown"
    ours = f"{gain} ({shown_p(runs.p_value('joint', 'supervised'))})"
    return Row(5, "supervised languages do not lose (more than 0.5)", "+0.4", ours, verdict)


def unseen_gain(runs: Runs) -> Row:
    """Claim 6."""
    gain = runs.gain("joint", "unseen")
    control = runs.gain("joint", "unseen", over="shuffled")
    ours = f"{gain} ({shown_p(runs.p_value('joint', 'unseen'))}); over shuffled pairs {control}"
    return Row(6, "unseen languages gain a little", "+0.4", ours, gain.verdict())


def layers(runs: Runs) -> Row:
    """Claim 7: alignment of a bottom, the middle and the top layer."""
    bottom, middle, top = (runs.gain(arm, "aligned") for arm in ("plain_bottom", "plain_middle", "plain"))
    less = runs.gain("plain_bottom", "aligned", over="plain_middle")
    ours = f"layer 2 {bottom}, the middle {middle}, the top {top}; layer 2 less the middle {less}"
    return Row(7, "aligning the bottom hurts, the top is uneven", "bottom below SFT", ours, bottom.verdict(-1))


def more_languages(runs: Runs) -> Row:
    """Claim 8: five aligned languages against two, over all transfer languages."""
    two, five = (runs.gain(arm, "transfer") for arm in ("plain_two_languages", "plain"))
    more = runs.gain("plain", "transfer", over="plain_two_languages")
    return Row(8, "more aligned languages help", "5: +1.5, 19: +1.9", f"2: {two}, 5: {five}; 5 less 2 {more}",
               more.verdict())  # fmt: skip


def other_domain(runs: Runs) -> Row:
    """Claim 9: pairs about timers and shopping lists only, scored on the commands about the house itself."""
    done = runs.having("sft", "plain", "plain_other_domain")
    before, same, other = (
        np.array([runs.about_the_house(run, arm) for run in done]) for arm in ("sft", "plain", "plain_other_domain")
    )
    gain, kept = Estimate(tuple(same - before)), Estimate(tuple(other - before))
    ours = (
        f"slot F1 of commands about the house, aligned languages: pairs of all domains {gain}, of another domain only "
        f"{kept}; retrieval {runs.rise('plain')} and {runs.rise('plain_other_domain')}"
    )
    paper = "retrieval 71.9 and 68.5 % against 77.7 %"
    return Row(9, "pairs from another domain work nearly as well", paper, ours, kept.verdict())


def long_outputs(runs: Runs) -> Row:
    """Claim 11: the same commands with JSON as the answer: what alignment costs the supervised languages."""
    supervised, aligned = (
        runs.gain("plain_json", group, "entity_f1", over="sft_json") for group in ("supervised", "aligned")
    )
    ours = f"JSON: supervised {supervised}, aligned {aligned} entity F1"
    return Row(11, "long outputs: supervised languages lose", "-1.0 F1", ours, supervised.verdict(-1))


def merged(runs: Runs) -> Row:
    """Claim 10: the merged adapter, weights tuned on dev, as a share of the joint gain."""
    gain, joint = runs.gain("merged", "aligned"), runs.gain("joint", "aligned")
    weights = [
        json.loads((run / "merged" / "merge.json").read_text())["chosen"]["alignment"] for run in runs.having("merged")
    ]
    chosen = ", ".join(f"{weight:g}" for weight in weights)
    share = f"{100 * gain.mean / joint.mean:.0f} % of the joint gain" if joint.mean > 0 else "no joint gain to share"
    ours = f"{gain} ({shown_p(runs.p_value('merged', 'aligned'))}), {share}; alignment weights {chosen}"
    return Row(10, "separately trained and merged keeps the gain", "+1.1 of +1.5", ours, gain.verdict())


def scripts(runs: Runs) -> Row:
    """Claim 12: non-Latin scripts gain less than Latin ones."""
    latin, other = (runs.gain("joint", f"transfer, {name}") for name in ("Latin", "other scripts"))
    less = Estimate(tuple(np.subtract(latin.values, other.values)))
    ours = f"Latin {latin}, other scripts {other}; Latin less other {less}"
    return Row(12, "non-Latin scripts gain least", "+0.5", ours, less.verdict())


def layers_below(runs: Runs) -> Row:
    """Claim 13: retrieval one to three layers below the aligned one, joint less SFT."""
    done = runs.having("sft", "joint")
    rows = []
    for below in (1, 2, 3):
        values = []
        for run in done:
            k = runs.layer(run) - below
            values.append(runs.retrieval(run, "joint", k) - runs.retrieval(run, "sft", k))
        rows.append(Estimate(tuple(values)))
    ours = "; ".join(f"{i} below: {row}" for i, row in enumerate(rows, 1))
    return Row(13, "aligning layer k raises the layers below it", "rises below k too", ours, rows[0].verdict())


CLAIMS: dict[int, Callable[[Runs], Row]] = {
    0: retrieval_gain,
    1: middle_layers,
    2: retrieval_predicts_transfer,
    3: sft_does_not_align,
    4: aligned_gain,
    5: supervised_do_not_lose,
    6: unseen_gain,
    7: layers,
    8: more_languages,
    9: other_domain,
    10: merged,
    11: long_outputs,
    12: scripts,
    13: layers_below,
}
"""Number of the claim (0: retrieval itself) to the function that tests it; `run.NEEDED` has its arms."""


BEYOND = {
    "shuffled": "a control: each sentence aligned with the translation of another one",
    "sft_long": "a control: no alignment, but as many updates in all, all of the task",
    "whole_space": "the whole space instead of a subspace",
    "warm_whole_space": "the whole space, temperature 1.0",
    "cold": "temperature 0.1",
    "inner": "layer 8",
    "middle": "the middle layer",
    "two_layers": "layers 5 and 10",
    "pool_last": "pooling: last token",
    "pool_mean_unit": "pooling: mean of unit-length states (robust to sinks)",
    "forward": "one direction, as the reference implementation",
    "anchored": "English side detached",
    "one_language": "batches of one language",
    "centered": "batches of one language, each side less its mean",
    "three_to_one": "three task updates to one of alignment",
    "first_half": "alignment in the first half only",
    "weight_03": "alignment loss times 0.3",
    "mlp_only": "alignment moves the adapters of the MLPs only",
    "merged": "alignment adapter merged, weight tuned on dev",
    "bands": "merged, one weight for each half of the layers",
    "plain": "plain: each sentence by itself, as in the paper",
    "plain_shuffled": "plain, a control: each sentence aligned with the translation of another one",
    "plain_bottom": "plain, layer 2 instead of the last",
    "plain_middle": "plain, the middle layer",
    "plain_preserved": "plain, with a loss that preserves repeating",
    "plain_one_to_two": "plain, one task update to two of alignment",
    "plain_other_domain": "plain, pairs of timers and shopping lists only",
    "plain_two_languages": "plain, pairs of two languages (the figures are over all five)",
    "plain_merged": "plain, alignment adapter merged, weight tuned on dev",
    "paper": "the paper's: each sentence by itself, middle layer, whole space, temperature 0.1",
}


def claims_table(runs: Runs, rows: Sequence[Row]) -> list[str]:
    """The main table, as Markdown lines."""
    lines = ["| | claim | the paper (Llama 3 8B) | here | runs | verdict |", "|---" * 6 + "|"]
    for row in rows:
        done = len(runs.having(*NEEDED[row.number]))
        lines.append(f"| {row.number or ''} | {row.claim} | {row.paper} | {row.ours} | {done} | **{row.verdict}** |")
    return lines


def scores_table(runs: Runs) -> list[str]:
    """Levels of SFT, and what each main arm changes, metric by metric."""
    arms = ("joint", "shuffled", "plain", "merged")
    lines = [
        "| languages | score | SFT | joint | shuffled pairs | plain | merged |",
        "|---" * 7 + "|",
    ]
    for group in ("supervised", "aligned", "aligned, high", "aligned, low", "unseen"):
        for metric, name in METRICS.items():
            level = np.mean([runs.score(run, "sft", metric, GROUPS[group]) for run in runs.having("sft")])
            cells = [str(runs.gain(arm, group, metric)) if runs.having("sft", arm) else "–" for arm in arms]
            lines.append(f"| {group} | {name} | {level:.1f} | " + " | ".join(cells) + " |")
    return lines


def free_table(runs: Runs) -> list[str]:
    """The same adapters answering freely, beside answers whose values are held to the words of the sentence."""
    arms = ("sft", "joint", "plain", "shuffled", "merged")
    lines = [
        "| languages | score | SFT, free | joint less SFT, free | plain less SFT, free | "
        + " | ".join(f"{arm}, held less free" for arm in arms)
        + " |",
        "|---" * (5 + len(arms)) + "|",
    ]
    for group in ("supervised", "aligned", "aligned, high", "aligned, low", "unseen"):
        for metric in ("slot_f1", "value_f1"):
            level = np.mean([runs.score(run, "sft/free", metric, GROUPS[group]) for run in runs.having("sft/free")])
            free = [runs.gain(f"{arm}/free", group, metric, over="sft/free") for arm in ("joint", "plain")]
            held = [runs.gain(arm, group, metric, over=f"{arm}/free") for arm in arms]
            lines.append(f"| {group} | {METRICS[metric]} | {level:.1f} | " + " | ".join(map(str, free + held)) + " |")
    return lines


def beyond_table(runs: Runs) -> list[str]:
    """Every arm against SFT: aligned languages by score, supervised slot F1, retrieval, and training time."""
    head = "| arm | runs | slot F1, aligned | label | value | intent | slot F1, supervised | retrieval | time |"
    lines = [head, "|---" * 9 + "|"]
    for arm, what in ({"joint": "the setting of all claims above"} | BEYOND).items():
        done = runs.having("sft", arm)
        if len(done) < 2:  # one run has no interval
            continue
        gains = [str(runs.gain(arm, "aligned", metric)) for metric in METRICS]
        supervised = runs.gain(arm, "supervised")
        rises = runs.rise(arm)
        trained = [run for run in done if (run / arm / TRAINING_FILE).exists()]
        ratio = np.median([runs.seconds(run, arm) / runs.seconds(run, "sft") for run in trained]) if trained else None
        cost = "–" if ratio is None else f"{ratio:.2f}x"
        lines.append(f"| {what} | {len(done)} | " + " | ".join(gains) + f" | {supervised} | {rises} | {cost} |")
    return lines


def against_plain(runs: Runs) -> list[str]:
    """What asking the task's question about the sentences of pairs adds, within each run."""
    gains = {group: runs.gain("joint", group, over="plain") for group in ("aligned", "supervised", "unseen")}
    labels, values = (runs.gain("joint", "aligned", metric, over="plain") for metric in ("label_f1", "value_f1"))
    each = ", ".join(
        f"{run.parent.name} {value:+.1f}"
        for run, value in zip(runs.having("joint", "plain"), gains["aligned"].values, strict=True)
    )
    return [
        f"Joint less plain, {len(runs.having('joint', 'plain'))} runs: slot F1 of aligned languages {gains['aligned']} "
        f"({shown_p(runs.p_value('joint', 'aligned', over='plain'))}; by base: {each}), label F1 {labels}, value F1 "
        f"{values}; slot F1 of supervised languages {gains['supervised']}, of unseen ones {gains['unseen']}."
    ]


def languages_table(runs: Runs) -> list[str]:
    """Slot F1 of every language, SFT and joint."""
    lines = ["| language | role | level | SFT | joint less SFT |", "|---|---|---|---|---|"]
    done = runs.having("sft", "joint")
    for role in ("supervised", "aligned", "unseen"):
        for code in GROUPS[role]:
            before = [runs.scores(run, "sft")["slot_f1", code] for run in done]
            after = [runs.scores(run, "joint")["slot_f1", code] for run in done]
            level = "low" if code in LOW else "high"
            gain = Estimate(tuple(np.subtract(after, before)))
            lines.append(f"| {code} | {role} | {level} | {np.mean(before):.1f} | {gain} |")
    return lines


def curve_table(runs: Runs) -> list[str]:
    """Retrieval by layer: all directions, and between English and the aligned languages."""
    arms = [arm for arm in ("base", "sft", "joint", "shuffled", "plain", "merged") if runs.having(arm)]
    lines = ["| layer | " + " | ".join(arms) + " |", "|---" * (len(arms) + 1) + "|"]
    for layer in range(len(runs.probe(runs.having("sft")[0], "sft"))):
        cells = []
        for arm in arms:
            done = runs.having(arm)
            every = np.mean([runs.retrieval(run, arm, layer) for run in done])
            aligned = np.mean([runs.retrieval(run, arm, layer, GROUPS["aligned"]) for run in done])
            cells.append(f"{every:.1f} / {aligned:.1f}")
        lines.append(f"| {layer} | " + " | ".join(cells) + " |")
    return lines


def runs_table(runs: Runs) -> list[str]:
    """Each run by itself: nothing is averaged away."""
    lines = ["| base | seed | SFT | joint | shuffled | plain | merged |", "|---" * 7 + "|"]
    for run in runs.having("sft"):
        codes = GROUPS["aligned"]
        cells = [
            f"{runs.score(run, arm, 'slot_f1', codes):.1f}" if run in runs.having(arm) else "–"
            for arm in ("sft", "joint", "shuffled", "plain", "merged")
        ]
        lines.append(f"| {run.parent.name} | {run.name.removeprefix('seed')} | " + " | ".join(cells) + " |")
    return lines


def goals_table(runs: Runs) -> list[str]:
    """The goals of the project beside what was reached."""
    done = runs.having("sft", "joint")
    cost = float(np.median([runs.seconds(run, "joint") / runs.seconds(run, "sft") for run in done]))
    rise, merged_gain = runs.rise("joint"), runs.gain("merged", "aligned")
    gain, supervised = runs.gain("joint", "aligned"), runs.gain("joint", "supervised")
    rows = [
        ("retrieval at the aligned layer", "+34", rise, rise.interval[0] >= 34),
        ("slot F1, interval above 0", "+3.8", gain, gain.mean >= 3.8 and gain.interval[0] > 0),
        ("slot F1 of supervised languages", "-0.5 at worst", supervised, supervised.mean >= -0.5),
        ("merged keeps 70 % of the joint gain", "70 %", merged_gain, 0 < 0.7 * gain.mean <= merged_gain.mean),
        ("training time of joint over SFT, shared cores", "–", f"{cost:.2f}x", None),
    ]
    lines = ["| goal | wanted | reached | |", "|---|---|---|---|"]
    for what, wanted, reached, met in rows:
        lines.append(f"| {what} | {wanted} | {reached} | {'' if met is None else 'reached' if met else '**missed**'} |")
    return lines


def readme_table(runs: Runs) -> list[str]:
    """What a newcomer wants to know, for the README."""
    lines = ["| languages | SFT | joint less SFT | plain | merged | shuffled pairs |", "|---" * 6 + "|"]
    for group in ("supervised", "aligned", "unseen"):
        level = np.mean([runs.score(run, "sft", "slot_f1", GROUPS[group]) for run in runs.having("sft")])
        gains = [str(runs.gain(arm, group)) for arm in ("joint", "plain", "merged", "shuffled")]
        lines.append(f"| {group} | {level:.1f} | " + " | ".join(gains) + " |")
    return lines


def write_between_marks(page: Path, lines: Sequence[str]) -> None:
    """Put lines between the marks ``<!-- evidence -->`` and ``<!-- end -->`` of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition("<!-- evidence -->\n")
    _, _, after = rest.partition("<!-- end -->")
    if not after:
        raise SystemExit(f"{page} has no marks <!-- evidence --> and <!-- end --> to write between")
    page.write_text(before + "\n".join(["<!-- evidence -->", *lines, "<!-- end -->"]) + after, encoding="utf-8")


def main() -> None:
    """Reads the arguments; prints, or writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder that run.py wrote to")
    parser.add_argument("--claim", type=int, choices=list(CLAIMS), help="only this claim")
    parser.add_argument("--write", type=Path, help="the page to write")
    parser.add_argument("--readme", type=Path, help="the page whose table between <!-- evidence --> marks to write")
    given = parser.parse_args()
    runs = Runs(given.out)
    numbers = [given.claim] if given.claim is not None else list(CLAIMS)
    rows = [test(runs) for number, test in CLAIMS.items() if number in numbers and runs.having(*NEEDED[number])]
    table = claims_table(runs, rows)
    if given.readme is not None:
        write_between_marks(given.readme, readme_table(runs))
    if given.write is None:
        print("\n".join(table))
        return
    page = (HERE / "evidence.md.in").read_text()
    parts = {
        "goals": goals_table(runs),
        "claims": table, "scores": scores_table(runs), "beyond": beyond_table(runs), "languages": languages_table(runs),
        "curve": curve_table(runs), "plain": against_plain(runs),
        "free": free_table(runs), "runs": runs_table(runs),
    }  # fmt: skip
    for name, lines in parts.items():
        page = page.replace(f"<!-- {name} -->", "\n".join(lines))
    bases = sorted({run.parent.name for run in runs.runs})
    page = page.replace("<!-- count -->", f"{len(runs.runs)} runs ({len(bases)} bases)")
    folders = {run.parent.name: Path(json.loads((run / "base.json").read_text())["path"]) for run in runs.runs}
    made = [json.loads((folder / "pretraining.json").read_text()) for folder in folders.values()]
    facts = {
        "parameters": f"{made[0]['parameters']:,}",
        "tokens": f"{made[0]['tokens']:,}",
        "bilingual": " to ".join(f"{f(card['bilingual_share'] for card in made):.1%}" for f in (min, max)),
        "seeds": ", ".join(sorted({run.name.removeprefix("seed") for run in runs.runs})),
    }
    for name, text in facts.items():
        page = page.replace(f"<!-- {name} -->", text)
    given.write.write_text(page)


if __name__ == "__main__":
    main()
