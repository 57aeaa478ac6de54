"""Trains and scores arms on bases and seeds; what is done already is not done again.

    python experiments/claims/run.py --bases BASE... --seeds 0 1 --arms sft joint shuffled --out RUNS

A base is what ``midalign testbed build`` wrote; its data sets (of the same seed as the base, so that what one base
never saw is not what another never saw) are written beside it. Of an arm, ``RUNS/<base>/seed<s>/<arm>/`` gets the
adapter, ``training.json``, ``predictions.jsonl``, ``scores.json`` and ``probe/probe.json`` (and those of other kinds of
sentences, `PROBES`).

With ``--dev`` arms are scored on dev items only, and nothing is probed: settings are chosen there.
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

from midalign.answers.format import AnswerFormat
from midalign.answers.predictions import PREDICTIONS, write_predictions
from midalign.data.parallel.corpus import ParallelCorpus, read_parallel
from midalign.data.prompts import render
from midalign.evaluation.score import SCORES, score, write_scores
from midalign.files import write_json
from midalign.generation.generate import generate
from midalign.merging.export import merge_adapters
from midalign.merging.job import MERGE_FILE
from midalign.merging.tune import tune_weights
from midalign.models.adapters import attach_adapter
from midalign.models.loading import load_model, load_tokenizer
from midalign.probing.probe import probe
from midalign.recipe.data import (
    PairData,
    TaskData,
    evaluation_texts,
    read_pair_data,
    read_probe_corpus,
    read_task_data,
)
from midalign.recipe.file import load_recipe
from midalign.recipe.sections import Recipe
from midalign.records import Score, TaskExample
from midalign.testbed.tasks import build_data
from midalign.training.train import ADAPTER, TRAINING_FILE, train

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
PROBES: dict[str, tuple[str, ...]] = {
    "probe": (),
    "probe_ordinary": ("sft", "joint", "plain"),
    "probe_asked": ("sft", "joint", "plain"),
}
"""Kinds of sentences to the arms that are probed on them (none named: all): without names and digits; with them, as
those of FLORES have; the first kind again, each in the task's prompt (pooled over all of its tokens, while training
pools from the sentence on)."""
FREE = ("sft", "joint", "shuffled", "plain", "plain_shuffled", "merged")
"""Arms that also answer freely, into ``free/``: not held to the form of an answer, nor to the words of the sentence."""
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
    """Trains, probes, answers and scores one arm; what there is already is kept."""
    folder = out / base.name / f"seed{seed}" / arm
    recipe = recipe_of(base, seed, arm)
    same_settings(recipe, folder)
    probes = [] if dev else [name for name, arms in PROBES.items() if not arms or arm in arms]
    free = [folder / "free"] if arm in FREE and not dev else []
    wanted = [folder / SCORES, *(folder / name / "probe.json" for name in probes), *(each / SCORES for each in free)]
    if all(file.exists() for file in wanted):
        return
    started = time.monotonic()
    write_json(folder.parent / "base.json", {"path": str(base)})
    task, corpus = read_task_data(recipe), read_probe_corpus(recipe)
    objective = ARMS[arm].get("objective", "joint")
    adapt_arm(recipe, folder, arm, objective, task, corpus)
    for name in probes:
        if not (folder / name / "probe.json").exists():
            probe_arm(recipe, folder, name, sentences(name, recipe, corpus), adapted=objective != "none")
    for each in free:
        if not (each / SCORES).exists():
            answer_arm(recipe, folder, task.test, each, replace(recipe.answer_format, constrained=None))
    if not (folder / SCORES).exists():
        scores = score_arm(recipe, folder, objective, task.dev if dev else task.test)
        print(f"{base.name} seed {seed} {arm}: {time.monotonic() - started:.0f} s {main_scores(scores)}", flush=True)


def adapt_arm(recipe: Recipe, folder: Path, arm: str, objective: str, task: TaskData, corpus: ParallelCorpus) -> None:
    """Trains or merges the adapter of an arm; the base has none."""
    if objective == "merge":
        if not (folder / MERGE_FILE).exists():
            merge_arm(recipe, folder, ARMS[arm]["of"], task)
    elif objective != "none" and not (folder / TRAINING_FILE).exists():
        pairs = read_pair_data(recipe, evaluation_texts(task, corpus))
        if ARMS[arm].get("shuffled"):
            pairs = shuffled(pairs, recipe.seed)
        train(recipe, folder, objective=objective, task_data=task, pair_data=pairs, progress=lambda *_: None)


def score_arm(recipe: Recipe, folder: Path, objective: str, items: Sequence[TaskExample]) -> list[Score]:
    """Answers and scores; an arm that never saw the task has no answers, and an empty file of scores."""
    if objective not in ("none", "align"):
        return answer_arm(recipe, folder, items, folder, recipe.answer_format)
    write_scores([], folder / SCORES)
    return []


def main_scores(scores: Sequence[Score]) -> dict[str, dict[str, float]]:
    """The scores that are printed when an arm is done, in percent."""
    return {
        group: {s.metric: round(100 * s.value, 1) for s in scores if s.group == group and s.metric in SHOWN}
        for group in ("supervised", "aligned", "aligned_low", "aligned_high", "unseen")
    }


def same_settings(recipe: Recipe, folder: Path) -> None:
    """Stops where a folder holds an arm that was run with other settings; what is done would be taken for this arm."""
    file = folder / "settings.json"
    whole = recipe.as_dict()
    decisive = json.loads(json.dumps({name: whole[name] for name in ("alignment", "training", "lora", "task")}))
    if file.exists() and json.loads(file.read_text()) != decisive:
        raise SystemExit(
            f"{folder} was run with other settings than arms.yaml and recipe.yaml give now: remove it, or "
            "take another --out"
        )
    write_json(file, decisive)


def merge_arm(recipe: Recipe, folder: Path, of: str, task: TaskData) -> None:
    """Merges the alignment adapter of another arm into that of SFT, with weights tuned on dev."""
    adapters = {"task": folder.parent / "sft" / ADAPTER, "alignment": folder.parent / of / ADAPTER}
    model = load_model(recipe.model.path)
    tokenizer = load_tokenizer(recipe.model.path)
    tuned = tune_weights(model, tokenizer, adapters, recipe, task.dev, progress=lambda *_: None)
    merge_adapters(adapters, tuned["chosen"], recipe.merge.method, out=folder / ADAPTER, base_model=model)
    write_json(folder / MERGE_FILE, tuned)


def answer_arm(
    recipe: Recipe, folder: Path, items: Sequence[TaskExample], out: Path, answer_format: AnswerFormat
) -> list[Score]:
    """Answers items with the adapter of an arm, and scores them."""
    predictions = generate(
        load_model(recipe.model.path),
        load_tokenizer(recipe.model.path),
        items,
        answer_format,
        adapter=folder / ADAPTER,
        max_new_tokens=recipe.generation.max_new_tokens,
    )
    out.mkdir(parents=True, exist_ok=True)
    write_predictions(predictions, out / PREDICTIONS)
    groups = recipe.languages.groups() | {
        "aligned_low": [c for c in recipe.languages.aligned if c in recipe.languages.low_resource],
        "aligned_high": [c for c in recipe.languages.aligned if c not in recipe.languages.low_resource],
    }
    answered = {item.language for item in items}
    groups = {name: codes for name, codes in groups.items() if set(codes) <= answered}
    scores = score(items, predictions, answer_format, groups=groups, resamples=200)
    write_scores(scores, out / SCORES)
    return scores


def sentences(kind: str, recipe: Recipe, corpus: ParallelCorpus) -> ParallelCorpus:
    """Sentences of one of the kinds of `PROBES`; `corpus` is the first kind."""
    if kind == "probe_ordinary":
        return read_parallel(str(Path(recipe.probe.data).with_name("parallel")))
    if kind == "probe":
        return corpus
    tokenizer = load_tokenizer(recipe.model.path)

    def asked(code: str, text: str) -> str:
        return render(TaskExample("", "slots", code, text), tokenizer, recipe.answer_format)[0]

    rows = [replace(row, texts={code: asked(code, text) for code, text in row.texts.items()}) for row in corpus.rows]
    return replace(corpus, rows=tuple(rows))


def probe_arm(recipe: Recipe, folder: Path, name: str, corpus: ParallelCorpus, *, adapted: bool) -> None:
    """Translation retrieval at every layer of the model of an arm."""
    model = load_model(recipe.model.path)
    if adapted:
        model = attach_adapter(model, folder / ADAPTER)
    probe(model, load_tokenizer(recipe.model.path), corpus, seed=recipe.seed).write(folder / name)


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
