"""Loss of the gold answers as a metric of every task, where the predictions hold it.

It is what training minimises: cross-entropy in nats, over all tokens of the gold answers, end tokens included. It
changes with every example, also where greedy answers stay the same. It counts how sure a model is as well: one that is
trained for many passes may answer better at a higher loss.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from midalign.metrics.scoring import Measure, Predictions, Stratum, by_language, share
from midalign.metrics.translation import by_direction
from midalign.records import TaskExample

logger = logging.getLogger(__name__)

LOSS = "loss"


def has_loss(predictions: Predictions) -> bool:
    """Whether the loss of the gold answer is there for every prediction; warns where only some have it."""
    if isinstance(predictions, Mapping):
        return False
    losses = [(prediction.id, prediction.gold_loss) for prediction in predictions]
    without = [name for name, loss in losses if loss is None]
    if 0 < len(without) < len(losses):
        logger.warning(
            "%d of %d predictions have no gold_loss (%s is the first), so the metric loss is left out; answer them "
            "again with `midalign generate` for it",
            len(without),
            len(losses),
            without[0],
        )
    return not without


def has_comparable_loss(runs: Sequence[Predictions]) -> bool:
    """Whether all runs have a loss (`has_loss`) over the same tokens; warns where they count different ones."""
    if not all(map(has_loss, runs)):
        return False
    counts: dict[str, int | None] = {}
    for predictions in runs:
        assert not isinstance(predictions, Mapping)
        for prediction in predictions:
            known = counts.setdefault(prediction.id, prediction.gold_tokens)
            if known != prediction.gold_tokens:
                logger.warning(
                    "the gold answer of %s has %s tokens in one file of predictions and %s in another, so that a mean "
                    "over tokens is not the same quantity in both; the metric loss is left out. Compare losses only of "
                    "models with one tokenizer and chat template",
                    prediction.id,
                    known,
                    prediction.gold_tokens,
                )
                return False
    return True


def with_loss(strata: Sequence[Stratum], examples: Sequence[TaskExample], predictions: Predictions) -> list[Stratum]:
    """Strata of a task with the loss of the gold answers as a further measure.

    Args:
        strata: The statistics of `predictions`, by any task.
        examples: Gold.
        predictions: Records with their losses (`has_loss`).
    """
    assert not isinstance(predictions, Mapping)
    losses = {prediction.id: (prediction.gold_loss, prediction.gold_tokens) for prediction in predictions}
    found = [losses[example.id] for example in examples]
    if examples[0].task == "translation":
        rows = [values for _, _, values in by_direction(examples, found)]
    else:
        rows = list(by_language(examples, found).values())
    return [_widened(stratum, [loss for _, loss in values]) for stratum, values in zip(strata, rows, strict=True)]


def _widened(stratum: Stratum, losses: Sequence[tuple[float | None, int | None]]) -> Stratum:
    width = stratum.stats.shape[1]
    measure = Measure(
        LOSS, slice(width, width + 2), share, "loss|cross-entropy of the gold answers|nats|mean over tokens"
    )
    stats = np.hstack([stratum.stats, np.array(losses, dtype=np.float64)])
    return replace(stratum, stats=stats, measures=(*stratum.measures, measure))
