"""The recipe's ``training:`` and ``lora:`` as trl's and peft's own configurations.

`midalign.recipe.training` and `midalign.recipe.lora` say which arguments take effect, and why the others are refused.
`check_arguments` adds the checks of the libraries themselves.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import logging
import os
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DynamoBackend
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.checkpoint import checkpoint
from transformers import (
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
)
from transformers.optimization import get_scheduler
from transformers.pytorch_utils import Conv1D
from trl import SFTConfig

from midalign.errors import ModelError, RecipeError, did_you_mean
from midalign.models.adapter_fit import linear_shape
from midalign.models.chat import choose, fix_arguments
from midalign.models.hidden import find_decoder
from midalign.models.loading import cpu_computes_in_bfloat16, default_device, empty_model
from midalign.models.source import ModelSource
from midalign.recipe.file import all_faults
from midalign.recipe.lora import LORA_DEFAULTS
from midalign.recipe.sections import Recipe
from midalign.recipe.training import TRAINING_DEFAULTS
from midalign.training.trackers import tracker_faults

logger = logging.getLogger(__name__)

# Arguments that some optimizers do not take.
_OF_THE_OPTIMIZER = ("optim_args", "adam_beta1", "adam_beta2", "adam_epsilon")


def training_arguments(
    recipe: Recipe, checkpoints: Path, *, objective: str = "joint", held_out: bool = True
) -> SFTConfig:
    """Arguments of trl's trainer: the paper's values, overridden by the recipe's.

    Args:
        recipe: The recipe.
        checkpoints: Folder for the checkpoints.
        objective: ``joint``, ``task`` or ``align``. For the task alone, a ``metric_for_best_model`` that is measured on
            pairs is replaced by the loss; for alignment alone, the loss of the task by that of held-out pairs.
        held_out: Whether there are held-out pairs.

    Raises:
        RecipeError: If trl refuses a value.
    """
    given = recipe.training.given()
    on_cpu = default_device().type == "cpu" or bool(given.get("use_cpu"))
    faster_in_bfloat16 = cpu_computes_in_bfloat16() and recipe.model.dtype != "float32"
    ours = {
        "output_dir": str(checkpoints),
        "seed": recipe.seed,
        "report_to": "none",
        "bf16": not given.get("fp16") and (not on_cpu or faster_in_bfloat16),
        "use_cpu": on_cpu,
        "save_total_limit": 2,
        "restore_callback_states_from_checkpoint": True,  # a resumed run stops early when the uninterrupted one does
        # Alignment updates leave the upper blocks without gradient, which DDP must expect.
        "ddp_find_unused_parameters": True,
    }
    if on_cpu:
        ours["gradient_checkpointing"] = False
        if ours["bf16"] and given.get("bf16") is None:
            logger.info("training computes in bfloat16, for which this CPU has instructions (training.bf16)")
        if given.get("activation_offloading"):
            raise RecipeError(
                "training.activation_offloading = True: it moves activations off a GPU; leave it out here"
            )
    given.pop("chat_template_path", None)  # it is the tokenizer's; trl would also add tokens to the model
    if "WORLD_SIZE" not in os.environ:  # a single process has no one to talk to, and transformers would fail
        given.pop("ddp_backend", None)
    metric = str(given.get("metric_for_best_model") or "loss").removeprefix("eval_")
    if objective == "task" and metric != "loss":
        logger.warning("training.metric_for_best_model is %s, which SFT alone does not measure: eval_loss here", metric)
        given |= {"metric_for_best_model": "eval_loss", "greater_is_better": False}
    chosen = given.get("load_best_model_at_end") or recipe.early_stopping_patience
    if objective == "align" and chosen and metric == "loss" and held_out:
        logger.info("alignment alone is stopped and chosen by eval_alignment_loss, not by the loss of the task")
        given |= {"metric_for_best_model": "eval_alignment_loss", "greater_is_better": False}
    _check_compiler(given.get("torch_compile_backend"))
    try:
        return _on_one_gpu(SFTConfig(**{**ours, **TRAINING_DEFAULTS, **given}))
    except (ValueError, TypeError, ImportError) as fault:
        raise RecipeError(f"training: trl's SFTConfig refuses these arguments: {fault}") from None


def _on_one_gpu(arguments: SFTConfig) -> SFTConfig:
    """The arguments themselves; a single process takes one GPU, where nn.DataParallel would split batches of pairs."""
    if "WORLD_SIZE" not in os.environ and torch.cuda.device_count() > 1:
        logger.info("one of %d GPUs is used; accelerate launch uses all (docs/many_gpus.md)", torch.cuda.device_count())
        _ = arguments.device  # counts the GPUs
        arguments._n_gpu = 1
    return arguments


def training_tokenizer(recipe: Recipe) -> PreTrainedTokenizerBase:
    """The model's tokenizer with ``training.eos_token`` and ``training.chat_template_path``, where they are given.

    Raises:
        UserError: If the tokenizer cannot be loaded, or the token or the template does not fit it.
    """
    return as_chosen(ModelSource.of(recipe.model).tokenizer(), recipe)


def as_chosen(tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> PreTrainedTokenizerBase:
    """The tokenizer itself, with the end token and the chat template that a recipe chooses.

    Raises:
        UserError: As `choose` and `fix_arguments` of `midalign.models.chat`.
    """
    choose(tokenizer, end_token=recipe.training.eos_token, template_path=recipe.training.chat_template_path)
    fix_arguments(tokenizer, recipe.model.chat_template_kwargs)
    return tokenizer


def lora_config(recipe: Recipe, model: PreTrainedModel, layers: int | None = None) -> LoraConfig:
    """Configuration of the adapter for peft: the paper's values, overridden by the recipe's.

    Only the text decoder gets an adapter. A vision tower (Gemma 3) may have layers of the same names, which text would
    never train, so it is excluded.

    Args:
        recipe: The recipe.
        model: The model, whose linear layers stand for ``all-linear``.
        layers: Put adapters only on this many blocks, from the lowest.

    Raises:
        RecipeError: If peft refuses a value, or a name or pattern matches no linear layer of the model.
    """
    options = _lora_options(recipe)
    if options["target_modules"] == "all-linear":
        options["target_modules"] = linear_names(model)
    config = _lora_config(options)
    targets = _targets(config, model)
    if towers := _towers(model):
        options["exclude_modules"] = _with_towers(config.exclude_modules, towers)
        config = _lora_config(options)
    if layers is None:
        return config
    if isinstance(config.target_modules, str) or config.layers_to_transform is not None:
        # peft takes one way only to say which blocks.
        low = {id(module) for block in find_decoder(model).blocks[:layers] for module in block.modules()}
        options["target_modules"] = [name for name in targets if id(model.get_submodule(name)) in low]
        options["layers_to_transform"] = options["layers_pattern"] = None
    else:
        options["layers_to_transform"] = list(range(layers))
    config = _lora_config(options)
    if not any(check_target_module_exists(config, name) for name in targets):
        raise RecipeError(
            f"lora: no module that gets an adapter is in blocks 1 to {layers}, which is where an alignment adapter is "
            "trained. Align a higher layer, or name modules of lower blocks."
        )
    return config


def linear_names(model: nn.Module) -> list[str]:
    """Names of the linear layers within a block; on Llama the paper's q, k, v, o, gate, up and down projections."""
    names = {
        name.rpartition(".")[2]
        for block in find_decoder(model).blocks
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    }
    return sorted(names)


