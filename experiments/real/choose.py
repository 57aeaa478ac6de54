"""Chooses among arms on dev: the highest slot F1 of aligned languages where supervised ones lose at most half a point.

    python -m experiments.real.choose DEV

DEV holds runs of ``run.py --dev``, all arms with the same seeds of the same recipes, and SFT among them. Prints a table
of means over recipes and seeds.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

from midalign.evaluation.score import SCORES
from midalign.files import read_json

METRIC = "slot_f1"
BASELINES = ("sft", "joint")
MOST_LOST = 0.5  # points of supervised languages


def means(out: Path) -> dict[str, dict[str, float]]:
    """Slot F1 of every arm by group, in points, the mean over recipes and seeds; and how many runs it is of."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for file in sorted(out.glob(f"*/seed*/*/{SCORES}")):
        for score in read_json(file)["scores"]:
            if score["metric"] == METRIC and score.get("group") in ("supervised", "aligned", "unseen"):
                found[file.parent.name][score["group"]].append(100 * score["value"])
    return {
        arm: {group: sum(values) / len(values) for group, values in groups.items()} | {"runs": len(groups["aligned"])}
        for arm, groups in found.items()
    }


def choose(out: Path) -> str:
    """Prints the table; returns the name of the best arm."""
    table = means(out)
    for arm, groups in table.items():
        print(f"{arm:28}", " ".join(f"{name} {value:5.1f}" for name, value in groups.items()), flush=True)
    least = table["sft"]["supervised"] - MOST_LOST
    arms = [arm for arm in table if arm not in BASELINES and table[arm]["runs"] == table["sft"]["runs"]]
    allowed = [arm for arm in arms if table[arm]["supervised"] >= least] or arms
    best = max(allowed, key=lambda arm: table[arm]["aligned"])
    print(f"chosen: {best}", flush=True)
    return best


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    choose(parser.parse_args().out)
