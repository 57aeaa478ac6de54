"""Run by test_distributed.py, once alone and once as two processes: trains, or takes gradients, and saves the result.

Usage: distributed_script.py MODE OUT [checkpointing] [gather] [temperature], MODE one of ddp, fsdp2.
With temperature (ddp), it is learned, and saved too.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from midalign.recipe.alignment import AlignmentConfig
from midalign.records import ParallelPair
from midalign.training.objective import AlignmentObjective
from midalign.training.pair_batches import PairCollator, PairDataset
from midalign.training.trainer import AlignmentTrainer
from tests.conftest import CORPUS, build_model, build_tokenizer

WORLD, RANK = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
PAIRS = [
    ParallelPair(f"say {w * 3}", f"скажи {w} {i}", "eng_Latn", "rus_Cyrl", w) for i, w in enumerate("abcdefghijkl")
]


def train(out, checkpointing, gather, temperature):
    """One process with accumulation 2 must equal two processes with accumulation 1."""
    from datasets import Dataset
    from trl import SFTConfig

    # With gathered negatives two batches of 3 are one batch of 6, and no accumulation is involved.
    trainer = AlignmentTrainer(
        build_model("llama"),
        args=SFTConfig(
            output_dir=str(out / "run"), max_steps=2, per_device_train_batch_size=2 if WORLD == 2 or not gather else 4,
            gradient_accumulation_steps=1 if WORLD == 2 or gather else 2, learning_rate=1e-2, save_strategy="no",
            lr_scheduler_type="constant", report_to="none", bf16=False, use_cpu=True, disable_tqdm=True,
            gradient_checkpointing=checkpointing, gradient_checkpointing_kwargs={"use_reentrant": False},
            ddp_find_unused_parameters=True, ddp_backend="gloo" if WORLD > 1 else None, logging_steps=1, seed=0,
        ),
        train_dataset=Dataset.from_list([{"prompt": t + "\n", "completion": f"x {i}"} for i, t in enumerate(CORPUS)]),
        processing_class=build_tokenizer(),
        peft_config=LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.0),
        pairs=PAIRS,
        alignment=AlignmentConfig(
            batch_size=6 if gather and WORLD == 1 else 3, gather_negatives=gather,
            learn_temperature=(0.05, 0.5) if temperature else None,
        ),
    )  # fmt: skip
    trainer.train()
    trainer.save_model(str(out / "adapter"))
    (out / f"temperature.{RANK}").write_text(repr(trainer.temperature().item()))


def shard_over_processes(model):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (WORLD,))
    for block in model.base_model.model.model.layers:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def shard(out, checkpointing, gather, _temperature):
    """Gradients of the alignment loss through a model that is sharded by FSDP2."""
    if WORLD > 1:
        dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = get_peft_model(
        build_model("llama"), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, lora_dropout=0.0)
    )
    if checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    if WORLD > 1:
        shard_over_processes(model)
    data = PairDataset(PAIRS, build_tokenizer())
    parts = [PairCollator(0)([data[i] for i in range(start, start + 6)]) for start in (0, 6)]
    if WORLD == 1 and gather:
        parts = [PairCollator(0)([data[i] for i in range(12)])]
    objective = AlignmentObjective.for_depth(AlignmentConfig(gather_negatives=gather), depth=4)
    for part in [parts[RANK]] if WORLD > 1 else parts:
        (objective.loss(model, part) / (1 if WORLD > 1 else len(parts))).backward()
    gradients = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            gradient = parameter.grad
            gradients[name] = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
    if RANK == 0:
        out.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in gradients.items()}, out / "gradients.safetensors")
    if WORLD > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    mode, folder, *options = sys.argv[1:]
    named = ("checkpointing", "gather", "temperature")
    (train if mode == "ddp" else shard)(Path(folder), *(name in options for name in named))
