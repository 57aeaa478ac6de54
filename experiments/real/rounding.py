"""What merging an adapter changes in bfloat16, beside what rounding changes anyway.

    python -m experiments.real.rounding --model MODEL --data DATA --pairs PAIRS --adapter RUNS/xsid/seed0/sft/adapter

Answers 60 xSID test items in each of three languages with the adapter live in float32, live in bfloat16, live in
bfloat16 in smaller batches, and merged in bfloat16; prints how many answers are those of float32, and slot F1.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from experiments.real.run import add_places, recipe_of, set_places
from midalign.evaluation.score import score
from midalign.experiment.named import resolve_names
from midalign.generation.generate import generate
from midalign.models import inference
from midalign.models.source import ModelSource
from midalign.recipe.data import read_task_data

LANGUAGES = ("eng_Latn", "ita_Latn", "nld_Latn")
ITEMS = 60
NEVER, ALWAYS = 0.0, 9.0  # tolerances
WAYS = {
    "float32, live": ("float32", NEVER, 8192),
    "bfloat16, live": ("bfloat16", NEVER, 8192),
    "bfloat16, live, smaller batches": ("bfloat16", NEVER, 1500),
    "bfloat16, merged": ("bfloat16", ALWAYS, 8192),
}


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_places(parser)
    parser.add_argument("--adapter", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    set_places(given)
    recipe = resolve_names(recipe_of("xsid", 0, "sft", f"task.limit_test={ITEMS}"))
    items = [item for item in read_task_data(recipe).test if item.language in LANGUAGES]
    exact: list[str] = []
    for way, (dtype, tolerance, batch_tokens) in WAYS.items():
        inference.TOLERANCE = dict.fromkeys(inference.TOLERANCE, tolerance)
        source = ModelSource(str(given.model), dtype=dtype, attn_implementation="eager")
        predictions = generate(
            source.load(),
            source.tokenizer(),
            items,
            recipe.answer_format,
            adapter=given.adapter,
            max_new_tokens=recipe.generation.max_new_tokens,
            batch_tokens=batch_tokens,
        )
        answers = [prediction.prediction for prediction in predictions]
        exact = exact or answers
        same = sum(one == other for one, other in zip(answers, exact, strict=True))
        scores = score(items, predictions, recipe.answer_format, resamples=10)
        levels = {s.language: f"{100 * s.value:.1f}" for s in scores if s.metric == "slot_f1" and s.language}
        print(f"{way:32} {same} of {len(answers)} answers as in float32; slot F1 {levels}", flush=True)


if __name__ == "__main__":
    main()
