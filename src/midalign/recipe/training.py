"""The recipe's section ``training``: the arguments of trl's ``SFTConfig``, transformers' included, one by one.

`TrainingSection` has the arguments that take effect, with their types; `REFUSED` has all others, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from midalign.recipe.fields import (
    LARGEST,
    Arguments,
    BatchSize,
    Count,
    PathText,
    Refused,
    argument,
    refuse_conflicts,
)

# The settings of the paper and its reference implementation, for whatever a recipe leaves out.
TRAINING_DEFAULTS: dict[str, Any] = {
    "learning_rate": 5e-4,
    "lr_scheduler_type": "inverse_sqrt",
    "warmup_steps": 0.03,
    "per_device_train_batch_size": 32,
    "gradient_accumulation_steps": 4,
    "num_train_epochs": 5,
}

METRICS = ("loss", "alignment_loss", "retrieval", "total_loss")
"""What an evaluation measures; the last three of held-out pairs, where the objective aligns."""

Interval = Literal["no", "steps", "epoch"]
Metric = Literal[
    "loss", "alignment_loss", "retrieval", "total_loss",
    "eval_loss", "eval_alignment_loss", "eval_retrieval", "eval_total_loss",
]  # fmt: skip
Steps = float  # a whole number of updates, or a share of all of them


class SftArguments(Arguments):
    """Arguments of trl's SFTConfig. They count task updates; alignment updates come on top.

    - How long and how fast: ``max_steps``, ``num_train_epochs``, ``per_device_train_batch_size``,
      ``gradient_accumulation_steps``, ``train_sampling_strategy``, ``max_length``, ``learning_rate``,
      ``lr_scheduler_type``, ``lr_scheduler_kwargs``, ``warmup_steps``.
    - The optimizer: ``optim``, ``optim_args``, ``weight_decay``, ``adam_beta1``, ``adam_beta2``, ``adam_epsilon``,
      ``max_grad_norm``.
    - The task loss: ``eos_token``, ``chat_template_path``, ``loss_type``, ``label_smoothing_factor``,
      ``neftune_noise_alpha``, ``router_aux_loss_coef``, ``average_tokens_across_devices``, ``packing``,
      ``packing_strategy``, ``eval_packing``.
    - Evaluation, checkpoints and the choice of the best one: ``eval_strategy``, ``eval_steps``, ``eval_delay``,
      ``eval_on_start``, ``per_device_eval_batch_size``, ``save_strategy``, ``save_steps``, ``save_total_limit``,
      ``load_best_model_at_end``, ``metric_for_best_model``, ``greater_is_better``.
    - Numbers, memory and the machine: ``bf16``, ``fp16``, ``tf32``, ``use_cpu``, ``gradient_checkpointing``,
      ``gradient_checkpointing_kwargs``, ``activation_checkpointing``, ``activation_checkpointing_kwargs``,
      ``activation_offloading``, ``torch_compile``, ``torch_compile_backend``, ``torch_compile_mode``,
      ``torch_empty_cache_steps``, ``pad_to_multiple_of``, ``dataloader_num_workers``, ``dataloader_pin_memory``,
      ``dataloader_persistent_workers``, ``dataloader_prefetch_factor``, ``dataloader_multiprocessing_context``,
      ``ddp_backend``, ``ddp_bucket_cap_mb``, ``ddp_broadcast_buffers``, ``ddp_timeout``, ``full_determinism``,
      ``debug``.
    - Logs: ``logging_strategy``, ``logging_steps``, ``logging_first_step``, ``log_level``, ``log_level_replica``,
      ``log_on_each_node``, ``include_num_input_tokens_seen``, ``skip_memory_metrics``, ``report_to``, ``run_name``,
      ``project``, ``trackio_space_id``, ``trackio_bucket_id``, ``trackio_static_space_id``.
    """

    # How long and how fast
    max_steps: int = argument("Number of task updates; overrides num_train_epochs. -1: not used.", ge=-1, le=LARGEST)
    num_train_epochs: float = argument("Passes over the task data.", gt=0, le=LARGEST)
    per_device_train_batch_size: BatchSize = argument("Task examples in a batch of one process.")
    gradient_accumulation_steps: BatchSize = argument("Batches per update.")
    train_sampling_strategy: Literal["random", "sequential", "group_by_length"] = argument(
        "Order of the task examples. 'group_by_length' gives an update examples of similar length, which saves "
        "padding. Within an update, batches are formed by length in any case."
    )
    max_length: Count | None = argument(
        "Longest task example and sentence of a pair, in tokens. A longer example is an error."
    )
    learning_rate: float = argument("Peak learning rate.", ge=0)
    lr_scheduler_type: str = argument("Schedule of the learning rate: linear, cosine, constant, inverse_sqrt, ...")
    lr_scheduler_kwargs: dict[str, Any] | None = argument("Arguments of the scheduler.")
    warmup_steps: float = argument(
        "Updates in which the learning rate rises; below 1, a share of all updates.", ge=0, le=LARGEST
    )

    # The optimizer
    optim: str = argument("Optimizer, such as adamw_torch or paged_adamw_8bit.")
    optim_args: str | None = argument("Arguments of the optimizer, such as 'momentum=0.9,nesterov=true' of sgd.")
    weight_decay: float = argument("Weight decay.", ge=0)
    adam_beta1: float = argument("Decay of the first moment.", ge=0, lt=1)
    adam_beta2: float = argument("Decay of the second moment.", ge=0, lt=1)
    adam_epsilon: float = argument("Added to the denominator of Adam.", ge=0)
    max_grad_norm: float = argument("Gradients are clipped to this norm; 0 is off.", ge=0)

    # The task loss
    eos_token: str | None = argument("Token that ends an answer, such as <|im_end|>; the tokenizer's own by default.")
    chat_template_path: PathText | None = argument(
        "Chat template of the prompts: a Jinja file (.jinja, .j2), or the folder or hub name of a tokenizer."
    )
    loss_type: Literal["nll", "dft"] = argument("Cross-entropy ('nll'), or dynamic fine-tuning ('dft').")
    label_smoothing_factor: float = argument("Label smoothing; an update needs a second forward pass.", ge=0, lt=1)
    neftune_noise_alpha: float | None = argument(
        "Scale of the noise on embeddings (NEFTune), in both objectives.", ge=0
    )
    router_aux_loss_coef: float | None = argument("Weight of the load-balancing loss of a mixture of experts.", ge=0)
    average_tokens_across_devices: bool = argument("Count the tokens of a batch over all processes.")
    packing: bool = argument("Put several task examples into one row of max_length tokens.")
    packing_strategy: Literal["bfd", "bfd_split"] = argument("How examples are packed; none is longer than a row.")
    eval_packing: bool | None = argument("Pack dev examples too; as 'packing' by default.")

    # Evaluation, checkpoints and the choice of the best one
    eval_strategy: Interval = argument("When to evaluate on dev examples and held-out pairs.")
    eval_steps: Steps | None = argument(
        "Updates between evaluations; below 1, a share of all updates.", gt=0, le=LARGEST
    )
    eval_delay: float = argument("Updates or epochs before the first evaluation.", ge=0, le=LARGEST)
    eval_on_start: bool = argument("Evaluate before the first update too.")
    per_device_eval_batch_size: BatchSize = argument("Dev examples in a batch of one process.")
    save_strategy: Literal[Interval, "best"] = argument("When to write a checkpoint.")
    save_steps: Steps = argument("Updates between checkpoints; below 1, a share of all updates.", gt=0, le=LARGEST)
    save_total_limit: Count | None = argument("Largest number of checkpoints to keep.")
    load_best_model_at_end: bool = argument("Save the adapter of the best checkpoint rather than of the last.")
    metric_for_best_model: Metric | None = argument(
        "What the best checkpoint is chosen by; the reference implementation takes eval_total_loss."
    )
    greater_is_better: bool | None = argument("Whether a larger metric_for_best_model is better.")

    # Numbers, memory and the machine
    bf16: bool | None = argument("Compute in bfloat16; by default on a GPU, and on a CPU that has instructions for it.")
    fp16: bool = argument("Train in float16.")
    tf32: bool | None = argument("Use TF32 on GPUs that have it.")
    use_cpu: bool = argument("Train on the CPU even where there is a GPU.")
    gradient_checkpointing: bool = argument(
        "Compute activations again rather than keep them: less memory, more time. Off by default on a CPU."
    )
    gradient_checkpointing_kwargs: dict[str, Any] | None = argument("Options of gradient_checkpointing.")
    activation_checkpointing: bool | None = argument("Newer name of gradient_checkpointing.")
    activation_checkpointing_kwargs: dict[str, Any] | None = argument("Options of activation_checkpointing.")
    activation_offloading: bool = argument("Keep activations in the CPU's memory.")
    torch_compile: bool = argument("Compile the model.")
    torch_compile_backend: str | None = argument("Backend of torch_compile.")
    torch_compile_mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] | None = (
        argument("Mode of torch_compile.")
    )
    torch_empty_cache_steps: Count | None = argument("Empty the GPU's cache after every so many updates.")
    pad_to_multiple_of: Count | Literal["auto"] | None = argument("Pad task batches to a multiple of this many tokens.")
    dataloader_num_workers: int = argument("Processes that read batches.", ge=0, le=1024)
    dataloader_pin_memory: bool = argument("Pin the memory of batches.")
    dataloader_persistent_workers: bool = argument("Keep those processes from evaluation to evaluation.")
    dataloader_prefetch_factor: Count | None = argument("Batches that each of those processes reads ahead.")
    dataloader_multiprocessing_context: Literal["fork", "spawn", "forkserver"] | None = argument(
        "How those processes are started."
    )
    ddp_backend: Literal["nccl", "gloo", "mpi", "xccl", "hccl"] | None = argument("Backend of distributed training.")
    ddp_bucket_cap_mb: Count | None = argument("Size of DDP's buckets, in MB.")
    ddp_broadcast_buffers: bool | None = argument("Whether DDP broadcasts buffers.")
    ddp_timeout: Count = argument("Seconds that processes wait for one another.")
    full_determinism: bool = argument("Deterministic algorithms, which are slower.")
    debug: Literal["", "underflow_overflow"] | list[Literal["underflow_overflow"]] = argument(
        "'underflow_overflow' stops where a number overflows."
    )

    # Logs
    logging_strategy: Interval = argument("When to log.")
    logging_steps: Steps = argument("Updates between logs; below 1, a share of all updates.", gt=0, le=LARGEST)
    logging_first_step: bool = argument("Log the first update too.")
    log_level: Literal["debug", "info", "warning", "error", "critical", "passive"] = argument(
        "Level of transformers' own log."
    )
    log_level_replica: Literal["debug", "info", "warning", "error", "critical", "passive"] = argument(
        "The same, in the other processes."
    )
    log_on_each_node: bool = argument("With several machines: log on each, not on the first only.")
    include_num_input_tokens_seen: bool | Literal["all", "non_padding", "no"] = argument("Count the tokens seen.")
    skip_memory_metrics: bool = argument("false logs the memory that was used.")
    report_to: str | list[str] = argument("Trackers, such as tensorboard or wandb; none by default.")
    run_name: str | None = argument("Name of the run in trackers.")
    project: str = argument("Name of the project in trackers.")
    trackio_space_id: str | None = argument("Space of trackio.")
    trackio_bucket_id: str | None = argument("Bucket of trackio.")
    trackio_static_space_id: str | Literal[False] | None = argument("Static space of trackio.")

    @model_validator(mode="after")
    def _arguments_fit_together(self) -> SftArguments:
        return refuse_conflicts(self, list(self._conflicts()))

    def _conflicts(self) -> Iterator[str]:
        for needed, dependent in _NEEDS.items():
            if needed not in self.model_fields_set:
                for key in dependent:
                    if key in self.model_fields_set:
                        yield f"{key} has no effect without {needed}; give {needed} too, or leave {key} out"
        longest = self.max_length or _LONGEST
        if isinstance(self.pad_to_multiple_of, int) and self.pad_to_multiple_of > longest:
            yield (
                f"pad_to_multiple_of = {self.pad_to_multiple_of} would pad every row to more than {longest} tokens"
                f"{' (max_length)' if self.max_length else ''}; write a small number, such as 8"
            )
        if self.max_steps == 0:
            yield "max_steps = 0 would train for num_train_epochs; leave it out, or write the number of task updates"
        scheduler = self.lr_scheduler_type or TRAINING_DEFAULTS["lr_scheduler_type"]
        if scheduler in _NO_WARMUP and self.warmup_steps:
            yield f"warmup_steps has no effect with lr_scheduler_type: {scheduler}, which has no warm-up; leave one out"
        if scheduler in _NO_OPTIONS and self.lr_scheduler_kwargs:
            yield f"lr_scheduler_kwargs has no effect with lr_scheduler_type: {scheduler}; leave it out"
        yield from self._without_effect()
        yield from self._evaluations_without_effect()

    def _evaluations_without_effect(self) -> Iterator[str]:
        given = self.model_fields_set
        for kind in ("eval", "save", "logging"):
            steps = getattr(self, f"{kind}_steps") if f"{kind}_steps" in given else None
            if (strategy := getattr(self, f"{kind}_strategy")) in ("epoch", "best") and steps is not None:
                yield f"{kind}_steps has no effect with {kind}_strategy: {strategy}; leave it out, or write steps"
        if not {"eval_strategy", "eval_on_start"} & given:
            for key in sorted({"per_device_eval_batch_size", "eval_packing"} & given):
                yield f"{key} has no effect without eval_strategy; give eval_strategy too, or leave {key} out"
        if self.save_strategy == "best" and self.metric_for_best_model is None:
            yield "save_strategy: best needs metric_for_best_model (such as eval_loss), which says what is best"

    def _without_effect(self) -> Iterator[str]:
        given = self.model_fields_set
        if self.loss_type == "dft" and self.label_smoothing_factor:
            yield "label_smoothing_factor has no effect with loss_type: dft, a loss of its own; leave one of them out"
        for old, new in _TWO_NAMES.items():
            if {old, new} <= given and getattr(self, old) != getattr(self, new):
                yield f"{old} and {new} are two names of one setting, with different values; leave {old} out"
        trackers = {self.report_to} if isinstance(self.report_to, str) else set(self.report_to or ())
        for key in sorted(_OF_TRACKIO & given if trackers and not {"trackio", "all", "none"} & trackers else ()):
            yield f"{key} has no effect with report_to: {self.report_to}, as it is for trackio; leave it out"


_TWO_NAMES = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
_OF_TRACKIO = {"project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"}
_LONGEST = 4096  # tokens to which a whole batch is padded at most, where no max_length is given
_NO_OPTIONS = ("constant", "constant_with_warmup")
_NO_WARMUP = ("constant", "reduce_lr_on_plateau", "greedy")
# A key without which others have no effect. Where it is given with a value that switches it off, the others may stay,
# so that one override is enough to switch evaluation or checkpoints off.
_NEEDS: dict[str, tuple[str, ...]] = {
    "eval_strategy": ("eval_steps", "eval_delay", "load_best_model_at_end", "metric_for_best_model"),
    "metric_for_best_model": ("greater_is_better",),
    "packing": ("packing_strategy",),
    "report_to": ("run_name", "project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"),
    "dataloader_num_workers": (
        "dataloader_persistent_workers", "dataloader_prefetch_factor", "dataloader_multiprocessing_context",
    ),
}  # fmt: skip


def _refused(reasons: dict[str, str], accepted: dict[str, tuple[Any, ...]]) -> dict[str, Refused]:
    """The refused keys by reason, with their accepted values."""
    return {key: Refused(why, accepted.get(key, ())) for why, keys in reasons.items() for key in keys.split()}


REFUSED = _refused(
    {
        "midalign sets it itself (from --out, the recipe's seed, its schedule); leave it out": (
            "output_dir seed data_seed ignore_data_skip dataloader_drop_last restore_callback_states_from_checkpoint"
        ),
        "the same command continues from the newest checkpoint; leave it out": "resume_from_checkpoint",
        "an interrupted training could not continue from such a checkpoint; leave it out, or write save_strategy: no": (
            "save_only_model"
        ),
        "a training whose checkpoints lie on several machines could not continue; leave it out, and give an --out that "
        "all machines see": "save_on_each_node",
        "a training that is stopped by a signal would be saved as a finished one; leave it out, the same command "
        "continues from the newest checkpoint (save_steps)": "enable_jit_checkpoint",
        "updates and batches are planned from the batch size; lower per_device_train_batch_size and raise "
        "gradient_accumulation_steps instead": "auto_find_batch_size",
        "midalign's schedule draws the batches and distributes them to the processes; leave it out": (
            "length_column_name dataloader_in_order shuffle_dataset accelerator_config"
        ),
        "midalign tokenises prompts and answers itself, so it would have no effect; leave it out": (
            "dataset_text_field dataset_kwargs dataset_num_proc remove_unused_columns label_names"
        ),
        "the loss is on the answer only, end token included; leave it out": "completion_only_loss assistant_only_loss",
        "an example longer than max_length is an error, never cut; leave it out, and raise max_length if need be": (
            "truncation_mode"
        ),
        "padding is masked and changes no result; leave it out": "pad_token",
        "it ignores max_length; write packing: true instead": "padding_free",
        "only the loss and the metrics of held-out pairs are evaluated, so it would have no effect; leave it out": (
            "prediction_loss_only eval_do_concat_batches eval_use_gather_object eval_accumulation_steps "
            "include_for_metrics batch_eval_metrics"
        ),
        "transformers ignores it in evaluations during training; write bf16 or fp16": "bf16_full_eval fp16_full_eval",
        "a loss that is not finite ends the training, so it would have no effect; leave it out": (
            "logging_nan_inf_filter"
        ),
        "midalign shows its own progress, so it would have no effect; leave it out": "disable_tqdm",
        "training never uses the cache, so it would have no effect; leave it out": "use_cache",
        "it is for optimizers of whole weights (GaLore, APOLLO), and an adapter is trained; leave it out": (
            "optim_target_modules"
        ),
        "alignment leaves the upper blocks without gradient, which DDP must expect; leave it out": (
            "ddp_find_unused_parameters ddp_static_graph"
        ),
        "trl deprecates it, and it replaces the forward pass, which alignment stops half-way; leave it out": (
            "use_liger_kernel liger_kernel_config"
        ),
        "use accelerate launch --config_file (recipes/accelerate has FSDP2 and DeepSpeed); leave it out": (
            "fsdp fsdp_config deepspeed parallelism_config"
        ),
        "set it in the recipe's section model (model.revision, model.dtype, model.trust_remote_code, ...)": (
            "model_init_kwargs trust_remote_code"
        ),
        "the command decides what is run (midalign train, run, ...), so it would have no effect; leave it out": (
            "do_train do_eval do_predict"
        ),
        "the launcher sets it; leave it out": "local_rank",
        "checkpoints would be uploaded, with a pickle; upload the adapter with hf upload NAME OUT/adapter": (
            "push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision"
        ),
    },
    accepted={
        "restore_callback_states_from_checkpoint": (True,),
        "dataloader_drop_last": (False,),
        "ignore_data_skip": (False,),
        "resume_from_checkpoint": (None,),
        "save_only_model": (False,),
        "enable_jit_checkpoint": (False,),
        "auto_find_batch_size": (False,),
        "dataloader_in_order": (True,),
        "shuffle_dataset": (False,),
        "accelerator_config": (None,),
        "remove_unused_columns": (True,),
        "label_names": (None, ["labels"]),
        "dataset_kwargs": (None,),
        "dataset_num_proc": (None,),
        "completion_only_loss": (True, None),
        "assistant_only_loss": (False,),
        "pad_token": (None,),
        "padding_free": (False,),
        "prediction_loss_only": (True,),
        "bf16_full_eval": (False,),
        "fp16_full_eval": (False,),
        "use_cache": (False,),
        "optim_target_modules": (None,),
        "ddp_find_unused_parameters": (True, None),
        "ddp_static_graph": (False, None),
        "use_liger_kernel": (False,),
        "liger_kernel_config": (None,),
        "fsdp": (None, ""),
        "fsdp_config": (None,),
        "deepspeed": (None,),
        "parallelism_config": (None,),
        "model_init_kwargs": (None,),
        "trust_remote_code": (False,),
        "do_train": (True,),
        "do_predict": (False,),
        "push_to_hub": (False,),
    },
)

if TYPE_CHECKING:
    TrainingSection = SftArguments
else:
    TrainingSection = SftArguments.refusing("TrainingSection", REFUSED)
