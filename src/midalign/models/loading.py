"""The only place that loads models and tokenizers: safetensors only, no remote code unless asked for.

A name that exists on disk, or that looks like a path, is a local folder and never touches the network; anything else
is a hub name.
"""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from midalign.errors import MissingExtraError, MissingFileError, ModelError
from midalign.models.hidden import find_decoder

logger = logging.getLogger(__name__)


def default_device() -> torch.device:
    """The accelerator of this process (by ``LOCAL_RANK``, where a launcher sets it), or the CPU."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return (
        torch.device(accelerator.type, int(os.environ.get("LOCAL_RANK", "0"))) if accelerator else torch.device("cpu")
    )


def check_model_path(name: str) -> None:
    """Refuse a local path that is missing or is not a model folder, before anything heavy is loaded.

    Raises:
        MissingFileError: If `name` looks like a path and does not exist.
        ModelError: If it is a folder without a ``config.json``.
    """
    path = Path(name).expanduser()
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1 or (os.sep != "/" and os.sep in name)
    if not path.exists():
        if looks_local:
            raise MissingFileError(
                f"model folder {name!r} does not exist. Give a local folder with config.json, model.safetensors and "
                "a tokenizer, or a hub name such as 'Qwen/Qwen2.5-7B-Instruct'."
            )
        return
    if not (path / "config.json").is_file():
        hint = (
            " It holds an adapter (adapter_config.json): give the base model here and the adapter with --adapter."
            if (path / "adapter_config.json").is_file()
            else " Give a folder that was written by save_pretrained()."
        )
        raise ModelError(f"{name!r} holds no config.json, so it is not a model.{hint}")


def load_config(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> PretrainedConfig:
    """A model's configuration, without its weights.

    Raises:
        MissingFileError: If a local folder does not exist.
        ModelError: If there is no configuration that transformers knows.
    """
    check_model_path(name)
    try:
        return AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as fault:
        raise ModelError(f"cannot read the configuration of {name!r}: {_first_line(fault)}") from fault


def load_end_tokens(name: str, config: PretrainedConfig, *, revision: str | None = None) -> list[int]:
    """A model's own end-of-sequence tokens, without its weights: of its generation settings, else of its `config`."""
    try:
        own = GenerationConfig.from_pretrained(name, revision=revision).eos_token_id
    except OSError:  # it has no generation_config.json
        own = config.get_text_config().eos_token_id
    return [own] if isinstance(own, int) else list(own or [])


def load_tokenizer(
    name: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Load a tokenizer, right-padding, with a padding token (its end-of-sequence token where it has none).

    Raises:
        MissingFileError: If a local folder does not exist.
        ModelError: If it cannot be loaded, or has no end-of-sequence token to stop on.
    """
    check_model_path(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as fault:
        raise ModelError(f"cannot load the tokenizer of {name!r}: {_first_line(fault)}") from fault
    if tokenizer.eos_token is None:
        raise ModelError(f"the tokenizer of {name!r} has no end-of-sequence token, so answers would never end")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def load_model(
    name: str,
    *,
    dtype: str = "auto",
    device: torch.device | str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    quantization: str | None = None,
    **options: Any,
) -> PreTrainedModel:
    """Load a causal language model in evaluation mode.

    Args:
        name: Hub name or local folder.
        dtype: ``auto`` is the dtype the model was saved in, or float32 on a machine without accelerator, where half
            precision is slow.
        device: Where to put it; the accelerator by default.
        revision: Hub branch, tag or commit.
        trust_remote_code: Whether code from the model's repository may run here.
        quantization: ``"4bit"`` loads the weights in NF4 for QLoRA (needs the extra ``qlora``).
        options: Passed on to ``from_pretrained``.

    Raises:
        MissingFileError: If a local folder does not exist.
        ModelError: If the weights cannot be loaded (truncated, not safetensors, unknown architecture, ...), or are to
            be quantised and no layer can be.
    """
    check_model_path(name)
    target = torch.device(device) if device is not None else default_device()
    if quantization is not None:
        options |= {"quantization_config": _quantization_config(quantization), "device_map": {"": target}}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            name,
            dtype="float32" if dtype == "auto" and default_device().type == "cpu" else dtype,
            revision=revision,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            **options,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as fault:
        raise ModelError(
            f"cannot load the model {name!r}: {_first_line(fault)} "
            "(midalign reads safetensors weights of causal language models that transformers knows)"
        ) from fault
    except Exception as fault:  # safetensors raises its own class on truncated files
        if type(fault).__name__ != "SafetensorError":
            raise
        raise ModelError(
            f"the weights of {name!r} are damaged or truncated: {fault}. Download or save it anew."
        ) from fault
    if quantization is None:
        return model.to(target).eval()
    _check_quantized(model, name)
    _keep_trainable(model)
    return model.eval()


def _quantization_config(quantization: str) -> Any:
    if quantization != "4bit":
        raise ModelError(f"unknown quantization {quantization!r}; write '4bit' or leave it out")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise MissingExtraError("bitsandbytes", "qlora", "4-bit loading") from None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=True,
    )


def _check_quantized(model: PreTrainedModel, name: str) -> None:
    """Refuse a model none of whose layers transformers has quantised, and warn of one that it mostly has not.

    It replaces plain linear layers and leaves subclasses (Falcon) and fused experts as they are, without a word.
    """
    small, large = 0, 0
    for block in find_decoder(model).blocks:
        for module in block.modules():
            for weight in module.parameters(recurse=False):
                quant_state = getattr(weight, "quant_state", None)  # of bitsandbytes, with the weight's true shape
                if quant_state is not None:
                    small += math.prod(quant_state.shape)
                else:
                    large += weight.numel()
    if not small:
        raise ModelError(
            f"transformers quantises no layer of {name!r} ({type(model).__name__}), so it would take as much memory as "
            "without. Leave model.quantization out, or choose a model of another family."
        )
    if small < large:
        share = small / (small + large)
        logger.warning("only %.0f %% of the weights in the blocks of %r are in four bits", 100 * share, name)


def _keep_trainable(model: nn.Module) -> None:
    """Keep bitsandbytes from packing the weights for inference.

    On a CPU with AVX512-BF16 it does so at the first pass without gradients, for good: scales are rounded to bfloat16,
    and a later backward pass leaves the packed layers out, without an error.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 - no attribute that mypy knows


def _first_line(fault: Exception) -> str:
    return str(fault).strip().splitlines()[0] if str(fault).strip() else type(fault).__name__
