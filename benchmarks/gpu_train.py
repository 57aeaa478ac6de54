"""Joint training at the size of Llama 3 8B on one accelerator, against SFT alone with the same task updates.

    python benchmarks/gpu_train.py [--updates 20] [--checkpointing] [--json FILE]
    python benchmarks/gpu_train.py --tiny            # seconds on a CPU, to see that it runs

Needs about 40 GB of device memory with ``--checkpointing`` and 80 GB without (estimates: it has not been measured on
such a device yet). Random weights made on the device, bfloat16, LoRA rank 8 on every linear layer; task rows of 90 to
130 tokens of which the last 20 are the answer; pairs of 5 to 13 words; one token a word, all random, so that losses
mean nothing and times do. Task batch 32 x 4 accumulated = 128, pairs likewise.

Four figures, medians over updates after the first of each objective:

- tokens per second: real ones, padding not counted, of a task update and of an alignment update;
- model FLOP utilisation of each: FLOP that the mathematics needs, over seconds x the peak of the device. Per update

      4 n P + 6 n p + 6 d sum(length ** 2) layers

  n tokens, P frozen weights of the linear layers that take part (2 forward, 2 for the gradient of activations; frozen
  weights have no gradient of their own), p LoRA weights (2 forward, 4 backward), d = heads x head size, causal
  attention at half of the square. The LM head takes part in task updates only; an alignment update uses blocks 1 to
  k. What checkpointing computes twice is not counted. The peak is the vendor's figure for dense bfloat16, see `PEAKS`;
- overhead: seconds of a task update and an alignment update in the joint run, over a task update of SFT alone;
- peak memory of both runs.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from alignment_cost import word_tokenizer
from datasets import Dataset
from gpu_probe import SIZES, random_model, synchronize
from peft import LoraConfig, get_peft_model
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedTokenizerFast, TrainerCallback
from trl import SFTConfig

from midalign.models.hidden import find_decoder
from midalign.recipe.alignment import AlignmentConfig
from midalign.records import ParallelPair
from midalign.training.arguments import linear_names
from midalign.training.trainer import AlignmentTrainer

# TFLOP/s, dense bfloat16, from the vendors' data sheets; the first name that is part of the device's name counts.
PEAKS = {
    "H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "H200": 989, "H800": 989, "GH200": 989, "A100": 312, "A800": 312,
    "L40S": 362, "A40": 150, "RTX 4090": 165, "RTX 3090": 71,
}  # fmt: skip
RANK, ACCUMULATION = 8, 4


class Counting(AlignmentTrainer):
    """Counts tokens and squared lengths of what each update trains on, without waiting for the device."""

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        lengths = inputs["attention_mask"].sum(dim=1).double()
        self.counted = getattr(self, "counted", 0) + torch.stack([lengths.sum(), (lengths**2).sum()])
        return super().training_step(model, inputs, *args, **kwargs)


class Clock(TrainerCallback):
    """Objective, seconds, tokens and squared lengths of every update but the first."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.trainer: Counting
        self.updates: list[tuple[str, float, float, float]] = []
        self.last: float | None = None

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        synchronize(self.device)
        now = time.perf_counter()
        tokens, squares = self.trainer.counted.tolist()
        self.trainer.counted = 0
        if self.last is not None:
            objective = self.trainer.objective_of(state.global_step - 1)
            self.updates.append((objective, now - self.last, tokens, squares))
        self.last = time.perf_counter()


def make_data(vocabulary: int, rows: int) -> tuple[Dataset, list[ParallelPair]]:
    rng = random.Random(0)

    def words(low: int, high: int) -> str:
        return " ".join(f"w{rng.randrange(vocabulary - 4)}" for _ in range(rng.randint(low, high)))

    examples = []
    for _ in range(rows):
        ids = [rng.randrange(4, vocabulary) for _ in range(rng.randint(90, 130))]
        examples.append({"input_ids": ids, "labels": [-100] * (len(ids) - 20) + ids[-20:]})
    pairs = [ParallelPair(words(5, 13), words(5, 13), "eng_Latn", "deu_Latn", str(i)) for i in range(rows)]
    return Dataset.from_list(examples), pairs


def flop(model: Any, layers: int, head: bool, tokens: float, squares: float) -> float:
    """FLOP of one update through the first `layers` blocks; the formula is at the top of this file."""
    blocks = find_decoder(model).blocks[:layers]
    weights = [(name, p) for block in blocks for name, p in block.named_parameters() if p.ndim == 2]
    lora = sum(p.numel() for name, p in weights if "lora_" in name)
    frozen = sum(p.numel() for name, p in weights if "lora_" not in name)
    frozen += model.get_output_embeddings().weight.numel() if head else 0
    config = model.config
    width = config.num_attention_heads * getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
    return tokens * (4 * frozen + 6 * lora) + 6 * width * squares * layers


