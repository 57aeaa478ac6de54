"""The only place that loads models and tokenizers: safetensors only, no remote code unless asked for.

A name that exists on disk, or that looks like a path, is a local folder and never touches the network; anything else
is a hub name.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
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
from midalign.files import local_path
from midalign.models.gguf import check_gguf, cut_as_trained, dequantized
from midalign.models.hidden import find_decoder
from midalign.models.limits import check_vocabulary
from midalign.models.load_report import check_fills, check_number_formats, check_values, fills, renamings

logger = logging.getLogger(__name__)


def default_device() -> torch.device:
    """The accelerator of this process (by ``LOCAL_RANK``, where a launcher sets it), or the CPU."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if accelerator is None:
        return torch.device("cpu")
    # As accelerate: a launcher may show each process one accelerator only, whatever its rank.
    return torch.device(accelerator.type, int(os.environ.get("LOCAL_RANK", "0")) % torch.accelerator.device_count())


def check_model_path(name: str, gguf_file: str | None = None) -> str:
    """Refuse a local path that is missing or is not a model folder, before anything heavy is loaded.

    Args:
        name: Local folder (``~`` stands for the home folder) or hub name.
        gguf_file: Name of a GGUF file in it to load instead of safetensors.

    Returns:
        The folder, or the hub name unchanged.

    Raises:
        MissingFileError: If `name` looks like a path and does not exist, or has no such GGUF.
        MissingExtraError: If a GGUF is named and the package ``gguf`` is not installed.
        ModelError: If it is a folder without a ``config.json``.
    """
    path = local_path(name)
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1 or (os.sep != "/" and os.sep in name)
    if not path.exists() and looks_local:
        raise MissingFileError(
            f"model folder {name!r} does not exist. Give a local folder with config.json, model.safetensors and "
            "a tokenizer, or a hub name such as 'Qwen/Qwen2.5-7B-Instruct'."
        )
    found = str(path) if path.exists() else name
    if gguf_file is not None:
        check_gguf(found, gguf_file)
    elif path.exists() and not (path / "config.json").is_file():
        raise ModelError(f"{name!r} holds no config.json, so it is not a model.{_instead(path)}")
    return found


def _instead(path: Path) -> str:
    """What to give instead of a file or folder that is no model."""
    ggufs = [path] if path.suffix == ".gguf" else sorted(path.glob("*.gguf"))
    if (path / "adapter_config.json").is_file():
        return " It holds an adapter (adapter_config.json): give the base model here and the adapter with --adapter."
    if ggufs:
        return f" For a GGUF give its folder here and its name with --gguf-file {ggufs[0].name} (model.gguf_file)."
    return " Give a folder that was written by save_pretrained()."


def load_config(
    name: str, *, revision: str | None = None, trust_remote_code: bool = False, gguf_file: str | None = None
) -> PretrainedConfig:
    """A model's configuration, without its weights.

    Raises:
        MissingFileError: If a local folder does not exist.
        ModelError: If there is no configuration that transformers knows.
    """
    found = check_model_path(name, gguf_file)
    options = {"revision": revision, "trust_remote_code": trust_remote_code} | _only_given(gguf_file=gguf_file)
    with _refused(f"cannot read the configuration of {name!r}"):
        return AutoConfig.from_pretrained(found, **options)


def empty_model(config: PretrainedConfig, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """A model on the meta device: its modules with their names and shapes, without its weights.

    Raises:
        ModelError: If transformers has no causal language model of this configuration.
    """
    with _refused(f"cannot build the model {config.name_or_path!r}"), torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)


def load_end_tokens(name: str, config: PretrainedConfig, *, revision: str | None = None) -> list[int]:
    """A model's own end-of-sequence tokens, without its weights: of its generation settings, else of its `config`."""
    try:
        own = GenerationConfig.from_pretrained(name, revision=revision).eos_token_id
    except OSError:  # it has no generation_config.json
        own = config.get_text_config().eos_token_id
    return [own] if isinstance(own, int) else list(own or [])


