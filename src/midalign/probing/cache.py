"""Cache of finished layers on disk, beside the sentence vectors, so that an interrupted probe can resume.

The name of a file is a hash of the vector files that it was made from and of the options of the retrieval. It holds the
layer's numbers as JSON, its hits, and a checksum of both.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from midalign import __version__
from midalign.files import write_atomically
from midalign.probing.statistics import HitArray

logger = logging.getLogger(__name__)

_OPTIONS = ("margin", "k", "candidates")


def finished_path(files: Sequence[Path], layer: int, about: Mapping[str, Any]) -> Path | None:
    """Path of the file for one layer; None where the vectors are not on disk.

    Args:
        files: The vectors of each language; their names depend on model, text, pooling and layers.
        layer: Its number.
        about: ``margin``, ``k`` and ``candidates`` of the retrieval.
    """
    if not files:
        return None
    content = [[file.name for file in files], layer, [about[name] for name in _OPTIONS], __version__]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return files[0].parent / f"layer.{layer:03d}.{digest[:24]}.safetensors"


def write_finished(path: Path, entry: Mapping[str, Any], hits: HitArray) -> None:
    """Write one layer's numbers and hits ``(N, n)``, whole or not at all.

    Raises:
        RunError: If the disk is full or the folder cannot be written to.
    """
    text = json.dumps(entry)
    write_atomically(path, save({"hits": hits}, metadata={"entry": text, "checksum": _checksum(text, hits)}))


def read_finished(path: Path) -> tuple[dict[str, Any], HitArray] | None:
    """What `write_finished` wrote; None where there is no file, or, with a warning, a damaged one."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="np") as file:
            hits: HitArray = file.get_tensor("hits")
            about = file.metadata() or {}
        text = about["entry"]
        if about["checksum"] == _checksum(text, hits):
            return json.loads(text), hits
        fault = "its checksum does not fit its content"
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        fault = str(error)
    logger.warning("the finished layer in %s is damaged (%s); retrieving again", path, fault)
    return None


def _checksum(text: str, hits: HitArray) -> str:
    return f"{zlib.crc32(np.ascontiguousarray(hits).data, zlib.crc32(text.encode())):08x}"
