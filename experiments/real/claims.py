"""The paper's claims on the real model: its figure, ours, and whether the claim holds, from what measured.py wrote.

A claim *holds* where the interval lies on its side of zero, is *contradicted* where it lies on the other, and is
*not shown* otherwise. A claim whose arms were not run has no row of figures, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from experiments.real.run import RECIPES
from experiments.row import Row
from midalign.functional.statistics import mean_interval
from midalign.probing.statistics import spearman

Task = Mapping[str, Any]
Results = Mapping[str, Any]
NOT_RUN = "not run"
NEXT = "<br>"  # within a cell of the table, the next task
_OVER = ("sft", "shuffled")
LARGER = "_larger"
SETS = {key + end: shown + said for key, shown in RECIPES.items() for end, said in (("", ""), (LARGER, ", larger"))}
"""The sets of runs, and how the page calls them: those of a recipe, and larger ones (more updates, more test items)."""
_PARTS = {"label_f1": "labels", "value_f1": "values", "intent_accuracy": "intents"}
_KEPT = 0.7  # the share of the joint gain that merging keeps in the paper is 0.73


def shown(gain: Mapping[str, float] | None) -> str:
    """A gain with its interval, in points, and over how many seeds, where it says so: ``+1.0 [-2.6, +5.1] (3)``."""
    if gain is None:
        return NOT_RUN
    seeds = f" ({gain['seeds']})" if "seeds" in gain else ""
    return f"{gain['value']:+.1f} [{gain['low']:+.1f}, {gain['high']:+.1f}]{seeds}"


def verdict(gain: Mapping[str, float] | None, sign: int = 1, margin: float = 0.0) -> str:
    """Whether the interval lies on the side of `sign`, beyond the margin."""
    if gain is None:
        return NOT_RUN
    low, high = sorted((sign * gain["low"], sign * gain["high"]))
    return "holds" if low > margin else "contradicted" if high < margin else "not shown"


def main_metric(task: Task) -> str:
    """The metric of a task that claims are judged by."""
    return str(task.get("metric", "slot_f1"))


def gain_of(task: Task, arm: str, group: str, over: str = "sft", metric: str | None = None) -> dict[str, float] | None:
    """The gain of an arm over another in a group of languages; None where either was not run."""
    metric = metric or main_metric(task)
    found: dict[str, float] | None = task["arms"].get(arm, {}).get("gains", {}).get(over, {}).get(metric, {}).get(group)
    return found


def tasks(results: Results) -> dict[str, Task]:
    """The sets that were run, by name."""
    return {SETS[key]: results[key] for key in SETS if results.get(key, {}).get("arms")}


def _each(results: Results, say: Callable[[Task], str]) -> str:
    """What each task says of a claim; those that did not run its arms say nothing."""
    said = {name: say(task) for name, task in tasks(results).items()}
    return NEXT.join(f"{name}: {text}" for name, text in said.items() if not text.startswith(NOT_RUN)) or NOT_RUN


def _all_hold(found: Mapping[str, str]) -> str:
    """One verdict where tasks agree, otherwise that of each; a task that did not run the arms has none."""
    ran = {name: word for name, word in found.items() if word != NOT_RUN}
    if len(set(ran.values())) <= 1:
        return next(iter(ran.values()), NOT_RUN)
    return NEXT.join(f"{name}: {word}" for name, word in ran.items())


def _judged(results: Results, judge: Callable[[Task], str]) -> str:
    return _all_hold({name: judge(task) for name, task in tasks(results).items()})


def retrieval_rises(results: Results) -> Row:
    """The paper's 39.4 to 73.2 %: retrieval at the aligned layer between English and aligned languages."""

    def say(task: Task) -> str:
        arms, layer = task["arms"], task["layer"]
        if "retrieval_gain" not in arms.get("joint", {}):
            return NOT_RUN
        levels = [np.mean([curve[layer] for curve in arms[a]["retrieval"].values()]) for a in ("sft", "joint")]
        return f"{levels[0]:.1f} to {levels[1]:.1f} %: {shown(arms['joint'].get('retrieval_gain'))}"

    word = _judged(results, lambda task: verdict(task["arms"].get("joint", {}).get("retrieval_gain")))
    claim = "alignment raises retrieval at its layer (aligned languages, with English)"
    return Row(0, claim, "39.4 to 73.2 %: +33.8", _each(results, say), word)


