"""The paper's claims, one function each: its figure, ours, and whether the claim holds.

A claim *holds* where the interval lies on its side of zero, is *contradicted* where it lies on the other, and is
*not shown* otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
from scipy import stats

from experiments.claims.measured import GROUPS, Estimate, Runs, shown_p
from experiments.row import Row


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
