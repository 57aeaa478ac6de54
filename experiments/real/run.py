"""Trains, answers, scores and probes arms on a real model and real data; what is done already is not done again.

    python -m experiments.real.run --recipe xsid --model MODEL --pairs PAIRS --seeds 0 1 2 --arms sft joint --out RUNS

MODEL is a folder of ``midalign model smollm2``, PAIRS one of ``pairs.py``. ``RUNS/<recipe>/seed<s>/<arm>/`` gets the
adapter, ``training.json``, ``predictions.jsonl``, ``scores.json`` and ``probe/probe.json``. With ``--dev`` arms are
scored on dev items only, and nothing is probed: settings are chosen there.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch

from experiments.arms import (
    adapt,
    add_to_the_model,
    main_scores,
    probe_arm,
    read_arms,
    same_settings,
    score_arm,
    settings,
)
from midalign.evaluation.score import SCORES
from midalign.experiment.named import resolve_names
from midalign.recipe.data import read_probe_corpus, read_task_data
from midalign.recipe.file import load_recipe
from midalign.recipe.sections import Recipe
from midalign.training.train import ADAPTER

HERE = Path(__file__).parent
ARMS = read_arms(HERE / "arms.yaml")
RECIPES = {"xsid": "xSID", "mtop": "MTOP", "uner": "UNER", "translation": "translation", "home": "smart home"}
"""The recipes, and how the page calls them."""


def recipe_of(name: str, seed: int, arm: str, *more: str) -> Recipe:
    """The recipe of one arm, with further overrides."""
    os.environ["TASK"] = name
    overrides = [f"seed={seed}", *settings(ARMS, arm), *more]
    return load_recipe(HERE / f"{name}.yaml", [os.path.expandvars(override) for override in overrides])


def run_arm(
    name: str, seed: int, arm: str, out: Path, *, dev: bool, probe: bool = True, more: Sequence[str] = ()
) -> None:
    """Trains, answers, scores and probes one arm; what there is already is kept."""
    folder = out / name / f"seed{seed}" / arm
    recipe = resolve_names(recipe_of(name, seed, arm, *more))
    same_settings(recipe, folder)
    if "above" in ARMS[arm]:
        below = folder.parent / ARMS[arm]["above"]
        model = add_to_the_model(recipe, below / ADAPTER, below / "model")
        recipe = resolve_names(recipe_of(name, seed, arm, *more, f"model.path={model}"))
    probed = dev or not probe or (folder / "probe" / "probe.json").exists()
    if probed and (folder / SCORES).exists():
        return
    task, corpus = read_task_data(recipe), read_probe_corpus(recipe)
    objective = ARMS[arm].get("objective", "joint")
    times = [time.monotonic()]
    adapt(recipe, folder, ARMS[arm], task, corpus)
    times.append(time.monotonic())
    if not (folder / SCORES).exists():
        on_the_task = ARMS[arm].get("above") == "sft"
        scores = score_arm(recipe, folder, objective, task.dev if dev else task.test, on_the_task=on_the_task)
        times.append(time.monotonic())
        spent = " and ".join(f"{end - start:.0f} s" for start, end in pairwise(times))
        print(f"{name} seed {seed} {arm}: trained and answered in {spent} {main_scores(scores)}", flush=True)
    if not probed:
        probe_arm(recipe, folder, "probe", corpus, adapted=objective != "none")


def add_places(parser: argparse.ArgumentParser, *, needed: bool = True) -> None:
    """Adds the arguments that say where model, data and pairs are."""
    parser.add_argument("--model", type=Path, required=needed)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--pairs", type=Path, required=needed)


def set_places(given: argparse.Namespace) -> None:
    """Puts them where the recipes look for them."""
    places = {"REAL_MODEL": given.model, "REAL_DATA": given.data, "REAL_PAIRS": given.pairs}
    os.environ |= {name: str(path.resolve()) for name, path in places.items()}


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=RECIPES, required=True)
    add_places(parser)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=["sft", "joint", "shuffled"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dev", action="store_true", help="score on dev items, to choose settings")
    parser.add_argument("--no-probe", action="store_true", help="leave the probes to a later call without it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[], help="further overrides of the recipe")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    set_places(given)
    for seed in given.seeds:
        for arm in given.arms:
            run_arm(given.recipe, seed, arm, given.out, dev=given.dev, probe=not given.no_probe, more=given.set)


if __name__ == "__main__":
    main()
