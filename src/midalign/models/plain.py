"""Export of any model as a plain folder: safetensors under the model's own names, with its tokenizer.

A GGUF then need not be dequantised at every load. A checkpoint whose tensors carry the name of a wrapper is written
without that name, if all tensors fit then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from midalign.models.loading import load_config, load_model, load_tokenizer


def write_plain(
    name: str,
    folder: Path,
    *,
    gguf_file: str | None = None,
    dtype: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> None:
    """Write a model's weights, configuration and tokenizer.

    Args:
        name: Hub name or folder of the model.
        folder: An existing, empty folder.
        gguf_file: Name of a GGUF file there.
        dtype: Number format of the weights; by default the saved one, and bfloat16 for a GGUF.
        revision: Hub branch, tag or commit.
        trust_remote_code: Let code from the model's repository run here.

    Raises:
        UserError: If the model cannot be loaded.
    """
    if dtype is None and gguf_file is None:
        saved = load_config(name, revision=revision, trust_remote_code=trust_remote_code).get_text_config().dtype
        dtype = str(saved or "float32").removeprefix("torch.")
    where: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code, "gguf_file": gguf_file}
    load_tokenizer(name, **where).save_pretrained(folder)
    model = load_model(name, dtype=dtype or "bfloat16", device="cpu", unwrap=True, **where)
    model.save_pretrained(folder)
