"""Prints how the layer curve of retrieval grows with the tokens that a base has read.

    python -m experiments.claims.curve BASE...

A base is what ``midalign testbed build --snapshots N`` wrote. Each row is one snapshot, or the finished base: retrieval
in percent at every layer, mean over all directions, on sentences without shared names and digits; and the median over
languages of the share of commands that it says again exactly.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch

from midalign.testbed.inspect import inspect_base


def row(folder: Path, card: dict[str, Any], tokens: int) -> str:
    """One line of the table."""
    recipe = card["recipe"]
    found = inspect_base(folder, languages=recipe["languages"], seed=recipe["seed"], sentences=100, commands=8)
    curve = " | ".join(f"{100 * value:.1f}" for value in found.retrieval)
    repeats = statistics.median(found.copying.values())
    return f"| {card['bilingual_share']:.1%} | {tokens / 1e6:.1f} M | {curve} | {repeats:.0%} |"


def main() -> None:
    """Reads the arguments and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bases", nargs="+", type=Path, help="folders of midalign testbed build --snapshots N")
    given = parser.parse_args()
    torch.set_num_threads(1)
    layers = json.loads((given.bases[0] / "config.json").read_text())["num_hidden_layers"] + 1
    print("| bilingual | tokens | " + " | ".join(f"layer {k}" for k in range(layers)) + " | repetition |")
    print("|---" * (layers + 3) + "|")
    for base in given.bases:
        card = json.loads((base / "pretraining.json").read_text())
        per_update = card["recipe"]["rows"] * card["recipe"]["length"]
        for snapshot in sorted((base / "snapshots").glob("step-*")):
            print(row(snapshot, card, int(snapshot.name.removeprefix("step-")) * per_update), flush=True)
        print(row(base, card, card["tokens"]), flush=True)


if __name__ == "__main__":
    main()
