"""How long the answers to a test set take, against the usual loop.

    python benchmarks/generate.py [--items N] [--rounds N] [--threads N] [--cpu-time] [--quick] [--json FILE]

Ways to answer the same commands, greedily, with a LoRA adapter on the embedded model:

- ours: `midalign.generation.generate.generate`, with everything it does once: prompts, merging the adapter, the
  equality check;
- plain 8, plain 32: batches as they come, the adapter live, padded on the left, one call of transformers' ``generate``
  each; prompts rendered and tokenized by the same functions.

Commands are those of xSID's test files, languages mixed (else made up). The adapter is trained here on xSID's English
validation file for a minute or less, so that answers end where answers do; its quality does not matter.
Each round times all ways right after one another, in an order that changes; ratios are medians over rounds, with their
range. The answers of all ways are compared. Goal: plain / ours at least 1.5.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from peft import LoraConfig, get_peft_model
from rich.console import Console
from rich.table import Table

from midalign.data.prompt_tokens import IGNORED, prompt_ids, training_rows
from midalign.data.prompts import render
from midalign.data.tasks.read import read_task
from midalign.generation.generate import generate
from midalign.models.adapters import attach_adapter
from midalign.models.loading import load_model, load_tokenizer
from midalign.records import Span, TaskExample
from midalign.testbed.workspace import shipped_base

GOAL = 1.5
LANGUAGES = ("eng_Latn", "deu_Latn", "ita_Latn", "nld_Latn", "zho_Hans", "tur_Latn")
Answer = Callable[[], list[str]]


def load_commands(items: int) -> tuple[str, list[TaskExample], list[TaskExample]]:
    """Where they are from, what to train on, what to answer."""
    folder = Path(os.environ.get("MIDALIGN_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")) / "xsid"
    rng = random.Random(0)
    if folder.is_dir():
        train = read_task(folder, task="slots", languages=["eng_Latn"], split="valid")
        test = read_task(folder, task="slots", languages=list(LANGUAGES), split="test")
        return "xSID", train, rng.sample(test, min(items, len(test)))
    places, times = ["kitchen", "hall", "garden"], ["nine", "half past ten", "noon on friday"]

    def made(number: int) -> TaskExample:
        words = ("please " * rng.randint(0, 6) + f"turn on the light in the {rng.choice(places)} at").split()
        when = rng.choice(times).split()
        spans = (Span("location", len(words) - 2, len(words) - 1), Span("time", len(words), len(words) + len(when)))
        text = " ".join(words + when)
        return TaskExample(f"made:{number}", "slots", "eng_Latn", text, (*words, *when), spans[: rng.randint(1, 2)])

    return "made-up commands (no xSID found)", [made(i) for i in range(300)], [made(i) for i in range(300, 300 + items)]


def load_base() -> tuple[Any, Any]:
    folder = shipped_base()
    if folder is None:
        raise SystemExit("this checkout has no embedded model (src/midalign/testbed/weights)")
    return load_model(str(folder), dtype="float32"), load_tokenizer(str(folder))


def train_adapter(model: Any, tokenizer: Any, examples: Sequence[TaskExample], steps: int, folder: Path) -> float:
    """A quick LoRA; returns the last losses' mean."""
    torch.manual_seed(0)
    wrapped = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear"))
    rows = training_rows(examples, tokenizer)
    optimizer = torch.optim.AdamW([p for p in wrapped.parameters() if p.requires_grad], lr=3e-3)
    rng = random.Random(0)
    losses = []
    for _ in range(steps):
        batch = rng.sample(rows, 16)
        width = max(len(row["input_ids"]) for row in batch)
        ids = torch.tensor([row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in batch])
        labels = torch.tensor([row["labels"] + [IGNORED] * (width - len(row["labels"])) for row in batch])
        loss = wrapped(ids, labels=labels).loss  # padded on the right, so causal attention needs no mask
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    wrapped.unload()
    return statistics.mean(losses[-10:])


