"""The configuration of a LoRA adapter: read and checked; settings that ask for more than LoRA are refused by name.

Settings that PEFT would misread without an error are refused: those of other methods, those of the wrong type, missing
ones that PEFT would replace by a default, and those of a newer PEFT, which it drops.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import peft
from peft import LoraConfig
from peft.utils.other import get_pattern_key

from midalign.errors import ModelError

logger = logging.getLogger(__name__)

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


def _is_rank(value: object) -> bool:
    return _is_index(value) and value != 0


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_pattern(value: object) -> bool:
    try:
        return isinstance(value, str) and re.compile(value) is not None
    except (re.error, OverflowError, RecursionError):
        return False


def _is_pattern_or_names(value: object) -> bool:
    return _is_pattern(value) or (isinstance(value, list) and bool(value) and all(map(_is_text, value)))


def _is_index_or_indices(value: object) -> bool:
    return _is_index(value) or (isinstance(value, list) and all(map(_is_index, value)))


def _by_pattern(kind: Callable[[object], bool]) -> Callable[[object], bool]:
    def check(value: object) -> bool:
        return isinstance(value, dict) and all(_is_pattern(key) and kind(item) for key, item in value.items())

    return check


# What the settings that decide the update may be, in words and as a check; null is allowed, but for the patterns.
_KINDS: dict[str, tuple[str, Callable[[object], bool]]] = {
    "r": ("a whole number of at least 1", _is_rank),
    "lora_alpha": ("a finite number", _is_number),
    "target_modules": ("a pattern or a list of names", _is_pattern_or_names),
    "rank_pattern": ("ranks by pattern", _by_pattern(_is_rank)),
    "alpha_pattern": ("numbers by pattern", _by_pattern(_is_number)),
    "layers_to_transform": ("the number of a layer or a list of them", _is_index_or_indices),
    "use_rslora": ("true or false", _is_flag),
    "fan_in_fan_out": ("true or false", _is_flag),
    "base_model_name_or_path": ("text", _is_text),
    "revision": ("text", _is_text),
}
_NEEDED = ("r", "lora_alpha", "target_modules")


def read_settings(path: Path) -> LoraConfig:
    """PEFT's configuration of an adapter.

    Args:
        path: Its ``adapter_config.json``.

    Raises:
        ModelError: If the update is not a plain product of two factors, or a setting cannot be understood.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not a JSON object ({error}). Save the adapter again with PEFT.") from error
    if not isinstance(raw, dict):
        raise ModelError(f"{path} is not a JSON object ({type(raw).__name__}). Save the adapter again with PEFT.")
    if raw.get("peft_type") != "LORA":
        raise ModelError(
            f"{path}: peft_type is {raw.get('peft_type')!r}, not 'LORA'; only LoRA adapters can be used here."
        )
    if missing := [field for field in _NEEDED if raw.get(field) is None]:
        raise ModelError(
            f"{path}: {missing[0]} is missing, and PEFT would silently take a default. Save the adapter again."
        )
    for field, (kind, fits) in _KINDS.items():
        empty = raw.get(field) is None and not (field in raw and field.endswith("_pattern"))
        if not empty and not fits(raw[field]):
            raise ModelError(f"{path}: {field} = {raw[field]!r} is not {kind}. Save the adapter again with PEFT.")
    _check_supported(raw, path)
    _check_known(raw, path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Unexpected keyword arguments")  # `_check_known` has said it
            return LoraConfig.from_pretrained(str(path.parent))
    except Exception as error:  # whatever its checks of every setting come upon
        raise ModelError(f"{path} is not a configuration that PEFT accepts: {error}") from error


def _check_supported(raw: Mapping[str, Any], path: Path) -> None:
    """Refuse an adapter whose update is more than a product of two factors."""
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


def _check_known(raw: Mapping[str, Any], path: Path) -> None:
    """Refuse settings that this version of PEFT does not know, unless they have their default.

    PEFT drops such settings without an error. It writes every setting that it has, so most of them mean nothing: they
    are off, empty, or a number that another setting would have to turn on. Such numbers only cause a warning.
    """
    known = {field.name for field in dataclasses.fields(LoraConfig)} | {"auto_mapping", "peft_version"}
    unknown = {
        name: value for name, value in raw.items() if name not in known and value not in (None, False, "", [], {})
    }
    used = [name for name, value in unknown.items() if value is True or isinstance(value, str | list | dict)]
    saved_by = f"saved by PEFT {raw['peft_version']}" if raw.get("peft_version") else "saved by another version of PEFT"
    if used:
        raise ModelError(
            f"{path}: PEFT {peft.__version__} does not know {used[0]} = {raw[used[0]]!r} and would leave it out, so "
            f"that the update would be another one. The adapter was {saved_by}: upgrade with pip install -U peft, or "
            f"train it without {used[0]}."
        )
    for name, value in unknown.items():
        logger.warning(
            "%s: PEFT %s does not know %s = %r, and leaves it out (%s)", path, peft.__version__, name, value, saved_by
        )


def rank_and_scale(config: LoraConfig, module: str) -> tuple[int, float]:
    """Rank and scale of one module, by PEFT's rules (`peft.tuners.lora`)."""
    rank = config.rank_pattern.get(get_pattern_key(config.rank_pattern.keys(), module), config.r)
    alpha = config.alpha_pattern.get(get_pattern_key(config.alpha_pattern.keys(), module), config.lora_alpha)
    return rank, alpha / (math.sqrt(rank) if config.use_rslora else rank)