def middle_layers(results: Results) -> Row:
    """Claim 1, on the base model."""
    probe = results.get("probes", {}).get("base")
    if not probe:
        return Row(1, "middle layers retrieve best", "middle of the depth peaks", NOT_RUN, NOT_RUN)
    curve, depth = probe["accuracy"], len(probe["accuracy"]) - 1
    best = int(np.argmax(curve))
    ours = (
        f"{probe['languages']} languages, {probe['directions']} directions: best is layer {best} of {depth} with "
        f"{curve[best]:.1f} %, the middle has {curve[depth // 2]:.1f}, the ends {curve[0]:.1f} and {curve[-1]:.1f}"
    )
    intervals = probe["intervals"]
    above = intervals[best][0] > max(intervals[0][1], intervals[-1][1])
    inner = depth / 4 <= best <= 3 * depth / 4
    word = "holds" if above and inner else "in part: an inner layer, above the middle" if above else "not shown"
    return Row(1, "middle layers retrieve best", "middle of the depth peaks", ours, word)


def retrieval_predicts_transfer(results: Results) -> Row:
    """Claim 2: over languages without task data, retrieval of the base against the score of SFT."""
    retrieval = results.get("probes", {}).get("base", {}).get("by_language", {})
    said, words = [], {}
    for name, task in tasks(results).items():
        levels = task["arms"]["sft"]["levels"][main_metric(task)]
        codes = [c for group in ("aligned", "unseen") for c in task["languages"][group] if c in retrieval]
        if len(codes) >= 4:
            rho, p = spearman([retrieval[c] for c in codes], [levels[c] for c in codes])
            said.append(f"{name}: Spearman {rho:.2f} (p = {p:.3f}) over {len(codes)} languages")
            words[name] = "holds" if p < 0.05 and rho > 0 else "not shown"
    claim = "retrieval of the base correlates with transfer"
    return Row(2, claim, "significant correlation", NEXT.join(said) or NOT_RUN, _all_hold(words))


def _many(results: Results, arm: str, over: str, below: Mapping[int, str]) -> str:
    """What an arm changes between English and many languages, so many layers below the aligned one, each with its name.

    With intervals over languages; empty where one of the two was not probed so.
    """
    probes = results.get("probes", {})
    if arm not in probes or over not in probes or not tasks(results):
        return ""
    aligned = next(iter(tasks(results).values()))["layer"]
    after, before = probes[arm]["with_english"], probes[over]["with_english"]
    said = []
    for down, words in below.items():
        found = mean_interval([after[code][aligned - down] - before[code][aligned - down] for code in before])
        said.append(f"{words}{found.mean:+.1f} [{found.low:+.1f}, {found.high:+.1f}]")
    return f"{len(before)} languages with English: {', '.join(said)}"


def _together(*parts: str) -> str:
    return NEXT.join(part for part in parts if part and part != NOT_RUN) or NOT_RUN


def sft_does_not_align(results: Results) -> Row:
    """Claim 3: what SFT alone does to retrieval at the aligned layer."""

    def change(task: Task) -> dict[str, float] | None:
        base = task["arms"].get("base", {}).get("retrieval")
        if not base:
            return None
        first = next(iter(base.values()))[task["layer"]]
        if not task["arms"]["sft"]["retrieval"]:
            return None
        after = [curve[task["layer"]] - first for curve in task["arms"]["sft"]["retrieval"].values()]
        rise = mean_interval(after)
        return {"value": rise.mean, "low": rise.low, "high": rise.high}

    changes = {name: change(task) for name, task in tasks(results).items()}
    words = {n: NOT_RUN if c is None else "holds" if c["high"] < 5 else "not shown" for n, c in changes.items()}
    ours = _together(_many(results, "sft", "base", {0: ""}), _each(results, lambda task: shown(change(task))))
    return Row(3, "SFT alone does not raise alignment", "no rise", ours, _all_hold(words))


def _over_both(task: Task, arm: str) -> str:
    """Whether aligned languages gain over SFT and over shuffled pairs."""
    both = [verdict(gain_of(task, arm, "aligned", over)) for over in _OVER]
    if both[0] == NOT_RUN:
        return NOT_RUN
    return "holds" if both == ["holds", "holds"] else f"over SFT {both[0]}, over shuffled {both[1]}"


def aligned_gain(results: Results) -> Row:
    """Claim 4: aligned languages gain, low-resource ones more than high-resource ones; the loss is shown beside it."""

    def say(task: Task) -> str:
        said = (
            f"{shown(gain_of(task, 'joint', 'aligned'))}, over shuffled pairs "
            f"{shown(gain_of(task, 'joint', 'aligned', 'shuffled'))}"
        )
        low, high = (gain_of(task, "joint", f"aligned, {level}") for level in ("low", "high"))
        if low and high:
            said += f"; low {shown(low)}, high {shown(high)}"
        losses = [gain_of(task, "joint", "aligned", other, "loss") for other in ("sft", "shuffled")]
        if not all(losses):
            return said
        return f"{said}; loss (0.01 nats) {shown(losses[0])}, over shuffled pairs {shown(losses[1])}"

    claim = "aligned languages gain most, low-resource ones more"
    word = _judged(results, lambda task: _over_both(task, "joint"))
    return Row(4, claim, "+3.8 low, +0.7 high", _each(results, say), word)


