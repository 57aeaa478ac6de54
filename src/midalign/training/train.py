"""Training of one LoRA adapter: the task alone, the task with alignment, or alignment alone.

1. read the data; 2. load the model and build the trainer; 3. resume from the newest whole checkpoint, if there is one;
4. train; 5. save a plain PEFT adapter and what the training logged.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
import torch.distributed as dist
from datasets import Dataset
from peft import prepare_model_for_kbit_training
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
)
from trl.trainer import utils as trl_utils

from midalign.data.prompt_check import check_prompt
from midalign.data.prompt_tokens import InTaskPrompt, training_rows
from midalign.errors import ModelError, RecipeError, RunError, UserError
from midalign.files import disk_is_full, write_json
from midalign.models.hidden import eager_on_a_cpu, find_decoder
from midalign.models.limits import check_ids, longest_row
from midalign.models.loading import default_device, in_low_bits
from midalign.models.memory import is_out_of_memory
from midalign.models.source import ModelSource
from midalign.models.tokens import sentence_tokenizer
from midalign.progress import Progress
from midalign.recipe.data import (
    PairData,
    TaskData,
    evaluation_texts,
    read_pair_data,
    read_probe_corpus,
    read_task_data,
)
from midalign.recipe.sections import Recipe
from midalign.records import TaskExample
from midalign.training.arguments import as_chosen, lora_config, training_arguments
from midalign.training.checkpoints import Stopwatch, last_whole_checkpoint, processes_of, stopped_early_at
from midalign.training.layer_choice import choose_layer
from midalign.training.model_card import model_card
from midalign.training.pair_batches import PairDataset
from midalign.training.trackers import tensorboard_in
from midalign.training.trainer import AlignmentTrainer

logger = logging.getLogger(__name__)

RunObjective = Literal["joint", "task", "align"]
"""What a whole training is on; `midalign.recipe.schedule.Objective` is what one update is on."""
TRAINING_FILE = "training.json"
ADAPTER = "adapter"
_CHECKPOINTS = "checkpoints"


class TrainingSummary(TypedDict):
    """What ``training.json`` holds.

    Attributes:
        objective: What was trained.
        layer: The highest aligned layer; None for the task alone.
        updates: Number of all updates, alignment included.
        task_examples: Number of training examples of the task.
        pairs: Number of pairs that were aligned.
        seconds: Wall time of training; of an interrupted run, over all its calls.
        resumed_from: The checkpoint that the last call resumed from.
        log_history: What the Trainer logged.
    """

    objective: RunObjective
    layer: int | None
    updates: int
    task_examples: int
    pairs: int
    seconds: float
    resumed_from: str | None
    log_history: list[dict[str, float]]


def train(
    recipe: Recipe,
    out: Path,
    *,
    objective: RunObjective = "joint",
    task_data: TaskData | None = None,
    pair_data: PairData | None = None,
    progress: Progress | None = None,
    begin: Callable[[], None] | None = None,
) -> TrainingSummary:
    """Train one LoRA adapter into ``out/adapter``; an interrupted training resumes from its last checkpoint.

    Args:
        recipe: The recipe.
        out: Run folder; gets ``adapter/`` and ``training.json``.
        objective: ``joint`` follows ``alignment.schedule``; ``task`` is the SFT baseline with the same number of task
            updates; ``align`` trains only the blocks up to the aligned layer, for merging.
        task_data: The task data, if it has been read already.
        pair_data: The pairs, if they have been read already.
        progress: Called with a description, the number of finished updates and the total; without it the trainer shows
            its own bar.
        begin: Called once data, model and recipe have been checked, before the first update.

    Returns:
        What ``training.json`` holds.

    Raises:
        UserError: If data, model and recipe do not fit.

    Examples:
        >>> summary = midalign.train(midalign.load_recipe("recipe.yaml"), Path("trained"), progress=lambda *_: None)
        >>> summary["updates"], summary["layer"]  # two of the task, two of alignment
        (4, 2)
        >>> Path("trained/adapter/adapter_model.safetensors").exists()
        True
    """
    task_data = task_data or read_task_data(recipe)
    if pair_data is None:
        never = evaluation_texts(task_data, read_probe_corpus(recipe))
        pair_data = PairData([], []) if objective == "task" else read_pair_data(recipe, never)
    tokenizer = ModelSource.of(recipe.model).tokenizer()
    model = _load(recipe)
    existed = out.exists()
    try:
        trainer = build_trainer(recipe, out, objective, model, tokenizer, task_data, pair_data)
    except Exception:
        if not existed:  # the trainer makes its folder before the faults are found
            shutil.rmtree(out, ignore_errors=True)
        raise
    if progress is not None:
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(_Report(progress, objective))
    trainer.add_callback(Stopwatch())
    _check_gathering(trainer)
    with trainer.accelerator.main_process_first():  # it deletes what is half-written
        checkpoint = last_whole_checkpoint(out / _CHECKPOINTS)
    if checkpoint is not None and (before := processes_of(checkpoint)) != trainer.args.world_size:
        raise RunError(
            f"{str(out)!r} holds a training in {before} processes, and now there are {trainer.args.world_size}: "
            f"batches and learning rates would be others. Start {before}, or give another --out"
        )
    if checkpoint is not None and (end := stopped_early_at(checkpoint)) is not None:
        trainer.args.max_steps = end
    if begin is not None:
        begin()
    with _explained(out), head_on_completions_only():
        trainer.train(resume_from_checkpoint=checkpoint)
        summary = _summary(trainer, objective, task_data, checkpoint)
        _save_adapter(trainer, out / ADAPTER, model_card(recipe, objective, summary))
    if trainer.args.process_index == 0:
        write_json(out / TRAINING_FILE, summary)
        shutil.rmtree(out / _CHECKPOINTS, ignore_errors=True)
    return summary


def build_trainer(
    recipe: Recipe,
    out: Path,
    objective: RunObjective,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task_data: TaskData,
    pair_data: PairData,
) -> AlignmentTrainer:
    """The trainer of `train`, ready to run; arguments as there.

    Raises:
        RecipeError: If trl or peft refuses the arguments of ``training:`` or ``lora:``.
        UserError: If data, model and recipe do not fit.
    """
    tokenizer = as_chosen(tokenizer, recipe)
    alignment = recipe.alignment
    if objective != "joint":
        alignment = alignment.model_copy(update={"schedule": objective})
    if alignment.layer == "auto" and objective != "task":
        with _on_the_accelerator(model, cpu=bool(recipe.training.given().get("use_cpu"))), eager_on_a_cpu(model):
            best = choose_layer(model, tokenizer, pair_data.held_out or pair_data.train, alignment)
        alignment = alignment.model_copy(update={"layer": best})
    arguments = training_arguments(recipe, out / _CHECKPOINTS, objective=objective, held_out=bool(pair_data.held_out))
    arguments.max_length = longest_row(arguments.max_length, model.config, tokenizer)
    check_prompt(task_data.train[0], tokenizer, recipe.answer_format)
    rows, dev_rows = (
        training_rows(split, tokenizer, recipe.answer_format, max_length=arguments.max_length)
        for split in (task_data.train, task_data.dev)
    )
    check_ids((row["input_ids"] for row in (*rows, *dev_rows)), tokenizer, model.config, "the task data")
    asked = None
    if alignment.prompt == "task" and objective != "task":
        asked = _in_task_prompt(recipe, tokenizer, task_data.train)
    layer = None
    if objective == "align":
        layer = max(alignment.resolve_layers(find_decoder(model).depth))
    patience = recipe.early_stopping_patience
    try:
        with tensorboard_in(out / "tensorboard"):
            trainer = AlignmentTrainer(
                model,
                args=arguments,
                train_dataset=Dataset.from_list(rows),
                eval_dataset=Dataset.from_list(dev_rows),
                processing_class=tokenizer,
                peft_config=lora_config(recipe, model, layer),
                pairs=pair_data.train,
                held_out_pairs=pair_data.held_out,
                alignment=alignment,
                tokenize_pair_side=asked,
                callbacks=[EarlyStoppingCallback(patience)] if patience else None,
            )
    except UserError:
        raise
    except ValueError as fault:
        raise RecipeError(f"training or lora: trl or peft refuses these arguments: {fault}") from fault
    for parameter in trainer.model.parameters():
        # trl makes the adapter of a quantised model bfloat16, but peft reads it back from a checkpoint as float32, so
        # that a resumed run would come to another one; peft's own choice for a new adapter is float32.
        if parameter.requires_grad and parameter.dtype == torch.bfloat16 and in_low_bits(model):
            parameter.data = parameter.data.float()
    return trainer


def check_pairs(recipe: Recipe, tokenizer: Any, config: Any, task_data: TaskData, pair_data: PairData) -> None:
    """Check before anything is trained that pairs of every language fit into a row, and into the task's prompt.

    Raises:
        DataError: If all pairs of a language are too long.
        RecipeError: If the task's prompts cannot take a sentence.
    """
    tokenize = (
        _in_task_prompt(recipe, tokenizer, task_data.train)
        if recipe.alignment.prompt == "task"
        else sentence_tokenizer(tokenizer, recipe.alignment.pooling)
    )
    limit = longest_row(training_arguments(recipe, Path(_CHECKPOINTS)).max_length, config, tokenizer)
    for pairs in (pair_data.train, pair_data.held_out):
        if pairs:
            PairDataset(pairs, tokenize, limit)


def _in_task_prompt(recipe: Recipe, tokenizer: Any, examples: Sequence[TaskExample]) -> InTaskPrompt:
    """The tokenizer that puts the sentences of pairs into the task's prompt.

    Raises:
        RecipeError: If the task's prompts cannot take a sentence.
    """
    if any(example.task == "chat" and not example.messages for example in examples):
        raise RecipeError(
            "alignment.prompt: task needs rows of messages: in a prompt of plain text it is unknown where a sentence "
            "would be. Write prompt: none, or the rows as messages"
        )
    return InTaskPrompt(tokenizer, recipe.task.name, recipe.answer_format)


def _summary(
    trainer: AlignmentTrainer, objective: RunObjective, task_data: TaskData, checkpoint: str | None
) -> TrainingSummary:
    """What ``training.json`` holds."""
    # The Trainer makes its callbacks anew on resume.
    stopwatch = next(each for each in trainer.callback_handler.callbacks if isinstance(each, Stopwatch))
    return {
        "objective": objective,
        "layer": trainer.objective.top if trainer.objective else None,
        "updates": trainer.state.global_step,
        "task_examples": len(task_data.train) if objective != "align" else 0,
        "pairs": len(trainer.pairs) if trainer.pairs is not None else 0,
        "seconds": stopwatch.seconds,
        "resumed_from": checkpoint,
        "log_history": trainer.state.log_history,
    }


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    """Turn a full disk, a full memory or a killed process into an error that says how to go on.

    Raises:
        RunError: If the disk is full, memory has run out, or another process of the training has ended.
    """
    try:
        yield
    except Exception as fault:
        if disk_is_full(fault):
            raise RunError(
                f"the disk of {str(out)!r} is full, so a checkpoint or the adapter could not be saved. The checkpoint "
                "before it is complete: free some space, and the same command continues from there."
            ) from fault
        if is_out_of_memory(fault):
            raise RunError(
                f"training ran out of memory ({type(fault).__name__}). Halve training.per_device_train_batch_size and "
                "double training.gradient_accumulation_steps, or set alignment.mini_batch_size: 8; with a 4-bit model "
                "(model.quantization: 4bit) less is needed too. With other settings, training starts anew in another "
                "--out"
            ) from fault
        if _process_is_gone(fault):
            raise RunError(
                "another process of this training, or a worker that reads its data, has ended "
                f"({str(fault).splitlines()[0]}). Was it killed for lack of memory? Its own output says more. The "
                f"newest complete checkpoint in {str(out)!r} is kept, and the same command continues from there."
            ) from fault
        raise


@contextmanager
def head_on_completions_only() -> Iterator[None]:
    """Make trl's LM head skip prompt and padding on a CPU as well, within this context.

    Where Triton runs, trl computes logits only for tokens with a loss. Elsewhere it computes them for every position,
    because compilers want constant shapes. The loss is the same; on the testbed's model an update takes 0.6 of the
    time.
    """
    known = getattr(trl_utils, "_use_triton", None)
    if known is None or default_device().type != "cpu":  # another version of trl: only slower
        yield
        return
    trl_utils._use_triton = lambda _device: True
    try:
        yield
    finally:
        trl_utils._use_triton = known


def _check_gathering(trainer: AlignmentTrainer) -> None:
    """Check before the first update that a sharded adapter will be gathered when it is saved.

    Raises:
        RecipeError: If the launcher's configuration says that it is not: the Trainer would save nothing.
    """
    state = trainer.accelerator.state
    if trainer.is_fsdp_enabled and "FULL_STATE_DICT" not in str(state.fsdp_plugin.state_dict_type):
        raise RecipeError(
            f"fsdp_state_dict_type is {state.fsdp_plugin.state_dict_type} in the launcher's configuration, so that no "
            "adapter would be saved. Write FULL_STATE_DICT there"
        )
    if trainer.is_deepspeed_enabled:
        zero = state.deepspeed_plugin.deepspeed_config.get("zero_optimization", {})
        if zero.get("stage") == 3 and not zero.get("stage3_gather_16bit_weights_on_model_save"):
            raise RecipeError(
                "zero3_save_16bit_model is false in the launcher's configuration, so that no adapter would be saved. "
                "Write true there"
            )


def _process_is_gone(fault: Exception) -> bool:
    """Whether an exception means that another process died, as gloo, NCCL, the store or a DataLoader report it."""
    signs = ("Connection closed by peer", "Connection reset by peer", "DataLoader worker")
    return isinstance(fault, dist.DistError) or any(sign in str(fault) for sign in signs)


class _Report(TrainerCallback):  # type: ignore[misc]
    """Trainer callback that reports progress."""

    def __init__(self, progress: Progress, objective: str) -> None:
        self.progress = progress
        self.objective = objective
        self.losses: dict[str, float] = {}

    def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
        self.losses |= {name: logs[name] for name in ("task_loss", "alignment_loss") if logs and name in logs}

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        losses = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in self.losses.items())
        self.progress(f"training ({losses})" if losses else "training", state.global_step, state.max_steps)


def _load(recipe: Recipe) -> PreTrainedModel:
    # The trainer moves it to where it belongs; with FSDP that is nowhere in one piece.
    model = ModelSource.of(recipe.model).load_exact(device=None if recipe.model.quantization else "cpu")
    if not in_low_bits(model):
        return model
    # But it does not move these, which may have been saved so. Whether to checkpoint gradients is said by
    # training.gradient_checkpointing, as for any other model.
    model = model.to(default_device())
    prepared: PreTrainedModel = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return prepared


@contextmanager
def _on_the_accelerator(model: PreTrainedModel, *, cpu: bool) -> Iterator[None]:
    """The model where it will be trained, and back; a sharded one is not moved, since it may not fit in one piece."""
    sharded = any(os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true" for name in ("FSDP", "DEEPSPEED"))
    if cpu or sharded or model.device == default_device() or getattr(model, "quantization_method", None):
        yield
        return
    before = model.device
    model.to(default_device())
    try:
        yield
    finally:
        model.to(before)


def _save_adapter(trainer: AlignmentTrainer, target: Path, card: str) -> None:
    """Save the adapter beside its target and move it into place, so that the folder is whole or absent.

    Raises:
        ModelError: If the training ran into numbers that are not finite.
    """
    broken = [name for name, p in trainer.model.named_parameters() if p.requires_grad and not torch.isfinite(p).all()]
    if broken:
        raise ModelError(
            f"training ended in numbers that are not finite ({broken[0]} and {len(broken) - 1} more), so no adapter "
            "was saved. Lower training.learning_rate, or raise alignment.temperature."
        )
    temporary = target.with_name(f".{target.name}.part")
    main, together = trainer.args.process_index == 0, trainer.accelerator.wait_for_everyone
    if main:
        shutil.rmtree(temporary, ignore_errors=True)
    together()
    try:
        trainer.save_model(str(temporary))
        together()
        if main:
            (temporary / "training_args.bin").unlink(missing_ok=True)  # a pickle
            (temporary / "README.md").write_text(card, encoding="utf-8")
            shutil.rmtree(target, ignore_errors=True)
            os.replace(temporary, target)  # noqa: PTH105
    except BaseException:
        if main:
            shutil.rmtree(temporary, ignore_errors=True)  # on a full disk it would be in the way
        raise
    together()
