"""Joint training at the size of Llama 3 8B on one accelerator, against SFT alone with the same task updates.

    python benchmarks/gpu_train.py [--updates 20] [--checkpointing] [--json FILE]
    python benchmarks/gpu_train.py --tiny            # seconds on a CPU, to see that it runs

Needs about 40 GB of device memory with ``--checkpointing`` and 80 GB without (estimates: it has not been measured on
such a device yet). Random weights made on the device, bfloat16, LoRA rank 8 on every linear layer. Tokens are random,
so that losses mean nothing and times do; lengths are those of `alignment_cost`. Task batch 32 x 4 accumulated = 128,
pairs likewise.

Four figures, medians over updates after the first of each objective:

- tokens per second: real ones, padding not counted, of a task update and of an alignment update;
- model FLOP utilisation of each: FLOP that the mathematics needs (`alignment_cost.flop`), over seconds x the peak of
  the device. The LM head scores answers only, in task updates only; an alignment update uses blocks 1 to k.
  What checkpointing computes twice is not counted. The peak is the vendor's figure for dense bfloat16, see `PEAKS`;
- overhead: seconds of a task update and an alignment update in the joint run, over a task update of SFT alone;
- peak memory of both runs.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from alignment_cost import flop, make_examples, make_pairs, word_tokenizer
from datasets import Dataset
from gpu_probe import SIZES, random_model, synchronize
from peft import LoraConfig, get_peft_model
from rich.console import Console
from rich.table import Table
from transformers import TrainerCallback
from trl import SFTConfig

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
    """Counts what each update trains on, without waiting for the device: tokens, squared lengths, scored positions."""

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        lengths = inputs["attention_mask"].sum(dim=1).double()
        scored = (inputs["labels"] != -100).sum() if "labels" in inputs else torch.zeros_like(lengths[0])
        found = torch.stack([lengths.sum(), (lengths**2).sum(), scored.double()])
        self.counted = getattr(self, "counted", 0) + found
        return super().training_step(model, inputs, *args, **kwargs)


class Clock(TrainerCallback):
    """Objective, seconds, tokens, squared lengths and scored positions of every update but the first."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.trainer: Counting
        self.updates: list[tuple[str, float, float, float, float]] = []
        self.last: float | None = None

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        synchronize(self.device)
        now = time.perf_counter()
        counted = self.trainer.counted.tolist()
        self.trainer.counted = 0
        if self.last is not None:
            objective = self.trainer.schedule.objective(state.global_step - 1)
            self.updates.append((objective, now - self.last, *counted))
        self.last = time.perf_counter()


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
    words = [f"w{i}" for i in range(vocabulary - 4)]
    tokenizer = word_tokenizer(words)
    rows = 8 * options.batch_size
    data = make_examples(vocabulary, rows, 0), make_pairs(words, rows, 0)
    runs = {name: one_run(model, tokenizer, data, schedule, options) for name, schedule in
            (("sft", "task"), ("joint", "update"))}  # fmt: skip
    found: dict[str, Any] = {"memory": {name: memory for name, (_, memory) in runs.items()}}
    for name, run, objective in (("sft", "sft", "task"), ("task", "joint", "task"), ("align", "joint", "align")):
        layers = depth if objective == "task" else depth // 2
        updates = [entry[1:] for entry in runs[run][0] if entry[0] == objective]
        needed = [flop(model, layers, *counted) for _, *counted in updates]
        found[name] = {
            "updates": len(updates),
            "seconds": statistics.median(s for s, *_ in updates),
            "tokens_per_second": statistics.median(tokens / s for s, tokens, *_ in updates),
            "tflop_per_second": statistics.median(
                f / s / 1e12 for f, (s, *_) in zip(needed, updates, strict=True)
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
