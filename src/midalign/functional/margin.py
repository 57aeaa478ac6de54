"""Margin-based retrieval between parallel sentence vectors (Artetxe and Schwenk 2019; LASER's xsim).

For unit vectors x of language a and y of language b, with ``near(x)`` the mean cosine of x to its k nearest
sentences of b, and ``near(y)`` that of y to its k nearest of a:

    ratio     cos(x, y) / ((near(x) + near(y)) / 2)         the default, as in the paper
    distance  cos(x, y) -  (near(x) + near(y)) / 2
    absolute  cos(x, y), the name it has in LASER; `cosine` is the same

The algorithm scores language x against a batch of languages y. Both directions and all margins come from the same
similarities:

1. similarities by blocks of rows, ``x[rows] @ y.T``; where one block holds them all, they are computed once;
2. first pass: the k nearest along rows, and along columns merged from block to block;
3. second pass: scores and their argmax along rows, and along columns merged from block to block.

All languages of the batch share each step: on 1,000 sentences, starting and joining threads (or a kernel) costs as much
as the step itself. benchmarks/probe_retrieve.py measures that.

The literature leaves some cases open. Among equal scores the lowest index wins. Under ``nearest``, every sentence at
least as near as the k-th nearest is a candidate, so ties stay in. A negative denominator of ``ratio`` is used as it is,
as in LASER (it needs mean cosines below 0, which no language model gives). A denominator of exactly 0 counts as the
smallest positive float, so that 0 / 0 is 0 and never NaN.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from midalign.errors import ModelError, OptionError, did_you_mean
from midalign.functional.names import CANDIDATES, MARGINS

# Similarities, scores and masked scores of one block: 1 GiB together, so n up to 9,459 needs no second product.
_BLOCK_BYTES = 1 << 30
_BYTES_PER_CELL = 12

# Past so many sentences `nearest` is searched by faiss on a CPU, where it is installed (docs/probe.md, "Cost").
_FAISS_FROM = 100_000

# Similarities a batch of languages should reach: enough to amortise a step's start, few enough to stay in cache.
_BATCH_CELLS_CPU = 1 << 22
_BATCH_CELLS_DEVICE = 1 << 26


def unit(vectors: Tensor, name: str = "the vectors") -> Tensor:
    """Scale each row to unit length, in float32.

    Args:
        vectors: ``(n, d)``, any float dtype.
        name: Name of the vectors in an error message, such as the language.

    Returns:
        ``(n, d)`` float32, detached from any graph.

    Raises:
        ModelError: If a value is NaN or infinite, or a row is all zeros.
        ValueError: If the shape is not ``(n, d)``.
    """
    if vectors.ndim != 2:
        raise ValueError(f"{name}: expected (n, d), not shape {tuple(vectors.shape)}")
    values = vectors.detach().float()
    norms = torch.linalg.vector_norm(values, dim=1, dtype=torch.float64)
    if not bool(torch.isfinite(norms).all()):
        row = int((~torch.isfinite(norms)).nonzero()[0])
        raise ModelError(
            f"{name}: the vector of sentence {row} holds NaN or infinity, so no similarity can be computed. "
            "States overflow in float16: load the model in bfloat16 or float32."
        )
    if not bool((norms > 0).all()):
        row = int((norms == 0).nonzero()[0])
        raise ModelError(
            f"{name}: the vector of sentence {row} is all zeros and has no direction. "
            "Check the layer and the pooling that made it."
        )
    return torch.div(values, norms.float().unsqueeze(1))


def retrieve(
    x: Tensor,
    y: Tensor,
    margin: str = "ratio",
    k: int = 4,
    candidates: str = "all",
    block: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Margin-based retrieval between two languages: for each sentence, the best one of the other language.

    Args:
        x: Vectors ``(n, d)``; need not be of unit length.
        y: Vectors ``(m, d)``, on the same device.
        margin: One of `MARGINS`.
        k: Neighbours in the margin; 4 as in Artetxe and Schwenk 2019.
        candidates: ``all`` scores every sentence; ``nearest`` only the k nearest by cosine, as LASER's xsim does.
        block: Rows of x per block; by default as many as keep the working memory near 1 GiB.

    Returns:
        ``(n,)`` indices into y for the rows of x, and ``(m,)`` indices into x for the rows of y; int64.

    Raises:
        OptionError: If a name is unknown or ``k`` is not from 1 to the number of sentences.
        ModelError: If a vector is zero or not finite.
        ValueError: If the shapes do not fit or ``block`` is less than 1.
    """
    if x.ndim == 2 and y.ndim == 2 and x.shape[1] != y.shape[1]:
        raise ValueError(f"x has {x.shape[1]} dimensions but y {y.shape[1]}: they must come from one layer")
    check_options((margin,), k, candidates, min(len(x), len(y)))
    found = retrieve_units(unit(x, "x"), unit(y, "y").unsqueeze(0), (margin,), k, candidates, block)
    forward, backward = found[margin]
    return forward[0], backward[0]