def last_state_gain(results: Results) -> Row:
    """Not the paper's: alignment of the state from which the answer is written, in the prompt of the task."""

    def say(task: Task) -> str:
        gains = [gain_of(task, "prompt_last", group, over) for group in ("aligned", "supervised") for over in _OVER]
        if gains[0] is None:
            return NOT_RUN
        aligned, over, supervised, _ = map(shown, gains)
        parts = {name: gain_of(task, "prompt_last", "aligned", "sft", metric) for metric, name in _PARTS.items()}
        said = "".join(f", {name} {shown(gain)}" for name, gain in parts.items() if gain)
        return f"{aligned}{said}; over shuffled pairs {over}; supervised {supervised}"

    claim = "aligning the prompt's last state in place of sentences (ours)"
    word = _judged(results, lambda task: _over_both(task, "prompt_last"))
    return Row(0, claim, "not in the paper", _each(results, say), word)


def supervised_do_not_lose(results: Results) -> Row:
    """Claim 5, with a margin of half a point."""
    word = _judged(results, lambda task: verdict(gain_of(task, "joint", "supervised"), margin=-0.5))
    ours = _each(results, lambda task: shown(gain_of(task, "joint", "supervised")))
    return Row(5, "supervised languages do not lose (more than 0.5)", "+0.4", ours, word)


def unseen_gain(results: Results) -> Row:
    """Claim 6."""
    there = {name: task for name, task in tasks(results).items() if gain_of(task, "joint", "unseen")}
    found = {
        name: (gain_of(t, "joint", "unseen"), gain_of(t, "joint", "unseen", "shuffled")) for name, t in there.items()
    }
    ours = NEXT.join(f"{name}: {shown(a)}, over shuffled pairs {shown(b)}" for name, (a, b) in found.items())
    words = {name: verdict(a) for name, (a, _) in found.items()}
    return Row(6, "unseen languages gain a little", "+0.4", ours or NOT_RUN, _all_hold(words))


def _of_arms(
    number: int, claim: str, paper: str, arms: Mapping[str, str], decisive: str, sign: int = 1
) -> Callable[[Results], Row]:
    """A claim about what other arms gain on aligned languages."""

    def row(results: Results) -> Row:
        def say(task: Task) -> str:
            return ", ".join(f"{name} {shown(gain_of(task, arm, 'aligned'))}" for arm, name in arms.items())

        ran = {name: task for name, task in tasks(results).items() if decisive in task["arms"]}
        words = {name: verdict(gain_of(task, decisive, "aligned"), sign) for name, task in ran.items()}
        ours = NEXT.join(f"{name}: {say(task)}" for name, task in ran.items()) or NOT_RUN
        return Row(number, claim, paper, ours, _all_hold(words))

    return row


def _share_of_joint(task: Task, arm: str) -> float | None:
    """The gain of an arm as a share of that of joint training with the same seeds; None where either gained nothing."""
    gain, joint = gain_of(task, arm, "aligned"), task["arms"].get(arm, {}).get("joint_on_its_seeds")
    return gain["value"] / joint["value"] if gain and joint and min(gain["value"], joint["value"]) > 0 else None


_APART = {
    "merged": "merged",
    "on_top": "alignment trained on top of the task",
    "task_on_top": "the task trained on top of alignment",
}


def merged(results: Results) -> Row:
    """Claim 10: adapters trained apart and merged, as a share of the joint gain."""

    def say(task: Task) -> str:
        parts = []
        for arm, name in _APART.items():
            if gain := gain_of(task, arm, "aligned"):
                share = _share_of_joint(task, arm)
                parts.append(f"{name} {shown(gain)}" + ("" if share is None else f" ({100 * share:.0f} % of joint)"))
        return ", ".join(parts) or NOT_RUN

    def judge(task: Task) -> str:
        word = verdict(gain_of(task, "merged", "aligned"))
        share = _share_of_joint(task, "merged")
        return "in part" if word == "holds" and share is not None and share < _KEPT else word

    word = _judged(results, judge)
    claim = "separately trained and merged keeps the gain"
    return Row(10, claim, "+1.1 of +1.5", _each(results, say), word)


def long_outputs(results: Results) -> Row:
    """Claim 11: extraction as JSON."""
    task = results.get("uner")
    claim, paper = "with long outputs, supervised languages lose", "JSON: -1.0 on supervised languages"
    if not task or not task.get("arms"):
        return Row(11, claim, paper, NOT_RUN, NOT_RUN)
    ours = ", ".join(f"{group} {shown(gain_of(task, 'joint', group))}" for group in ("supervised", "aligned"))
    return Row(11, claim, paper, f"UNER as JSON: {ours}", verdict(gain_of(task, "joint", "supervised"), -1))


