"""LoRA adapters on disk: plain PEFT folders, read and checked, and written whole or not at all.

An adapter is a folder with ``adapter_config.json`` and ``adapter_model.safetensors``, whoever trained it. What PEFT
would load or merge wrongly without an error is refused by name.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from midalign.errors import MissingFileError, ModelError, did_you_mean
from midalign.functional.lora import LoraFactors

logger = logging.getLogger(__name__)

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

_PREFIX = "base_model.model."
_FACTOR_KEY = re.compile(re.escape(_PREFIX) + r"(?P<module>.+)\.lora_(?P<factor>[AB])\.weight")
_UNSUPPORTED = {
    "use_dora": "DoRA also trains magnitudes, so its update is not a product of two factors",
    "lora_bias": "the trained bias of the B factor is no part of the product",
    "use_qalora": "QALoRA pools the input of the factors",
    "alora_invocation_tokens": "an activated LoRA acts on part of the tokens only",
    "layer_replication": "it adds layers that the base model does not have",
    "target_parameters": "it trains parameters (of experts) rather than modules",
    "trainable_token_indices": "it also replaces embeddings of tokens",
    "modules_to_save": "it also replaces whole modules of the base model",
    "use_bdlora": "its factors are block-diagonal",
    "arrow_config": "it routes between adapters per token",
    "velora_config": "its input is projected",
    "kasa_config": "its update is not a product of two factors",
    "monteclora_config": "its factors are sampled",
}
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga", "mica")


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter that was read and found sound.

    Attributes:
        name: What messages call it.
        path: Its folder.
        config: PEFT's own configuration.
        factors: The update of every module, by the module's name in the base model.
        base_model: What it says it was trained on, or the empty string.
        sha256: Of the configuration and the weights together.
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
        name: What messages call the adapter; its folder's name by default.

    Returns:
        The adapter, with the scale of each module worked out as PEFT does (rsLoRA, ``rank_pattern``,
        ``alpha_pattern``), its tensors on the CPU in their stored type.

    Raises:
        MissingFileError: If the folder or one of its two files does not exist.
        ModelError: If it is not a LoRA adapter, is of a kind that is no plain product of two factors (DoRA and its
            relatives, trained embeddings or biases, LoRA on embeddings or convolutions), or is damaged.
    """
    folder = Path(path)
    _check_files(folder)
    config = _read_config(folder / CONFIG_FILE)
    weights = folder / WEIGHTS_FILE
    try:
        tensors = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{weights} cannot be read as safetensors ({error}): it is damaged, or was cut short while it was copied. "
            "Copy or save the adapter again."
        ) from error
    digest = hashlib.sha256((folder / CONFIG_FILE).read_bytes() + weights.read_bytes()).hexdigest()
    base = str(config.base_model_name_or_path or "")
    return Adapter(name or folder.name, folder, config, _factors(tensors, config, weights), base, digest)


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
        if not _same_base(named[0].base_model, other.base_model):
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


def check_fits(adapter: Adapter, model: nn.Module) -> None:
    """Check that an adapter is of this model: each of its modules is a linear layer there, of the right shape.

    Where both the adapter's base model and this one are folders, their weights are compared too; where the names
    differ and nothing can be compared, a warning is logged.

    Args:
        adapter: What to check.
        model: The base model, which may be on the meta device.

    Raises:
        ModelError: If it is not, naming the first module that does not fit.
    """
    _check_name(adapter, str(getattr(model, "name_or_path", "") or ""))
    modules = dict(model.named_modules())
    for name, factors in adapter.factors.items():
        module = modules.get(name)
        if module is None:
            raise ModelError(
                f"Adapter {adapter.name!r} ({adapter.path}) has weights for {name!r}, which the model does not have: "
                f"it was trained on another model ({adapter.base_model or 'unnamed'}).{did_you_mean(name, modules)}"
            )
        shape = linear_shape(module)
        if shape is None:
            raise ModelError(
                f"Adapter {adapter.name!r} ({adapter.path}) has weights for {name!r}, a layer of type "
                f"{type(module).__name__}; only LoRA on linear layers is supported."
            )
        if shape != factors.shape:
            raise ModelError(
                f"Adapter {adapter.name!r} ({adapter.path}) changes {name!r} by an update of shape {factors.shape}, "
                f"but the model's weight is {shape} (out, in): it was trained on another model "
                f"({adapter.base_model or 'unnamed'})."
            )


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


