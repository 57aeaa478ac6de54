"""The progress of long work, as every verb reports it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as ``progress(description, done, total)``; what stands behind " (" in the description may change."""
