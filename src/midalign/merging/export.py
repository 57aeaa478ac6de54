"""Merging adapters into one plain PEFT adapter, or into the weights of the base model."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Unpack

from torch import nn
from transformers import PreTrainedModel

from midalign.errors import ModelError, did_you_mean
from midalign.files import check_target, whole
from midalign.functional import merge_methods as merging
from midalign.functional.lora import LoraFactors
from midalign.functional.merge_methods import Merged, Weight
from midalign.functional.names import MergeOptions
from midalign.models.adapter_files import Adapter, read_adapters, write_adapter
from midalign.models.adapter_fit import fitted
from midalign.models.adapters import merge_into_base

logger = logging.getLogger(__name__)

MERGE_RECORD = "midalign_merge.json"


@dataclass(frozen=True, slots=True)
class MergeSummary:
    """What `merge_adapters` did; also written beside the result as ``midalign_merge.json``.

    Attributes:
        method: Name of the method, a key of `midalign.functional.merge_methods.METHODS`.
        options: Options of the method, as given.
        weights: Weight of each adapter, by name.
        adapters: Path and SHA-256 of each adapter, by name.
        base_model: The base model that the adapters name, else the name of the model given, else empty.
        modules: Number of modules in the result.
        ranks: Number of modules of each rank.
        truncation_error: Relative Frobenius error, over all modules, of the result against the method's formula.
        distance_from_sum: Relative Frobenius distance, over all modules, of the result from the exact weighted sum.
        out: Folder of the result.

    Examples:
        >>> adapters = {"task": "adapters/task", "alignment": "adapters/alignment"}
        >>> summary = midalign.merge_adapters(adapters, {"task": 0.5, "alignment": 0.5}, "svd", rank=2, out="truncated")
        >>> 0 < summary.truncation_error < 1
        True
    """

    method: str
    options: MergeOptions
    weights: dict[str, Weight]
    adapters: dict[str, dict[str, str]]
    base_model: str
    modules: int
    ranks: dict[int, int]
    truncation_error: float
    distance_from_sum: float
    out: str


def merge_adapters(
    paths: Mapping[str, str | Path],
    weights: Mapping[str, Weight],
    method: str = "sum",
    *,
    out: str | Path,
    base_model: PreTrainedModel | None = None,
    **options: Unpack[MergeOptions],
) -> MergeSummary:
    """Merge adapters into one plain PEFT adapter.

    Args:
        paths: Folder of each adapter, by name.
        weights: Weight of each adapter, by the same names; one per band of layers needs `base_model`.
        method: A key of `midalign.functional.merge_methods.METHODS`.
        out: Folder of the result; must not exist, or be empty. It appears whole or not at all.
        base_model: The model that the adapters are for, to check that they fit; weights are not used, so it may be on
            the meta device.
        **options: Options of the method (`midalign.functional.merge_methods.OPTIONS`). The masks of ``dare`` differ by
            module.

    Returns:
        What was done, with the errors.

    Raises:
        MissingFileError: If an adapter is not there.
        ModelError: If an adapter is refused, the adapters do not fit each other or the model, or the method or a weight
            cannot be used.
        RunError: If `out` is in the way.

    Examples:
        >>> adapters = {"task": "adapters/task", "alignment": "adapters/alignment"}
        >>> summary = midalign.merge_adapters(adapters, {"task": 1.0, "alignment": 0.5}, out="merged")
        >>> summary.ranks  # rank 2 and rank 2, in every module
        {4: 28}
    """
    merging.check_method(method, list(options))
    target = check_target(out)
    adapters = read_adapters(paths)
    check_weights(weights, adapters)
    n_blocks = 0
    if base_model is not None:
        n_blocks = count_blocks(base_model)
        adapters = {name: fitted(adapter, base_model) for name, adapter in adapters.items()}
    elif banded := [name for name, weight in weights.items() if not isinstance(weight, int | float)]:
        raise ModelError(
            f"Weights per band of layers (of {banded[0]!r}) need the base model, to count its layers. Give it too, or "
            "one weight."
        )
    merged: dict[str, LoraFactors] = {}
    errors = _Errors()
    for module, named in _by_module(adapters).items():
        factors = list(named.values())
        scalars = [merging.weight_at(weights[name], module, n_blocks) for name in named]
        result = _merge_module(module, method, factors, scalars, options)
        merged[module] = result.factors
        errors.add(result, merging.merge_sum(factors, scalars).factors)
    summary = MergeSummary(
        method=method,
        options=options,
        weights=dict(weights),
        adapters={name: {"path": str(a.path), "sha256": a.sha256} for name, a in adapters.items()},
        base_model=next((a.base_model for a in adapters.values() if a.base_model), _name(base_model)),
        modules=len(merged),
        ranks=dict(sorted(Counter(f.rank for f in merged.values()).items())),
        truncation_error=errors.truncation,
        distance_from_sum=errors.from_sum,
        out=str(target),
    )
    fan_in_fan_out = any(adapter.config.fan_in_fan_out for adapter in adapters.values())
    with whole(target) as folder:
        folder.mkdir()
        write_adapter(folder, merged, summary.base_model, fan_in_fan_out=fan_in_fan_out)
        (folder / MERGE_RECORD).write_text(json.dumps(asdict(summary), indent=2) + "\n", encoding="utf-8")
    logger.info("merged %s by %s into %s", ", ".join(adapters), method, target)
    return summary


def check_merge(paths: Mapping[str, str | Path], method: str, options: Mapping[str, Any]) -> None:
    """Check adapters, method and options as `merge_adapters` does, before hours of tuning.

    Raises:
        MissingFileError: If an adapter is not there.
        ModelError: If an adapter is refused, or the adapters, method and options do not go together.
    """
    merging.check_method(method, options)
    adapters = read_adapters(paths)
    for module, factors in _by_module(adapters).items():
        try:
            merging.check_merge(method, list(factors.values()), options)
        except ModelError as error:
            raise ModelError(f"Module {module!r}: {error}") from error


def _by_module(adapters: Mapping[str, Adapter]) -> dict[str, dict[str, LoraFactors]]:
    """The factors of every module, by the name of the adapter; modules in alphabetical order."""
    modules = sorted({module for adapter in adapters.values() for module in adapter.factors})
    return {
        module: {name: adapter.factors[module] for name, adapter in adapters.items() if module in adapter.factors}
        for module in modules
    }


def export_merged_base(model: PreTrainedModel, path: str | Path, *, out: str | Path) -> None:
    """Write the base model with an adapter merged into its weights, as a plain transformers folder.

    Args:
        model: The base model; its weights are changed in place, as by `merge_into_base`.
        path: A PEFT LoRA folder, such as `merge_adapters` writes.
        out: Folder of the result; must not exist, or be empty. It appears whole or not at all. The tokenizer is the
            caller's to save.

    Raises:
        MissingFileError: If the adapter is not there.
        ModelError: As for `merge_into_base`.
        RunError: If `out` is in the way.
    """
    target = check_target(out)
    merge_into_base(model, path)
    with whole(target) as folder:
        model.save_pretrained(folder)


def check_weights(weights: Mapping[str, Weight], adapters: Iterable[str]) -> None:
    """Check that each adapter has a weight, a finite number or several.

    Raises:
        ModelError: If not.
    """
    names = list(adapters)
    for name in weights:
        if name not in names:
            raise ModelError(
                f"A weight is given for {name!r}, but the adapters are {', '.join(names)}.{did_you_mean(name, names)}"
            )
    if missing := [name for name in names if name not in weights]:
        raise ModelError(f"Adapter {missing[0]!r} has no weight. Write {missing[0]}=1.0, or 0 to leave it out.")
    for name, weight in weights.items():
        values = [weight] if isinstance(weight, int | float) else list(weight)
        if any(not math.isfinite(value) for value in values):
            raise ModelError(f"Weight {weight} of adapter {name!r} is not a finite number; write one such as 0.5.")


def count_blocks(model: nn.Module) -> int:
    """Number of blocks of a model."""
    return int(model.config.get_text_config().num_hidden_layers)  # type: ignore[union-attr, operator]


def _name(model: PreTrainedModel | None) -> str:
    return str(getattr(model, "name_or_path", "") or "")


def _merge_module(
    module: str, method: str, factors: Sequence[LoraFactors], weights: Sequence[float], options: Mapping[str, Any]
) -> Merged:
    extra = dict(options)
    if method == "dare":
        # The same mask in every module of one shape would correlate what is dropped.
        digest = hashlib.sha256(f"{options.get('seed', 0)}:{module}".encode()).digest()
        extra["seed"] = int.from_bytes(digest[:7], "big")
    try:
        return merging.merge(method, factors, weights, **extra)
    except ModelError as error:
        raise ModelError(f"Module {module!r}: {error}") from error


class _Errors:
    """Adds up squared Frobenius norms over modules."""

    def __init__(self) -> None:
        self._lost = self._whole = self._distance = self._sum = 0.0

    def add(self, merged: Merged, exact_sum: LoraFactors) -> None:
        self._lost += merged.lost**2
        self._whole += merged.lost**2 + merged.factors.norm() ** 2
        self._distance += merging.distance(merged.factors, exact_sum) ** 2
        self._sum += exact_sum.norm() ** 2

    @property
    def truncation(self) -> float:
        return math.sqrt(self._lost / self._whole) if self._whole else 0.0

    @property
    def from_sum(self) -> float:
        return math.sqrt(self._distance / self._sum) if self._sum else 0.0
