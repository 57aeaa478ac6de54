"""Trainer mixin that alternates the task loss and the middle-layer alignment loss.

1. task data and pairs are concatenated into one data set, and `AlternatingBatchSampler` makes batches of one objective
   each; it is a real ``DataLoader``, so that the Trainer can skip batches on resume;
2. a task batch goes to the trainer's own ``compute_loss``;
3. a batch of pairs goes through blocks 1 to k only and gives InfoNCE of its sentence vectors
   (`midalign.training.objective`);
4. both losses are logged separately, and evaluation adds the alignment loss and retrieval of held-out pairs, so that
   early stopping and the choice of the best checkpoint can use them.

``num_train_epochs`` and ``max_steps`` count task updates only, as in SFT; alignment updates come on top.
``logging_steps``, ``eval_steps`` and ``save_steps`` count all updates. Only documented methods of the Trainer are
overridden.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader
from transformers.trainer_utils import EvalLoopOutput, IntervalStrategy, SaveStrategy

from midalign.data.prompt_tokens import InTaskPrompt
from midalign.errors import DataError, ModelError, RecipeError
from midalign.models.hidden import find_decoder, unwrap, verify_stopping
from midalign.models.limits import longest_row
from midalign.models.loading import keep_trainable
from midalign.models.tokens import sentence_tokenizer
from midalign.recipe.alignment import AlignmentConfig
from midalign.recipe.schedule import Schedule
from midalign.records import ParallelPair
from midalign.training.objective import AlignmentObjective, held_out_metrics
from midalign.training.pair_batches import PAIR_KEYS, CollateEither, PairCollator, PairDataset
from midalign.training.pair_vectors import find_packing
from midalign.training.sampler import AlternatingBatchSampler, check_task_data

logger = logging.getLogger(__name__)

Batch = dict[str, torch.Tensor]

if TYPE_CHECKING:
    from transformers import Trainer as _Trainer  # what the mixin is mounted before
else:
    _Trainer = object


class AlternatingMixin(_Trainer):  # type: ignore[misc]
    """Trainer mixin for alignment: inherit from it before a transformers ``Trainer`` class, as `AlignmentTrainer` does.

    Args:
        pairs: Parallel pairs to align on; may be empty for a schedule without alignment.
        alignment: The objective and its schedule.
        held_out_pairs: Pairs for evaluation only. Each evaluation adds ``eval_alignment_loss``, ``eval_retrieval``
            (fraction, mean over both directions and languages), ``eval_retrieval_<language>`` and ``eval_total_loss``
            (the sum of both losses, by which the reference implementation chooses its checkpoint).
        tokenize_pair_side: With ``alignment.prompt: task``, the tokenizer that puts the sentences of pairs into the
            task's prompt.
        args: The trainer's own positional arguments.
        kwargs: The trainer's own keyword arguments.

    Raises:
        ModelError: If the model has no such layer or subspace, its forward pass cannot be stopped after the layer, or
            its four-bit weights are packed for inference.
        DataError: If the schedule needs pairs and there are none.
        RecipeError: If ``alignment.prompt`` and `tokenize_pair_side` contradict each other, or the process sees several
            GPUs.

    Examples:
        >>> class AligningTrainer(midalign.AlternatingMixin, Trainer):
        ...     pass
    """

    def __init__(
        self,
        *args: object,
        pairs: Sequence[ParallelPair] = (),
        alignment: AlignmentConfig | None = None,
        held_out_pairs: Sequence[ParallelPair] = (),
        tokenize_pair_side: InTaskPrompt | None = None,
        **kwargs: object,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.args: Any = copy.copy(self.args)  # changed below; the caller may use them for another trainer
        if self.args.n_gpu > 1:
            raise RecipeError(
                f"this process sees {self.args.n_gpu} GPUs, and batches of pairs cannot be split by nn.DataParallel. "
                "Launch with accelerate launch or torchrun, or let it see one GPU: CUDA_VISIBLE_DEVICES=0"
            )
        check_task_data(self.train_dataset, self.args)
        self.tokenize_pair_side = tokenize_pair_side
        self.alignment = alignment or AlignmentConfig()
        if self.alignment.mini_batch_size is not None and self.is_deepspeed_enabled:
            raise RecipeError(
                f"alignment.mini_batch_size = {self.alignment.mini_batch_size} with DeepSpeed: it would update the "
                "weights after each piece of a batch. Leave it out and lower alignment.batch_size, or train with FSDP "
                "or DDP"
            )
        self.schedule = Schedule.parse(self.alignment.schedule, self.alignment.max_updates)
        self._sums: dict[str, torch.Tensor] = {}
        self.pairs: PairDataset | None = None
        self.held_out: PairDataset | None = None
        self.objective: AlignmentObjective | None = None
        self.collate_pairs = PairCollator(self.processing_class.pad_token_id or 0, self.schedule.per_micro_batch)
        keep_trainable(self.model)  # which may be the user's own
        if "align" in self.schedule.pattern:
            self._prepare_alignment(pairs, held_out_pairs)
        self.planned_task_updates = self.args.max_steps
        self.args.max_steps = self._total_updates()
        self._epochs_as_updates()

    def _prepare_alignment(self, pairs: Sequence[ParallelPair], held_out_pairs: Sequence[ParallelPair]) -> None:
        if not pairs:
            raise DataError(f"alignment.schedule {self.alignment.schedule!r} needs parallel pairs, and there are none")
        if (self.alignment.prompt == "task") != (self.tokenize_pair_side is not None):
            raise RecipeError(
                f"alignment.prompt is {self.alignment.prompt!r}, and the sentences of pairs would be given to the "
                "model in another form. With prompt: task, pass tokenize_pair_side=InTaskPrompt(tokenizer, 'slots', "
                "...); with prompt: none, leave it out"
            )
        tokenize = self.tokenize_pair_side or sentence_tokenizer(self.processing_class, self.alignment.pooling)
        limit = longest_row(getattr(self.args, "max_length", None), unwrap(self.model).config, self.processing_class)
        self.pairs = PairDataset(pairs, tokenize, limit)
        depth = find_decoder(self.model).depth
        self.alignment.check_model(depth, unwrap(self.model).config.get_text_config().hidden_size)
        top = max(self.alignment.resolve_layers(depth))
        verify_stopping(self.model, top)
        self.objective = AlignmentObjective.for_depth(self.alignment, depth, find_packing(self.model, top))
        if held_out_pairs:
            self.held_out = PairDataset(held_out_pairs, tokenize, limit)

    def _total_updates(self) -> int:
        if self.args.max_steps <= 0:
            self.planned_task_updates = max(1, round(self.args.num_train_epochs * self._updates_per_epoch()))
        return self.schedule.updates_for(self.planned_task_updates)

    def _updates_per_epoch(self) -> float:
        """Updates in one pass over the task data; over the pairs, where there is no task."""
        task = "task" in self.schedule.pattern
        examples = len(self.train_dataset) if task else len(self.pairs or ())
        size: int = self.args.per_device_train_batch_size if task else self.alignment.batch_size
        per_update: int = size * self.args.gradient_accumulation_steps * self.args.world_size
        return examples / per_update

    def _epochs_as_updates(self) -> None:
        """Evaluate, save and log every so many updates where every epoch is asked for.

        All batches of a run are one pass of the loader, so that the Trainer would see one epoch, at the end.
        """
        share = self._updates_per_epoch() / self.planned_task_updates
        updates = max(1, int(self.args.max_steps * share))
        for kind, strategy in (("eval", IntervalStrategy), ("save", SaveStrategy), ("logging", IntervalStrategy)):
            if getattr(self.args, f"{kind}_strategy") == strategy.EPOCH:
                setattr(self.args, f"{kind}_strategy", strategy.STEPS)
                setattr(self.args, f"{kind}_steps", updates)
                if kind == "eval":
                    self.args.eval_delay *= updates

    # ---- the stream of batches

    def get_train_dataloader(self) -> DataLoader[Batch]:
        """All batches of this process for the whole run; the sampler divides them among processes."""
        task: Any = self._remove_unused_columns(self.train_dataset, description="training")
        parts: list[Any] = [task] + ([self.pairs] if self.pairs is not None else [])
        sampler = AlternatingBatchSampler(
            schedule=self.schedule,
            updates=self.args.max_steps,
            task_lengths=[len(ids) for ids in task["input_ids"]],
            pair_groups=self.pairs.groups if self.pairs is not None else (),
            task_batch_size=self._train_batch_size,
            pair_batch_size=self.alignment.batch_size,
            accumulation=self.args.gradient_accumulation_steps,
            exponent=self.alignment.language_exponent,
            one_language=self.alignment.batches == "language",
            seed=self.args.seed,
            rank=self.args.process_index,
            world_size=self.args.world_size,
            strategy=self.args.train_sampling_strategy,
            by_length=self._window_is_one_sum(),
        )
        loader: DataLoader[Batch] = DataLoader(
            ConcatDataset(parts),
            batch_sampler=sampler,
            collate_fn=CollateEither(self.data_collator, self.collate_pairs),
            num_workers=self.args.dataloader_num_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            persistent_workers=self.args.dataloader_persistent_workers and self.args.dataloader_num_workers > 0,
            multiprocessing_context=getattr(self.args, "dataloader_multiprocessing_context", None),
            pin_memory=self.args.dataloader_pin_memory and self.args.device.type == "cuda",
        )
        # The sampler already deals to processes; accelerate's own sharding would deal whole batches in turn and
        # give one rank only task batches.
        prepared: DataLoader[Batch] = prepare_data_loader(
            loader, device=self.args.device, num_processes=1, process_index=0, put_on_device=True
        )
        return prepared

    def _window_is_one_sum(self) -> bool:
        """Whether the task loss of an update is a sum over its tokens, however they are cut into micro-batches."""
        if self.schedule.per_micro_batch or not (self.model_accepts_loss_kwargs or self.compute_loss_func):
            return False
        balanced = getattr(unwrap(self.model).config, "output_router_logits", False)  # a second loss, of a micro-batch
        return not balanced and (self.args.world_size == 1 or self.args.average_tokens_across_devices)

    # ---- the two objectives

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, object]:
        """The task loss of a task batch, or the alignment loss of a batch of pairs."""
        # Where a window holds both objectives, a token count over it means nothing: each micro-batch is a mean of its
        # own, as in the reference implementation, and is divided by the accumulation here, since the Trainer does not.
        # Nor does it divide any loss where it is given a loss function.
        own_mean = self.schedule.per_micro_batch and num_items_in_batch is not None
        pairs = PAIR_KEYS in inputs
        undivided = own_mean or (pairs and self.compute_loss_func is not None)
        share = 1 / self.current_gradient_accumulation_steps if undivided else 1.0
        if pairs:
            assert self.objective is not None
            loss = self.objective.loss(model, inputs)
            self._remember("alignment_loss", loss, 1.0)
            return loss * share * self.alignment.weight
        result = super().compute_loss(
            model,
            inputs,
            return_outputs=return_outputs,
            num_items_in_batch=None if own_mean else num_items_in_batch,
        )
        loss = result[0] if return_outputs else result
        # With a token count the micro-batches of a window add up to its loss; without, each is a mean of its own.
        counted = num_items_in_batch is not None and not own_mean
        self._remember("task_loss", loss, 1 / self.args.gradient_accumulation_steps if counted else 1.0)
        return (loss * share, result[1]) if return_outputs else loss * share

    def training_step(
        self, model: nn.Module, inputs: Batch, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """One micro-batch, forward and backward.

        Raises:
            ModelError: If the loss is not finite.
        """
        loss: torch.Tensor
        if PAIR_KEYS in inputs and self.alignment.mini_batch_size is not None:
            loss = self._cached_step(model, inputs)
        else:
            loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            what = "alignment" if PAIR_KEYS in inputs else "task"
            raise ModelError(
                f"the {what} loss is {loss.item()} at update {self.state.global_step + 1}, so training cannot "
                "continue. Lower training.learning_rate, raise alignment.temperature, or train in bfloat16 rather "
                "than float16, and start again with another --out."
            )
        return loss

    def _cached_step(self, model: nn.Module, inputs: Batch) -> torch.Tensor:
        assert self.objective is not None
        model.train()
        if callable(getattr(self.optimizer, "train", None)):  # schedule-free ones have two modes, as models have
            self.optimizer.train()
        batch = self._prepare_inputs(inputs)
        accumulation = self.current_gradient_accumulation_steps
        with self.compute_loss_context_manager():
            loss = self.objective.cached_backward(
                model,
                batch,
                self.accelerator.backward,
                scale=self.alignment.weight / accumulation,
                no_sync=lambda: self.accelerator.no_sync(model),
            )
        self._remember("alignment_loss", loss, 1.0)
        mean: torch.Tensor = loss * self.alignment.weight / accumulation
        return mean

    # ---- logging and evaluation

    def _remember(self, name: str, loss: torch.Tensor, weight: float) -> None:
        if self.model.training:
            entry = torch.stack([loss.detach().float(), torch.tensor(weight, device=loss.device)])
            self._sums[name] = self._sums[name] + entry if name in self._sums else entry

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add ``task_loss`` and ``alignment_loss``, each averaged over its own steps since the last log."""
        if "loss" in logs:
            for name, total in sorted(self._sums.items()):
                value, weight = self.accelerator.reduce(total, reduction="sum").tolist()
                logs[name] = value / weight
            self._sums.clear()
        super().log(logs, start_time)

    def evaluation_loop(
        self,
        dataloader: DataLoader[Batch],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The trainer's evaluation, with the alignment metrics of the held-out pairs added."""
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        if self.held_out is not None:
            found = self.alignment_metrics()
            output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in found.items()})
            task_loss = output.metrics.get(f"{metric_key_prefix}_loss")
            if task_loss is not None:
                output.metrics[f"{metric_key_prefix}_total_loss"] = task_loss + found["alignment_loss"]
        return output

    def alignment_metrics(self) -> dict[str, float]:
        """Alignment loss and retrieval accuracy of the held-out pairs.

        See `midalign.training.objective.held_out_metrics`.
        """
        assert self.objective is not None
        assert self.held_out is not None
        model = self.model_wrapped if self.model_wrapped is not None else self.model
        training = unwrap(self.model).training
        model.eval()
        try:
            return held_out_metrics(self.objective, model, self.held_out, self.collate_pairs, self.args.device)
        finally:
            model.train(training)
