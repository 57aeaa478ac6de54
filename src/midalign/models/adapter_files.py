"""LoRA adapters on disk: plain PEFT folders, read and checked, and written.

An adapter is a folder with ``adapter_config.json`` (`midalign.models.adapter_settings`) and
``adapter_model.safetensors``, from midalign or elsewhere. What PEFT would load or merge wrongly without an error is
refused by name. `midalign.models.adapter_fit` checks whether an adapter fits a model.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor

from midalign.errors import MissingFileError, ModelError
from midalign.functional.lora import LoraFactors
from midalign.models.adapter_settings import rank_and_scale, read_settings
from midalign.models.base_names import same_base

logger = logging.getLogger(__name__)

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

_PREFIX = "base_model.model."
_FACTOR_KEY = re.compile(re.escape(_PREFIX) + r"(?P<module>.+)\.lora_(?P<factor>[AB])\.weight")
_WRAPPER = re.compile(r"(?:^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module|module)\.")


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter that has been read and checked.

    Attributes:
        name: Its name in error messages.
        path: Its folder.
        config: PEFT's own configuration.
        factors: The update of every module, by the module's name in the base model.
        base_model: The base model that its configuration names, or the empty string.
        sha256: Hash of configuration and weights together.
    """

    name: str
    path: Path
    config: LoraConfig
    factors: dict[str, LoraFactors]
    base_model: str
    sha256: str


def read_adapter(path: str | Path, name: str | None = None) -> Adapter:
    """Read a PEFT LoRA folder and check everything that can be checked without its base model.

    Args:
        path: The folder.
        name: Name of the adapter in error messages; its folder's name by default.

    Returns:
        The adapter. The scale of each module is computed as in PEFT (rsLoRA, ``rank_pattern``, ``alpha_pattern``);
        tensors are on the CPU in their stored type.

    Raises:
        MissingFileError: If the folder or one of its two files does not exist.
        ModelError: If it is not a LoRA adapter, if its update is not a plain product of two factors (DoRA and its
            relatives, trained embeddings or biases, LoRA on embeddings or convolutions), or if it is damaged.
    """
    folder = Path(path)
    _check_files(folder)
    config = read_settings(folder / CONFIG_FILE)
    weights = folder / WEIGHTS_FILE
    try:
        tensors = load_file(weights)
    except Exception as error:  # of the file's header there is a parser in safetensors, with errors of its own
        raise ModelError(
            f"{weights} cannot be read as safetensors ({error}): it is damaged, or was cut short while it was copied. "
            "Copy or save the adapter again."
        ) from error
    digest = hashlib.sha256((folder / CONFIG_FILE).read_bytes() + weights.read_bytes()).hexdigest()
    base = str(config.base_model_name_or_path or "")
    factors = _factors(tensors, config, weights)
    if all(f.scale == 0 or not f.a.any() or not f.b.any() for f in factors.values()):
        logger.warning(
            "the adapter %s changes nothing: of each of its %d modules a factor is all zeros. Training never reached "
            "it, "
            "or its weights were not saved", folder, len(factors),
        )  # fmt: skip
    return Adapter(name or folder.name, folder, config, factors, base, digest)


def read_adapters(paths: Mapping[str, str | Path]) -> dict[str, Adapter]:
    """Read adapters that are to be used together.

    Args:
        paths: Folder of each adapter, by name.

    Returns:
        The adapters, by the same names.

    Raises:
        MissingFileError: If an adapter is not there.
        ModelError: If there is none, one is refused by `read_adapter`, or two are of different base models: different
            names, after allowing for local copies (compared by SHA-256 of the weights where both are folders, by the
            last part of the path where one is a hub name), or different revisions.
    """
    if not paths:
        raise ModelError("No adapter was given; give at least one, as name=folder.")
    adapters = {name: read_adapter(path, name) for name, path in paths.items()}
    named = [adapter for adapter in adapters.values() if adapter.base_model]
    for other in named[1:]:
        if not same_base(named[0].base_model, other.base_model):
            raise ModelError(
                f"Adapter {named[0].name!r} was trained on {named[0].base_model!r} and adapter {other.name!r} on "
                f"{other.base_model!r}: their updates do not add up to anything meaningful. If the two are copies of "
                f"one model, correct base_model_name_or_path in {other.path / CONFIG_FILE}."
            )
        revisions = {a.config.revision for a in (named[0], other)} - {None}
        if len(revisions) > 1:
            raise ModelError(
                f"Adapters {named[0].name!r} and {other.name!r} were trained on different revisions of "
                f"{other.base_model!r} ({', '.join(sorted(revisions))}). If the weights are the same, correct revision "
                f"in {other.path / CONFIG_FILE}."
            )
    return adapters


