"""Sentence vectors on disk, one safetensors file for each language and pooling, each written whole or not at all.

The name of a file has the language, the pooling and a hash of everything that decides its content (model, adapter,
token ids, layers), so one cache folder can serve many models and corpora. The file holds one tensor per layer, ``(n,
hidden)`` float32, so that retrieval reads one layer at a time, and a checksum in its header.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from midalign.errors import RunError
from midalign.files import whole
from midalign.models.hidden import unwrap

logger = logging.getLogger(__name__)


def cache_path(folder: Path, language: str, pooling: str, layers: Sequence[int], model_key: str, data_key: str) -> Path:
    """Path of the vectors of one language; another model, adapter, text, pooling or layer has another path."""
    content = json.dumps([model_key, data_key, pooling, list(layers)])
    return folder / f"{language}.{pooling}.{hashlib.sha256(content.encode()).hexdigest()[:24]}.safetensors"


def write_vectors(path: Path, vectors: Tensor, layers: Sequence[int]) -> None:
    """Write ``(layers, n, hidden)`` float32 vectors atomically.

    Raises:
        RunError: If the disk is full or the folder cannot be written to.
    """
    tensors = {_name(layer): values.contiguous() for layer, values in zip(layers, vectors, strict=True)}
    try:
        with whole(path) as fresh:
            save_file(tensors, fresh, metadata={"checksum": _checksum(tensors)})
    except RunError as fault:
        raise RunError(
            f"{fault} Sentence vectors take {vectors.numel() * 4 / 1e9:.2f} GB a language here; free some space, or "
            "use another cache folder."
        ) from fault


def is_intact(path: Path, layers: Sequence[int], n: int) -> bool:
    """Whether the file holds what `write_vectors` wrote for ``layers`` and ``n`` sentences; warns of a damaged one."""
    if not path.exists():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            expected = (file.metadata() or {}).get("checksum")
        if set(tensors) == {_name(layer) for layer in layers} and expected == _checksum(tensors):
            if all(values.ndim == 2 and len(values) == n for values in tensors.values()):
                return True
            fault = "other shapes than the corpus"
        else:
            fault = "its checksum does not fit its content"
    except (OSError, SafetensorError, ValueError) as error:
        fault = str(error)
    logger.warning("the cached vectors in %s are damaged (%s); encoding this language again", path, fault)
    return False


def read_layer(path: Path, layer: int) -> Tensor:
    """The vectors ``(n, hidden)`` of one layer, without reading the others."""
    with safe_open(path, framework="pt") as file:
        values: Tensor = file.get_tensor(_name(layer))
    return values


_NO_SETTINGS = ("_name_or_path", "transformers_version", "architectures")


def weights_key(model: nn.Module) -> str:
    """Hash of all weights of the model, its settings, its adapters and their scales; about a second per GB of weights.

    The settings (such as the base of the rotary positions), the adapters' scales and which of them are active are
    included, because they change the forward pass without changing a weight.
    """
    digest = hashlib.sha256()
    if (config := getattr(unwrap(model), "config", None)) is not None:
        kept = {key: value for key, value in config.to_dict().items() if key not in _NO_SETTINGS}
        digest.update(json.dumps(kept, sort_keys=True, default=str).encode())
    for name, values in model.state_dict().items():
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
        flat = values.detach().reshape(-1).contiguous()
        digest.update(flat.view(torch.uint8).cpu().numpy().data)
    for name, module in model.named_modules():
        scaling = getattr(module, "scaling", None)
        if isinstance(scaling, Mapping):  # peft.tuners.lora.LoraLayer
            state: list[Any] = [dict(scaling), list(module.active_adapters), bool(module.disable_adapters)]
            digest.update(f"{name} {state}".encode())
    return digest.hexdigest()


def _name(layer: int) -> str:
    return f"layer.{layer:03d}"


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(tensors[name].numpy().data, zlib.crc32(name.encode(), value))
    return f"{value:08x}"
