"""Several LoRA adapters active on one model, with weights that can be changed between two forward passes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from peft import PeftModel
from transformers import PreTrainedModel

from midalign.functional import merge_methods as merging
from midalign.functional.merge_methods import Weight
from midalign.merging.export import check_weights, count_blocks
from midalign.models.adapter_files import (
    read_adapters,
)
from midalign.models.adapters import attach_adapters, lora_layers


class LiveAdapters:
    """Several adapters active on one model, with weights that can be changed between two forward passes.

    The forward pass equals that of the model with the `midalign.functional.merge_methods.merge_sum` of the adapters, so
    weights can be searched without merging or loading again. On exit the model is as it was: no adapter on it, and
    ``requires_grad`` and training mode are restored.

        with LiveAdapters(model, {"task": "runs/task", "alignment": "runs/align"}) as live:
            for weight in (0.0, 0.5, 1.0):
                live.set_weights({"task": 1.0, "alignment": weight})
                evaluate(live.model)

    Attributes:
        model: The model with the adapters on it, in eval mode; every weight is 1 at the start.

    Args:
        model: The base model.
        adapters: Folder of each adapter, by a name of the caller's choice.

    Raises:
        MissingFileError: If an adapter is not there.
        ModelError: If an adapter is refused, does not fit the model, or is of another base than the others.
    """

    model: PeftModel

    def __init__(self, model: PreTrainedModel, adapters: Mapping[str, str | Path]) -> None:
        self._base = model
        self._adapters = read_adapters(adapters)
        # PEFT's names may not hold dots or clash with attributes of ModuleDict; the caller's may.
        self._peft_names = {name: f"live_{i}" for i, name in enumerate(adapters)}
        self._n_blocks = count_blocks(model)

    def __enter__(self) -> LiveAdapters:
        self._training = {name: module.training for name, module in self._base.named_modules()}
        self._trainable = {name: p.requires_grad for name, p in self._base.named_parameters()}
        try:
            self.model = attach_adapters(self._base, {self._peft_names[n]: a for n, a in self._adapters.items()})
        except BaseException:
            self._restore_flags()
            raise
        self.model.base_model.set_adapter(list(self._peft_names.values()), inference_mode=True)
        return self

    def set_weights(self, weights: Mapping[str, Weight]) -> None:
        """Set the weight of every adapter.

        Args:
            weights: A number per adapter, or a sequence with one per band of layers
                (`midalign.functional.merge_methods.weight_at`).

        Raises:
            ModelError: If the names are not exactly those of the adapters, or a weight cannot be used.
        """
        check_weights(weights, self._adapters)
        for module, layer in lora_layers(self.model):
            for name, weight in weights.items():
                layer.set_scale(self._peft_names[name], merging.weight_at(weight, module, self._n_blocks))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.model.unload()
        del self.model
        self._restore_flags()

    def _restore_flags(self) -> None:
        for name, parameter in self._base.named_parameters():
            parameter.requires_grad_(self._trainable[name])
        for name, module in self._base.named_modules():
            module.training = self._training[name]