def check_arguments(recipe: Recipe, where: str = "recipe") -> None:
    """Check ``training:`` and ``lora:`` with trl, transformers and peft, without data and model.

    Raises:
        RecipeError: With what trl, transformers and peft refuse.
    """
    faults = []
    try:
        arguments = training_arguments(recipe, Path("checkpoints"))
    except RecipeError as fault:
        faults.append(str(fault))
    else:
        found = (
            *_optimizer_faults(recipe, arguments),
            *_scheduler_faults(arguments),
            *_checkpointing_faults(recipe),
            *tracker_faults(arguments.report_to),
        )
        faults += [f"training: {fault}" for fault in found]
    options = _lora_options(recipe)
    if options["target_modules"] == "all-linear":  # will be a list of names, by the model
        options["target_modules"] = ["all-linear"]
    try:
        _lora_config(options)
    except RecipeError as fault:
        faults.append(str(fault))
    if faults:
        raise RecipeError(all_faults(where, faults))


def check_lora(recipe: Recipe, config: PretrainedConfig) -> None:
    """Check ``lora:``, and the weight of a router's loss, against a model of this configuration, without its weights.

    Raises:
        RecipeError: As `lora_config`; or the model has no router.
        ModelError: As `midalign.models.loading.empty_model`.
    """
    model = empty_model(config, trust_remote_code=recipe.model.trust_remote_code)
    lora_config(recipe, model)
    weight = recipe.training.router_aux_loss_coef
    if weight and not hasattr(config.get_text_config(), "output_router_logits"):
        raise RecipeError(
            f"training.router_aux_loss_coef = {weight}: {type(model).__name__} is no mixture of experts that tells how "
            "it routes, so there is no loss to weigh; leave it out"
        )
    with suppress(ModelError):  # layer: auto; of a layer that is not there `AlignmentConfig.check_model` tells
        lora_config(recipe, model, max(recipe.alignment.resolve_layers(find_decoder(model).depth)))


