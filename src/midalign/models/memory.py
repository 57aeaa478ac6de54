"""What is done when a device runs out of memory: the batch is computed in halves."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from midalign.errors import RunError

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")
_WORDS = ("out of memory", "not enough memory", "can't allocate memory")  # CUDA, MPS; the CPU; the CPU on Linux


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether an error says that a device ran out of memory."""
    if isinstance(fault, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(fault, RuntimeError) and any(words in str(fault) for words in _WORDS)


def free_memory() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def in_halves(compute: Callable[[Sequence[T]], list[R]], batch: Sequence[T], what: str) -> list[R]:
    """The results of a batch, one for each row; where memory runs out, of its halves one after the other.

    Args:
        compute: Gives the results of some rows.
        batch: The rows.
        what: What a row is, for the error.

    Raises:
        RunError: If a single row does not fit into memory.
    """
    try:
        return compute(batch)
    except (RuntimeError, MemoryError) as fault:
        if not is_out_of_memory(fault):
            raise
        if len(batch) == 1:
            raise RunError(
                f"one {what} does not fit into memory beside the model ({type(fault).__name__}). Use a device "
                "with more memory, or model.dtype: bfloat16"
            ) from fault
    # Outside the handler: the exception's traceback would keep the batch's tensors alive.
    logger.warning("out of memory: a batch of %d is computed in halves", len(batch))
    free_memory()
    middle = len(batch) // 2
    return in_halves(compute, batch[:middle], what) + in_halves(compute, batch[middle:], what)
