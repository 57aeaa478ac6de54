"""Trains and scores arms on bases and seeds; what is done already is not done again.

    python -m experiments.claims.run --bases BASE... --seeds 0 1 --arms sft joint shuffled --out RUNS

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
import time
from dataclasses import replace
from pathlib import Path

import torch

from experiments.arms import adapt, answer, main_scores, probe_arm, read_arms, same_settings, score_arm, settings
from midalign.data.parallel.corpus import ParallelCorpus, read_parallel
from midalign.data.prompts import render
from midalign.evaluation.score import SCORES
from midalign.files import write_json
from midalign.models.loading import load_tokenizer
from midalign.recipe.data import (
    read_probe_corpus,
    read_task_data,
)
from midalign.recipe.file import load_recipe
from midalign.recipe.sections import Recipe
from midalign.records import TaskExample
from midalign.testbed.tasks import build_data

HERE = Path(__file__).parent
ARMS = read_arms(HERE / "arms.yaml")
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


def data_of(base: Path) -> Path:
    """The data sets of a base, written at the first call."""
    seed = json.loads((base / "pretraining.json").read_text())["recipe"]["seed"]
    folder = base / "data"
    if not (folder / "data_card.json").exists():
        build_data(folder, seed=seed)
    return folder


def recipe_of(base: Path, seed: int, arm: str, *more: str) -> Recipe:
    """The recipe of one arm, with further overrides."""
    os.environ |= {"CLAIMS_BASE": str(base), "CLAIMS_DATA": str(data_of(base))}
    overrides = [f"seed={seed}", *settings(ARMS, arm), *more]
    return load_recipe(HERE / "recipe.yaml", [os.path.expandvars(override) for override in overrides])


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
    adapt(recipe, folder, ARMS[arm], task, corpus)
    for name in probes:
        if not (folder / name / "probe.json").exists():
            probe_arm(recipe, folder, name, sentences(name, recipe, corpus), adapted=objective != "none")
    for each in free:
        if not (each / SCORES).exists():
            answer(recipe, folder, task.test, each, replace(recipe.answer_format, constrained=None))
    if not (folder / SCORES).exists():
        scores = score_arm(recipe, folder, objective, task.dev if dev else task.test)
        print(f"{base.name} seed {seed} {arm}: {time.monotonic() - started:.0f} s {main_scores(scores)}", flush=True)


def sentences(kind: str, recipe: Recipe, corpus: ParallelCorpus) -> ParallelCorpus:
    """Sentences of one of the kinds of `PROBES`; `corpus` is the first kind."""
    if kind == "probe_ordinary":
        return read_parallel(str(Path(recipe.probe.data).with_name("parallel")))
    if kind == "probe":
        return corpus
    tokenizer = load_tokenizer(recipe.model.path)

    def asked(code: str, text: str) -> str:
        return render(TaskExample("", "slots", code, text), tokenizer, recipe.answer_format).text

    rows = [replace(row, texts={code: asked(code, text) for code, text in row.texts.items()}) for row in corpus.rows]
    return replace(corpus, rows=tuple(rows))


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
