"""Tuning of merge weights on dev data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from midalign.data.prompt_tokens import training_rows
from midalign.errors import DataError
from midalign.evaluation.score import main_metric, strata_of
from midalign.files import read_json, write_json
from midalign.functional.statistics import FloatArray, paired_result, percentiles, resample_sums
from midalign.generation.answer_loss import answer_losses
from midalign.generation.generate import generate
from midalign.merging.folding import Folded
from midalign.merging.live_adapters import LiveAdapters
from midalign.merging.search import (
    Memo,
    Outcome,
    Weights,
    choose,
    clearly_worse,
    coordinate,
    golden,
    golden_evaluations,
    grid,
)
from midalign.metrics.loss import LOSS
from midalign.metrics.scoring import mean_draw, mean_value, resampled_values
from midalign.models.hidden import unwrap
from midalign.models.limits import context_window
from midalign.progress import Progress
from midalign.recipe.sections import MergeSection, Recipe
from midalign.records import TaskExample

logger = logging.getLogger(__name__)


def tune_weights(
    model: Any,
    tokenizer: Any,
    adapters: Mapping[str, Path],
    recipe: Recipe,
    dev: Sequence[TaskExample],
    *,
    progress: Progress | None = None,
    partial: Path | None = None,
    begin: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Search the merge weights of the recipe's ``merge:`` section on dev data.

    Args:
        model: The base model, used for all candidates and restored afterwards.
        tokenizer: Its tokenizer.
        adapters: Folders of the adapters ``task`` and ``alignment``.
        recipe: Gives the search, the objective, and the settings of prompts, generation and bootstrap.
        dev: Dev examples; never the test set.
        progress: Called with a description, the number of finished candidates and the expected total.
        partial: File of finished candidates, to resume from; None keeps nothing.
        begin: Called once the adapters and the dev items have been checked, before the first candidate.

    Returns:
        ``metric`` (of the objective: the task's main metric, or ``loss`` in nats a token, which is better where it
        is lower), ``objective``, ``search``, ``n``; ``table`` with one row per candidate in the order tried:
        ``weights``, ``score`` with the 95 % bootstrap interval ``low`` to ``high``, ``difference`` (score less that of
        the best) with its paired interval ``difference_low`` to ``difference_high``, and ``worse``, whether it is
        clearly worse than the best (`midalign.merging.search.clearly_worse`); ``evaluations``, the rows of the table;
        ``chosen``, the weights of the best, among equals the least alignment; ``flat``: no candidate is clearly worse.

    Raises:
        DataError: There are no dev items, or one does not fit into the model's window.
        ModelError: An adapter is refused, or there are more bands than the model has blocks.
        RunError: `partial` cannot be written to, or is damaged.
    """
    if not dev:
        raise DataError("there are no dev items to tune merge weights on; check task.dev_split and task.limit_dev")
    sign = -1.0 if recipe.merge.objective == "loss" else 1.0
    measure = _loss_of if recipe.merge.objective == "loss" else _score_of
    metric = LOSS if recipe.merge.objective == "loss" else main_metric(recipe.task.name, recipe.answer_format)
    expected = _expected(recipe.merge)
    with LiveAdapters(model, adapters) as live, Folded(live.model) as folded:
        outcome_of = measure(live.model, tokenizer, dev, recipe)

        def evaluate(weights: Weights) -> Outcome:
            live.set_weights(weights)
            folded.refresh()
            value, draws = outcome_of()
            logger.info("task %s, alignment %s: %s %.4f on dev", weights["task"], weights["alignment"], metric, value)
            done = len(memo.outcomes) + 1
            if progress is not None:
                progress("tuning weights", done, max(done, expected))
            outcome = Outcome(weights, sign * value, sign * draws)
            if partial is not None:
                _keep([*memo.outcomes, outcome], partial)
            return outcome

        if begin is not None:
            begin()
        memo = Memo(evaluate, _kept(partial))
        _search(memo, recipe.merge)
    if progress is not None and len(memo.outcomes) < expected:
        progress("tuning weights", expected, expected)
    best = choose(memo.outcomes)
    table = _table(memo.outcomes, best, sign)
    return {
        "metric": metric,
        "objective": recipe.merge.objective,
        "search": recipe.merge.search,
        "n": len(dev),
        "table": table,
        "evaluations": len(table),
        "chosen": best.weights,
        "flat": not any(row["worse"] for row in table),
    }