def _optimizer_faults(recipe: Recipe, arguments: SFTConfig) -> Iterator[str]:
    """Optimizers that cannot be made here, and arguments that this one does not take."""
    try:
        made = Trainer.get_optimizer_cls_and_kwargs(arguments)
    except (ValueError, TypeError, ImportError, AttributeError, NotImplementedError) as fault:
        yield f"optim = {arguments.optim.value!r} cannot be used here: {fault}"
        return
    given, defaults = recipe.training.given(), {field.name: field.default for field in dataclasses.fields(SFTConfig)}
    for name in _OF_THE_OPTIMIZER:
        if given.get(name, defaults[name]) == defaults[name]:
            continue
        without = copy.copy(arguments)
        setattr(without, name, defaults[name])
        if Trainer.get_optimizer_cls_and_kwargs(without) == made:
            yield f"{name} = {given[name]!r} has no effect on optim: {arguments.optim.value}; leave it out"


def _scheduler_faults(arguments: SFTConfig) -> Iterator[str]:
    """Arguments that the scheduler of the learning rate does not take."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=arguments.learning_rate)
    options = arguments.lr_scheduler_kwargs
    try:
        scheduler = get_scheduler(arguments.lr_scheduler_type, optimizer, 1, 100, options)
        if isinstance(scheduler, LambdaLR):
            for rate in scheduler.lr_lambdas:
                for update in (0, 1, 50, 99):  # in the warm-up and after it, where some options are first used
                    rate(update)
    except (ValueError, TypeError, ArithmeticError) as fault:
        yield f"lr_scheduler_kwargs = {options!r} does not fit {arguments.lr_scheduler_type.value}: {fault}"


def _checkpointing_faults(recipe: Recipe) -> Iterator[str]:
    """Options of activation checkpointing that PyTorch and transformers do not have."""
    known = [*inspect.signature(checkpoint).parameters, "preserve_rng_state", "every_n_layers", "offload"]
    known = [name for name in known if name not in ("function", "args", "kwargs", "context_fn")]
    for name in ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"):
        for option in set(getattr(recipe.training, name) or {}) - set(known):
            yield f"{name} names {option!r}, which is no option.{did_you_mean(option, known)} It has {', '.join(known)}"


def _check_compiler(backend: str | None) -> None:
    """Check the backend of torch.compile, before transformers puts it into the environment.

    Raises:
        RecipeError: If accelerate knows none of that name.
    """
    known = [one.value.lower() for one in DynamoBackend if one != DynamoBackend.NO]
    if backend is not None and backend.lower() not in known:
        raise RecipeError(
            f"training.torch_compile_backend = {backend!r} is none.{did_you_mean(backend, known)} Write one of "
            f"{', '.join(known)}"
        )


def _lora_options(recipe: Recipe) -> dict[str, Any]:
    return {**LORA_DEFAULTS, **recipe.lora.given(), "task_type": "CAUSAL_LM"}


def _lora_config(options: dict[str, Any]) -> LoraConfig:
    try:
        return LoraConfig(**options)
    except (ValueError, TypeError, ImportError) as fault:
        raise RecipeError(f"lora: peft's LoraConfig refuses these arguments: {fault}") from None


def _targets(config: LoraConfig, model: PreTrainedModel) -> list[str]:
    """Names of the modules that get an adapter.

    Raises:
        RecipeError: If there are none, one is no linear layer, or something in the configuration names no module.
    """
    towers = tuple(f"{name}." for name in _towers(model))
    names = [name for name, _ in model.named_modules() if name and not name.startswith(towers)]
    try:
        found = [name for name in names if check_target_module_exists(config, name)]
        faults = [] if found else ["target_modules and exclude_modules leave no module"]
        faults += [*_without_effect(config, names, found), *_blocks_without_effect(config, model, found)]
    except re.error as fault:
        raise RecipeError(f"lora: {fault.pattern!r} is not a regular expression: {fault}") from None
    odd = [name for name in found if linear_shape(model.get_submodule(name)) is None]
    if odd:
        kind = type(model.get_submodule(odd[0])).__name__
        faults.append(f"target_modules names {odd[0]!r}, which is a {kind}; only linear layers can get an adapter")
    head = model.get_output_embeddings()
    if head is not None and any(model.get_submodule(name) is head for name in found):
        faults.append("target_modules names the LM head, whose adapter trl would not train; name layers of the blocks")
    if faults:
        known = ", ".join(linear_names(model))
        raise RecipeError(
            "\n".join(f"lora.{fault.rstrip('.')}. The linear layers of a block are {known}." for fault in faults)
        )
    return found


def _towers(model: nn.Module) -> list[str]:
    """Names of the modules beside the text decoder, such as Gemma 3's vision tower."""
    decoder = find_decoder(model)
    text = set(decoder.owner.modules())
    beside = {child for child in decoder.base.children() if text.isdisjoint(child.modules())}
    return [name for name, module in model.named_modules() if module in beside]


