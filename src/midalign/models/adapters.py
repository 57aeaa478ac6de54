"""LoRA adapters on a model: attach one or several, or merge one into the base weights.

`midalign.models.adapter_files` reads the files; `midalign.functional.merge_methods` has the formulas.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from midalign.errors import ModelError
from midalign.models.adapter_files import CONFIG_FILE, WEIGHTS_FILE, Adapter, read_adapter
from midalign.models.adapter_fit import fitted
from midalign.models.load_report import PLAIN_TYPES
from midalign.models.loading import first_line

logger = logging.getLogger(__name__)


def attach_adapter(model: PreTrainedModel, path: str | Path) -> PeftModel:
    """Put one adapter on a base model, for generation and evaluation.

    Args:
        model: The base model; it is changed in place (``PeftModel.unload()`` undoes that).
        path: A PEFT LoRA folder.

    Returns:
        The model with the adapter active, in eval mode.

    Raises:
        MissingFileError: If the adapter is not there.
        ModelError: If it is refused by `read_adapter` or does not fit the model; PEFT would only warn, and leave the
            modules that did not match at their random start.
    """
    return attach_adapters(model, {"default": read_adapter(path)})


def merge_into_base(model: PreTrainedModel, path: str | Path) -> Callable[[], None]:
    """Add an adapter's update to the weights of its base model, in place.

    ``W + scale * B @ A`` is summed in float32 and rounded once to the type of ``W`` (PEFT rounds the update first).

    Args:
        model: The base model, with weights in floating point.
        path: A PEFT LoRA folder.

    Returns:
        A function that restores the former weights bit by bit. It keeps them in the CPU's memory.

    Raises:
        MissingFileError: If the adapter is not there.
        ModelError: If the adapter is refused or does not fit, the model is quantised, a changed weight is tied to
            another module's, or the sum leaves the range of its type. The model is then unchanged.
    """
    adapter = fitted(read_adapter(path), model)
    owners = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    updated: list[tuple[Tensor, Tensor]] = []
    for name, factors in adapter.factors.items():
        module = model.get_submodule(name)
        weight = module.weight
        assert isinstance(weight, Tensor), "`fitted` lets only linear layers through"
        if weight.dtype not in PLAIN_TYPES:
            raise ModelError(
                f"The weight of {name!r} is quantised ({weight.dtype}), so an update cannot be added exactly. "
                "Load the base model in bfloat16 or float32."
            )
        if owners[id(weight)] > 1:
            raise ModelError(
                f"The weight of {name!r} is tied to that of another module (an embedding?), which would be changed "
                "along with it. Export the adapter instead."
            )
        update = factors.update().to(weight.device)
        wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
        new = (wide + (update.T if isinstance(module, Conv1D) else update)).to(weight.dtype)
        if not torch.isfinite(new).all():
            raise ModelError(
                f"The merged weight of {name!r} leaves the range of {weight.dtype}. Load the base model in bfloat16 "
                "or float32, or lower the merge weights."
            )
        updated.append((weight.data, new.cpu()))  # the accelerator may have no room for the weights twice

    def exchange() -> None:
        for weight, other in updated:
            before = weight.to("cpu", copy=True)
            weight.copy_(other)
            other.copy_(before)

    exchange()
    return exchange


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Switch the adapters and dropout off within this context; which weights are trained stays unchanged.

    Raises:
        ModelError: If there is no adapter that could be switched off.
    """
    adapted = next((module for module in model.modules() if isinstance(module, PeftModel)), None)
    if adapted is None:
        raise ModelError(
            "alignment.frozen_source aligns with the vectors of the model without its adapter, but this model has "
            "none; train with LoRA, or leave it out"
        )
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]  # PEFT forgets it on the way
    training = model.training
    model.eval()
    try:
        with adapted.disable_adapter():
            yield
    finally:
        model.train(training)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def attach_adapters(model: PreTrainedModel, adapters: Mapping[str, Adapter]) -> PeftModel:
    """A PeftModel with all the adapters loaded; the tensors of each are checked to be in place."""
    if any(isinstance(module, LoraLayer) for module in model.modules()):
        raise ModelError("The model already carries a LoRA adapter, whose update would be added. Give the base model.")
    adapters = {peft_name: fitted(adapter, model) for peft_name, adapter in adapters.items()}
    peft_model: PeftModel | None = None
    try:
        for peft_name, adapter in adapters.items():
            with warnings.catch_warnings():
                # PEFT warns of modules without weights; here that is an error, raised below.
                warnings.filterwarnings("ignore", message="Found missing adapter keys")
                warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")
                peft_model = _load(model, peft_model, peft_name, adapter)
            _check_loaded(peft_model, peft_name, adapter)
    except BaseException:
        if peft_model is not None:
            peft_model.unload()
        raise
    assert peft_model is not None, "at least one adapter"
    return peft_model.eval()


def _load(model: PreTrainedModel, peft_model: PeftModel | None, peft_name: str, adapter: Adapter) -> PeftModel:
    try:
        if peft_model is None:
            return PeftModel.from_pretrained(model, str(adapter.path), adapter_name=peft_name)
        peft_model.load_adapter(str(adapter.path), adapter_name=peft_name)
    except Exception as error:  # whatever a setting or a tensor that nobody foresaw brings about there
        raise ModelError(
            f"Adapter {adapter.name!r} ({adapter.path}): PEFT cannot put it on the model: {first_line(error)}"
        ) from error
    return peft_model


def _check_loaded(peft_model: PeftModel, peft_name: str, adapter: Adapter) -> None:
    loaded = {name for name, layer in lora_layers(peft_model) if peft_name in layer.lora_A}
    if missing := sorted(loaded - set(adapter.factors)):
        raise ModelError(
            f"Adapter {adapter.name!r} ({adapter.path}) names {len(missing)} modules in {CONFIG_FILE} that "
            f"{WEIGHTS_FILE} has no weights for, such as {missing[0]!r}; they would stay at a random start. "
            "The adapter is incomplete; save it again."
        )
    if missing := sorted(set(adapter.factors) - loaded):
        raise ModelError(
            f"Adapter {adapter.name!r} ({adapter.path}) has weights for {len(missing)} modules that {CONFIG_FILE} "
            f"does not name, such as {missing[0]!r}; PEFT would drop them. Save the adapter again."
        )
    for name, layer in lora_layers(peft_model):
        if peft_name in layer.lora_A and not math.isclose(layer.scaling[peft_name], adapter.factors[name].scale):
            raise ModelError(
                f"Adapter {adapter.name!r} ({adapter.path}): PEFT gives {name!r} the scale {layer.scaling[peft_name]}, "
                f"but by {CONFIG_FILE} it is {adapter.factors[name].scale}: rank_pattern or alpha_pattern name the "
                "modules as an older version of transformers did. Write today's names there."
            )


def lora_layers(peft_model: PeftModel) -> list[tuple[str, Any]]:
    """Name in the base model and LoRA layer of every module that carries an adapter."""
    named = peft_model.get_base_model().named_modules()
    return [(name, module) for name, module in named if isinstance(module, LoraLayer)]
