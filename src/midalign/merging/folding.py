"""Temporary merge ("folding"): the updates of active adapters are added to the base weights, and removed afterwards.

A separate adapter costs three small operations per layer and token, a large part of the time of generation. A folded
one costs nothing, but after each change of an adapter's weight the updates must be added up again.
"""

from __future__ import annotations

import logging
from collections import Counter
from types import TracebackType
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor

logger = logging.getLogger(__name__)

_EXACT_TYPES = (torch.float64, torch.float32)


class Folded:
    """Context that folds the active adapters of a model into its weights; on exit the weights are restored bit by bit.

    A folded weight is ``W + sum_i scale_i B_i A_i`` in the type of ``W``, float32 or float64. In half precision a small
    update would vanish in the rounding of the weight. There, and where a weight cannot be changed on its own
    (quantised, or tied to an embedding), nothing is folded and the adapters stay beside the weights.

        with LiveAdapters(model, paths) as live, Folded(live.model) as folded:
            live.set_weights({"task": 1.0, "alignment": 0.5})
            folded.refresh()
            evaluate(live.model)

    Attributes:
        possible: Whether anything is folded.

    Args:
        model: A model with adapters on linear layers; a copy of the weights under them is kept in the CPU's memory.
    """

    def __init__(self, model: PeftModel) -> None:
        self._layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
        owners = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
        weights = [layer.get_base_layer().weight for layer in self._layers]
        self.possible = all(w.dtype in _EXACT_TYPES and owners[id(w)] == 1 for w in weights)
        self._originals: list[Tensor] = []

    def __enter__(self) -> Folded:
        if self.possible:
            weights = [layer.get_base_layer().weight for layer in self._layers]
            self._originals = [weight.detach().to("cpu", copy=True) for weight in weights]
        else:
            logger.info("adapters stay beside the weights, some of which are in half precision, quantised or tied")
        return self

    @torch.no_grad()
    def refresh(self) -> None:
        """Fold the adapters in with their current weights."""
        for layer, original in zip(self._layers, self._originals, strict=self.possible):
            weight = layer.get_base_layer().weight
            names = [name for name in layer.active_adapters if name in layer.lora_A]
            weight.copy_(original)
            for name in names:
                weight += layer.get_delta_weight(name)
            layer.merged_adapters = names  # PEFT then runs the base layer alone

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with torch.no_grad():
            for layer, original in zip(self._layers, self._originals, strict=self.possible):
                layer.get_base_layer().weight.copy_(original)
                layer.merged_adapters = []
        self._originals = []
