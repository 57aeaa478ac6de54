"""Check that an adapter fits a model: the base that it names, and the name and shape of every module that it changes.

The modules of some models were renamed in transformers (Gemma 3 with its vision tower, in 4.52). An adapter that was
saved before is read under today's names, by the renamings that transformers has for old checkpoints and that PEFT uses.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from midalign.errors import ModelError, did_you_mean
from midalign.models.adapter_files import CONFIG_FILE, Adapter
from midalign.models.base_names import same_base

logger = logging.getLogger(__name__)


def fitted(adapter: Adapter, model: nn.Module) -> Adapter:
    """Check that an adapter fits a model, and give its modules the model's names.

    Each module of the adapter must be a linear layer of the right shape. If both base models are folders, their weights
    are compared too. If the names differ and nothing can be compared, a warning is logged.

    Args:
        adapter: What to check.
        model: The base model, which may be on the meta device.

    Returns:
        The adapter itself, or a copy whose modules have today's names.

    Raises:
        ModelError: If it does not fit; the message names the first such module.
    """
    _check_name(adapter, str(getattr(model, "name_or_path", "") or ""))
    modules = dict(model.named_modules())
    if older := [name for name in adapter.factors if name not in modules]:
        names = _todays_names(model, older)
        factors = {names.get(name, name): found for name, found in adapter.factors.items()}
        if len(factors) == len(adapter.factors):
            adapter = dataclasses.replace(adapter, factors=factors)
    which = f"Adapter {adapter.name!r} ({adapter.path})"
    for name, factors_here in adapter.factors.items():
        module = modules.get(name)
        if module is None:
            raise ModelError(
                f"{which} has weights for {name!r}, which the model does not have: it was trained on another model "
                f"({adapter.base_model or 'unnamed'}).{did_you_mean(name, modules)}"
            )
        shape = linear_shape(module)
        if shape is None:
            raise ModelError(
                f"{which} has weights for {name!r}, a layer of type {type(module).__name__}; only LoRA on linear "
                "layers is supported."
            )
        if shape != factors_here.shape:
            raise ModelError(
                f"{which} changes {name!r} by an update of shape {factors_here.shape}, but the model's weight is "
                f"{shape} (out, in): it was trained on another model ({adapter.base_model or 'unnamed'})."
            )
    return adapter


def _todays_names(model: nn.Module, older: Iterable[str]) -> dict[str, str]:
    """Names of modules, by the names that they had in older versions of transformers; only those that are known."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    if not isinstance(model, PreTrainedModel):
        return {}
    renamings = [entry for entry in get_model_conversion_mapping(model) if isinstance(entry, WeightRenaming)]
    modules = dict(model.named_modules())
    names = {name: rename_source_key(f"{name}.weight", renamings, [])[0].removesuffix(".weight") for name in older}
    return {old: new for old, new in names.items() if new in modules}


def _check_name(adapter: Adapter, model_name: str) -> None:
    """Refuse an adapter of another base model. Shapes alone do not tell a model from a fine-tuned copy of it."""
    if not adapter.base_model or not model_name:
        return
    same = same_base(adapter.base_model, model_name)
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
