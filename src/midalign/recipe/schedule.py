"""Schedule: which objective each optimiser update trains."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

Objective = Literal["task", "align"]


NAMED_SCHEDULES: dict[str, tuple[Objective, ...]] = {
    "update": ("task", "align"),
    "micro_batch": ("task", "align"),
    "task": ("task",),
    "align": ("align",),
}


@dataclass(frozen=True)
class Schedule:
    """The order of the objectives.

    Attributes:
        pattern: The objectives of consecutive steps; it repeats.
        per_micro_batch: Whether one step of the pattern is a micro-batch (the reference implementation's mixing, in
            which an accumulation window holds both objectives) rather than an optimiser update (the paper's text).
        max_updates: Largest number of alignment updates; all later ones train the task. None for no bound. With
            ``micro_batch``, where each update is half an alignment update, alignment takes part in twice as many. It
            has no effect on a pattern without task.
    """

    pattern: tuple[Objective, ...] = NAMED_SCHEDULES["update"]
    per_micro_batch: bool = False
    max_updates: int | None = None

    @classmethod
    def parse(cls, text: str, max_updates: int | None = None) -> Schedule:
        """Read ``update``, ``micro_batch``, ``task``, ``align``, or a pattern such as ``task:3,align:1``.

        Raises:
            ValueError: If the text is none of these.
        """
        if text in NAMED_SCHEDULES:
            return cls(NAMED_SCHEDULES[text], text == "micro_batch", max_updates)
        pattern: list[Objective] = []
        for part in text.split(","):
            match = re.fullmatch(r"\s*(task|align)\s*:\s*([1-9]\d{0,3})\s*", part)
            if match is None:
                raise ValueError(
                    f"unknown schedule {text!r}; write one of {', '.join(NAMED_SCHEDULES)}, or a pattern of "
                    "objectives and counts below 10000 such as 'task:3,align:1'"
                )
            pattern += [cast("Objective", match[1])] * int(match[2])
        return cls(tuple(pattern), False, max_updates)

    def objective(self, update: int, micro_batch: int = 0, accumulation: int = 1) -> Objective:
        """The objective of micro-batch `micro_batch` (from 0) within optimiser update `update` (from 0)."""
        if self.max_updates is not None and "task" in self.pattern:
            rounds, rest = divmod(update, len(self.pattern))
            if rounds * self.pattern.count("align") + self.pattern[:rest].count("align") >= self.max_updates:
                return "task"
        step = update * accumulation + micro_batch if self.per_micro_batch else update
        return self.pattern[step % len(self.pattern)]

    def updates_for(self, task_updates: int) -> int:
        """Number of all updates for `task_updates` task updates, with the alignment updates due after the last one.

        With ``micro_batch`` each update is half a task update. A schedule without task updates makes `task_updates`
        alignment updates instead.
        """
        if "task" not in self.pattern:
            return task_updates
        updates = done = 0
        while done < task_updates or self.objective(updates) == "align":
            done += self.objective(updates) == "task"
            updates += 1
        return updates