def _read_config(path: Path) -> LoraConfig:
    """The configuration, refused by name where the adapter is more than a product of two factors."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        kind = raw.get("peft_type")
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{path} is not a JSON object ({error}). Save the adapter again with PEFT.") from error
    if kind != "LORA":
        raise ModelError(f"{path}: peft_type is {kind!r}, not 'LORA'; only LoRA adapters can be used here.")
    if missing := [field for field in ("r", "lora_alpha", "target_modules") if raw.get(field) is None]:
        raise ModelError(
            f"{path}: {missing[0]} is missing, and PEFT would silently take a default. Save the adapter again."
        )
    for field, reason in _UNSUPPORTED.items():
        if raw.get(field):
            raise ModelError(
                f"{path}: {field} = {raw[field]!r} is not supported, since {reason}; merged as plain LoRA it would be "
                f"silently wrong. Train the adapter without {field}."
            )
    if raw.get("bias", "none") != "none":
        raise ModelError(
            f"{path}: bias = {raw['bias']!r} trains biases of the base model, which a LoRA merge would leave out. "
            "Train the adapter with bias='none'."
        )
    if str(raw.get("init_lora_weights", "")).lower().startswith(_CHANGES_BASE):
        raise ModelError(
            f"{path}: init_lora_weights = {raw['init_lora_weights']!r} changes the base weights too, so the adapter "
            "does not fit the original base model. Convert it when saving, with PEFT's "
            "save_pretrained(..., path_initial_model_for_weight_conversion=...)."
        )
    try:
        return LoraConfig.from_pretrained(str(path.parent))
    except (ValueError, TypeError) as error:
        raise ModelError(f"{path} is not a configuration that PEFT accepts: {error}") from error


def _factors(tensors: Mapping[str, Tensor], config: LoraConfig, path: Path) -> dict[str, LoraFactors]:
    """Pair the tensors of a file by module, with the scale that PEFT would give each."""
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _FACTOR_KEY.fullmatch(key)
        if match is None:
            raise ModelError(f"{path}: tensor {key!r} is {_foreign(key)} It would be lost in a merge.")
        if tensor.ndim != 2:
            raise ModelError(
                f"{path}: tensor {key!r} has shape {tuple(tensor.shape)}, that of a LoRA on a convolution; only LoRA "
                "on linear layers is supported. Train the adapter on linear layers only."
            )
        if not torch.isfinite(tensor).all():
            raise ModelError(
                f"{path}: tensor {key!r} holds values that are not finite (NaN or infinite), so every output would "
                "be. The training diverged; use an earlier checkpoint."
            )
        pairs.setdefault(match["module"], {})[match["factor"]] = tensor
    if not pairs:
        raise ModelError(f"{path} holds no tensors, so there is nothing to use. Save the adapter again.")
    factors = {}
    for module, pair in sorted(pairs.items()):
        if len(pair) < 2:
            raise ModelError(f"{path}: module {module!r} has only factor {next(iter(pair))}. Save the adapter again.")
        rank, scale = _rank_and_scale(config, module)
        factors[module] = LoraFactors(pair["A"], pair["B"], scale)
        if factors[module].rank != rank:
            raise ModelError(
                f"{path}: module {module!r} has rank {factors[module].rank}, but {CONFIG_FILE} says {rank}, so its "
                "scale is unknown. The two files are not of one adapter; save it again."
            )
    return factors


def _foreign(key: str) -> str:
    """What a tensor is that is no factor of a LoRA on a linear layer, and how to do without it."""
    if "lora_embedding" in key:
        return "a LoRA on an embedding, which is not supported. Train the adapter on linear layers only."
    if ".base_layer." in key or "embed" in key or "lm_head" in key:
        return (
            "a whole weight of the base model (trained, resized, or merely copied). If it is a copy, save the adapter "
            "again with save_pretrained(..., save_embedding_layers=False); a trained one is not supported."
        )
    return "no factor of a LoRA on a linear layer, which is all that is supported."


def _rank_and_scale(config: LoraConfig, module: str) -> tuple[int, float]:
    """Rank and scale of one module, by PEFT's rules (`peft.tuners.lora`)."""
    rank = config.rank_pattern.get(get_pattern_key(config.rank_pattern.keys(), module), config.r)
    alpha = config.alpha_pattern.get(get_pattern_key(config.alpha_pattern.keys(), module), config.lora_alpha)
    return rank, alpha / (math.sqrt(rank) if config.use_rslora else rank)


def _check_name(adapter: Adapter, model_name: str) -> None:
    """Refuse a base model known to be another one; shapes alone do not tell a model from its fine-tuned sister."""
    if not adapter.base_model or not model_name:
        return
    same = _same_base(adapter.base_model, model_name)
    where = f"Adapter {adapter.name!r} ({adapter.path}) was trained on {adapter.base_model!r}"
    if same is False:
        raise ModelError(
            f"{where}, whose weights differ from those in {model_name!r}: the update means nothing there. Give the "
            f"model it was trained on, or correct base_model_name_or_path in {CONFIG_FILE}."
        )
    if same is None:
        logger.warning("%s and is used with %r; whether they are the same cannot be compared.", where, model_name)


def linear_shape(module: nn.Module) -> tuple[int, int] | None:
    """The shape of a linear layer's weight.

    Args:
        module: Any module of a model.

    Returns:
        ``(out, in)`` for a linear layer (quantised ones and GPT-2's transposed `Conv1D` too), None for anything else.
    """
    if isinstance(module, Conv1D):
        return module.weight.shape[1], module.weight.shape[0]
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    return None


def _same_base(first: str, second: str) -> bool | None:
    """Whether two names of a base model, hub names or folders, mean the same one; None where that cannot be told."""
    first, second = first.rstrip("/"), second.rstrip("/")
    if first.casefold() == second.casefold():
        return True
    folders = [Path(name) for name in (first, second)]
    if all(folder.is_dir() for folder in folders):
        if folders[0].samefile(folders[1]):
            return True
        prints = [_fingerprint(folder) for folder in folders]
        return None if None in prints else prints[0] == prints[1]
    # One hub name and one folder: a download keeps the name, as its last part or in the hub cache's form.
    hubs = [name for name in (first, second) if _is_hub_name(name)]
    if len(hubs) == 1:
        parts = [part.casefold() for part in Path(second if hubs[0] == first else first).parts]
        hub = hubs[0].casefold()
        if parts[-1] == hub.split("/")[-1] or "models--" + hub.replace("/", "--") in parts:
            return True
    return None


def _is_hub_name(name: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and name[0] != "." and not Path(name).is_dir()


def _fingerprint(folder: Path) -> str | None:
    """SHA-256 over a model folder's weights, None where it has no safetensors; slow, so only where paths differ."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return None
    logger.info("comparing the weights in %s", folder)
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
