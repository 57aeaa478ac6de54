"""Names of the options of the mathematics, listed only here; recipe, command line, help and checks use them.

They are not in the modules of the functions that they name, so that ``--help`` need not import torch.
"""

from __future__ import annotations

from typing import Literal, TypedDict, get_args

Pooling = Literal["mean", "mean_no_special", "mean_no_first", "mean_after_sink", "mean_unit", "last", "weighted"]
"""The ways to make one vector of the states of a sentence's tokens (`midalign.functional.pooling`)."""
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
BEHIND_SINK: tuple[Pooling, ...] = ("mean_after_sink",)
"""Poolings of sentences that are read behind a sink token (`midalign.models.tokens`)."""

Margin = Literal["ratio", "distance", "absolute", "cosine"]
"""The scores of a candidate translation (`midalign.functional.margin`)."""
MARGINS: tuple[Margin, ...] = get_args(Margin)

Candidates = Literal["all", "nearest"]
"""The sentences among which a translation is retrieved (`midalign.functional.margin`)."""
CANDIDATES: tuple[Candidates, ...] = get_args(Candidates)

Direction = Literal["symmetric", "forward"]
"""The directions of the contrastive loss (`midalign.functional.info_nce`)."""
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)

MergeMethod = Literal["sum", "parameters", "peft_linear", "svd", "ties", "dare"]
"""The formulas by which adapters are merged (`midalign.functional.merge_methods`)."""
MERGE_METHODS: tuple[MergeMethod, ...] = get_args(MergeMethod)


class MergeOptions(TypedDict, total=False):
    """Options of the methods that merge adapters; each method takes some of them.

    Attributes:
        density: Share of the entries that ``ties`` and ``dare`` keep.
        rank: Rank of the result of ``svd``, ``ties`` and ``dare``; None for the method's own.
        seed: Of the masks of ``dare``.
    """

    density: float
    rank: int | None
    seed: int
