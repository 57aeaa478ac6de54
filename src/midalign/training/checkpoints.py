"""Checkpoints of an interrupted training: the newest complete one, whether training ended there, and its seconds."""

from __future__ import annotations

import json
import logging
import shutil
import time
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import get_last_checkpoint

logger = logging.getLogger(__name__)

_STATE = "trainer_state.json"
_OPTIMIZER_STATES = ("optimizer.pt", "optimizer.bin", "optimizer_0", "latest")  # the last three: FSDP, FSDP, DeepSpeed


def last_whole_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint; half-written ones are skipped with a warning and deleted.

    The trainer writes ``trainer_state.json`` last. So after a kill, a checkpoint whose state can be read is whole.
    Files that a failing disk truncated are detected by their own formats.
    """
    while folder.is_dir():
        newest = get_last_checkpoint(str(folder))
        if newest is None:
            return None
        fault = _fault_of_checkpoint(Path(newest))
        if fault is None:
            return str(newest)
        logger.warning("checkpoint %s is incomplete or damaged (%s); continuing from an older one", newest, fault)
        shutil.rmtree(newest)
    return None


def _fault_of_checkpoint(checkpoint: Path) -> str | None:
    """The first file of a checkpoint that is missing, truncated or unreadable; None if the checkpoint is whole."""
    try:
        json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return _STATE
    if not any((checkpoint / name).exists() for name in _OPTIMIZER_STATES):
        return "optimizer.pt"
    try:
        with safe_open(checkpoint / "adapter_model.safetensors", "pt") as file:
            if not all(torch.isfinite(file.get_tensor(name)).all() for name in file.keys()):  # noqa: SIM118 - no dict
                return "adapter_model.safetensors holds numbers that are not finite"
    except (OSError, SafetensorError):
        return "adapter_model.safetensors"
    if missing := _missing_random_states(checkpoint):
        return missing[0]
    cut = [file.name for file in sorted(checkpoint.glob("*.pt*")) if not zipfile.is_zipfile(file)]
    return cut[0] if cut else None


def _missing_random_states(checkpoint: Path) -> list[str]:
    """Missing files of random states, one per process; other checkpoints show how many processes there were."""
    if (checkpoint / "rng_state.pth").exists():  # of a training in one process
        return []
    ranks = [int(file.stem.rpartition("_")[2]) for file in checkpoint.parent.glob("checkpoint-*/rng_state_*.pth")]
    expected = [f"rng_state_{rank}.pth" for rank in range(max(ranks) + 1)] if ranks else ["rng_state.pth"]
    return [name for name in expected if not (checkpoint / name).exists()]


def processes_of(checkpoint: str) -> int:
    """The number of processes that wrote a whole checkpoint: each keeps its random state."""
    return len(list(Path(checkpoint).glob("rng_state*.pth")))


def stopped_early_at(checkpoint: str) -> int | None:
    """The update at which a callback had ended the training before the checkpoint was written; None if none had.

    On resume the Trainer would forget that and train on, for one update or until the next evaluation.
    """
    state = json.loads((Path(checkpoint) / _STATE).read_text(encoding="utf-8"))
    stopped = state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"]
    return int(state["global_step"]) if stopped and state["global_step"] < state["max_steps"] else None


class Stopwatch(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Stopwatch of a training: its seconds, including those before the checkpoint that it resumed from.

    Attributes:
        before: Seconds up to that checkpoint.
    """

    def __init__(self) -> None:
        self.before = 0.0
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds so far, to the millisecond."""
        return round(self.before + time.monotonic() - self._start, 3)

    def state(self) -> dict[str, Any]:
        """What the Trainer keeps in a checkpoint."""
        return {"args": {}, "attributes": {"before": self.seconds}}

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Restore the seconds from the checkpoint, even if the Trainer does not restore callbacks."""
        kept = state.stateful_callbacks.get(type(self).__name__)
        if isinstance(kept, dict):
            self.before = kept["attributes"]["before"]
