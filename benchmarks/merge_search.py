"""What tuning merge weights costs, against as many plain dev evaluations of the same weights.

    python benchmarks/merge_search.py [--items N] [--new-tokens N] [--threads N] [--quick] [--json FILE]

A grid of 25 settings of task and alignment weight, on the demo's model with two random adapters on all linear layers.
`tune_weights` gets the base once. After each of its candidates the clock stops, and the same dev items are answered
and scored by plain models with the *same* weights, so that both see the same load of the machine and write the same
answers:

- one adapter: the exported merge on the base, as PEFT puts it there;
- merged: the base with the merge in its weights, the fastest there is. Making these models is not counted.

Further: the dev loss of the same plain model. Goal: the search costs at most 1.1 of the plain evaluations, its setting
up, bootstrap and table included. Ratios are of sums, with the quartiles over the candidates.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=72, help="dev items")
    parser.add_argument("--new-tokens", type=int, default=40, help="longest answer")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="4 settings, 8 items, to see that it runs")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    torch.set_num_threads(args.threads)
    found = measure(8 if args.quick else args.items, args.new_tokens, 2 if args.quick else 5)
    print(
        f"torch {torch.__version__}, {args.threads} threads, {found['settings']} settings, {found['items']} dev items"
    )
    print(f"  search on the score  {found['search']:8.2f} s")
    for name in ("one adapter", "merged"):
        low, middle, high = found["quartiles"][name]
        ratio = found["search"] / found["plain"][name]
        print(
            f"  plain, {name:<13} {found['plain'][name]:8.2f} s   search / plain {ratio:.3f}"
            f"   (a candidate: {low:.3f}, {middle:.3f}, {high:.3f})"
        )
    ratio = found["plain"]["merged"] / found["loss"]
    print(f"  the loss instead     {found['loss']:8.2f} s   plain, merged / loss {ratio:.1f}")
    print(f"  answers as the plain ones: {found['same']} of {found['answers']}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measure(items: int, new_tokens: int, side: int) -> dict[str, object]:
    from midalign.answers.format import AnswerFormat
    from midalign.data.prompt_tokens import training_rows
    from midalign.evaluation.score import score
    from midalign.generation.answer_loss import answer_losses
    from midalign.generation.generate import generate
    from midalign.merging import tune
    from midalign.merging.export import merge_adapters
    from midalign.models.adapters import attach_adapter, merge_into_base
    from midalign.models.loading import load_model, load_tokenizer
    from midalign.testbed.workspace import shipped_base

    folder = shipped_base()
    if folder is None:
        raise SystemExit("this checkout comes without the embedded model")
    tokenizer, base = load_tokenizer(str(folder)), load_model(str(folder))
    dev = commands(items)
    answers: list[list[str]] = []

    def kept(*arguments, **options):
        predictions = generate(*arguments, **options)
        answers.append([prediction.prediction for prediction in predictions])
        return predictions

    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        adapters = {name: random_adapter(folder, place / name, seed) for seed, name in enumerate(("task", "alignment"))}
        recipe = recipe_of(folder, side, new_tokens)
        settings = [
            {"task": t, "alignment": a} for t in recipe.merge.task_weights for a in recipe.merge.alignment_weights
        ]
        rows = training_rows(dev, tokenizer, AnswerFormat(system=""))
        candidates: list[float] = []
        losses: list[float] = []
        plain: dict[str, list[float]] = {"one adapter": [], "merged": []}
        same = 0

        def plain_evaluation(model) -> float:
            start = time.perf_counter()
            options = {"max_new_tokens": new_tokens, "system": ""}
            predictions = generate(model, tokenizer, dev, **options)
            score(dev, predictions, resamples=recipe.evaluation.resamples)
            nonlocal same
            same += sum(p.prediction == a for p, a in zip(predictions, answers[-1], strict=True))
            return time.perf_counter() - start

        def after(_: str, done: int, __: int) -> None:
            nonlocal resumed
            candidates.append(time.perf_counter() - resumed)
            weights, out = settings[done - 1], place / f"merged-{done}"
            merge_adapters(adapters, weights, out=out, base_model=base_of_shapes)
            models = {"one adapter": attach_adapter(load_model(str(folder)), out), "merged": load_model(str(folder))}
            merge_into_base(models["merged"], out)
            for name in sorted(models, reverse=bool(done % 2)):
                plain[name].append(plain_evaluation(models[name]))
            start = time.perf_counter()
            answer_losses(models["merged"], rows)
            losses.append(time.perf_counter() - start)
            resumed = time.perf_counter()

        base_of_shapes = load_model(str(folder))
        generate(base, tokenizer, dev[:4], AnswerFormat(system=""), max_new_tokens=4)  # warm
        tune.generate = kept
        resumed = time.perf_counter()
        tune.tune_weights(base, tokenizer, adapters, recipe, dev, progress=after)
        ending = time.perf_counter() - resumed
        tune.generate = generate
    ratios = {n: [c / p for c, p in zip(candidates, times, strict=True)] for n, times in plain.items()}
    return {
        "settings": len(candidates),
        "items": items,
        "search": sum(candidates) + ending,
        "plain": {name: sum(times) for name, times in plain.items()},
        "quartiles": {name: statistics.quantiles(values, n=4) for name, values in ratios.items()},
        "loss": sum(losses),
        "same": same,
        "answers": 2 * items * len(candidates),
    }


def commands(n: int):
    from midalign.records import Span, TaskExample

    draw = random.Random(0)
    words = ["wake", "me", "up", "at", "nine", "am", "on", "friday", "turn", "the", "light", "off", "play", "music"]
    found = []
    for number in range(n):
        text = tuple(draw.choices(words, k=draw.randint(4, 12)))
        spans = (Span("datetime", 1, 3),)
        found.append(TaskExample(f"dev:{number}", "slots", "eng_Latn", " ".join(text), text, spans, "alarm"))
    return found


def random_adapter(base: Path, out: Path, seed: int) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model

    from midalign.models.loading import load_model

    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model, generator = get_peft_model(load_model(str(base)), config), torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.01
    model.save_pretrained(out)
    return out


def recipe_of(base: Path, side: int, new_tokens: int):
    from midalign.recipe.file import build_recipe

    content = {
        "name": "merge-search", "model": {"path": str(base)}, "languages": {"supervised": ["eng"]},
        "task": {"data": "unused", "system": ""}, "parallel": {"data": "unused"}, "probe": {"data": "unused"},
        "merge": {
            "task_weights": [0.8 + 0.1 * i for i in range(side)], "alignment_weights": [0.2 * i for i in range(side)],
        },
        "generation": {"max_new_tokens": new_tokens},
    }  # fmt: skip
    return build_recipe(content, [])


if __name__ == "__main__":
    main()
