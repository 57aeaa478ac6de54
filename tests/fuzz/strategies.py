"""Damage: files with bytes flipped, cut or put in, JSON values of any type, nested deeply, and of any size."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st

from midalign.errors import UserError

FEW_OR_MANY = pytest.mark.parametrize("cases", [20, pytest.param(500, marks=pytest.mark.slow)])
"""How many cases a property is tried on: a sample in the usual suite, many in the slow one."""

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
NESTED = st.integers(1, 3000).map(lambda depth: "[" * depth + "]" * depth)
HUGE = st.sampled_from(["1" * 5000, "-1e999", "1e-999", "0." + "1" * 3000, "NaN", "Infinity"])
ESCAPES = st.sampled_from([r'"\ud83d"', r'"\ude00\ud83d"', r'"\u0000"', '"\x01"', r'"\x"', '"\u2028"', '"\x85"'])


def outcome(read: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """What a reader gives, or its message; any other exception is a fault of ours, and fails the test."""
    try:
        return read(*arguments), ""
    except UserError as fault:
        return None, str(fault) or "an empty message"


def values() -> st.SearchStrategy[str]:
    """A JSON value as text, not always a valid one."""
    plain = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=6,
    )
    return st.builds(json.dumps, plain, ensure_ascii=st.booleans()) | NESTED | HUGE | ESCAPES


@st.composite
def damaged(draw: st.DrawFn, whole: bytes, most: int = 4) -> bytes:
    """The content of a file with a few bytes flipped, taken out or put in, or cut off."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["flip", "insert", "remove", "cut", "repeat"]))
        if kind == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "insert":
            data[at:at] = draw(
                st.binary(min_size=1, max_size=4) | st.sampled_from([b"\r", b"\n", b"\xef\xbb\xbf", b"\0"])
            )
        elif kind == "remove":
            del data[at : at + draw(st.integers(1, 8))]
        elif kind == "cut":
            del data[at:]
        else:
            data[at:at] = data[max(0, at - 20) : at]
    return bytes(data)