def write_adapter(folder: Path, factors: Mapping[str, LoraFactors], base_model: str, *, fan_in_fan_out: bool) -> None:
    """Write factors as a PEFT LoRA folder that covers exactly these modules, with scale 1 in each.

    Args:
        folder: An existing, empty folder.
        factors: Updates with ``scale`` 1, by the module's name in the base model; ranks may differ.
        base_model: Name of the base model, or the empty string.
        fan_in_fan_out: Whether the base model stores its weights as ``(in, out)``, as GPT-2 does.
    """
    ranks = {module: f.rank for module, f in factors.items()}
    common = Counter(ranks.values()).most_common(1)[0][0]
    # PEFT reads the keys as regular expressions that may match after any prefix: `^` and the escapes make them exact.
    pattern = {f"^{re.escape(module)}": rank for module, rank in ranks.items() if rank != common}
    config = LoraConfig(
        base_model_name_or_path=base_model,
        task_type="CAUSAL_LM",
        inference_mode=True,
        r=common,
        lora_alpha=common,
        rank_pattern=pattern,
        alpha_pattern=dict(pattern),
        target_modules=list(factors),
        fan_in_fan_out=fan_in_fan_out,
    ).to_dict()
    # PEFT holds the names as a set, whose order would differ from run to run.
    config["target_modules"] = sorted(factors)
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    tensors = {}
    for module, f in factors.items():
        tensors[f"{_PREFIX}{module}.lora_A.weight"] = f.a.contiguous()
        tensors[f"{_PREFIX}{module}.lora_B.weight"] = f.b.contiguous()
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def _check_files(folder: Path) -> None:
    if not folder.is_dir():
        raise MissingFileError(
            f"The adapter folder {folder} does not exist. Give the folder that holds {CONFIG_FILE}; "
            "an adapter on the hub has to be downloaded first (hf download NAME --local-dir FOLDER)."
        )
    if not (folder / CONFIG_FILE).is_file():
        raise MissingFileError(f"{folder} holds no {CONFIG_FILE}, so it is not a PEFT adapter.")
    if not (folder / WEIGHTS_FILE).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        hint = (
            " It holds adapter_model.bin: only safetensors are read, as a pickle can run any code. "
            "Load it in PEFT and save it again with save_pretrained(..., safe_serialization=True)."
            if pickled
            else " Save the adapter again with PEFT's save_pretrained."
        )
        raise MissingFileError(f"{folder} holds no {WEIGHTS_FILE}.{hint}")


def _factors(tensors: Mapping[str, Tensor], config: LoraConfig, path: Path) -> dict[str, LoraFactors]:
    """Pair the tensors of a file by module, with the scale that PEFT would give each."""
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _FACTOR_KEY.fullmatch(key)
        if match is None or _WRAPPER.search(key):
            raise ModelError(f"{path}: tensor {key!r} is {_foreign(key)}")
        _check_factor(key, tensor, path)
        pairs.setdefault(match["module"], {})[match["factor"]] = tensor
    if not pairs:
        raise ModelError(f"{path} holds no tensors, so there is nothing to use. Save the adapter again.")
    factors = {}
    for module, pair in sorted(pairs.items()):
        if len(pair) < 2:
            raise ModelError(f"{path}: module {module!r} has only factor {next(iter(pair))}. Save the adapter again.")
        rank, scale = rank_and_scale(config, module)
        if torch.float64 in (pair["A"].dtype, pair["B"].dtype):  # which nothing multiplies with another type
            pair = {name: tensor.double() for name, tensor in pair.items()}
        factors[module] = LoraFactors(pair["A"], pair["B"], scale)
        if factors[module].rank != rank:
            raise ModelError(
                f"{path}: module {module!r} has rank {factors[module].rank}, but {CONFIG_FILE} says {rank}, so its "
                "scale is unknown. The two files are not of one adapter; save it again."
            )
    return factors


def _check_factor(key: str, tensor: Tensor, path: Path) -> None:
    """Check that a factor is a matrix of finite numbers.

    Raises:
        ModelError: With the cause where it is known.
    """
    if tensor.numel() == 0:
        raise ModelError(
            f"{path}: tensor {key!r} is empty, of shape {tuple(tensor.shape)}. DeepSpeed's ZeRO-3 keeps weights in "
            "parts and saves such tensors where they were not gathered first: set "
            "stage3_gather_16bit_weights_on_model_save, or make the adapter from the checkpoint with zero_to_fp32.py."
        )
    if tensor.ndim != 2:
        raise ModelError(
            f"{path}: tensor {key!r} has shape {tuple(tensor.shape)}, that of a LoRA on a convolution; only LoRA "
            "on linear layers is supported. Train the adapter on linear layers only."
        )
    if not tensor.is_floating_point():
        raise ModelError(
            f"{path}: tensor {key!r} holds {tensor.dtype}, not floating point: it was quantised, by a scale that is "
            "not there. Save the adapter again in bfloat16 or float32."
        )
    if not torch.isfinite(tensor.float()).all():
        raise ModelError(
            f"{path}: tensor {key!r} holds values that are not finite (NaN or infinite), so every output would be NaN. "
            "The training diverged; use an earlier checkpoint."
        )


def _foreign(key: str) -> str:
    """Explanation of a tensor that is not a LoRA factor of a linear layer, and how to train without it."""
    lost = " It would be lost in a merge."
    if wrapper := _WRAPPER.search(key):
        return (
            f"named with {wrapper[1]!r}, the name of a wrapper around the model (torch.compile, FSDP, "
            "DistributedDataParallel): PEFT would not find its module. Save the adapter of the model inside the "
            "wrapper, or take the word out of the names in the file."
        )
    if re.search(r"\.lora_[AB]\.\w+\.weight$", key):
        return (
            "named as in a state_dict(), with the name of the adapter in it, which PEFT puts in itself and would not "
            "find. Save the adapter with save_pretrained(), or take that name out of the names in the file."
        )
    if re.search(r"\.lora_[AB]\.weight$", key):
        return (
            f"without the prefix {_PREFIX!r} that PEFT's files have, so that PEFT would not find its module. Save the "
            "adapter with save_pretrained() of the PeftModel, or put the prefix before the names in the file."
        )
    if "lora_embedding" in key:
        return "a LoRA on an embedding, which is not supported. Train the adapter on linear layers only." + lost
    if ".base_layer." in key or "embed" in key or "lm_head" in key:
        return (
            "a whole weight of the base model (trained, resized, or merely copied). If it is a copy, save the adapter "
            "again with save_pretrained(..., save_embedding_layers=False); a trained one is not supported." + lost
        )
    return "no factor of a LoRA on a linear layer, which is all that is supported." + lost
