"""GGUF, the file format of llama.cpp: read through transformers into a plain model and its tokenizer.

A quantised GGUF is dequantised, so that the model can be probed, trained and saved as any other. That takes longer
than reading safetensors (25 s for 135 million weights on two cores), each time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerBase

from midalign.errors import MissingExtraError, MissingFileError, ModelError, did_you_mean

# How a text is cut before byte-pair encoding, by the name that the file gives it, where transformers (5.23) builds
# plain GPT-2's. "smollm" is llama.cpp's name for what SmolLM2's own tokenizer.json does: each digit by itself first.
_PRE_TOKENIZERS = {"smollm": lambda: [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]}
# Names for which that is right, as in llama.cpp (src/llama-vocab.cpp); "default" is that of a file without one.
_AS_GPT2 = ("gpt-2", "phi-2", "mpt", "olmo", "default")


def check_gguf(name: str, gguf_file: str) -> None:
    """Refuse a GGUF that is not in its folder, or that nothing here can read.

    Args:
        name: Local folder or hub name.
        gguf_file: Name of the file in it.

    Raises:
        MissingExtraError: If the package ``gguf`` is not installed.
        MissingFileError: If the folder has no such file.
    """
    folder = Path(name)
    if folder.is_dir() and not (folder / gguf_file).is_file():
        there = sorted(path.name for path in folder.glob("*.gguf"))
        raise MissingFileError(
            f"the folder {name!r} holds no file {gguf_file!r}. It holds {', '.join(there) or 'no GGUF at all'}."
            f"{did_you_mean(gguf_file, there)}"
        )
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise MissingExtraError("gguf", "gguf", f"reading {gguf_file!r}") from None


def dequantized() -> dict[str, Any]:
    """The argument of ``from_pretrained`` that makes a plain model of a GGUF, whatever kernels are installed."""
    from transformers.utils.quantization_config import GgufConfig

    return {"quantization_config": GgufConfig(dequantize=True)}


def cut_as_trained(
    tokenizer: PreTrainedTokenizerBase, name: str, gguf_file: str, revision: str | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer that transformers made of a GGUF, changed so that it cuts a text as the file says.

    Raises:
        ModelError: If neither transformers nor midalign knows how; transformers would cut as for GPT-2.
    """
    from transformers.integrations.gguf import read_gguf_metadata
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
    from transformers.utils import cached_file

    metadata, _ = read_gguf_metadata(cached_file(name, gguf_file, revision=revision))
    pre = metadata.get("tokenizer.ggml.pre", "default")
    if pre in _PRE_TOKENIZERS:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(_PRE_TOKENIZERS[pre]())
    elif metadata.get("tokenizer.ggml.model") == "gpt2" and pre not in (*GGUF_PRE_TOKENIZER_SPLITS, *_AS_GPT2):
        raise ModelError(
            f"it cuts a text into words as {pre!r} (tokenizer.ggml.pre), which is not known here, so that the model "
            "would be given other tokens than it was trained on. Give the same model as safetensors."
        )
    return tokenizer
