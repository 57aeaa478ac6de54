"""Trains and scores arms on bases and seeds; what is done already is not done again.

    python experiments/claims/run.py --bases BASE... --seeds 0 1 --arms sft joint shuffled --out RUNS

A base is what ``midalign testbed build`` wrote; its data sets (of the same seed as the base, so that what one base
never saw is not what another never saw) are written beside it. Of an arm, ``RUNS/<base>/seed<s>/<arm>/`` gets the
adapter, ``training.json``, ``predictions.jsonl``, ``scores.json`` and ``probe/probe.json`` (without names and digits;
``probe_ordinary`` with them).

With ``--dev`` arms are scored on dev items only, and nothing is probed: settings are chosen there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from midalign.evaluation import SCORES, score, write_scores
from midalign.generation import PREDICTIONS, generate, write_predictions
from midalign.merge import MERGE_FILE, tune_weights
from midalign.models.adapters import attach_adapter, merge_adapters
from midalign.models.loading import load_model, load_tokenizer
from midalign.probe import probe
from midalign.recipe import Recipe
from midalign.recipe_data import PairData, evaluation_texts, read_pair_data, read_probe_corpus, read_task_data
from midalign.recipe_file import load_recipe
from midalign.runs import write_json
from midalign.testbed.tasks import build_data
from midalign.training import ADAPTER, TRAINING_FILE, train

HERE = Path(__file__).parent
ARMS: dict[str, dict[str, Any]] = yaml.safe_load((HERE / "arms.yaml").read_text())
NEEDED: dict[int, list[str]] = {
    0: ["sft", "joint"],
    1: ["base", "sft"],
    2: ["base", "sft", "joint"],
    3: ["base", "sft", "joint"],
    4: ["sft", "joint", "shuffled"],
    5: ["sft", "joint"],
    6: ["sft", "joint", "shuffled"],
    7: ["sft", "plain", "plain_bottom", "plain_middle"],
    8: ["sft", "plain", "plain_two_languages"],
    9: ["sft", "plain", "plain_other_domain"],
    10: ["sft", "joint", "alignment", "merged"],
    11: ["sft_json", "plain_json"],
    12: ["sft", "joint"],
    13: ["sft", "joint"],
}
"""The arms that each claim needs, in an order in which they can be run; 0 is the rise of retrieval itself."""
SHOWN = ("slot_f1", "label_f1", "value_f1", "intent_accuracy", "entity_f1")


def data_of(base: Path) -> Path:
    """The data sets of a base, written at the first call."""
    seed = json.loads((base / "pretraining.json").read_text())["recipe"]["seed"]
    folder = base / "data"
    if not (folder / "data_card.json").exists():
        build_data(folder, seed=seed)
    return folder


def settings(arm: str) -> list[str]:
    """The overrides of an arm: those of the arm that it is like, and its own."""
    spec = ARMS[arm]
    return [*(settings(spec["like"]) if "like" in spec else []), *spec.get("set", [])]


def recipe_of(base: Path, seed: int, arm: str, *more: str) -> Recipe:
    """The recipe of one arm, with further overrides."""
    os.environ |= {"CLAIMS_BASE": str(base), "CLAIMS_DATA": str(data_of(base))}
    overrides = [f"seed={seed}", *settings(arm), *more]
    return load_recipe(HERE / "recipe.yaml", [os.path.expandvars(override) for override in overrides])


def shuffled(pairs: PairData, seed: int) -> PairData:
    """The control: within every pair of languages, each sentence is given the translation of another one."""
    rng = random.Random(seed)
    by_languages: dict[tuple[str, str], list[Any]] = {}
    for pair in pairs.train:
        by_languages.setdefault((pair.source_language, pair.target_language), []).append(pair)
    mixed = []
    for group in by_languages.values():
        rng.shuffle(group)
        mixed += [replace(a, target=b.target) for a, b in zip(group, group[1:] + group[:1], strict=True)]
    return PairData(mixed, pairs.held_out)


def run_arm(base: Path, seed: int, arm: str, out: Path, *, dev: bool) -> None:
    """Trains, answers, scores and probes one arm."""
    folder = out / base.name / f"seed{seed}" / arm
    if (folder / SCORES).exists():
        return
    started = time.monotonic()
    write_json(folder.parent / "base.json", {"path": str(base)})
    spec = ARMS[arm]
    recipe = recipe_of(base, seed, arm)
    task, corpus = read_task_data(recipe), read_probe_corpus(recipe)
    tokenizer = load_tokenizer(recipe.model.path)
    objective = spec.get("objective", "joint")
    if objective == "merge":
        adapters = {"task": folder.parent / "sft" / ADAPTER, "alignment": folder.parent / spec["of"] / ADAPTER}
        model = load_model(recipe.model.path)
        tuned = tune_weights(model, tokenizer, adapters, recipe, task.dev, progress=lambda *_: None)
        merge_adapters(adapters, tuned["chosen"], recipe.merge.method, out=folder / ADAPTER, base_model=model)
        write_json(folder / MERGE_FILE, tuned)
    elif objective != "none" and not (folder / TRAINING_FILE).exists():
        pairs = read_pair_data(recipe, evaluation_texts(task, corpus))
        if spec.get("shuffled"):
            pairs = shuffled(pairs, seed)
        train(recipe, folder, objective=objective, task_data=task, pair_data=pairs, progress=lambda *_: None)
    scores = []
    if objective not in ("none", "align"):
        items = task.dev if dev else task.test
        style = recipe.evaluation.completion_style
        predictions = generate(
            load_model(recipe.model.path),
            tokenizer,
            items,
            adapter=folder / ADAPTER,
            max_new_tokens=recipe.generation.max_new_tokens,
            completion_style=style,
            system=recipe.task.system,
        )
        write_predictions(predictions, folder / PREDICTIONS)
        groups = recipe.languages.groups() | {
            "aligned_low": [c for c in recipe.languages.aligned if c in recipe.languages.low_resource],
            "aligned_high": [c for c in recipe.languages.aligned if c not in recipe.languages.low_resource],
        }
        if dev:
            answered = {item.language for item in items}
            groups = {name: codes for name, codes in groups.items() if set(codes) <= answered}
        scores = score(items, predictions, groups=groups, completion_style=style, resamples=200)
    if not dev:
        model = load_model(recipe.model.path)
        if objective != "none":
            model = attach_adapter(model, folder / ADAPTER)
        probe(model, tokenizer, corpus, seed=recipe.seed).write(folder / "probe")
        if arm in ("sft", "joint", "plain"):  # names and digits too, as the sentences of FLORES have
            ordinary = read_probe_corpus(recipe_of(base, seed, arm, "probe.data=${CLAIMS_DATA}/parallel"))
            probe(model, tokenizer, ordinary, seed=recipe.seed).write(folder / "probe_ordinary")
    folder.mkdir(parents=True, exist_ok=True)
    write_scores(scores, folder / SCORES)
    shown = {
        group: {s.metric: round(100 * s.value, 1) for s in scores if s.group == group and s.metric in SHOWN}
        for group in ("supervised", "aligned", "aligned_low", "aligned_high", "unseen")
    }
    print(f"{base.name} seed {seed} {arm}: {time.monotonic() - started:.0f} s {shown}", flush=True)


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bases", nargs="+", type=Path, required=True, help="folders of midalign testbed build")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--claim", type=int, choices=list(NEEDED), help="the arms of this claim, instead of --arms")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dev", action="store_true", help="score on dev items, to choose settings")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for seed in given.seeds:
        for base in given.bases:
            for arm in given.arms if given.claim is None else NEEDED[given.claim]:
                run_arm(base.resolve(), seed, arm, given.out, dev=given.dev)


if __name__ == "__main__":
    main()