def one_run(model: Any, tokenizer: Any, data: tuple[Dataset, list[ParallelPair]], schedule: str, options: Any) -> Any:
    """Train, and return the updates with the peak memory in GiB (None on a CPU)."""
    device = next(model.parameters()).device
    cuda = device.type == "cuda"
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    clock = Clock(device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Counting(
            model,
            args=SFTConfig(
                output_dir=folder, max_steps=options.updates, per_device_train_batch_size=options.batch_size,
                gradient_accumulation_steps=ACCUMULATION, bf16=device.type != "cpu", use_cpu=device.type == "cpu",
                gradient_checkpointing=options.checkpointing, gradient_checkpointing_kwargs={"use_reentrant": False},
                save_strategy="no", report_to="none", disable_tqdm=True, logging_steps=10**6, learning_rate=1e-4,
            ),
            train_dataset=data[0], processing_class=tokenizer, pairs=data[1],
            alignment=AlignmentConfig(schedule=schedule, batch_size=options.batch_size), callbacks=[clock],
        )  # fmt: skip
        clock.trainer = trainer
        trainer.train()
    # The first of each objective warms up kernels and the allocator.
    skip = 1 if schedule == "update" else 0
    return clock.updates[skip:], torch.cuda.max_memory_allocated() / 2**30 if cuda else None


def measure(size: str, options: Any, peak: float | None) -> dict[str, Any]:
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    if options.tiny:
        device = torch.device("cpu")
    vocabulary, depth = SIZES[size]["vocab_size"], SIZES[size]["num_hidden_layers"]
    base = random_model(size, device)
    lora = LoraConfig(r=RANK, lora_alpha=16, lora_dropout=0.1, target_modules=linear_names(base), task_type="CAUSAL_LM")
    model = get_peft_model(base, lora)
    tokenizer = word_tokenizer([f"w{i}" for i in range(vocabulary - 4)], PreTrainedTokenizerFast)
    data = make_data(vocabulary, 8 * options.batch_size)
    runs = {name: one_run(model, tokenizer, data, schedule, options) for name, schedule in
            (("sft", "task"), ("joint", "update"))}  # fmt: skip
    found: dict[str, Any] = {"memory": {name: memory for name, (_, memory) in runs.items()}}
    for name, run, objective in (("sft", "sft", "task"), ("task", "joint", "task"), ("align", "joint", "align")):
        layers = depth if objective == "task" else depth // 2
        updates = [entry[1:] for entry in runs[run][0] if entry[0] == objective]
        needed = [flop(model, layers, objective == "task", tokens, squares) for _, tokens, squares in updates]
        found[name] = {
            "updates": len(updates),
            "seconds": statistics.median(s for s, _, _ in updates),
            "tokens_per_second": statistics.median(tokens / s for s, tokens, _ in updates),
            "tflop_per_second": statistics.median(
                f / s / 1e12 for f, (s, _, _) in zip(needed, updates, strict=True)
            ),
        }  # fmt: skip
        found[name]["utilisation"] = found[name]["tflop_per_second"] / peak if peak else None
    found["overhead"] = (found["task"]["seconds"] + found["align"]["seconds"]) / found["sft"]["seconds"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the CPU")
    parser.add_argument("--updates", type=int, default=20, help="task updates of each run")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing (non-reentrant)")
    parser.add_argument("--peak-tflops", type=float, help="dense bfloat16 peak of a device that is not in the table")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.batch_size = 4 if options.tiny else 32
    if options.tiny:
        options.updates = min(options.updates, 4)
    elif not torch.accelerator.is_available():
        parser.error("no accelerator here; --tiny runs on a CPU")
    options.updates = max(options.updates, 2)
    device = "cpu" if options.tiny else torch.cuda.get_device_name() if torch.cuda.is_available() else "accelerator"
    peak = options.peak_tflops or next((value for name, value in PEAKS.items() if name in device), None)
    size = "tiny" if options.tiny else "llama3-8b"
    found = measure(size, options, peak)
    batch = f"{ACCUMULATION} x {options.batch_size}"
    table = Table(title=f"{size} on {device}, batch {batch}, checkpointing {'on' if options.checkpointing else 'off'}")
    for column in ("update", "n", "seconds", "tokens/s", "TFLOP/s", f"of peak ({peak or 'unknown'} TFLOP/s)"):
        table.add_column(column, justify="right")
    for name, words in (("sft", "SFT alone"), ("task", "joint: task"), ("align", "joint: alignment")):
        row = found[name]
        share = "-" if row["utilisation"] is None else f"{row['utilisation']:.1%}"
        table.add_row(
            words, str(row["updates"]), f"{row['seconds']:.3f}", f"{row['tokens_per_second']:,.0f}",
            f"{row['tflop_per_second']:.3g}", share,
        )  # fmt: skip
    console = Console()
    console.print(table)
    console.print(f"joint against SFT alone, as many task updates: {found['overhead']:.2f}x the time")
    if found["memory"]["sft"] is not None:
        sft, joint = found["memory"]["sft"], found["memory"]["joint"]
        console.print(f"peak memory: SFT {sft:.1f} GiB, joint {joint:.1f} GiB ({joint / sft:.3f}x)")
    else:
        console.print("peak memory: not measured on this device")
    if options.json:
        about = dict(size=size, device=device, peak_tflops=peak, batch=batch, checkpointing=options.checkpointing)
        options.json.write_text(json.dumps({**about, "torch": torch.__version__, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
