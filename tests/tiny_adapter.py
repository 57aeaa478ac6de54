"""Adapters as PEFT saves them, with all factors random, and changes to their files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from midalign.models.adapter_files import CONFIG_FILE, WEIGHTS_FILE

LORA = dict(r=4, lora_alpha=16, target_modules=["q_proj", "up_proj"])


def save_adapter(folder: Path, model: Any, save_embedding_layers: bool = False, **options: Any) -> Path:
    """Put an adapter on the model and save it; options go to PEFT's LoraConfig."""
    wrapped = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **{**LORA, **options}))
    for key, parameter in wrapped.named_parameters():
        if "lora_" in key:
            torch.nn.init.normal_(parameter, std=0.2)
    wrapped.save_pretrained(folder, save_embedding_layers=save_embedding_layers)
    return folder


def edit_config(folder: Path, **changes: Any) -> None:
    """Change settings of a saved adapter."""
    path = folder / CONFIG_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change the tensors of a saved adapter, in place."""
    tensors = load_file(folder / WEIGHTS_FILE)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS_FILE)


def rename(old: str, new: str) -> Callable[[dict[str, torch.Tensor]], None]:
    """A change of a word in the names of all tensors, for `edit_tensors`."""

    def edit(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[name.replace(old, new)] = tensors.pop(name)

    return edit
