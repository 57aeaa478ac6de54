"""Files: written whole or not at all, JSON, hashes, and what a full disk looks like."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from midalign.errors import RunError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that it exists whole or not at all, whatever happens in between.

    Raises:
        RunError: If the disk is full or the folder cannot be written to.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)  # noqa: PTH101 - mkstemp makes it private
            os.replace(temporary, path)  # noqa: PTH105
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as fault:
        raise RunError(
            f"cannot write {str(path)!r}: {fault.strerror}. Nothing was changed there; free some space or choose "
            "another --out."
        ) from fault


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically."""
    write_atomically(path, json.dumps(content, ensure_ascii=False, indent=1, default=str) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of an earlier run.

    Raises:
        RunError: If it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{str(path)!r} does not exist; is its folder the --out of a finished run?") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as fault:
        raise RunError(f"{str(path)!r} is not valid JSON ({fault}); delete it and run the command again") from None


def hash_paths(paths: Iterable[str | Path]) -> dict[str, str]:
    """SHA-256 of each file, and of each folder by its files' names and contents; missing ones (hub names) left out."""
    hashes = {}
    for path in map(Path, paths):
        if not path.exists():
            continue
        digest = hashlib.sha256()
        for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(str(file.relative_to(path)).encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        hashes[str(path)] = digest.hexdigest()
    return hashes


def disk_is_full(fault: BaseException) -> bool:
    """Whether an exception comes from a full disk, whatever library raised it (torch and safetensors wrap it)."""
    words = str(fault)
    return getattr(fault, "errno", None) == errno.ENOSPC or any(
        sign in words
        for sign in (os.strerror(errno.ENOSPC), "os error 28", "PytorchStreamWriter failed", "unexpected pos")
    )


def check_target(out: str | Path) -> Path:
    """Check that a folder can be written.

    Args:
        out: The folder.

    Returns:
        The folder, as a path.

    Raises:
        RunError: If it exists and is not an empty folder.
    """
    target = Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RunError(f"{target} exists and is not an empty folder; it would be overwritten. Give another --out.")
    return target


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A new folder beside the target that takes its place at the end, or is removed on an error.

    Args:
        target: What `check_target` allowed.

    Yields:
        The folder to write into.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.parent / f".{target.name}.{os.getpid()}.partial"
    folder.mkdir()
    try:
        yield folder
        folder.replace(target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
