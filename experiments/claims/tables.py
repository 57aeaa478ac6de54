"""The tables of docs/evidence_world.md, as Markdown lines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.claims.measured import GROUPS, LOW, METRICS, Estimate, Runs, shown_p
from experiments.claims.run import NEEDED
from experiments.row import Row
from midalign.training.train import TRAINING_FILE

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
    "one_language": "batches of one language",
    "three_to_one": "three task updates to one of alignment",
    "first_half": "alignment in the first half only",
    "weight_03": "alignment loss times 0.3",
    "merged": "alignment adapter merged, weight tuned on dev",
    "bands": "merged, one weight for each half of the layers",
    "plain": "plain: each sentence by itself, as in the paper",
    "plain_shuffled": "plain, a control: each sentence aligned with the translation of another one",
    "plain_bottom": "plain, layer 2 instead of the last",
    "plain_middle": "plain, the middle layer",
    "plain_preserved": "plain, with a loss that preserves repeating (removed since)",
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
