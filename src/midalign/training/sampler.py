"""Batch sampler: which objective and which examples come at which step, a pure function of (seed, step).

1. A `Schedule` names the objective of every optimiser update (or micro-batch): ``update`` is task, align, task, ...;
2. task examples come from one seeded permutation per pass over the data;
3. pairs come from a language drawn with probability n**exponent (0 = uniform), and within a language from one
   seeded permutation per pass over it;
4. `AlternatingBatchSampler` turns this into batches of dataset indices for one process. All batches of one
   accumulation window hold one objective, and w processes x a accumulation steps see the same examples as 1 x (w a).

Nothing here keeps state, so a resumed run skips the batches that are done and continues as if never interrupted. Where
alignment stops early, the caller derives the update from its log (`AlternatingBatchSampler.align_until`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch.utils.data import Sampler

from midalign.recipe.schedule import Objective, Schedule


def shuffled_passes(size: int, count: int, seed: Sequence[int]) -> np.ndarray:
    """`count` indices below `size`: one seeded permutation after another, the last one truncated."""
    passes = -(-count // size) if count else 0
    parts = [np.random.default_rng([*seed, number]).permutation(size) for number in range(passes)]
    return np.concatenate(parts)[:count] if parts else np.zeros(0, dtype=np.int64)


def resampled_pairs(groups: Sequence[int], count: int, exponent: float, seed: int, run: int = 1) -> np.ndarray:
    """`count` indices of pairs, resampled over languages.

    Args:
        groups: For each pair, the number of its language (or language pair), from 0 without gaps.
        count: Number of indices to draw.
        exponent: A language with n pairs is drawn with probability proportional to n**exponent: 0 is uniform over
            languages (the paper resamples to a near-uniform distribution), 1 leaves the data as it is.
        seed: Seed of the draw.
        run: Number of consecutive pairs that are of one language.

    Returns:
        int64 array ``(count,)``. Within a language every pair comes once before any comes twice.
    """
    group_of = np.asarray(groups)
    members = [np.flatnonzero(group_of == number) for number in range(int(group_of.max()) + 1)]
    weights = np.array([float(len(m)) for m in members]) ** exponent
    rng = np.random.default_rng([seed, 1])
    drawn = rng.choice(len(members), size=-(-count // run), p=weights / weights.sum()).repeat(run)[:count]
    result = np.zeros(count, dtype=np.int64)
    for number, member in enumerate(members):
        positions = np.flatnonzero(drawn == number)
        result[positions] = member[shuffled_passes(len(member), len(positions), (seed, 2, number))]
    return result


@dataclass
class AlternatingBatchSampler(Sampler[list[int]]):
    """Batches of indices into the task data followed by the pairs, for one process of a distributed run.

    Attributes:
        schedule: The order of the objectives.
        updates: Number of optimiser updates in all.
        task_size: Number of task examples; indices below it are task examples, those from it on are pairs.
        pair_groups: For each pair, the number of its language.
        task_batch_size: Task examples in a micro-batch of one process.
        pair_batch_size: Pairs in a micro-batch of one process; negatives come from the same micro-batch.
        accumulation: Micro-batches of one process in an update.
        exponent: See `resampled_pairs`.
        one_language: Whether all pairs of a micro-batch (of all processes) are of one language.
        seed: Seed of both streams.
        rank: Number of this process.
        world_size: Number of processes.
        align_until: Called before every update; gives the first update (from 0) that trains only the task, or None.
    """

    schedule: Schedule
    updates: int
    task_size: int
    pair_groups: Sequence[int]
    task_batch_size: int
    pair_batch_size: int
    accumulation: int = 1
    exponent: float = 0.0
    one_language: bool = False
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    align_until: Callable[[], int | None] = field(default=lambda: None, repr=False)
    _streams: dict[Objective, np.ndarray] = field(init=False, repr=False)
    _windows: list[list[Objective]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._windows = [
            [self.schedule.objective(update, micro, self.accumulation) for micro in range(self.accumulation)]
            for update in range(self.updates)
        ]
        flat = [objective for window in self._windows for objective in window]
        # Alignment may stop early, after which every update is a task update.
        most_tasks = len(flat) if "task" in flat else 0
        tasks = most_tasks * self.world_size * self.task_batch_size
        pairs = flat.count("align") * self.world_size * self.pair_batch_size
        if tasks and not self.task_size:
            raise ValueError(f"the schedule {self.schedule.pattern} asks for task batches, but there is no task data")
        if pairs and not len(self.pair_groups):
            raise ValueError(f"the schedule {self.schedule.pattern} asks for alignment batches, but there are no pairs")
        nothing = np.zeros(0, np.int64)
        run = self.world_size * self.pair_batch_size if self.one_language else 1
        self._streams = {
            "task": shuffled_passes(self.task_size, tasks, (self.seed, 0)) if tasks else nothing,
            "align": self.task_size + resampled_pairs(self.pair_groups, pairs, self.exponent, self.seed, run)
            if pairs
            else nothing,
        }

    def __len__(self) -> int:
        """Number of micro-batches of this process."""
        return self.updates * self.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        """The micro-batches of this process, first to last."""
        sizes: dict[Objective, int] = {"task": self.task_batch_size, "align": self.pair_batch_size}
        used: dict[Objective, int] = {"task": 0, "align": 0}
        for update, window in enumerate(self._windows):
            until = self.align_until()
            stopped = until is not None and update >= until
            for planned in window:
                objective: Objective = "task" if stopped else planned
                size = sizes[objective]
                # One step of every process takes world_size consecutive micro-batches of the stream.
                start = used[objective] + self.rank * size
                used[objective] += self.world_size * size
                yield self._streams[objective][start : start + size].tolist()
