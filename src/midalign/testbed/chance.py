"""Random numbers that depend only on what they are for; the same on every machine."""

from __future__ import annotations

import hashlib
import random


def bucket(seed: int, *what: object, of: int = 1000) -> int:
    """Hash bucket: a number from 0 to ``of - 1`` that depends only on ``seed`` and ``what``."""
    digest = hashlib.blake2b(repr((seed, *what)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % of


def chance(*what: object) -> random.Random:
    """A random generator that depends only on ``what``."""
    return random.Random(" ".join(map(str, what)))  # noqa: S311 - nothing secret is drawn here
