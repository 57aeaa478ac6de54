"""Run by test_distributed.py, once alone and once as two processes: trains, or takes gradients, and saves the result.

Usage: distributed_script.py MODE OUT [OPTION...], MODE one of ddp, fsdp2, OPTION of `OPTIONS`.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from midalign.answers.format import AnswerFormat
from midalign.data.prompt_tokens import InTaskPrompt
from midalign.recipe.alignment import AlignmentConfig
from midalign.records import ParallelPair
from midalign.training.objective import AlignmentObjective
from midalign.training.pair_batches import PairCollator, PairDataset
from midalign.training.trainer import AlignmentTrainer
from tests.conftest import CORPUS, build_model, build_tokenizer

OPTIONS = {
    "checkpointing": "gradient checkpointing",
    "gather": "negatives of both processes",
    "cached": "cached gradients, two pairs at a time",
    "asked": "sentences in the task's prompt, against frozen vectors of the sources",
}
WORLD, RANK = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
PAIRS = [
    ParallelPair(f"say {w * 3}", f"скажи {w} {i}", "eng_Latn", "rus_Cyrl", w) for i, w in enumerate("abcdefghijkl")
]


def alignment(chosen, **more):
    """The alignment section, and what tokenizes the pairs."""
    tokenizer = build_tokenizer()
    asked = "asked" in chosen
    config = AlignmentConfig(
        gather_negatives="gather" in chosen,
        mini_batch_size=2 if "cached" in chosen else None,
        prompt="task" if asked else "none",
        frozen_source=asked,
        **more,
    )
    return config, InTaskPrompt(tokenizer, "slots", AnswerFormat(system="tell")) if asked else tokenizer


def train(out, chosen):
    """One process with accumulation 2 must equal two processes with accumulation 1."""
    from datasets import Dataset
    from trl import SFTConfig

    gather, checkpointing = "gather" in chosen, "checkpointing" in chosen
    config, tokenize = alignment(chosen, batch_size=6 if gather and WORLD == 1 else 3)
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
        alignment=config,
        tokenize_pair_side=tokenize if config.prompt == "task" else None,
    )  # fmt: skip
    trainer.train()
    trainer.save_model(str(out / "adapter"))


def shard_over_processes(model):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (WORLD,))
    for block in model.base_model.model.model.layers:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def shard(out, chosen):
    """Gradients of the alignment loss through a model that is sharded by FSDP2."""
    if WORLD > 1:
        dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = get_peft_model(
        build_model("llama"), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, lora_dropout=0.0)
    )
    if "checkpointing" in chosen:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    if WORLD > 1:
        shard_over_processes(model)
    config, tokenize = alignment(chosen)
    data = PairDataset(PAIRS, tokenize)
    size = 12 if WORLD == 1 and config.gather_negatives else 6
    parts = [PairCollator(0)([data[i] for i in range(start, start + size)]) for start in range(0, 12, size)]
    objective = AlignmentObjective.for_depth(config, depth=4)
    for part in [parts[RANK]] if WORLD > 1 else parts:
        share = 1 if WORLD > 1 else 1 / len(parts)
        if config.mini_batch_size is None:
            (objective.loss(model, part) * share).backward()
        else:
            objective.cached_backward(model, part, torch.Tensor.backward, scale=share)
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
    assert set(options) <= set(OPTIONS), options
    (train if mode == "ddp" else shard)(Path(folder), options)
