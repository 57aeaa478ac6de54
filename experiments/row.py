"""One row of a table of claims: the paper's figure, ours, and whether the claim holds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    number: int
    claim: str
    paper: str
    ours: str
    verdict: str