def retrieval_accuracy(
    x: Tensor,
    y: Tensor,
    margin: str = "ratio",
    k: int = 4,
    candidates: str = "all",
    block: int | None = None,
) -> tuple[float, float]:
    """Share of sentences whose best match is their own translation, row i of x being parallel to row i of y.

    Arguments and errors as `retrieve`; x and y must have as many rows.

    Returns:
        Accuracy from x to y and from y to x, fractions.
    """
    if len(x) != len(y):
        raise ValueError(f"x has {len(x)} rows but y {len(y)}: row i of one must translate row i of the other")
    forward, backward = retrieve(x, y, margin, k, candidates, block)
    own = torch.arange(len(x), device=x.device)
    return float((forward == own).double().mean()), float((backward == own).double().mean())


def batch_size(n: int, device: torch.device) -> int:
    """Number of languages of ``n`` sentences that `retrieve_units` should be given at once; at least 1."""
    cells = _BATCH_CELLS_CPU if device.type == "cpu" else _BATCH_CELLS_DEVICE
    return max(1, cells // (n * n))


def retrieve_units(
    x: Tensor, y: Tensor, margins: Sequence[str], k: int, candidates: str, block: int | None
) -> dict[str, tuple[Tensor, Tensor]]:
    """`retrieve` between one language and several, for unit vectors and checked options.

    Args:
        x: Unit vectors of one language ``(n, d)`` float32.
        y: Unit vectors of the others ``(languages, m, d)`` float32.
        margins: Names from `MARGINS`; all are scored from the same similarities.
        k: As in `retrieve`.
        candidates: As in `retrieve`.
        block: As in `retrieve`.

    Returns:
        For each margin, indices into the rows of each y ``(languages, n)`` and into those of x ``(languages, m)``.

    Raises:
        ValueError: If ``block`` is less than 1.
    """
    if block is not None and block < 1:
        raise ValueError(f"block is the number of rows scored at a time: {block} is less than 1")
    if block is None and candidates == "nearest" and x.device.type == "cpu" and max(len(x), y.shape[1]) > _FAISS_FROM:
        with contextlib.suppress(ImportError):
            return _retrieve_by_faiss(x, y, margins, k)
    rows = block or max(1, _BLOCK_BYTES // (_BYTES_PER_CELL * y.shape[0] * y.shape[1]))
    with torch.autocast(x.device.type, enabled=False):  # a probe inside training must not score in bfloat16
        return _retrieve_blocks(x, y, margins, k, candidates == "nearest", rows)


def _retrieve_by_faiss(x: Tensor, y: Tensor, margins: Sequence[str], k: int) -> dict[str, tuple[Tensor, Tensor]]:
    """`retrieve_units` for ``nearest`` by an exact index; of sentences equally near to the k-th it takes any."""
    import faiss

    def index(vectors: Tensor) -> Any:
        found = faiss.IndexFlatIP(vectors.shape[1])
        found.add(vectors.numpy())
        return found

    def search(where: Any, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and rows of the k nearest, ``(queries, k)``, rows ascending, so that the lowest of equals wins."""
        cosines, rows = (torch.from_numpy(found) for found in where.search(queries.numpy(), k))
        rows, order = rows.sort(dim=1)
        return cosines.gather(1, order), rows

    def best(found: tuple[Tensor, Tensor], others: Tensor, margin: str) -> Tensor:
        cosines, rows = found
        scores = _margin_scores(cosines, cosines.mean(dim=1) / 2, others[rows] / 2, margin)
        return rows.gather(1, scores.argmax(dim=1, keepdim=True)).squeeze(1)

    x_index = index(x)
    matches: dict[str, list[tuple[Tensor, Tensor]]] = {margin: [] for margin in margins}
    for other in y:
        forward, backward = search(index(other), x), search(x_index, other)
        x_near, y_near = forward[0].mean(dim=1), backward[0].mean(dim=1)
        for margin in margins:
            matches[margin].append((best(forward, y_near, margin), best(backward, x_near, margin)))
    return {
        margin: (torch.stack([pair[0] for pair in found]), torch.stack([pair[1] for pair in found]))
        for margin, found in matches.items()
    }


def check_options(margins: Sequence[str], k: int, candidates: str, n: int) -> None:
    """Refuse options that `retrieve` and `retrieve_all` cannot serve over ``n`` sentences.

    Raises:
        OptionError: If a name is unknown, no margin is named, or ``k`` is not from 1 to ``n``.
    """
    check_names(margins, candidates)
    if not 1 <= k <= n:
        raise OptionError(
            f"k = {k} nearest neighbours do not fit {n} sentences, so the margin is not defined. "
            f"Write k from 1 to {n}, or give more sentences."
        )


def check_names(margins: Sequence[str], candidates: str) -> None:
    """Refuse names of margins that are not in `MARGINS`, and of candidates that are not in `CANDIDATES`.

    Raises:
        OptionError: With the allowed names and the nearest one; or if no margin is named.
    """
    for what, given, allowed in (("margin", margins, MARGINS), ("candidates", (candidates,), CANDIDATES)):
        for name in given:
            if name not in allowed:
                raise OptionError(
                    f"unknown {what} {name!r}: retrieval would not be defined. Write one of {', '.join(allowed)}."
                    f"{did_you_mean(name, allowed)}"
                )
    if not margins:
        raise OptionError(f"no margin is named. Write at least one of {', '.join(MARGINS)}.")


def _retrieve_blocks(
    x: Tensor, y: Tensor, margins: Sequence[str], k: int, only_nearest: bool, rows: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """`retrieve_units` by blocks of ``rows`` rows of x."""
    columns = y.flatten(0, 1).T
    spans = [slice(start, start + rows) for start in range(0, len(x), rows)]
    whole = (x @ columns).view(-1, *y.shape[:2]) if len(spans) == 1 else None

    def similarities(span: slice) -> Tensor:
        return (x[span] @ columns).view(-1, *y.shape[:2]) if whole is None else whole

    x_near, y_near = _nearest(similarities, spans, k)
    best = {margin: _Best(y.shape[:2], x.device) for margin in margins}
    for span in spans:
        cosines = similarities(span)
        for margin in margins:
            scores = _scores(cosines, x_near[span], y_near, margin)
            if not only_nearest:
                best[margin].add(span.start, scores, scores)
                continue
            out = float("-inf")
            best[margin].add(
                span.start,
                scores.masked_fill(cosines < x_near[span][..., -1:], out),
                scores.masked_fill(cosines < y_near[-1], out),
            )
    return {margin: (torch.cat(found.forward).T, found.backward) for margin, found in best.items()}


def _nearest(similarities: Callable[[slice], Tensor], spans: Sequence[slice], k: int) -> tuple[Tensor, Tensor]:
    """The k largest cosines of each row ``(n, languages, k)`` and column ``(k, languages, m)``, largest first."""
    along_rows: list[Tensor] = []
    along_columns: list[Tensor] = []  # of the blocks so far, (at most k, languages, m)
    for span in spans:
        cosines = similarities(span)
        along_rows.append(cosines.topk(k, dim=-1).values)
        along_columns.append(cosines.topk(min(k, len(cosines)), dim=0).values)
        if len(along_columns) > 1:
            merged = torch.cat(along_columns)
            along_columns = [merged.topk(min(k, len(merged)), dim=0).values]
    return torch.cat(along_rows), along_columns[0]


def _scores(cosines: Tensor, x_near: Tensor, y_near: Tensor, margin: str) -> Tensor:
    """Margin scores ``(rows, languages, m)`` from cosines and what `_nearest` gives for the same rows."""
    return _margin_scores(cosines, x_near.mean(dim=-1) / 2, y_near.mean(dim=0) / 2, margin)


def _margin_scores(cosines: Tensor, half_x: Tensor, half_y: Tensor, margin: str) -> Tensor:
    """Margin scores from cosines ``(..., m)`` and half the mean cosine of each side to its neighbours.

    Args:
        cosines: Of candidates.
        half_x: Of the rows' neighbours, ``(...)``.
        half_y: Of the candidates' neighbours, of a shape that goes with ``(..., m)``.
        margin: One of `MARGINS`.
    """
    if margin in ("absolute", "cosine"):
        return cosines
    means = half_x.unsqueeze(-1) + half_y
    if margin == "distance":
        return torch.sub(cosines, means, out=means)
    if bool(half_x.min() + half_y.min() <= 0):  # else no sum can be 0, and a pass over the block is saved
        means.masked_fill_(means == 0, torch.finfo(means.dtype).tiny)
    return torch.div(cosines, means, out=means)


class _Best:
    """The best match of every row and every column so far, over blocks of rows."""

    def __init__(self, shape: torch.Size, device: torch.device) -> None:
        self.forward: list[Tensor] = []  # of each block, (rows, languages)
        self.backward = torch.zeros(shape, dtype=torch.int64, device=device)
        self._score = torch.full(shape, float("-inf"), device=device)

    def add(self, start: int, forward_scores: Tensor, backward_scores: Tensor) -> None:
        """Add the scores of the block whose first row is ``start``; among equal scores the lowest index stays."""
        self.forward.append(forward_scores.argmax(dim=-1))
        score, row = backward_scores.max(dim=0)
        better = score > self._score
        self.backward = torch.where(better, row + start, self.backward)
        self._score = torch.where(better, score, self._score)
