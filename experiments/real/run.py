"""Trains, answers, scores and probes arms on a real model and real data; what is done already is not done again.

    python experiments/real/run.py --recipe xsid --model MODEL --pairs PAIRS --seeds 0 1 2 --arms sft joint --out RUNS

MODEL is a folder of ``midalign model smollm2``, PAIRS one of ``pairs.py``. ``RUNS/<recipe>/seed<s>/<arm>/`` gets the
adapter, ``training.json``, ``predictions.jsonl``, ``scores.json`` and ``probe/probe.json``. With ``--dev`` arms are
scored on dev items only, and nothing is probed: settings are chosen there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from midalign.answers.predictions import PREDICTIONS, write_predictions
from midalign.evaluation.score import SCORES, score, write_scores
from midalign.files import write_json
from midalign.generation.generate import generate
from midalign.merging.export import merge_adapters
from midalign.merging.job import MERGE_FILE
from midalign.merging.tune import tune_weights
from midalign.models.adapters import attach_adapter
from midalign.models.loading import load_model, load_tokenizer
from midalign.probing.probe import probe
from midalign.recipe.data import PairData, TaskData, evaluation_texts, read_pair_data, read_probe_corpus, read_task_data
from midalign.recipe.file import load_recipe
from midalign.recipe.sections import Recipe
from midalign.records import Score, TaskExample
from midalign.training.train import ADAPTER, TRAINING_FILE, train

HERE = Path(__file__).parent
ARMS: dict[str, dict[str, Any]] = yaml.safe_load((HERE / "arms.yaml").read_text())
SHOWN = ("slot_f1", "label_f1", "value_f1", "intent_accuracy")


def settings(arm: str) -> list[str]:
    """The overrides of an arm: those of the arm that it is like, and its own."""
    spec = ARMS[arm]
    return [*(settings(spec["like"]) if "like" in spec else []), *spec.get("set", [])]


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


def run_arm(name: str, seed: int, arm: str, out: Path, *, dev: bool, more: Sequence[str] = ()) -> None:
    """Trains, answers, probes and scores one arm; what there is already is kept."""
    folder = out / name / f"seed{seed}" / arm
    os.environ["TASK"] = name
    overrides = [os.path.expandvars(override) for override in (f"seed={seed}", *settings(arm), *more)]
    recipe = load_recipe(HERE / f"{name}.yaml", overrides)
    same_settings(recipe, folder)
    if (folder / SCORES).exists() and (dev or (folder / "probe" / "probe.json").exists()):
        return
    started = time.monotonic()
    task, corpus = read_task_data(recipe), read_probe_corpus(recipe)
    objective = ARMS[arm].get("objective", "joint")
    if objective == "merge" and not (folder / MERGE_FILE).exists():
        merge_arm(recipe, folder, ARMS[arm]["of"], task)
    elif objective not in ("none", "merge") and not (folder / TRAINING_FILE).exists():
        pairs = read_pair_data(recipe, evaluation_texts(task, corpus))
        if ARMS[arm].get("shuffled"):
            pairs = shuffled(pairs, seed)
        train(recipe, folder, objective=objective, task_data=task, pair_data=pairs, progress=lambda *_: None)
    trained = time.monotonic() - started
    scores: list[Score] = []
    if objective in ("none", "align"):
        write_scores(scores, folder / SCORES)
    elif not (folder / SCORES).exists():
        scores = answer_arm(recipe, folder, task.dev if dev else task.test)
    answered = time.monotonic() - started
    if not dev and not (folder / "probe" / "probe.json").exists():
        model = load_model(recipe.model.path)
        if objective != "none":
            model = attach_adapter(model, folder / ADAPTER)
        section = recipe.probe
        result = probe(model, load_tokenizer(recipe.model.path), corpus, pooling=section.pooling, seed=seed)
        result.write(folder / "probe")
    shown = {
        group: {s.metric: round(100 * s.value, 1) for s in scores if s.group == group and s.metric in SHOWN}
        for group in ("supervised", "aligned", "unseen")
    }
    print(f"{name} seed {seed} {arm}: trained {trained:.0f} s, answered {answered - trained:.0f} s {shown}", flush=True)


def same_settings(recipe: Recipe, folder: Path) -> None:
    """Stops where a folder holds an arm that was run with other settings; what is done would be taken for this arm."""
    file = folder / "settings.json"
    whole = recipe.as_dict()
    decisive = json.loads(json.dumps({part: whole[part] for part in ("alignment", "training", "lora", "task")}))
    if file.exists() and json.loads(file.read_text()) != decisive:
        raise SystemExit(f"{folder} was run with other settings than its recipe and arms.yaml give now: remove it")
    write_json(file, decisive)


def merge_arm(recipe: Recipe, folder: Path, of: str, task: TaskData) -> None:
    """Merges the alignment adapter of another arm into that of SFT, with weights tuned on dev."""
    adapters = {"task": folder.parent / "sft" / ADAPTER, "alignment": folder.parent / of / ADAPTER}
    model, tokenizer = load_model(recipe.model.path), load_tokenizer(recipe.model.path)
    tuned = tune_weights(model, tokenizer, adapters, recipe, task.dev, progress=lambda *_: None)
    merge_adapters(adapters, tuned["chosen"], recipe.merge.method, out=folder / ADAPTER, base_model=model)
    write_json(folder / MERGE_FILE, tuned)


def answer_arm(recipe: Recipe, folder: Path, items: Sequence[TaskExample]) -> list[Score]:
    """Answers items with the adapter of an arm, and scores them."""
    predictions = generate(
        load_model(recipe.model.path, dtype="bfloat16"),
        load_tokenizer(recipe.model.path),
        items,
        adapter=folder / ADAPTER,
        max_new_tokens=recipe.generation.max_new_tokens,
        batch_tokens=recipe.generation.batch_tokens,
        answer_format=recipe.answer_format,
        partial=folder / f".{PREDICTIONS}.partial",
    )
    write_predictions(predictions, folder / PREDICTIONS)
    answered = {item.language for item in items}
    groups = {name: codes for name, codes in recipe.languages.groups().items() if set(codes) <= answered}
    scores = score(items, predictions, groups=groups, answer_format=recipe.answer_format, resamples=200)
    write_scores(scores, folder / SCORES)
    return scores


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=["xsid", "mtop"], required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=["sft", "joint", "shuffled"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dev", action="store_true", help="score on dev items, to choose settings")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[], help="further overrides of the recipe")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    places = {"REAL_MODEL": given.model, "REAL_DATA": given.data, "REAL_PAIRS": given.pairs}
    os.environ |= {name: str(path.resolve()) for name, path in places.items()}
    for seed in given.seeds:
        for arm in given.arms:
            run_arm(given.recipe, seed, arm, given.out, dev=given.dev, more=given.set)


if __name__ == "__main__":
    main()