@torch.inference_mode()
def plain(model: Any, tokenizer: Any, examples: Sequence[TaskExample], size: int, new_tokens: int) -> list[str]:
    answers = []
    for start in range(0, len(examples), size):
        rows = [prompt_ids(render(e, tokenizer), tokenizer) for e in examples[start : start + size]]
        batch = tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt")
        output = model.generate(**batch, max_new_tokens=new_tokens, do_sample=False)
        texts = tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        answers += [text.strip() for text in texts]
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=150, help="updates of the adapter")
    parser.add_argument("--adapter", type=Path, help="a trained adapter of the model, instead of training one here")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--batch-tokens", type=int, default=8192, help="our batches; the default of the command line")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--cpu-time", action="store_true", help="one thread, its CPU time: for a machine that is busy")
    parser.add_argument("--quick", action="store_true", help="64 items, 1 round, 20 updates")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.items, options.rounds, options.steps = 64, 1, 20
    clock = time.perf_counter
    if options.cpu_time:
        clock, options.threads = time.process_time, 1
    if options.threads:
        torch.set_num_threads(options.threads)
    console = Console()
    source, train, test = load_commands(options.items)
    base, tokenizer = load_base()
    with tempfile.TemporaryDirectory() as folder:
        adapter = options.adapter or Path(folder)
        if options.adapter is None:
            loss = train_adapter(base, tokenizer, train, options.steps, adapter)
            console.print(f"adapter: {options.steps} updates, loss {loss:.2f}")
        live = attach_adapter(copy.deepcopy(base), adapter)
        seconds: dict[str, list[float]] = {"ours": [], "plain 8": [], "plain 32": []}
        outputs: dict[str, list[str]] = {}
        for number in range(options.rounds):
            fresh = copy.deepcopy(base)
            ways: dict[str, Answer] = {
                "ours": lambda model=fresh: [  # type: ignore[misc]
                    p.prediction
                    for p in generate(
                        model, tokenizer, test, adapter=adapter, max_new_tokens=options.new_tokens,
                        batch_tokens=options.batch_tokens,
                    )
                ],
                "plain 8": lambda: plain(live, tokenizer, test, 8, options.new_tokens),
                "plain 32": lambda: plain(live, tokenizer, test, 32, options.new_tokens),
            }  # fmt: skip
            names = list(ways)
            for name in names[number % 3 :] + names[: number % 3]:
                start = clock()
                outputs[name] = ways[name]()
                seconds[name].append(clock() - start)
            console.print("  " + ", ".join(f"{name} {values[-1]:.2f} s" for name, values in seconds.items()))
    result: dict[str, Any] = {"source": source, "items": len(test), "seconds": seconds, "ratios": {}, "different": {}}
    table = Table(title=f"{source}: {len(test)} commands, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for column in ("ratio", "median", "lowest", "highest", "goal", "different answers"):
        table.add_column(column, justify="left" if column == "ratio" else "right")
    for name in ("plain 8", "plain 32"):
        ratios = [theirs / ours for theirs, ours in zip(seconds[name], seconds["ours"], strict=True)]
        different = sum(a != b for a, b in zip(outputs[name], outputs["ours"], strict=True))
        result["ratios"][name], result["different"][name] = statistics.median(ratios), different
        median = f"{statistics.median(ratios):.2f}"
        table.add_row(
            f"{name} / ours", median, f"{min(ratios):.2f}", f"{max(ratios):.2f}", f">= {GOAL}", str(different)
        )
    console.print(table)
    lengths = sorted(len(tokenizer(text)["input_ids"]) for text in outputs["ours"])
    console.print(f"answers: median {statistics.median(lengths):.0f} tokens, longest {lengths[-1]}")
    if options.json:
        options.json.write_text(json.dumps(result | {"cores": os.cpu_count()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
