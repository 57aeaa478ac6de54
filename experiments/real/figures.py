"""The figures of docs/evidence.md, as SVG: retrieval by layer, pooling and direction; what each language gains."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("svg")
from matplotlib import pyplot as plt

from experiments.real.claims import main_metric, tasks
from experiments.real.measured import METRICS

# The same file whenever the figures are the same: no date, no random names.
plt.rcParams |= {"svg.hashsalt": "midalign", "figure.figsize": (7, 3.2), "axes.spines.top": False,
                 "axes.spines.right": False, "font.size": 9}  # fmt: skip


def draw(results: Mapping[str, Any], folder: Path) -> list[tuple[str, str]]:
    """Draws what there are results for; the name and the description of each file."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    if "poolings" in results:
        text = "Retrieval of the base model by layer, for each pooling"
        found.append(_save(_poolings(results["poolings"]), folder, "evidence_poolings.svg", text))
    probes = results.get("probes", {})
    if {"sft", "joint"} <= set(probes):
        text = "Retrieval at the aligned layer in every direction, SFT and joint training"
        found.append(_save(_matrices(probes), folder, "evidence_matrices.svg", text))
    if "base" in probes and tasks(results):
        text = "What joint training gains on aligned languages, against the retrieval of the base model in the language"
        found.append(_save(_gains_by_level(results), folder, "evidence_gains_by_level.svg", text))
    for name, task in tasks(results).items():
        if "joint" in task["arms"]:
            file = f"evidence_{re.sub('[^a-z]+', '_', name.lower())}"
            if task["arms"]["joint"]["retrieval"]:
                text = f"{name}: retrieval between English and aligned languages by layer, after training"
                found.append(_save(_layers(task), folder, f"{file}_layers.svg", text))
            score = METRICS[main_metric(task)]
            text = f"{name}: {score} that joint training gains over SFT and over shuffled pairs, by language"
            found.append(_save(_gains(task), folder, f"{file}_gains.svg", text))
    return found


def _save(figure: Any, folder: Path, name: str, text: str) -> tuple[str, str]:
    figure.savefig(folder / name, metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)
    return name, text


def _poolings(poolings: Mapping[str, Any]) -> Any:
    """All directions, and those with English, side by side."""
    figure, sides = plt.subplots(1, 2, sharex=True)
    for name, entry in poolings["poolings"].items():
        for axes, key in zip(sides, ("accuracy", "english"), strict=True):
            axes.plot([100 * value for value in entry[key]], label=name)
    for axes, title in zip(sides, ("all directions", "with English"), strict=True):
        axes.set(title=title, xlabel="layer", ylabel="retrieval (%)")
    sides[0].legend(frameon=False, fontsize=7)
    return figure


def _matrices(probes: Mapping[str, Any]) -> Any:
    """A square for every direction; languages in the order in which SFT retrieves them."""
    figure, sides = plt.subplots(1, 2, figsize=(7, 3.8), layout="constrained")
    codes = list(probes["sft"]["matrix"])
    order = np.argsort([-value for value in probes["sft"]["by_language"].values()])
    for axes, arm in zip(sides, ("sft", "joint"), strict=True):
        matrix = np.array(list(probes[arm]["matrix"].values()), dtype=float)[np.ix_(order, order)]
        image = axes.imshow(matrix, vmin=0, vmax=100)
        ticks = [codes[place].split("_")[0] for place in order]
        axes.set_xticks(range(len(ticks)), ticks, rotation=90, fontsize=4)
        axes.set_yticks(range(len(ticks)), ticks, fontsize=4)
        axes.set(title=arm, xlabel="found in", ylabel="asked in")
    figure.colorbar(image, ax=sides, label="retrieval (%)", shrink=0.8)
    return figure


def _gains_by_level(results: Mapping[str, Any]) -> Any:
    """A point with its 95 % interval for every aligned language of every task."""
    figure, axes = plt.subplots()
    level = results["probes"]["base"]["by_language"]
    for number, (name, task) in enumerate(tasks(results).items()):
        gains = task["arms"].get("joint", {}).get("gains", {}).get("sft", {}).get(main_metric(task), {})
        codes = [code for code in task["languages"]["aligned"] if code in level and code in gains]
        ends = [
            [gains[c]["value"] - gains[c]["low"] for c in codes],
            [gains[c]["high"] - gains[c]["value"] for c in codes],
        ]
        axes.errorbar(
            [level[code] + 0.12 * number for code in codes], [gains[code]["value"] for code in codes], yerr=ends,
            fmt="o", markersize=4, label=name,
        )  # fmt: skip
        for code in codes:
            axes.annotate(code.split("_")[0], (level[code] + 0.12 * number, gains[code]["value"]), fontsize=6,
                          xytext=(3, 3), textcoords="offset points")  # fmt: skip
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set(xlabel="retrieval of the base model in the language, middle layer (%)", ylabel="joint minus SFT (points)")
    axes.legend(frameon=False, fontsize=7)
    return figure


def _layers(task: Mapping[str, Any]) -> Any:
    """The mean over seeds, and the range of the seeds."""
    figure, axes = plt.subplots()
    for arm in ("base", "sft", "shuffled", "joint"):
        curves = list(task["arms"].get(arm, {}).get("retrieval", {}).values())
        if curves:
            axes.plot(np.mean(curves, axis=0), label=arm)
            axes.fill_between(range(len(curves[0])), np.min(curves, axis=0), np.max(curves, axis=0), alpha=0.2)
    axes.axvline(task["layer"], color="grey", linewidth=0.8, linestyle="dotted")
    axes.set(xlabel="layer (dotted: the aligned one)", ylabel="retrieval (%)")
    axes.legend(frameon=False)
    return figure


def _gains(task: Mapping[str, Any]) -> Any:
    """A point with its 95 % interval for every language, in the order of their scores after SFT."""
    figure, axes = plt.subplots()
    level = task["arms"]["sft"]["levels"][main_metric(task)]
    codes = sorted((c for group in task["languages"].values() for c in group), key=lambda code: -level[code])
    for shift, other in ((-0.12, "sft"), (0.12, "shuffled")):
        gains = task["arms"]["joint"]["gains"][other].get(main_metric(task), {})
        there = [(place, gains[code]) for place, code in enumerate(codes) if code in gains]
        values = [gain["value"] for _, gain in there]
        ends = [[g["value"] - g["low"] for _, g in there], [g["high"] - g["value"] for _, g in there]]
        axes.errorbar(
            [p + shift for p, _ in there], values, yerr=ends, fmt="o", markersize=4, label=f"joint minus {other}"
        )
    axes.axhline(0, color="grey", linewidth=0.8)
    roles = {code: group for group, members in task["languages"].items() for code in members}
    axes.set_xticks(range(len(codes)), [f"{c.split('_')[0]}\n{roles[c][:5]}" for c in codes], fontsize=7)
    axes.set(ylabel=f"{METRICS[main_metric(task)]} (points)")
    axes.legend(frameon=False)
    return figure
