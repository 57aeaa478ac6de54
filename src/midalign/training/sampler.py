"""Batch sampler: which objective and which examples come at which step, a pure function of (seed, step).

1. A `Schedule` names the objective of every optimiser update (or micro-batch): ``update`` is task, align, task, ...;
2. task examples come from one seeded permutation per pass over the data, or as ``train_sampling_strategy`` says;
3. pairs come from a language drawn with probability n**exponent (0 = uniform), and within a language from one
   seeded permutation per pass over it;
4. `AlternatingBatchSampler` turns this into batches of dataset indices for one process. All batches of one
   accumulation window hold one objective, and w processes x a accumulation steps see the same examples as 1 x (w a).
   The task examples of a window go to its micro-batches by length, since their loss adds up over the window anyhow.

Nothing here keeps state, so a resumed run skips the batches that are done and continues as if never interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers import TrainingArguments
from transformers.trainer_pt_utils import get_length_grouped_indices

from midalign.errors import DataError, RecipeError
from midalign.recipe.schedule import Objective, Schedule

SAMPLING_STRATEGIES = ("random", "sequential", "group_by_length")
"""The values of transformers' ``train_sampling_strategy`` that `task_stream` has."""


def shuffled_passes(size: int, count: int, seed: Sequence[int]) -> np.ndarray:
    """`count` indices below `size`: one seeded permutation after another, the last one truncated."""
    passes = -(-count // size) if count else 0
    parts = [np.random.default_rng([*seed, number]).permutation(size) for number in range(passes)]
    return np.concatenate(parts)[:count] if parts else np.zeros(0, dtype=np.int64)


def task_stream(
    lengths: Sequence[int], count: int, seed: int, strategy: str = "random", per_update: int = 1
) -> np.ndarray:
    """`count` indices of task examples, each example once before any comes twice.

    Args:
        lengths: Tokens of each example.
        count: Number of indices to draw.
        seed: Seed of the order.
        strategy: As transformers' ``train_sampling_strategy``: ``random``; ``sequential``, as the data are ordered; or
            ``group_by_length``, random but with examples of like length in an update.
        per_update: Examples of an update, for ``group_by_length``.
    """
    if strategy == "random":
        return shuffled_passes(len(lengths), count, (seed, 0))
    passes = -(-count // len(lengths)) if count else 0
    parts = [np.arange(len(lengths))] * passes
    if strategy == "group_by_length":
        generator = torch.Generator().manual_seed(seed)
        parts = [np.array(get_length_grouped_indices(lengths, per_update, generator=generator)) for _ in parts]
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
        task_lengths: Tokens of each task example; indices below their number are task examples, others are pairs.
        pair_groups: For each pair, the number of its language.
        task_batch_size: Task examples in a micro-batch of one process.
        pair_batch_size: Pairs in a micro-batch of one process; negatives come from the same micro-batch.
        accumulation: Micro-batches of one process in an update.
        exponent: See `resampled_pairs`.
        one_language: Whether all pairs of a micro-batch (of all processes) are of one language.
        seed: Seed of both streams.
        rank: Number of this process.
        world_size: Number of processes.
        strategy: See `task_stream`.
        by_length: Whether the task examples of a window go to its micro-batches by length, longest first.
    """

    schedule: Schedule
    updates: int
    task_lengths: Sequence[int]
    pair_groups: Sequence[int]
    task_batch_size: int
    pair_batch_size: int
    accumulation: int = 1
    exponent: float = 0.0
    one_language: bool = False
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    strategy: str = "random"
    by_length: bool = False
    _streams: dict[Objective, np.ndarray] = field(init=False, repr=False)
    _windows: list[list[Objective]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._windows = [
            [self.schedule.objective(update, micro, self.accumulation) for micro in range(self.accumulation)]
            for update in range(self.updates)
        ]
        flat = [objective for window in self._windows for objective in window]
        tasks = flat.count("task") * self.world_size * self.task_batch_size
        pairs = flat.count("align") * self.world_size * self.pair_batch_size
        if tasks and not len(self.task_lengths):
            raise ValueError(f"the schedule {self.schedule.pattern} asks for task batches, but there is no task data")
        if pairs and not len(self.pair_groups):
            raise ValueError(f"the schedule {self.schedule.pattern} asks for alignment batches, but there are no pairs")
        nothing = np.zeros(0, np.int64)
        per_update = self.accumulation * self.world_size * self.task_batch_size
        run = self.world_size * self.pair_batch_size if self.one_language else 1
        self._streams = {
            "task": task_stream(self.task_lengths, tasks, self.seed, self.strategy, per_update) if tasks else nothing,
            "align": len(self.task_lengths) + resampled_pairs(self.pair_groups, pairs, self.exponent, self.seed, run)
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
        for window in self._windows:
            examples = {name: self._next(name, window.count(name), used) for name in sizes}
            for objective in window:
                size = sizes[objective]
                # One step of every process takes world_size consecutive micro-batches of the stream.
                step, examples[objective] = np.split(examples[objective], [self.world_size * size])
                yield step[self.rank * size : (self.rank + 1) * size].tolist()

    def _next(self, objective: Objective, micro_batches: int, used: dict[Objective, int]) -> np.ndarray:
        """The next examples of an objective, for so many micro-batches of every process."""
        size = self.task_batch_size if objective == "task" else self.pair_batch_size
        start = used[objective]
        used[objective] += micro_batches * self.world_size * size
        chosen = self._streams[objective][start : used[objective]]
        if objective == "task" and self.by_length:
            return np.array(sorted(chosen.tolist(), key=lambda example: -self.task_lengths[example]), dtype=np.int64)
        return chosen


def check_task_data(train_dataset: object, args: TrainingArguments) -> None:
    """Refuse task data that cannot be drawn in an order that a resumed training finds again.

    Raises:
        DataError: If it is streamed, or has no column ``input_ids``.
        RecipeError: If the sampling strategy is none of `SAMPLING_STRATEGIES`.
    """
    if not hasattr(train_dataset, "__len__"):
        raise DataError(
            f"the training data is a {type(train_dataset).__name__}, which is streamed: midalign draws examples in an "
            "order that a resumed training can find again, so it needs their number. Load the data set without "
            "streaming, or take a part of it: Dataset.from_list(list(data.take(100_000)))."
        )
    if "input_ids" not in getattr(train_dataset, "column_names", ()):
        raise DataError(
            f"the training data is a {type(train_dataset).__name__} without a column input_ids, and batches are formed "
            "by length. Pass a datasets.Dataset of token ids: Dataset.from_list(rows)"
        )
    if args.train_sampling_strategy not in SAMPLING_STRATEGIES:
        raise RecipeError(
            f"train_sampling_strategy is {args.train_sampling_strategy!r}, which midalign does not have. Write "
            f"one of {', '.join(SAMPLING_STRATEGIES)}. Batches of an update are formed by length in any case."
        )
