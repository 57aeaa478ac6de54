"""`AlignmentTrainer`: trl's ``SFTTrainer`` with middle-layer alignment."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from typing import Protocol, TypedDict, Unpack

import torch
from peft import PeftConfig, PeftModel
from transformers import (
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_utils import EvalPrediction
from trl import SFTConfig, SFTTrainer

from midalign.data.prompt_tokens import InTaskPrompt
from midalign.recipe.alignment import AlignmentConfig
from midalign.records import ParallelPair
from midalign.training.mixin import AlternatingMixin


class LossFunction(Protocol):
    """A task loss of the user's own, from the model's outputs and the labels of a batch."""

    def __call__(
        self, outputs: object, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """The loss."""


class SFTOptions(TypedDict, total=False):
    """The other arguments of trl's ``SFTTrainer``, which explains them; it checks the data sets."""

    data_collator: Callable[[list[dict[str, object]]], dict[str, object]] | None
    train_dataset: Sized | None
    eval_dataset: Sized | None
    processing_class: PreTrainedTokenizerBase | ProcessorMixin | None
    compute_loss_func: LossFunction | None
    compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None
    callbacks: list[TrainerCallback] | None
    optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None]
    optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, object]] | None
    preprocess_logits_for_metrics: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None
    quantization_config: BitsAndBytesConfig | None
    peft_config: PeftConfig | None
    formatting_func: Callable[[dict[str, object]], str] | None


class AlignmentTrainer(AlternatingMixin, SFTTrainer):  # type: ignore[misc]
    r"""trl's ``SFTTrainer`` that also aligns: pass ``pairs`` and ``alignment`` in addition to its own arguments.

    Args:
        model: As in ``SFTTrainer``, as are all arguments that are not named here.
        args: As in ``SFTTrainer``.
        pairs: As in `AlternatingMixin`.
        alignment: As in `AlternatingMixin`.
        held_out_pairs: As in `AlternatingMixin`.
        tokenize_pair_side: As in `AlternatingMixin`.

    Examples:
        >>> rows = [{"prompt": "wake me at nine\n", "completion": "time: nine"}] * 8
        >>> trainer = midalign.AlignmentTrainer(
        ...     model,
        ...     args=SFTConfig("trained", max_steps=1, bf16=False, logging_steps=1, disable_tqdm=True),
        ...     train_dataset=Dataset.from_list(rows),
        ...     processing_class=tokenizer,
        ...     peft_config=LoraConfig(target_modules="all-linear"),
        ...     pairs=midalign.read_parallel("lines").pairs(),
        ...     alignment=midalign.AlignmentConfig(layer=2, batch_size=8),
        ... )
        >>> _ = trainer.train()
        {...'task_loss': ...}
        {...'alignment_loss': ...}
        ...
    """

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        args: SFTConfig | TrainingArguments | None = None,
        *,
        pairs: Sequence[ParallelPair] = (),
        alignment: AlignmentConfig | None = None,
        held_out_pairs: Sequence[ParallelPair] = (),
        tokenize_pair_side: InTaskPrompt | None = None,
        **options: Unpack[SFTOptions],
    ) -> None:
        super().__init__(
            model,
            args,
            pairs=pairs,
            alignment=alignment,
            held_out_pairs=held_out_pairs,
            tokenize_pair_side=tokenize_pair_side,
            **options,
        )