def load_tokenizer(
    name: str, *, revision: str | None = None, trust_remote_code: bool = False, gguf_file: str | None = None
) -> PreTrainedTokenizerBase:
    """Load a tokenizer that pads on the right. Without a padding token, the end-of-sequence token pads.

    Raises:
        MissingFileError: If a local folder does not exist.
        ModelError: If it cannot be loaded, has no end-of-sequence token, or has tokens that the model has no embedding
            for.
    """
    found = check_model_path(name, gguf_file)
    options = {"revision": revision, "trust_remote_code": trust_remote_code} | _only_given(gguf_file=gguf_file)
    with _refused(f"cannot load the tokenizer of {name!r}"):
        tokenizer = AutoTokenizer.from_pretrained(found, **options)
        if gguf_file is not None:
            tokenizer = cut_as_trained(tokenizer, found, gguf_file, revision)
    if tokenizer.eos_token is None:
        raise ModelError(f"the tokenizer of {name!r} has no end-of-sequence token, so answers would never end")
    rows = None
    if gguf_file is None:  # which holds tokens and embeddings in one, and is slow to read
        config = load_config(name, revision=revision, trust_remote_code=trust_remote_code)
        rows = getattr(config.get_text_config(), "vocab_size", None)
    if tokenizer.pad_token is None or (rows and tokenizer.pad_token_id >= rows):  # added, and not to the model
        tokenizer.pad_token = tokenizer.eos_token
    if rows:
        check_vocabulary(tokenizer, rows, name)
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
    gguf_file: str | None = None,
    unwrap: bool = False,
    **options: Any,
) -> PreTrainedModel:
    """Load a causal language model in evaluation mode.

    Args:
        name: Hub name or local folder.
        dtype: ``auto`` is the dtype the model was saved in; on a machine without accelerator bfloat16 if it was saved
            in it and the CPU has instructions for it, else float32.
        device: Where to put it; the accelerator by default.
        revision: Hub branch, tag or commit.
        trust_remote_code: Whether code from the model's repository may run here.
        quantization: ``"4bit"`` loads the weights in NF4 for QLoRA (needs the extra ``qlora``).
        gguf_file: Name of a GGUF file in the folder or repository, to be dequantised (needs the extra ``gguf``).
        unwrap: If all tensors fit once the name of a wrapper is removed from their names, load them so
            (`midalign.models.load_report`) rather than refuse the checkpoint.
        options: Passed on to ``from_pretrained``.

    Raises:
        MissingFileError: If a local folder does not exist.
        ModelError: If the weights cannot be loaded (truncated, not safetensors, unknown architecture, ...), are not all
            that the model has or no numbers (`midalign.models.load_report`), or are to be quantised and no layer can
            be.
    """
    found = check_model_path(name, gguf_file)
    target = torch.device(device) if device is not None else default_device()
    if quantization is not None and gguf_file is not None:
        raise ModelError(
            f"quantization {quantization!r} does not go with gguf_file {gguf_file!r}; leave one of them out"
        )
    if quantization is not None:
        options |= {"quantization_config": _quantization_config(quantization), "device_map": {"": target}}
    if gguf_file is not None:
        options |= {"gguf_file": gguf_file} | dequantized()
    if dtype == "auto" and default_device().type == "cpu":
        dtype = "float32"
        if gguf_file is None:
            dtype = _cpu_dtype(load_config(name, revision=revision, trust_remote_code=trust_remote_code), name)
    options |= {
        "dtype": dtype,
        "revision": revision,
        "trust_remote_code": trust_remote_code,
        "use_safetensors": True,
    }
    model = _load_whole(found, name, options, unwrap)
    keep_trainable(model)
    if quantization is not None:
        _check_quantized(model, name)
        return model.eval()
    if gguf_file is None and not hasattr(model.config, "quantization_config"):
        check_number_formats(Path(found), name)
    model = model.to(target)
    check_values(model, name)
    return model.eval()


