"""Comparison of base models by name: do two hub names or folders mean the same weights?"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from pathlib import Path

logger = logging.getLogger(__name__)


def same_base(first: str, second: str) -> bool | None:
    """Whether two names of a base model, hub names or folders, mean the same one; None where that cannot be told."""
    first, second = first.rstrip("/"), second.rstrip("/")
    if first.casefold() == second.casefold():
        return True
    folders = [Path(name) for name in (first, second)]
    if all(folder.is_dir() for folder in folders):
        if folders[0].samefile(folders[1]):
            return True
        prints = [_fingerprint(folder) for folder in folders]
        return None if None in prints else prints[0] == prints[1]
    # One hub name and one folder: a download keeps the name, as its last part or in the hub cache's form.
    hubs = [name for name in (first, second) if _is_hub_name(name)]
    if len(hubs) == 1:
        folder = os.path.abspath(second if hubs[0] == first else first)  # noqa: PTH100 - of "." or "..", not of a link
        parts = [part.casefold() for part in Path(folder).parts]
        hub = hubs[0].casefold()
        if parts[-1:] == [hub.split("/")[-1]] or "models--" + hub.replace("/", "--") in parts:
            return True
    return None


def _is_hub_name(name: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and name[0] != "." and not Path(name).is_dir()


def _fingerprint(folder: Path) -> str | None:
    """SHA-256 over a model folder's weights, None where it has no safetensors; slow, so only where paths differ."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return None
    logger.info("comparing the weights in %s", folder)
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
