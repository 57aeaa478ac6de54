"""Ids of examples, by which predictions find their item."""

from __future__ import annotations

from collections.abc import Sequence

from midalign.errors import DataError
from midalign.records import TaskExample


def check_ids_differ(examples: Sequence[TaskExample]) -> None:
    """Refuse examples of which two have the same id, as those of a file and its packed copy have.

    Raises:
        DataError: Naming the first such id.
    """
    seen: set[str] = set()
    for example in examples:
        if example.id in seen:
            raise DataError(
                f"the id {example.id!r} occurs twice, so predictions could not be told apart; give the files "
                "different names, and keep one of two copies"
            )
        seen.add(example.id)
