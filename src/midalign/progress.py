"""Progress of long work, as every workflow reports it and the command line shows it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as ``progress(description, done, total)``; what stands behind " (" in the description may change."""
