"""Layout of a batch whose rows are packed one after another, so that almost no padding is computed.

A padded batch of sentences is mostly padding: two tokens of three for Tatoeba's pairs. In a packed batch, several rows
share a bin; a token attends to its own row only (block-diagonal attention) and has the position that it has in its
row. The beginning that all rows share, such as the task's prompt, is stored once in each bin.

1. `fill_bins` decides which rows share a bin: few wide bins pad little, many narrow ones have little to attend to;
2. `Layout` says which token is at each place of each bin, who attends to whom, and whose token it is.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SHARED, PADDING = -1, -2
"""What `Layout.row` says of places that belong to no row of their own."""


def fill_bins(lengths: Sequence[int], shared: int, hidden: int) -> list[list[int]]:
    """Distribute rows over bins so that the bins, each as wide as the widest, cost least.

    For 1, 2, 4, ... bins, the rows go to the emptiest bin, longest first. A bin of width w costs w (1 + w / 3 hidden):
    the linear layers of a block take about 24 hidden^2 FLOP a token, its attention 4 w hidden, at half the speed.

    Args:
        lengths: Tokens of each row.
        shared: So many tokens that all rows begin with stand once in each bin.
        hidden: Hidden size of the model.

    Returns:
        The numbers of the rows in each bin.
    """
    own = [length - shared for length in lengths]
    longest_first = sorted(range(len(own)), key=lambda row: (-own[row], row))

    def filled(count: int) -> tuple[float, list[list[int]]]:
        bins: list[list[int]] = [[] for _ in range(count)]
        emptiest = [(0, number) for number in range(count)]
        for row in longest_first:
            load, number = heapq.heappop(emptiest)
            bins[number].append(row)
            heapq.heappush(emptiest, (load + own[row], number))
        width = shared + max(load for load, _ in emptiest)
        return count * width * (1 + width / (3 * hidden)), bins

    counts = [2**power for power in range(len(lengths).bit_length()) if 2**power <= len(lengths)]
    return min((filled(count) for count in counts), key=lambda found: found[0])[1]


@dataclass(frozen=True)
class Layout:
    """What stands at each place of each bin.

    Attributes:
        row: ``(bins, width)``: the row that a token belongs to, `SHARED`, or `PADDING`.
        column: ``(bins, width)``: its position in that row; 0 for padding.
    """

    row: Tensor
    column: Tensor

    @classmethod
    def of(cls, lengths: Sequence[int], bins: Sequence[Sequence[int]], shared: int = 0) -> Layout:
        """Rows of these lengths in these bins, what they share first."""
        width = shared + max(sum(lengths[row] - shared for row in rows) for rows in bins)
        row, column = np.full((len(bins), width), PADDING), np.zeros((len(bins), width), dtype=np.int64)
        row[:, :shared], column[:, :shared] = SHARED, np.arange(shared)
        for number, rows in enumerate(bins):
            start = shared
            for each in rows:
                end = start + lengths[each] - shared
                row[number, start:end], column[number, start:end] = each, np.arange(shared, lengths[each])
                start = end
        return cls(torch.from_numpy(row), torch.from_numpy(column))

    def to(self, device: torch.device) -> Layout:
        """The layout on a device."""
        return Layout(self.row.to(device), self.column.to(device))

    def pack(self, values: Tensor) -> Tensor:
        """``(rows, seq)`` in bins, ``(bins, width)``; padding repeats some real value."""
        return values[self.row.clamp(min=0), self.column]

    def attention_mask(self) -> Tensor:
        """Boolean ``(bins, 1, width, width)``: a token sees itself and what came before it in its row, or is shared."""
        seen = (self.row[:, :, None] == self.row[:, None, :]) | (self.row == SHARED)[:, None, :]
        return seen.tril()[:, None]

    def weights(self, weights: Tensor) -> Tensor:
        """Weights of tokens ``(rows, seq)`` as ``(rows, bins, width)``, 0 at the tokens of other rows."""
        owner = torch.arange(len(weights), device=weights.device)[:, None, None]
        return self.pack(weights) * (self.row == owner)
