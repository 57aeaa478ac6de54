"""Summary of a run: every system compared with the SFT baseline, and whatever else the report needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from midalign.answers.format import AnswerFormat
from midalign.answers.parse import parse_entities, parse_slots
from midalign.answers.predictions import PREDICTIONS, read_predictions
from midalign.answers.write import completion
from midalign.evaluation.comet import SEGMENTS, read_segments
from midalign.evaluation.score import compare_runs, main_metric
from midalign.files import read_json
from midalign.languages import Language
from midalign.merging.job import MERGE_FILE
from midalign.recipe.sections import Recipe
from midalign.records import TaskExample
from midalign.training.train import TRAINING_FILE, RunObjective

SUMMARY = "summary.json"
TRAINED: dict[str, RunObjective] = {"sft": "task", "joint": "joint", "alignment": "align"}
BASELINE = "sft"
SYSTEMS = ("sft", "joint", "merged")


def summarise(recipe: Recipe, out: Path, items: Sequence[TaskExample], timings: Mapping[str, float]) -> dict[str, Any]:
    """Content of ``summary.json``: systems, languages, comparisons with the baseline, training, examples.

    Args:
        recipe: The recipe.
        out: Run folder; every system has been trained and scored.
        items: The test items.
        timings: Seconds of each stage.
    """
    main = main_metric(recipe.task.name, recipe.answer_format)
    outputs = {s: read_predictions(out / "evaluation" / s / PREDICTIONS) for s in SYSTEMS}
    folders = {system: out / "evaluation" / system / SEGMENTS for system in SYSTEMS}
    # Of an earlier `midalign comet add`.
    segments = {s: read_segments(path, outputs[s]) for s, path in folders.items() if path.exists()}
    comparisons = [
        {"baseline": BASELINE, "system": system} | asdict(found)
        for system in SYSTEMS
        if system != BASELINE
        for found in compare_runs(
            items,
            outputs[BASELINE],
            outputs[system],
            recipe.answer_format,
            groups=recipe.languages.groups(),
            segments=(segments[BASELINE], segments[system]) if {BASELINE, system} <= set(segments) else None,
            resamples=recipe.evaluation.resamples,
        )
    ]
    trained = {s: read_json(out / "train" / s / TRAINING_FILE) for s in TRAINED}
    return {
        "name": recipe.name,
        "task": recipe.task.name,
        "main_metric": main,
        "languages": [_describe(recipe, code) for code in recipe.languages.all],
        "systems": list(SYSTEMS),
        "seeds": [recipe.seed],
        "aligned_layer": trained["joint"]["layer"],
        "comparisons": comparisons,
        "training": {s: {"seconds": t["seconds"], "updates": t["updates"]} for s, t in trained.items()},
        "merge": read_json(out / "merge" / MERGE_FILE),
        "examples": changed_examples(items, outputs[BASELINE], outputs["joint"], recipe.answer_format),
        "timings": dict(timings),
    }


def _describe(recipe: Recipe, code: str) -> dict[str, str]:
    language, roles = Language.parse(code), recipe.languages
    role = "supervised" if code in roles.supervised else "aligned" if code in roles.aligned else "unseen"
    resource = ("low" if code in roles.low_resource else "high") if roles.low_resource else ""
    return {"code": code, "name": language.name, "script": language.script, "role": role, "resource": resource}


def changed_examples(
    examples: Sequence[TaskExample],
    baseline: Sequence[Any],
    system: Sequence[Any],
    answer_format: AnswerFormat = AnswerFormat(),
    limit: int = 3,
) -> list[dict[str, Any]]:
    """Examples that only one of two systems got right: the first few helped ones, then hurt ones.

    Slots and entities are compared as they are parsed, so their order does not count; other answers as text, but for
    blanks at the ends.
    """
    labels = {span.label for example in examples for span in example.spans}
    found: dict[str, list[dict[str, Any]]] = {"helped": [], "hurt": []}
    answers = [{answer.id: answer for answer in answers} for answers in (baseline, system)]
    for example in examples:
        before, after = (by_id[example.id] for by_id in answers)
        gold = completion(example, answer_format.style)
        wanted, *given = (
            _content(text, example, labels, answer_format) for text in (gold, before.prediction, after.prediction)
        )
        right = [content == wanted for content in given]
        if right[0] == right[1]:
            continue
        kind = "helped" if right[1] else "hurt"
        if len(found[kind]) < limit:
            found[kind].append(
                {
                    "kind": kind,
                    "id": example.id,
                    "language": example.language,
                    "text": example.text,
                    "gold": gold,
                    "baseline": before.prediction,
                    "system": after.prediction,
                }
            )
    return found["helped"] + found["hurt"]


def _content(text: str, example: TaskExample, labels: set[str], answer_format: AnswerFormat) -> Any:
    """What an answer says."""
    if example.task == "slots":
        slots = parse_slots(text, example.words, labels=labels, style=answer_format.style)
        return slots.parsed, slots.intent, sorted(slots.items)
    if example.task == "extraction":
        entities = parse_entities(text)
        return entities.failure, sorted(entities.items)
    return text.strip()
