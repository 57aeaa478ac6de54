"""A learned temperature of the contrastive loss, between two bounds.

1. ``temperature = low (high / low) ** sigmoid(raw)``, so that it changes by factors, as in CLIP (arXiv 2103.00020,
   section 2.5: a log-parametrised temperature with a bound), and neither reaches a bound nor gets stuck at it;
2. `raw` is one number, the same in every process: its gradient is averaged over the processes, and it has its own Adam
   with the trainer's learning rate, so that DDP, FSDP and DeepSpeed need not know of it;
3. `raw` and the moments of Adam are in ``trainer_state.json``, which the Trainer writes last into a checkpoint and
   reads back on resume. They are not part of the model, so an adapter folder never holds them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState


class LearnedTemperature(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Learned temperature, as a Trainer callback that steps, saves and restores it.

    Args:
        start: Temperature at the start, between the bounds.
        low: Lower bound, never reached; positive.
        high: Upper bound, never reached.
    """

    def __init__(self, start: float, low: float, high: float) -> None:
        self.start, self.low, self.high = start, low, high
        share = math.log(start / low) / math.log(high / low)
        self.raw = torch.tensor(math.log(share / (1 - share)), dtype=torch.float64, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.raw])

    def __call__(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """The temperature, a float32 scalar on `device`, differentiable with respect to `raw`."""
        temperature = self.low * (self.high / self.low) ** self.raw.sigmoid()
        return temperature.float().to(device)

    @property
    def moments(self) -> dict[str, float]:
        """``raw`` and Adam's state as plain numbers; setting them restores a state."""
        return {
            "raw": self.raw.item(),
            **{name: float(value) for name, value in self.optimizer.state[self.raw].items()},
        }

    @moments.setter
    def moments(self, numbers: dict[str, float]) -> None:
        with torch.no_grad():
            self.raw.fill_(numbers["raw"])
        self.optimizer.state[self.raw] = {
            name: torch.tensor(value, dtype=torch.float32 if name == "step" else torch.float64)
            for name, value in numbers.items()
            if name != "raw"
        }

    def state(self) -> dict[str, Any]:
        """What the Trainer keeps in a checkpoint."""
        return {
            "args": {"start": self.start, "low": self.low, "high": self.high},
            "attributes": {"moments": self.moments},
        }

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Restore the state from the checkpoint, even if the Trainer does not restore callbacks."""
        kept = state.stateful_callbacks.get(type(self).__name__)
        if kept is not None:
            self.moments = kept["attributes"]["moments"]

    def on_pre_optimizer_step(self, args: Any, _state: Any, _control: Any, *, optimizer: Any, **_: Any) -> None:
        """One step of Adam, after an alignment update only."""
        gradient = self.raw.grad
        if gradient is None:
            return
        if dist.is_available() and dist.is_initialized():
            on_device = gradient.float().to(args.device)
            dist.all_reduce(on_device)
            self.raw.grad = (on_device / dist.get_world_size()).to(gradient)
        self.optimizer.param_groups[0]["lr"] = optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        self.raw.grad = None