def _keep(outcomes: Sequence[Outcome], partial: Path) -> None:
    """Write the finished candidates to a file, whole."""
    write_json(partial, [asdict(outcome) | {"draws": outcome.draws.tolist()} for outcome in outcomes])


def _kept(partial: Path | None) -> list[Outcome]:
    """The candidates that an interrupted call has finished; JSON keeps every digit of a number."""
    if partial is None or not partial.exists():
        return []
    return [Outcome(row["weights"], row["value"], np.array(row["draws"])) for row in read_json(partial)]


def _search(memo: Memo, section: MergeSection) -> None:
    values = section.alignment_weights
    if section.search == "grid":
        grid(memo, section.task_weights, values)
    elif section.search == "golden":
        golden(memo, section.task_weights[0], min(values), max(values), section.tolerance)
    else:
        coordinate(memo, section.task_weights, values, section.bands)


def _expected(section: MergeSection) -> int:
    """Number of candidates that will be tried; for coordinate search, in its first round."""
    values = section.alignment_weights
    if section.search == "grid":
        return len(set(section.task_weights)) * len(set(values))
    if section.search == "golden":
        return golden_evaluations(min(values), max(values), section.tolerance)
    axes = 1 if section.bands == 1 else 1 + section.bands
    return axes * (len(set(values)) - 1) + len(set(section.task_weights))


def _table(outcomes: Sequence[Outcome], best: Outcome, sign: float) -> list[dict[str, Any]]:
    rows = []
    for outcome, worse in zip(outcomes, clearly_worse(outcomes, best), strict=True):
        low, high = percentiles(sign * outcome.draws)
        against = paired_result(sign * best.value, sign * outcome.value, sign * best.draws, sign * outcome.draws)
        rows.append(
            {"weights": outcome.weights, "score": against.b, "low": low, "high": high}
            | {"difference": against.difference, "difference_low": against.low, "difference_high": against.high}
            | {"worse": worse}
        )
    return rows


def _score_of(
    model: Any, tokenizer: Any, dev: Sequence[TaskExample], recipe: Recipe
) -> Callable[[], tuple[float, FloatArray]]:
    """Objective: the task's main metric of the model in its current state, with its resampled values."""
    name = main_metric(recipe.task.name, recipe.answer_format)

    def measure() -> tuple[float, FloatArray]:
        predictions = generate(
            model,
            tokenizer,
            dev,
            recipe.answer_format,
            max_new_tokens=recipe.generation.max_new_tokens,
            batch_tokens=recipe.generation.batch_tokens,
        )
        strata = strata_of(dev, predictions, recipe.answer_format, only=name)
        draws = resampled_values(strata, recipe.evaluation.resamples)
        return mean_value(strata, name), mean_draw(draws, name)

    return measure


def _loss_of(
    model: Any, tokenizer: Any, dev: Sequence[TaskExample], recipe: Recipe
) -> Callable[[], tuple[float, FloatArray]]:
    """Objective: the mean loss over all answer tokens of the model in its current state, with its resampled values."""
    rows = training_rows(
        dev,
        tokenizer,
        recipe.answer_format,
        max_length=context_window(unwrap(model).config, tokenizer),
    )

    def measure() -> tuple[float, FloatArray]:
        found = answer_losses(model, rows, recipe.generation.batch_tokens)
        sums, whole = resample_sums(found, recipe.evaluation.resamples), found.sum(axis=0)
        return float(whole[0] / whole[1]), sums[:, 0] / sums[:, 1]

    return measure
