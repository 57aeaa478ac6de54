"""Run folders: the manifest that every verb leaves, and what is done already.

``manifest.json`` beside the results holds the resolved recipe, versions, seeds, hashes of the data, the git commit and
timings. A stage is done when its manifest says so for the same inputs; it is then skipped.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, cast

import midalign
from midalign.errors import RunError
from midalign.files import MANIFEST, hash_paths, local_path, read_json, write_json
from midalign.progress import Progress

T = TypeVar("T")

_PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "sacrebleu", "numpy", "scipy")


def cache_folder() -> Path:
    """Cache folder for what midalign builds: ``MIDALIGN_CACHE``, or the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "midalign"
    return Path(os.environ.get("MIDALIGN_CACHE", default))


def fingerprint(content: Any) -> str:
    """Fingerprint: a short stable hash of plain data, to compare the inputs of two stages."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """Versions of midalign, Python and the packages that decide the numbers."""
    found = {"midalign": midalign.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """Commit of the checkout that midalign runs from, with ``+`` where it has changes; None outside a checkout."""
    here = Path(__file__).parent
    git = shutil.which("git")
    if git is None:
        return None

    def ask(*words: str) -> str:
        return subprocess.run([git, *words], cwd=here, capture_output=True, text=True, check=False).stdout.strip()

    commit = ask("rev-parse", "HEAD")
    if not commit:
        return None
    return commit + ("+" if ask("status", "--porcelain", "-uno") else "")


class Run:
    """One run folder and its manifest.

    Args:
        out: The folder; it is created with the first result, so that a mistake leaves nothing behind.
        command: The verb (``"probe"``, ``"train"``, ...).
        inputs: Everything that decides the result, as plain data: the resolved recipe or the arguments.
        data: Paths whose hashes belong in the manifest.
        root: A run folder that this one is a part of. What lies there is named from it, so that the whole may be moved.

    Raises:
        RunError: If a launcher started several processes of a command that works in one; if `out` is a file, lies
            inside a folder of the data, or holds a run of another command or of other inputs.
    """

    def __init__(
        self,
        out: str | Path,
        command: str,
        inputs: Mapping[str, Any],
        data: Iterable[str | Path] = (),
        root: Path | None = None,
    ) -> None:
        self.out = Path(out)
        self.command = command
        if command != "train" and (processes := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
            raise RunError(
                f"`midalign {command}` works in one process, and a launcher started {processes}, which would all write "
                f"into {str(self.out)!r}. Launch only `midalign train`"
            )
        data = list(data)
        for folder in [path for path in map(local_path, data) if path.is_dir()]:
            if self.out.resolve().is_relative_to(folder.resolve()):
                raise RunError(
                    f"--out {str(self.out)!r} lies inside {str(folder)!r}, which is read and hashed, so that the same "
                    "command would not find its own run again. Give a folder outside, and move an earlier one there"
                )
        self.begun = False
        given = {"inputs": json.loads(json.dumps(inputs, default=str)), "data": hash_paths(data)}
        self.manifest: dict[str, Any] = {"command": command} | (given if root is None else _named_from(root, given))
        self.manifest["fingerprint"] = fingerprint(self.manifest)
        self._check_folder()
        self.manifest |= {
            "versions": versions(),
            "git_commit": git_commit(),
            "started": self._earlier.get("started", datetime.now(UTC).isoformat(timespec="seconds")),
            "timings": dict(self._earlier.get("timings", {})),
            "done": False,
        }

    def _check_folder(self) -> None:
        self.was_done = False
        self._earlier: dict[str, Any] = {}
        if self.out.exists() and not self.out.is_dir():
            raise RunError(f"--out {str(self.out)!r} is a file; give a folder")
        if (self.out / MANIFEST).exists():
            earlier = read_json(self.out / MANIFEST)
            if not _is_manifest(earlier):
                raise RunError(
                    f"{str(self.out / MANIFEST)!r} does not have the form that midalign writes, so what is "
                    "done already is not known. Give another --out, or delete that folder."
                )
            if earlier.get("fingerprint") != self.manifest["fingerprint"]:
                raise RunError(
                    f"{str(self.out)!r} holds a run of {earlier.get('command', 'another command')!r} with other "
                    "inputs, and its results would be overwritten. Give another --out, or delete that folder."
                )
            self.was_done = bool(earlier.get("done"))
            self._earlier = earlier

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Measure a stage's wall time, in seconds, for the manifest; kept even if a later stage is interrupted."""
        start = time.monotonic()
        yield
        self.manifest["timings"][stage] = round(time.monotonic() - start, 3)
        if self.begun:
            self._write()

    def begin(self) -> None:
        """Write the manifest before the work starts, so that an interrupted run can be recognised and resumed."""
        if not self.begun:
            self.begun = True
            self._write()

    def finish(self, **extra: Any) -> None:
        """Write the manifest as done, with `extra` entries; the total is that of all stages, of earlier calls too."""
        stages = {stage: seconds for stage, seconds in self.manifest["timings"].items() if stage != "total"}
        self.manifest["timings"] = stages | {"total": round(sum(stages.values()), 3)}
        self.manifest |= extra | {"done": True}
        self._write()

    def _write(self) -> None:
        write_json(self.out / MANIFEST, self.manifest)


class Job(ABC, Generic[T]):
    """Job of one call of a verb. A subclass is a frozen dataclass; its fields are everything that the call is given.

    The fields are the fingerprint of the run, so a call with any option changed is another run.

        run = job.start(out)       # claims the folder; writes nothing
        if not run.was_done:
            job.finish(run)

    Attributes:
        verb: The verb, as the manifest names it.
        result: The file or folder in the run folder by which a finished run is known.
    """

    verb: ClassVar[str]
    result: ClassVar[str]

    @abstractmethod
    def paths(self) -> Iterable[str | None]:
        """Local files and folders that are read, for their hashes; other names and None are skipped."""

    @abstractmethod
    def finish(self, run: Run, progress: Progress | None = None) -> T:
        """Do the work, into the run's folder."""

    def start(self, out: str | Path, root: Path | None = None) -> Run:
        """The run folder of this job; `root` as in `Run`.

        Raises:
            RunError: If it is a file, or holds another run.
        """
        return Run(out, self.verb, self.inputs(), [path for path in self.paths() if path], root)

    def inputs(self) -> dict[str, Any]:
        """Every field, as plain data; those that say which items are read stand beside the others."""
        found: dict[str, Any] = {f.name: _plain(getattr(self, f.name)) for f in fields(cast("Any", self))}
        items: dict[str, Any] = found.pop("items", {})
        return found | items


def _is_manifest(content: Any) -> bool:
    """Whether this is an object, with numbers as timings."""
    timings = content.get("timings", {}) if isinstance(content, dict) else None
    return isinstance(timings, dict) and all(isinstance(seconds, int | float) for seconds in timings.values())


def _named_from(root: Path, value: Any) -> Any:
    """Plain data in which paths within `root` are relative to it."""
    if isinstance(value, dict):
        return {_named_from(root, key): _named_from(root, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_named_from(root, item) for item in value]
    within = isinstance(value, str) and value.startswith(f"{root}{os.sep}")
    return value[len(f"{root}{os.sep}") :] if within else value


def _plain(value: Any) -> Any:
    """A value in types that JSON has."""
    if hasattr(value, "as_dict"):  # a recipe
        return value.as_dict()
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
