"""The recipe's section ``alignment``: the contrastive loss on translations, and when it is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from midalign.errors import ModelError
from midalign.functional.names import Direction, Pooling
from midalign.recipe.fields import (
    LARGEST_BATCH,
    PAPER,
    REFERENCE,
    BatchSize,
    Count,
    Section,
    refuse_conflicts,
    source,
)
from midalign.recipe.schedule import Schedule

Layer = int | float | str | dict[int, float]


def _checked_schedule(text: str) -> str:
    Schedule.parse(text)
    return text


def _checked_layer(layer: Layer) -> Layer:
    if isinstance(layer, dict):
        for number, weight in layer.items():
            _checked_layer(number)
            if weight <= 0:
                raise ValueError(f"the weight of layer {number} is {weight}; weights are positive")
        if not layer:
            raise ValueError("name at least one layer")
    elif isinstance(layer, str) and layer not in ("middle", "auto"):
        raise ValueError("a layer is a number such as 16, a fraction of the depth such as 0.5, 'middle' or 'auto'")
    elif isinstance(layer, float) and not 0 < layer <= 1:
        raise ValueError("a fraction of the depth is above 0 and at most 1; write a whole number for a layer")
    elif isinstance(layer, int) and layer < 1:
        raise ValueError("layer k is the output of block k; the lowest that can be trained is 1")
    return layer


_GONE = {
    "centered": False, "learn_temperature": None, "modules": None, "patience": None, "preserve": 0.0,
    "preserve_rows": 8, "warmup": 0,
}  # fmt: skip
"""Options that were removed, and the values with which they had no effect."""


class AlignmentConfig(Section):
    """The alignment objective and when it is trained.

    - What is aligned: ``layer``, ``pooling``, ``prompt``, ``direction``, ``frozen_source``, ``temperature``,
      ``weight``.
    - When alignment is trained: ``schedule``, ``max_updates``.
    - Batches and memory: ``batch_size``, ``mini_batch_size``, ``gather_negatives``, ``batches``,
      ``language_exponent``.
    - Experimental, not in the paper: ``subspace``.

    Examples:
        >>> alignment = midalign.AlignmentConfig(layer="middle", temperature=0.5)
        >>> alignment.resolve_layers(depth=32)
        {16: 1.0}
    """

    # What is aligned
    layer: Annotated[Layer, AfterValidator(_checked_layer)] = Field(
        default="middle",
        description="Layer to align: a number, a fraction of the depth, 'middle', 'auto' (the layer at which the base "
        "model retrieves held-out translations best), or several with weights, such as {8: 1.0, 16: 0.5}.",
        json_schema_extra=PAPER,
    )
    pooling: Pooling = Field(
        default="mean", description="How the token states of a sentence become one vector.", json_schema_extra=PAPER
    )
    prompt: Literal["none", "task"] = Field(
        default="none",
        description="'none' aligns each sentence alone; 'task' aligns it inside the prompt of the task. With 'task' "
        "and pooling: last, the prompt's last state is aligned, from which the answer begins.",
        json_schema_extra=PAPER,
    )
    direction: Direction = Field(
        default="symmetric",
        description="'symmetric' averages the loss of both directions, 'forward' is that of the reference "
        "implementation.",
        json_schema_extra=source("midalign; the reference implementation has 'forward'"),
    )
    frozen_source: bool = Field(
        default=False,
        description="Align the target side of a pair with the vectors that the base model gives its source (English), "
        "rather than with those of the model in training. English vectors stay the same and need no backward pass.",
    )
    temperature: float = Field(
        default=0.1,
        gt=0,
        description="Divides the cosines in the contrastive loss.",
        json_schema_extra=source("the paper, arXiv 2502.14830, for Llama 3"),
    )
    weight: float = Field(default=1.0, gt=0, description="Multiplies the alignment loss.")

    # When alignment is trained
    schedule: Annotated[str, AfterValidator(_checked_schedule)] = Field(
        default="update",
        description="Order of the objectives: 'update' alternates task and alignment by update, 'micro_batch' by "
        "micro-batch as the reference implementation does, 'task' and 'align' train one of them only; or a pattern "
        "such as 'task:3,align:1'.",
        json_schema_extra=PAPER,
    )
    max_updates: Count | None = Field(
        default=None, description="Largest number of alignment updates; all updates after them train the task."
    )

    # Batches and memory
    batch_size: int = Field(
        default=32,
        ge=2,
        le=LARGEST_BATCH,
        description="Pairs in a contrastive batch of one process; the other pairs of the batch are the negatives.",
        json_schema_extra=PAPER,
    )
    mini_batch_size: BatchSize | None = Field(
        default=None,
        description="Encode this many pairs at a time and cache gradients: a large batch at the memory of a small one.",
    )
    gather_negatives: bool = Field(default=False, description="Use the pairs of all processes as negatives.")
    batches: Literal["mixed", "language"] = Field(
        default="mixed",
        description="'mixed' draws the languages separately for every pair; 'language' fills a batch with pairs of the "
        "same two languages.",
        json_schema_extra=REFERENCE,
    )
    language_exponent: float = Field(
        default=0.0,
        ge=0,
        description="Languages with n pairs are drawn with probability n**exponent; 0 is uniform over languages.",
        json_schema_extra=PAPER,
    )

    # Experimental
    subspace: int | None = Field(
        default=None,
        gt=1,
        description="Align only in a fixed random subspace of this many dimensions; the others are left to the task.",
    )

    @model_validator(mode="before")
    @classmethod
    def _without_what_is_gone(cls, given: Any) -> Any:
        """Older recipes and manifests may still name options that were removed, where they had no effect."""
        if not isinstance(given, Mapping):
            return given
        return {name: value for name, value in given.items() if name not in _GONE or _GONE[name] != value}

    @model_validator(mode="after")
    def _values_fit_together(self) -> AlignmentConfig:
        return refuse_conflicts(self, [*self._conflicts(), *self._conflicts_with_the_prompt()])

    def _conflicts(self) -> Iterator[str]:
        has_task = "task" in Schedule.parse(self.schedule).pattern
        if self.max_updates is not None and not has_task:
            yield (
                f"max_updates = {self.max_updates} puts task updates in place of alignment, but schedule "
                f"{self.schedule!r} has no task updates; leave it out"
            )

    def _conflicts_with_the_prompt(self) -> Iterator[str]:
        if self.prompt == "none":
            return
        if self.layer == "auto":
            yield (
                "layer: auto with prompt: task: the layer would be chosen on sentences without the prompt, but they "
                "are aligned inside it; write a number, a fraction or middle, or prompt: none"
            )
        if self.pooling in ("mean_no_first", "mean_after_sink"):
            yield (
                f"pooling: {self.pooling} with prompt: task: the prompt comes before the sentence, so that the "
                "sentence's first word is not an attention sink, and the prompt is left out anyway; write pooling: mean"
            )

    def check_model(self, depth: int, hidden: int) -> None:
        """Check before training that the model has the layers and dimensions that are asked for.

        Args:
            depth: Blocks of the model.
            hidden: Its hidden size.

        Raises:
            ModelError: If the model has no such layer, or fewer dimensions than the subspace.
        """
        if self.layer != "auto":
            self.resolve_layers(depth)
        if self.subspace is not None and self.subspace > hidden:
            raise ModelError(
                f"alignment.subspace is {self.subspace}, but this model has hidden size {hidden}, so there is no such "
                f"subspace; write a number below {hidden}, or leave it out"
            )

    def resolve_layers(self, depth: int) -> dict[int, float]:
        """The aligned layers as numbers with their weights, for a model of `depth` blocks.

        Raises:
            ModelError: If the model has no such layer, or the layer is ``auto``, which needs the model itself.
        """
        if self.layer == "auto":
            raise ModelError("alignment.layer 'auto' is chosen with midalign.training.layer_choice.choose_layer first")
        if isinstance(self.layer, dict):
            layers = dict(self.layer)
        elif isinstance(self.layer, str):
            layers = {max(1, depth // 2): 1.0}
        else:
            layers = {self.layer if isinstance(self.layer, int) else max(1, round(self.layer * depth)): 1.0}
        if max(layers) > depth:
            raise ModelError(
                f"alignment.layer is {max(layers)}, but this model has {depth} blocks: layer k is the output of block "
                f"k, so layers 1 to {depth} can be aligned. The paper uses the middle, which is {depth // 2} here."
            )
        return layers