def cpu_computes_in_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16 (AVX512-BF16 or AMX), so that it is faster than float32 there.

    Without them PyTorch emulates it, slowly. Of ARM processors PyTorch does not tell.
    """
    checks = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return any(check() for check in checks if check is not None)


def full_precision_on_cpu(dtype: str) -> str:
    """The dtype for training and for exact merging: as asked for, but float32 where ``auto`` meets a CPU.

    Training in bfloat16 there is asked for by ``training.bf16``, which keeps the weights in float32.
    """
    return "float32" if dtype == "auto" and default_device().type == "cpu" else dtype


def _cpu_dtype(config: PretrainedConfig, name: str) -> str:
    saved = str(config.dtype or config.get_text_config().dtype).removeprefix("torch.")
    if saved != "bfloat16" or not cpu_computes_in_bfloat16():
        return "float32"
    logger.info("%r is loaded in bfloat16, as it was saved, since the CPU has instructions for it", name)
    return "bfloat16"


def _load_whole(found: str, name: str, options: dict[str, Any], unwrap: bool) -> PreTrainedModel:
    """A model every tensor of which was in the checkpoint, and that has a place for every one of them.

    Raises:
        ModelError: If it cannot be loaded, or only in part.
    """
    reads = " (midalign reads safetensors weights of causal language models that transformers knows)"

    def load(**more: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
        with _refused(f"cannot load the model {name!r}", reads):
            model, report = AutoModelForCausalLM.from_pretrained(
                found, output_loading_info=True, ignore_mismatched_sizes=True, **options, **more
            )
        return model, report

    model, report = load()
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ModelError(
            f"{name!r} holds an adapter (adapter_config.json), which transformers would load together with its base "
            "model. Give a folder or hub name with the base model alone, and the adapter with --adapter."
        )
    for mapping in renamings(report) if unwrap else []:
        del model  # two would take the memory twice
        model, renamed = load(key_mapping=mapping)
        if fills(renamed):
            model._weight_conversions = None  # else save_pretrained() would put the wrapper back in
            logger.warning(
                "%r was saved with a wrapper around it, whose name is left out of those of its tensors (%s, ...)",
                name, min(report["unexpected_keys"]),
            )  # fmt: skip
            return model
    check_fills(report, name)
    return model


@contextmanager
def _refused(what: str, hint: str = "") -> Iterator[None]:
    """Turn whatever transformers raises at a folder that it cannot read into one message.

    A damaged file may raise anything: errors of JSON, of the type of a setting, of arithmetic with sizes.
    """
    try:
        yield
    except Exception as fault:
        if type(fault).__name__ == "SafetensorError":  # the class itself is not always there to be named
            raise ModelError(
                f"{what}: weights are damaged or truncated ({fault}). Download or save it again."
            ) from fault
        raise ModelError(f"{what}: {first_line(fault)}{hint}") from fault


def _only_given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


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
    """Refuse a model of which transformers has quantised no layer, and warn if it has quantised only a few.

    transformers replaces plain linear layers only. It leaves subclasses (Falcon) and fused experts as they are, without
    a warning.
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


def in_low_bits(model: nn.Module) -> bool:
    """Whether bitsandbytes holds a model's weights, in four or eight bits, however the model was loaded."""
    return any(getattr(model, f"is_loaded_in_{bits}bit", False) for bits in (4, 8))  # trl's and peft's own criterion


def keep_trainable(model: nn.Module) -> None:
    """Keep bitsandbytes from packing four-bit weights for inference.

    On a CPU with AVX512-BF16, the first pass without gradients packs them permanently. Scales are then rounded to
    bfloat16, and a later backward pass skips the packed layers without an error.

    Raises:
        ModelError: If they are packed already.
    """
    for name, module in model.named_modules():
        if not hasattr(module, "support_avx512bf16_for_cpu"):
            continue
        setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 - no attribute that mypy knows
        if getattr(getattr(module.weight, "quant_state", None), "packing_format_for_cpu", False):
            raise ModelError(
                f"bitsandbytes has packed the four-bit weights of {name!r} for inference, in an earlier pass on this "
                "CPU, and gradients would be lost there. Load the model again, and train before anything else."
            )


def first_line(fault: Exception) -> str:
    """First line of an exception's message, with its type where the message alone is unclear (as of a KeyError)."""
    words = str(fault).strip().splitlines()[0] if str(fault).strip() else ""
    return (
        words
        if isinstance(fault, OSError | RuntimeError) or " " in words
        else f"{type(fault).__name__} {words}".strip()
    )
