"""Trackers of a training (``training.report_to``): which can be used here, and where TensorBoard's files go."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from midalign.errors import did_you_mean

_VARIABLE = "TENSORBOARD_LOGGING_DIR"


def tracker_faults(names: Sequence[str]) -> Iterator[str]:
    """What is wrong with the names of trackers: no tracker of transformers, or one whose package is not installed."""
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            hint = did_you_mean(name, INTEGRATION_TO_CALLBACK)
            yield f"report_to names {name!r}, which is not a tracker that transformers knows.{hint}"
        elif name not in get_available_reporting_integrations():
            yield (
                f"report_to names {name!r}, whose package is not installed; install it (pip install "
                "'midalign[trackers]' brings tensorboard and wandb), or write report_to: none"
            )


@contextmanager
def tensorboard_in(folder: Path) -> Iterator[None]:
    """A trainer made in this context writes TensorBoard's files to `folder`, unless the user's variable says where.

    Left to itself it would write them beside the checkpoints, which are removed when the adapter is saved.
    """
    if _VARIABLE in os.environ:
        yield
        return
    os.environ[_VARIABLE] = str(folder)
    try:
        yield
    finally:
        del os.environ[_VARIABLE]
