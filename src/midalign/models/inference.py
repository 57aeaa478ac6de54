"""An adapter for inference: merged into the base weights, which is faster, if that gives the same logits.

1. the logits of a first batch are computed without the adapter and with it live;
2. the update is added to the base weights (`midalign.models.adapters.merge_into_base`), and the logits computed again;
3. where the two disagree, or the update cannot be added, the weights are put back and the adapter stays live.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from midalign.errors import ModelError
from midalign.models.adapters import attach_adapter, merge_into_base

logger = logging.getLogger(__name__)

# Largest accepted ||merged - live|| / ||live|| over the logits. Each block adds its own rounding (units of the types:
# 6e-8, 5e-4, 4e-3): over 30 blocks in bfloat16 the two differed by 0.05 to 0.10, and merged answers were as near to
# those of float32 as live ones (experiments/real/rounding.py; LOG.md, 2026-11-26).
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 1.5e-1}
# And of ||merged - live|| / ||live - without||: in half precision a small update can vanish in the rounding of the
# weights, which the first test would not see.
LOST_EFFECT = 0.25


def with_adapter(model: PreTrainedModel, path: str | Path, logits: Callable[[Any], Tensor]) -> Any:
    """Put an adapter on a model, merged into its weights if that gives the same logits.

    Args:
        model: The base model; changed for good.
        path: A PEFT LoRA folder.
        logits: Computes logits of the same inputs with the model it is given; called up to three times.

    Returns:
        `model` itself with changed weights, or a ``PeftModel`` around it. Which one, and why, is logged.

    Raises:
        MissingFileError: If the adapter is not there.
        ModelError: If it is refused or does not fit the model (`midalign.models.adapters.attach_adapter`).
    """
    live_model = attach_adapter(model, path)
    live = logits(live_model)
    with live_model.disable_adapter():
        without = logits(live_model)
    base = live_model.unload()
    try:
        undo = merge_into_base(base, path)
    except ModelError as fault:
        logger.info("the adapter %s stays live: %s", path, fault)
        return attach_adapter(base, path)
    merged = logits(base)
    error, effect = _distance(merged, live), _distance(live, without)
    relative = error / max(float(live.float().norm()), 1e-30)
    allowed = TOLERANCE.get(next(base.parameters()).dtype, 0.0)
    found = (
        f"logits of the first batch differ by {relative:.1e} (allowed: {allowed:.0e}), which is "
        f"{error / max(effect, 1e-30):.1e} of what the adapter changes (allowed: {LOST_EFFECT})"
    )
    if relative <= allowed and error <= LOST_EFFECT * effect:
        logger.info("the adapter %s is merged into the base weights: %s", path, found)
        return base.eval()
    undo()
    logger.warning("the adapter %s stays separate, which is slower: if it is merged, the %s", path, found)
    return attach_adapter(base, path)


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one.float() - other.float()).norm())
