"""Why a task follows alignment or does not: how the answers are wrong, and what states within the prompt carry over.

    python -m experiments.real.transfer --recipe xsid --model MODEL --data DATA --pairs PAIRS --out RUNS --set ...

Answers: what became of every gold slot, by arm and group of languages. States: within the prompt of the task, at some
layers, a linear classifier is trained on English training items and tried on other languages: the intent from the last
state of the prompt, from which the answer is written, and the label of a slot from the mean state of its words. Beside
them retrieval by the mean state of the sentence. Where a classifier trained on English does as well in another
language, the states carry the task over, whatever the answers say.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from experiments.real.claims import LARGER
from experiments.real.measured import ENGLISH, Runs
from experiments.real.run import HERE, add_places, recipe_of, set_places
from midalign.answers.matching import match_items, word_offsets
from midalign.answers.parse import parse_slots
from midalign.answers.predictions import PREDICTIONS, read_predictions
from midalign.data.prompt_tokens import prompt_ids
from midalign.data.prompts import render
from midalign.experiment.named import resolve_names
from midalign.files import read_json, write_json
from midalign.functional.retrieval import accuracy_matrix
from midalign.models.adapters import attach_adapter
from midalign.models.source import ModelSource
from midalign.recipe.data import read_task_data
from midalign.records import Span, TaskExample
from midalign.training.train import ADAPTER

LAYERS = (15, 20, 25, 29)
TRANSLATED = ("xsid", "mtop")  # items of the same number are translations of each other
FATES = ("right", "right words, other label", "right label, other words", "both wrong", "left out")


def fate(span: Span, answered: Sequence[Span]) -> str:
    """What became of a gold slot: the best of the answered slots that share a word with it."""
    fates = ["left out"]
    for other in answered:
        if other.end <= span.start or other.start >= span.end:
            continue
        words, label = (other.start, other.end) == (span.start, span.end), other.label == span.label
        fates.append(FATES[(0 if label else 1) if words else (2 if label else 3)])
    return min(fates, key=FATES.index)


def fates(runs: Runs, arm: str, seeds: Sequence[int], languages: Sequence[str]) -> dict[str, float]:
    """Shares of gold slots by what became of them, and of answered slots whose value is not in the sentence, in %."""
    gold = {item.id: item for item in runs.items() if item.language in languages}
    labels = {span.label for item in gold.values() for span in item.spans}
    found: Counter[str] = Counter()
    answered = outside = 0
    for seed in seeds:
        for prediction in read_predictions(runs.folder(seed, arm) / PREDICTIONS):
            if prediction.id not in gold:
                continue
            item = gold[prediction.id]
            items = parse_slots(prediction.prediction, item.words, labels=labels, style="intent_slots").items
            spans = match_items(item.words, items)
            answered += len(spans)
            outside += spans.count(None)
            found.update(fate(span, [s for s in spans if s]) for span in item.spans)
    shares = {name: 100 * found[name] / found.total() for name in FATES}
    return {**shares, "values not in the sentence": 100 * outside / max(answered, 1)}


Rows = Sequence[tuple[TaskExample, tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]]]


class States:
    """States of a model within the prompt of the task, at some layers."""

    def __init__(self, recipe: Any, adapter: Path | None) -> None:
        source = ModelSource.of(recipe.model)
        self.tokenizer = source.tokenizer()
        model = source.load()
        self.model = (attach_adapter(model, adapter) if adapter else model).eval()
        self.format = recipe.answer_format

    @torch.inference_mode()
    def of(self, item: TaskExample) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """The last state, the mean state of the sentence, and that of every gold slot: each ``(layers, hidden)``."""
        prompt = render(item, self.tokenizer, self.format)
        encoded = self.tokenizer(prompt.text, add_special_tokens=False, return_offsets_mapping=True)
        assert encoded["input_ids"] == prompt_ids(prompt, self.tokenizer), item.id
        start = prompt.text.rindex(item.text)
        offsets = word_offsets(item.text, item.words)
        ids = torch.tensor([encoded["input_ids"]], device=self.model.device)
        states = self.model(ids, output_hidden_states=True, use_cache=False)
        layers = torch.stack([states.hidden_states[k][0] for k in LAYERS]).float().cpu()

        def mean(first: int, last: int) -> torch.Tensor:
            inside = [i for i, (a, b) in enumerate(encoded["offset_mapping"]) if a < start + last and b > start + first]
            return layers[:, inside].mean(1)

        spans = [mean(offsets[s.start][0], offsets[s.end - 1][1]) for s in item.spans] if offsets else []
        return layers[:, -1], mean(0, len(item.text)), spans


def carried(
    states: States, train: Sequence[TaskExample], test: Sequence[TaskExample], *, translated: bool
) -> dict[str, Any]:
    """By layer and language: accuracy of intent and slot label by a classifier trained on English, and retrieval, in %.

    Retrieval is of English with the language, the mean of both directions; only where items of the same number are
    translations of each other.
    """
    trained, tested = ([(item, states.of(item)) for item in items] for items in (train, test))
    by_language = {
        code: [row for row in tested if row[0].language == code] for code in sorted({e.language for e in test})
    }
    found: dict[str, Any] = {name: {code: [] for code in by_language} for name in ("intent", "label", "retrieval")}
    for layer in range(len(LAYERS)):
        intent, label = (_classifier(*labelled(trained, layer)) for labelled in (_intents, _labels))
        for code, rows in by_language.items():
            found["intent"][code].append(_percent(intent.score(*_intents(rows, layer))))
            found["label"][code].append(_percent(label.score(*_labels(rows, layer))))
            if translated and code != ENGLISH:
                found["retrieval"][code].append(_percent(_retrieval(by_language[ENGLISH], rows, layer)))
    return found


def _intents(rows: Rows, layer: int) -> tuple[list[Any], list[str]]:
    """The last state of every prompt, and its intent."""
    return [last[layer].numpy() for _, (last, _, _) in rows], [item.intent for item, _ in rows]


def _labels(rows: Rows, layer: int) -> tuple[list[Any], list[str]]:
    """The mean state of every gold slot, and its label; items whose words do not spell their text have none."""
    pairs = [pair for item, (_, _, spans) in rows for pair in zip(spans, item.spans, strict=False)]
    return [vectors[layer].numpy() for vectors, _ in pairs], [span.label for _, span in pairs]


def _retrieval(english: Rows, others: Rows, layer: int) -> float:
    """Retrieval by the mean state of the sentence, over the sentences that both languages have."""
    sides = [{item.id.rpartition(":")[2]: mean[layer] for item, (_, mean, _) in rows} for rows in (english, others)]
    both = sorted(sides[0].keys() & sides[1].keys())
    matrix = accuracy_matrix({str(k): torch.stack([side[n] for n in both]) for k, side in enumerate(sides)})
    return float(np.nanmean(matrix.numpy()))


def _percent(share: float) -> float:
    return round(100 * share, 1)


def _classifier(vectors: Sequence[Any], labels: Sequence[str]) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300)).fit(vectors, labels)


def measure_transfer(
    runs: Runs, arms: Sequence[str], states: Sequence[str], seeds: Sequence[int], known: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Both tables, as plain data; states that are `known` are not read again."""
    groups = {group: runs.languages(group) for group in ("supervised", "aligned", "unseen")}
    groups |= {code: [code] for code in groups["aligned"]}
    found: dict[str, Any] = {"slots": {}, "states": dict((known or {}).get("states", {})), "layers": list(LAYERS)}
    for arm in arms:
        found["slots"][arm] = {
            group: {fate: round(share, 1) for fate, share in fates(runs, arm, runs.seeds(*arms), codes).items()}
            for group, codes in groups.items()
            if codes
        }
    for arm in states:
        for seed in seeds:
            recipe = resolve_names(recipe_of(runs.name, seed, "sft", *runs.more))
            adapter = runs.folder(seed, arm) / ADAPTER
            if str(seed) in found["states"].get(arm, {}):
                continue
            if seed != seeds[0] if arm == "base" else not adapter.exists():
                continue
            train = [item for item in read_task_data(recipe).train if item.language == ENGLISH]
            test = [item for item in runs.items() if item.language in (ENGLISH, *groups["aligned"])]
            states_of = States(recipe, None if arm == "base" else adapter)
            read = carried(states_of, train, test, translated=runs.name in TRANSLATED)
            found["states"].setdefault(arm, {})[str(seed)] = read
            print(arm, seed, read, flush=True)
    return found


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=("xsid", "mtop", "home"), required=True)
    add_places(parser)
    parser.add_argument("--out", type=Path, required=True, help="where run.py wrote the runs")
    parser.add_argument("--arms", nargs="+", default=["sft", "joint", "shuffled"])
    parser.add_argument("--states", nargs="*", default=["base", "sft", "joint", "shuffled"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--set", nargs="*", default=[], help="the overrides that the runs were given")
    parser.add_argument("--larger", action="store_true", help="the runs are the recipe's larger ones")
    given = parser.parse_args()
    torch.set_num_threads(1)
    set_places(given)
    runs = Runs(given.out, given.recipe, tuple(given.set))
    file = HERE / "results" / f"transfer_{given.recipe}{LARGER if given.larger else ''}.json"
    known = read_json(file) if file.exists() else None
    write_json(file, measure_transfer(runs, given.arms, given.states, given.seeds, known))


if __name__ == "__main__":
    main()