def _with_towers(excluded: str | Collection[str] | None, towers: list[str]) -> str:
    """A regular expression for peft's ``exclude_modules`` that matches what is excluded already, and the towers."""
    patterns = [rf"(.*\.)?{re.escape(tower.rpartition('.')[2])}\..*" for tower in towers]
    if isinstance(excluded, str):
        patterns.append(f"({excluded})")
    else:
        patterns += [rf"(.*\.)?{re.escape(name)}" for name in sorted(excluded or ())]
    return "|".join(patterns)


def _without_effect(config: LoraConfig, names: list[str], found: list[str]) -> Iterator[str]:
    """Parts of a configuration that match no module, which peft would not say."""
    if not isinstance(config.target_modules, str):
        for part in sorted(config.target_modules):
            if not any(name == part or name.endswith(f".{part}") for name in names):
                hint = did_you_mean(part, _ends(names))
                yield f"target_modules names {part!r}, which is not a module of this model.{hint}"
    if config.exclude_modules:
        everything = copy.copy(config)
        everything.exclude_modules = None
        if sum(bool(check_target_module_exists(everything, name)) for name in names) == len(found):
            yield f"exclude_modules = {config.exclude_modules!r} excludes no module that would get an adapter"
    for key in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(config, key):
            if not any(get_pattern_key([pattern], name) == pattern for name in found):
                yield f"{key} names {pattern!r}, which is not a module that gets an adapter"


def _blocks_without_effect(config: LoraConfig, model: PreTrainedModel, found: list[str]) -> Iterator[str]:
    """Numbers in ``layers_to_transform`` of blocks that get no adapter."""
    asked = config.layers_to_transform
    blocks = list(find_decoder(model).blocks)
    adapted = {id(model.get_submodule(name)) for name in found}
    for index in [asked] if isinstance(asked, int) else asked or []:
        if not 0 <= index < len(blocks) or not any(id(module) in adapted for module in blocks[index].modules()):
            yield f"layers_to_transform names block {index}, which gets no adapter (blocks are 0 to {len(blocks) - 1})"


def _ends(names: list[str]) -> set[str]:
    return {name.rpartition(".")[2] for name in names}
