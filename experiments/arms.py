"""Arms of an experiment: one recipe, and what each arm changes of it; trained, answered, scored and probed once each.

A file of arms names each with what it changes::

    joint: {}
    shuffled: {shuffled: true}
    warm: {like: joint, set: ["alignment.temperature=0.5"]}

``objective`` is none (the base as it is), task (SFT alone), joint (the default), align (alignment alone, for merging),
merge (with ``of``, the arm of the alignment adapter) or answer (the adapter ``of`` another arm, answered in another
way); ``shuffled`` is the control, each sentence aligned with the translation of another one; ``like`` begins with the
settings of another arm; ``above`` trains on top of another arm, whose adapter is first added to the model's weights.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from midalign.answers.format import AnswerFormat
from midalign.answers.predictions import PREDICTIONS, write_predictions
from midalign.data.parallel.corpus import ParallelCorpus
from midalign.evaluation.score import SCORES, score, write_scores
from midalign.files import write_json
from midalign.generation.generate import generate
from midalign.merging.export import export_merged_base, merge_adapters
from midalign.merging.job import MERGE_FILE
from midalign.merging.tune import tune_weights
from midalign.models.adapters import attach_adapter
from midalign.models.source import ModelSource
from midalign.probing.probe import probe
from midalign.recipe.data import PairData, TaskData, evaluation_texts, read_pair_data
from midalign.recipe.sections import Recipe
from midalign.records import Score, TaskExample
from midalign.training.train import ADAPTER, TRAINING_FILE, train

SHOWN = ("slot_f1", "label_f1", "value_f1", "intent_accuracy", "entity_f1", "chrf")
SETTINGS = "settings.json"
_KEYS = {"objective", "of", "shuffled", "like", "above", "set"}
_DECISIVE = ("alignment", "training", "lora", "task")


def read_arms(file: Path) -> dict[str, dict[str, Any]]:
    """The arms of a file, by name."""
    arms: dict[str, dict[str, Any]] = yaml.safe_load(file.read_text(encoding="utf-8"))
    for arm, spec in arms.items():
        if strange := set(spec) - _KEYS:  # YAML reads `on` as true
            raise ValueError(f"{file}: {arm} has {strange}, which is none of {sorted(_KEYS)}")
    return arms


def settings(arms: Mapping[str, Mapping[str, Any]], arm: str) -> list[str]:
    """The overrides of an arm: those of the arm that it is like, and its own."""
    spec = arms[arm]
    return [*(settings(arms, spec["like"]) if "like" in spec else []), *spec.get("set", [])]


def same_settings(recipe: Recipe, folder: Path) -> None:
    """Stops where a folder holds an arm that was run with other settings; what is done would be taken for this arm."""
    file = folder / SETTINGS
    whole = recipe.as_dict()
    decisive = json.loads(json.dumps({name: whole[name] for name in _DECISIVE}))
    if file.exists() and json.loads(file.read_text()) != decisive:
        raise SystemExit(
            f"{folder} was run with other settings than its recipe and arms.yaml give now: remove it, or take another "
            "--out"
        )
    write_json(file, decisive)


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


def adapt(recipe: Recipe, folder: Path, spec: Mapping[str, Any], task: TaskData, corpus: ParallelCorpus) -> None:
    """Trains or merges the adapter of an arm, unless it is there; the base has none."""
    objective = spec.get("objective", "joint")
    if objective == "merge":
        if not (folder / MERGE_FILE).exists():
            _merge(recipe, folder, spec["of"], task)
    elif objective == "answer":
        if not (folder / ADAPTER).exists():
            (folder / ADAPTER).symlink_to(Path("..", spec["of"], ADAPTER))
    elif objective != "none" and not (folder / TRAINING_FILE).exists():
        pairs = read_pair_data(recipe, evaluation_texts(task, corpus))
        if spec.get("shuffled"):
            pairs = shuffled(pairs, recipe.seed)
        train(recipe, folder, objective=objective, task_data=task, pair_data=pairs, progress=lambda *_: None)


def add_to_the_model(recipe: Recipe, adapter: Path, out: Path) -> Path:
    """The model of a recipe with an adapter added to its weights, as a folder; written once."""
    if not out.exists():
        source = ModelSource.of(recipe.model)
        tokenizer = source.tokenizer()
        export_merged_base(source.load(), adapter, out=out)
        tokenizer.save_pretrained(out)
    return out


def _merge(recipe: Recipe, folder: Path, of: str, task: TaskData) -> None:
    """Merges the alignment adapter of another arm into that of SFT, with weights tuned on dev."""
    adapters = {"task": folder.parent / "sft" / ADAPTER, "alignment": folder.parent / of / ADAPTER}
    source = ModelSource.of(recipe.model)
    model, tokenizer = source.load(), source.tokenizer()
    tuned = tune_weights(model, tokenizer, adapters, recipe, task.dev, progress=lambda *_: None)
    merge_adapters(adapters, tuned["chosen"], recipe.merge.method, out=folder / ADAPTER, base_model=model)
    write_json(folder / MERGE_FILE, tuned)


def answer(
    recipe: Recipe, folder: Path, items: Sequence[TaskExample], out: Path, answer_format: AnswerFormat
) -> list[Score]:
    """Answers items with the adapter of an arm, and scores them; what was answered before an interruption is kept."""
    source = ModelSource.of(recipe.model)
    partial = out / f".{PREDICTIONS}.partial"
    predictions = generate(
        source.load(),
        source.tokenizer(),
        items,
        answer_format,
        adapter=folder / ADAPTER,
        max_new_tokens=recipe.generation.max_new_tokens,
        batch_tokens=recipe.generation.batch_tokens,
        losses=True,
        partial=partial,
    )
    write_predictions(predictions, out / PREDICTIONS)
    partial.unlink(missing_ok=True)
    roles = recipe.languages
    groups = roles.groups() | {
        "aligned_low": tuple(code for code in roles.aligned if code in roles.low_resource),
        "aligned_high": tuple(code for code in roles.aligned if code not in roles.low_resource),
    }
    answered = {item.language for item in items}
    groups = {name: codes for name, codes in groups.items() if codes and set(codes) <= answered}
    scores = score(items, predictions, answer_format, groups=groups, resamples=200)
    write_scores(scores, out / SCORES)
    return scores


def score_arm(
    recipe: Recipe, folder: Path, objective: str, items: Sequence[TaskExample], *, on_the_task: bool = False
) -> list[Score]:
    """Answers and scores; an arm that never saw the task has no answers, and an empty file of scores."""
    if objective not in ("none", "align") or on_the_task:
        return answer(recipe, folder, items, folder, recipe.answer_format)
    write_scores([], folder / SCORES)
    return []


def probe_arm(recipe: Recipe, folder: Path, name: str, corpus: ParallelCorpus, *, adapted: bool) -> None:
    """Translation retrieval at every layer of the model of an arm."""
    source = ModelSource.of(recipe.model)
    model = source.load()
    if adapted:
        model = attach_adapter(model, folder / ADAPTER)
    result = probe(model, source.tokenizer(), corpus, pooling=recipe.probe.pooling, seed=recipe.seed)
    result.write(folder / name)


def main_scores(scores: Sequence[Score]) -> dict[str, dict[str, float]]:
    """The scores that are printed when an arm is done, in percent."""
    groups = ("supervised", "aligned", "aligned_low", "aligned_high", "unseen")
    found = {
        group: {s.metric: round(100 * s.value, 1) for s in scores if s.group == group and s.metric in SHOWN}
        for group in groups
    }
    return {group: values for group, values in found.items() if values}
