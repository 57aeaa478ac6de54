"""Check that a checkpoint filled its model: missing and additional tensors, and wrong shapes, are refused by name.

transformers initialises missing tensors at random and ignores additional ones, with only a warning in its log. A head
that is tied to the embeddings may be absent; transformers does not report it as missing.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from midalign.errors import ModelError

logger = logging.getLogger(__name__)

# Attributes under which wrappers keep the module that they wrap, which thus get into the names of its tensors:
# DistributedDataParallel, DeepSpeed and Lightning around the whole, torch.compile, FSDP and activation checkpointing
# around the whole or parts of it.
_PART = r"(?:_orig_mod\.|_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.)+"
_WRAPPERS = {
    rf"^(?:module\.|_forward_module\.|{_PART})+": "",
    rf"\.{_PART}": ".",
    rf"(?:\.{_PART})": ".",  # a pattern is applied once to a name: this is for parts of parts
}
# PEFT's wrapper, trl's model with a value head, and what people's own classes call it.
_CLASSES = {r"^(?:base_model\.model|pretrained_model|model|llm|lm)\.": ""}
_SHOWN = 3
_PLAIN_IN_FILES = ("F64", "F32", "BF16", "F16")
PLAIN_TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)  # the others are of quantised weights


def renamings(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """Renamings that remove the name of a wrapper from the names of tensors, the simplest first.

    Args:
        report: transformers' loading info.

    Returns:
        Values for the argument ``key_mapping`` of ``from_pretrained``: pattern to replacement.
    """
    names = report["unexpected_keys"]
    ways = (_WRAPPERS, _WRAPPERS | _CLASSES)
    return [way for way in ways if any(re.search(pattern, name) for pattern in way for name in names)]


def fills(report: Mapping[str, Any]) -> bool:
    """Whether every tensor of the model was in the checkpoint, and the other way round."""
    return not (report["missing_keys"] or report["unexpected_keys"] or report["mismatched_keys"])


def check_fills(report: Mapping[str, Any], name: str) -> None:
    """Refuse a model that its checkpoint did not fill.

    Args:
        report: transformers' loading info.
        name: Name of the model in the error message.

    Raises:
        ModelError: With the names of the first tensors that are missing, left over or of another shape.
    """
    if fills(report):
        return
    faults = []
    if missing := sorted(report["missing_keys"]):
        faults.append(f"{_tensors(missing)} missing, and would start at random values")
    if extra := sorted(report["unexpected_keys"]):
        faults.append(f"{_tensors(extra)} in the file, but have no place in the model and would be left out")
    if other := sorted((key, tuple(there), tuple(here)) for key, there, here in report["mismatched_keys"]):
        key, there, here = other[0]
        more = f" (and {len(other) - 1} more)" if len(other) > 1 else ""
        faults.append(f"{key!r} has the shape {there} in the file and {here} in the model{more}")
    instead = "Save the model again with save_pretrained(), or correct config.json."
    if renamings(report):
        instead = (
            "The names look like those of a wrapper (torch.compile, DistributedDataParallel, a class around the "
            "model): save_pretrained() of the model inside it gives the right ones, and `midalign model FOLDER --out "
            "NEW` makes a folder of this one with them, if nothing else is wrong."
        )
    raise ModelError(
        f"the weights of {name!r} are not those of the model that its config.json describes, so any result would be of "
        f"another model. {'; '.join(faults)}. {instead}"
    )


def check_number_formats(folder: Path, name: str) -> None:
    """Refuse weights of integers or 8-bit floats in a folder whose config.json says nothing of quantisation.

    Such numbers mean nothing without their scales, and transformers would take them for the weights.

    Raises:
        ModelError: With the name of the first such tensor.
    """
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - no mapping
                kind = tensors.get_slice(key).get_dtype()
                if key.endswith("weight") and kind not in _PLAIN_IN_FILES:
                    raise ModelError(
                        f"the weights of {name!r} are quantised ({key!r} is {kind}), but its config.json has no "
                        "quantization_config, so they would be read as they are, without their scales. Give the model "
                        "in bfloat16, float16 or float32, or the config.json that belongs to these weights."
                    )


def check_values(model: nn.Module, name: str) -> None:
    """Refuse weights that are no numbers, as a training that diverged leaves behind; warn of matrices of zeros.

    Args:
        model: Any model; quantised weights are not looked at.
        name: Name of the model in messages.

    Raises:
        ModelError: With the name of the first tensor that holds NaN or an infinite number.
    """
    empty = []
    for key, tensor in model.named_parameters():
        if tensor.dtype not in PLAIN_TYPES or not tensor.numel() or tensor.is_meta:
            continue
        low, high = (float(end) for end in tensor.detach().aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ModelError(
                f"the weights of {name!r} are no numbers: {key!r} holds NaN or infinite values, so every result would "
                "be. The training that wrote them diverged, or the file is damaged: use an earlier checkpoint."
            )
        if low == high == 0 and tensor.ndim > 1:
            empty.append(key)
    if empty:
        logger.warning(
            "%r: the weights %s%s are all zeros, as where they were not saved; what they compute is lost",
            name, ", ".join(empty[:_SHOWN]), ", ..." if len(empty) > _SHOWN else "",
        )  # fmt: skip


def _tensors(names: Collection[str]) -> str:
    shown = ", ".join(repr(name) for name in list(names)[:_SHOWN])
    return f"{len(names)} tensors ({shown}{', ...' if len(names) > _SHOWN else ''}) are"