def scripts(results: Results) -> Row:
    """Claim 12: aligned languages of non-Latin scripts."""
    task = results.get("mtop")
    codes = [c for c in task["languages"]["aligned"] if not c.endswith("_Latn")] if task else []
    if not task or not task.get("arms") or not codes:
        return Row(12, "non-Latin scripts gain least", "+0.5", NOT_RUN, NOT_RUN)
    ours = ", ".join(f"{c} {shown(gain_of(task, 'joint', c))}" for c in task["languages"]["aligned"])
    others = [c for c in task["languages"]["aligned"] if c not in codes]
    means = [np.mean([gain_of(task, "joint", c)["value"] for c in which]) for which in (codes, others)]  # type: ignore[index]
    word = "in the mean, without a test" if means[0] < means[1] else "not shown"
    return Row(12, "non-Latin scripts gain least", "+0.5", f"MTOP: {ours}", word)


def layers_below(results: Results) -> Row:
    """Claim 13: retrieval below the aligned layer, joint minus SFT."""

    probed = {name: task for name, task in tasks(results).items() if "retrieval_gain" in task["arms"].get("joint", {})}

    def say(task: Task) -> str:
        arms = task["arms"]
        rises = []
        for below in (1, 3, 5):
            place = task["layer"] - below
            both = [s for s in arms["joint"]["retrieval"] if s in arms["sft"]["retrieval"]]
            rise = [arms["joint"]["retrieval"][s][place] - arms["sft"]["retrieval"][s][place] for s in both]
            rises.append(f"{below} below {np.mean(rise):+.1f} ({', '.join(f'{r:+.1f}' for r in rise)})")
        return "; ".join(rises)

    words = {}
    for name, task in probed.items():
        joint, sft = task["arms"]["joint"]["retrieval"], task["arms"]["sft"]["retrieval"]
        rises = [joint[s][task["layer"] - 1] > sft[s][task["layer"] - 1] for s in joint if s in sft]
        words[name] = "holds in every seed" if all(rises) else "not shown"
    ours = _together(
        _many(results, "joint", "sft", {1: "1 below ", 3: "3 below ", 5: "5 below "}),
        *(f"{name}: {say(task)}" for name, task in probed.items()),
    )
    return Row(13, "aligning layer k raises the layers below it", "rises below k too", ours, _all_hold(words))


bottom_layer = _of_arms(
    7,
    "aligning the bottom hurts, the top is uneven",
    "bottom below SFT",
    {"layer_3": "layer 3", "joint": "the middle", "layer_27": "layer 27"},
    "layer_3",
    -1,
)


def more_languages(results: Results) -> Row:
    """Claim 8: four aligned languages against two, over all languages."""

    def say(task: Task) -> str:
        more = gain_of(task, "joint", "all", "two_languages")
        two, four = (shown(gain_of(task, arm, "all")) for arm in ("two_languages", "joint"))
        return f"all languages: 2 aligned {two}, 4 aligned {four}; 4 less 2 {shown(more)}" if more else NOT_RUN

    word = _judged(results, lambda task: verdict(gain_of(task, "joint", "all", "two_languages")))
    return Row(8, "more aligned languages help", "5: +1.5, 19: +1.9", _each(results, say), word)


def other_domain(results: Results) -> Row:
    """Claim 9: retrieval after aligning pairs of another domain alone, and what aligned languages gain."""
    row = _of_arms(
        9,
        "pairs from another domain work nearly as well",
        "retrieval 71.9 and 68.5 % against 77.7 %",
        {"tatoeba": "Tatoeba alone", "commands": "commands alone", "joint": "both"},
        "tatoeba",
    )(results)
    levels = []
    for name, task in tasks(results).items():
        found = {arm: task["arms"].get(arm, {}).get("retrieval") for arm in ("tatoeba", "joint")}
        if all(found.values()):
            alone, both = (np.mean([curve[task["layer"]] for curve in curves.values()]) for curves in found.values())
            levels.append(f"{name}: retrieval {alone:.1f} % (Tatoeba alone), {both:.1f} % (both)")
    return replace(row, ours=NEXT.join([*levels, row.ours]))


CLAIMS: tuple[Callable[[Results], Row], ...] = (
    retrieval_rises,
    middle_layers,
    retrieval_predicts_transfer,
    sft_does_not_align,
    aligned_gain,
    last_state_gain,
    supervised_do_not_lose,
    unseen_gain,
    bottom_layer,
    more_languages,
    other_domain,
    merged,
    long_outputs,
    scripts,
    layers_below,
)
"""In the order of their numbers."""
