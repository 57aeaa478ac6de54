"""Retrieval in all directions between N languages: accuracy, hubness and anisotropy.

`retrieve_all` makes one similarity matrix per pair of languages (see `midalign.functional.margin`) and keeps, for every
direction and sentence, which sentence was retrieved. From these predictions come `accuracy`, `hits` (to bootstrap
over sentences) and `hubness`; `mean_cosines` measures anisotropy without any n x n matrix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from midalign.errors import OptionError
from midalign.functional.margin import batch_size, check_options, retrieve_units, unit
from midalign.progress import Progress


def retrieve_all(
    vectors: Mapping[str, Tensor] | Tensor,
    margins: Sequence[str] = ("ratio",),
    k: int = 4,
    candidates: str = "all",
    block: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Retrieval in all N (N - 1) directions; each pair of languages costs one similarity matrix.

    Args:
        vectors: By language ``(n, d)``, parallel by row, or one tensor ``(N, n, d)``. A float32 copy of unit length
            is held beside them.
        margins: Names from `MARGINS`; more than one costs little.
        k: As in `retrieve`.
        candidates: As in `retrieve`.
        block: As in `retrieve`.
        progress: Called with ``"retrieve"``, the number of pairs of languages done and of all pairs.

    Returns:
        For each margin, predictions ``(N, N, n)`` int32 on the CPU: ``[a, b, i]`` is the sentence of language b that
        sentence i of language a retrieves. The diagonal is -1. `hits` and `hubness` read them.

    Raises:
        OptionError: As `retrieve`, or with fewer than two languages.
        ModelError: As `retrieve`, naming the language.
        ValueError: If the languages do not have the same shape.
    """
    units = _units(vectors)
    n_languages, n = units.shape[:2]
    check_options(margins, k, candidates, n)
    predictions = {margin: torch.full((n_languages, n_languages, n), -1, dtype=torch.int32) for margin in margins}
    batch = batch_size(n, units.device)
    done = 0
    for a in range(n_languages - 1):
        for start in range(a + 1, n_languages, batch):
            others = slice(start, min(start + batch, n_languages))
            found = retrieve_units(units[a], units[others], margins, k, candidates, block)
            for margin, (forward, backward) in found.items():
                predictions[margin][a, others] = forward.int().cpu()
                predictions[margin][others, a] = backward.int().cpu()
            done += others.stop - others.start
            if progress is not None:
                progress("retrieve", done, n_languages * (n_languages - 1) // 2)
    return predictions


def hits(predictions: Tensor) -> Tensor:
    """Which sentences retrieved their own translation.

    Args:
        predictions: ``(..., n)`` indices, as `retrieve_all` gives them.

    Returns:
        Bool tensor of the same shape; False on the diagonal. Bootstrap over its last axis.
    """
    return predictions == torch.arange(predictions.shape[-1], dtype=predictions.dtype, device=predictions.device)


def accuracy(predictions: Tensor) -> Tensor:
    """Retrieval accuracy of each direction from the predictions of `retrieve_all`.

    Args:
        predictions: ``(N, N, n)`` indices.

    Returns:
        ``(N, N)`` float64, fractions; row = language of the query, column = language searched; NaN on the diagonal.
    """
    return hits(predictions).double().mean(dim=-1).fill_diagonal_(float("nan"))


def accuracy_matrix(
    vectors: Mapping[str, Tensor] | Tensor,
    margin: str = "ratio",
    k: int = 4,
    candidates: str = "all",
    block: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """`accuracy` of `retrieve_all` for one margin: the ``(N, N)`` float64 matrix, NaN on the diagonal."""
    return accuracy(retrieve_all(vectors, (margin,), k, candidates, block, progress)[margin])


class Hubness(NamedTuple):
    """How unevenly the sentences of a language are retrieved; each field has one value per direction.

    Attributes:
        never: Share of sentences that no query retrieves.
        top_share: Share of queries answered by the 1 % of sentences (rounded up) that are retrieved most often.
        skewness: Skewness of how often each sentence is retrieved (the N_1 distribution of Radovanovic et al. 2010);
            0 where all are retrieved equally often.
    """

    never: Tensor
    top_share: Tensor
    skewness: Tensor


def hubness(predictions: Tensor) -> Hubness:
    """Hubs in the predictions of each direction.

    Args:
        predictions: ``(..., n)`` indices below n, as `retrieve_all` gives them; a row of -1 (the diagonal) gives NaN.

    Returns:
        Three float64 tensors ``(...)``, fractions and skewness.
    """
    shape, n = predictions.shape[:-1], predictions.shape[-1]
    flat = predictions.reshape(-1, n).long()
    absent = (flat < 0).any(dim=1)
    counts = torch.zeros(flat.shape, dtype=torch.float64, device=flat.device)
    counts.scatter_add_(1, flat.clamp(min=0), torch.ones_like(counts))
    centred = counts - 1.0  # n queries over n sentences: the mean count is 1
    spread = centred.square().mean(dim=1)
    skewness = torch.where(spread > 0, centred.pow(3).mean(dim=1) / spread.clamp(min=1e-300).pow(1.5), 0.0)
    values = (
        (counts == 0).double().mean(dim=1),
        counts.topk(math.ceil(n / 100), dim=1).values.sum(dim=1) / n,
        skewness,
    )
    return Hubness(*(value.masked_fill(absent, float("nan")).reshape(shape) for value in values))


class MeanCosines(NamedTuple):
    """Mean cosine between languages, over all pairs of languages.

    Attributes:
        pairs: Of sentences that translate each other.
        non_pairs: Of sentences that do not: anisotropy, the floor that cosines start from. NaN for one sentence.
    """

    pairs: float
    non_pairs: float


def mean_cosines(vectors: Mapping[str, Tensor] | Tensor) -> MeanCosines:
    """Mean cosine of pairs and of non-pairs of different languages, in O(N n d) time through sums of unit vectors.

    The sum over a != b and all i, j of cos(a_i, b_j) is ``|sum of all|^2`` less the same within each language; over
    i = j it is ``sum_i |sum_a a_i|^2 - N n``.

    Args:
        vectors: As in `retrieve_all`.

    Returns:
        Both means.

    Raises:
        As `retrieve_all`.
    """
    units = _units(vectors)
    n_languages, n = len(units), len(units[0])
    totals = torch.stack([values.sum(dim=0, dtype=torch.float64) for values in units])
    by_sentence = torch.zeros_like(units[0], dtype=torch.float64)
    for values in units:
        by_sentence += values
    own = n_languages * n
    pairs = float(by_sentence.square().sum()) - own
    everything = float(totals.sum(dim=0).square().sum() - totals.square().sum())
    directions = n_languages * (n_languages - 1)
    return MeanCosines(
        pairs=pairs / (directions * n),
        non_pairs=(everything - pairs) / (directions * n * (n - 1)) if n > 1 else float("nan"),
    )


def _units(vectors: Mapping[str, Tensor] | Tensor) -> Tensor:
    """Unit vectors of all languages ``(N, n, d)`` float32, in one tensor so that a run of languages is a view."""
    named = dict(vectors) if isinstance(vectors, Mapping) else {f"language {i}": v for i, v in enumerate(vectors)}
    if len(named) < 2:
        raise OptionError(f"retrieval needs two languages or more, not {len(named)}. Name another language.")
    first, expected = next((name, values.shape) for name, values in named.items())
    for name, values in named.items():
        if values.shape != expected:
            raise ValueError(
                f"{name} has vectors {tuple(values.shape)} but {first} {tuple(expected)}: row i must be the same "
                "sentence in every language"
            )
    units = torch.empty(len(named), *expected, device=next(iter(named.values())).device)
    for row, (name, values) in zip(units, named.items(), strict=True):
        row.copy_(unit(values, name))
    return units
