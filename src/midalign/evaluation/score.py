"""Scores of predictions against gold, by language and group, into ``scores.json``; no model needed.

1. `score` gives every metric of one run's predictions, `score_over_seeds` of several runs that differ in their seed;
2. `compare_runs` tests two runs on the same items;
3. the loss of the gold answers is one more metric, where the predictions hold it (`midalign.metrics.loss`);
4. segment scores of COMET, if there are any, are treated like the task's own metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from midalign.answers.format import AnswerFormat
from midalign.errors import DataError
from midalign.files import write_json
from midalign.metrics.chat import chat_strata, check_metric
from midalign.metrics.comparison import PairedScore, compare_strata
from midalign.metrics.extraction import extraction_strata
from midalign.metrics.loss import has_comparable_loss, has_loss, with_loss
from midalign.metrics.scoring import Groups, Predictions, Stratum, score_strata
from midalign.metrics.seeds import SeedScore, score_seeds
from midalign.metrics.slots import slot_strata
from midalign.metrics.translation import SegmentScores, segment_strata, translation_strata
from midalign.records import RESAMPLES, SEED, TRIALS, Score, TaskExample, TaskName

SCORES = "scores.json"
COMPARISONS = "comparisons.json"
_MAIN_METRIC: dict[TaskName, str] = {"slots": "slot_f1", "translation": "chrf", "extraction": "entity_f1"}


def main_metric(task: TaskName, answer_format: AnswerFormat = AnswerFormat()) -> str:
    """The metric that a task's settings are chosen by, and that a report shows first."""
    return answer_format.metrics[0] if task == "chat" else _MAIN_METRIC[task]


def check_metrics(task: TaskName, answer_format: AnswerFormat) -> None:
    """Check, before any work is done, that answers can be scored by the metrics that are asked for.

    Raises:
        MissingExtraError: If a metric needs a package that is not installed.
        RunError: If there is no such metric.
    """
    if task == "chat":
        for name in answer_format.metrics:
            check_metric(name)


def check_references(examples: Sequence[TaskExample], answer_format: AnswerFormat) -> None:
    """Check that ``json_match`` can score these items, before any work is done; every other metric by name can.

    Raises:
        DataError: If a reference is not JSON.
    """
    if examples and examples[0].task == "chat" and "json_match" in answer_format.metrics:
        chat_strata(examples, {example.id: example.reference for example in examples}, ["json_match"])


def strata_of(
    examples: Sequence[TaskExample],
    predictions: Predictions,
    answer_format: AnswerFormat = AnswerFormat(),
    *,
    loss: bool = True,
    only: str | None = None,
) -> list[Stratum]:
    """Statistics of every item by language, for all metrics of the examples' task.

    Args:
        examples: Gold, all of one task.
        predictions: One per example, matched by id: records, or texts by id.
        answer_format: What was asked for.
        loss: Add the loss of the gold answers, if all predictions hold it.
        only: The one metric that is wanted; of the other ones, those that take time are left out.

    Raises:
        DataError: If there are no examples, predictions are missing, or have no example.
    """
    kept = _kept(predictions)
    strata = _strata_of_task(examples, kept, answer_format, only)
    return with_loss(strata, examples, kept) if loss and has_loss(kept) else strata


def _kept(predictions: Predictions) -> Predictions:
    """Predictions that can be read more than once."""
    return predictions if isinstance(predictions, Mapping) else list(predictions)


def _strata_of_task(
    examples: Sequence[TaskExample], predictions: Predictions, answer_format: AnswerFormat, only: str | None
) -> list[Stratum]:
    if examples and examples[0].task == "translation":
        return translation_strata(examples, predictions, only and [only])
    if examples and examples[0].task == "extraction":
        return extraction_strata(examples, predictions)
    if examples and examples[0].task == "chat":
        return chat_strata(examples, predictions, [only] if only else answer_format.metrics)
    return slot_strata(examples, predictions, style=answer_format.style)


def score(
    examples: Sequence[TaskExample],
    predictions: Predictions,
    answer_format: AnswerFormat = AnswerFormat(),
    *,
    groups: Groups | None = None,
    segments: SegmentScores | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> list[Score]:
    """Scores of predictions: every metric of the examples' task, with 95 % bootstrap intervals.

    Args:
        examples: Gold, all of one task.
        predictions: One per example, matched by id: records, or texts by id.
        answer_format: What was asked for.
        groups: Languages of each group; a group's value is the mean over its languages.
        segments: COMET's scores of these predictions (translation only), as a further metric.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        DataError: If predictions are missing, or have no example; or segments are given for another task.

    Examples:
        >>> examples = midalign.read_task("slots", languages=["en"])  # "call at test0", datetime: test0; ...
        >>> answers = {example.id: f"datetime: {example.words[2]}" for example in examples}
        >>> found = midalign.score(examples, answers)[0]
        >>> found.metric, found.value, found.language
        ('slot_f1', 1.0, 'eng_Latn')
    """
    return [
        found
        for strata in _all_strata(examples, predictions, answer_format, segments, True)
        for found in score_strata(strata, groups, resamples, seed)
    ]


def score_over_seeds(
    examples: Sequence[TaskExample],
    runs: Sequence[Predictions],
    answer_format: AnswerFormat = AnswerFormat(),
    *,
    groups: Groups | None = None,
    segments: Sequence[SegmentScores] = (),
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> list[SeedScore]:
    """Scores over runs that differ in their seed: mean, standard deviation, interval over seeds and items.

    Args:
        examples: Gold, all of one task.
        runs: The predictions of each seed, one per example.
        answer_format: As in `score`.
        groups: As in `score`.
        segments: COMET's scores of each run's predictions, in their order; or none.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        DataError: As `score`; fewer than two runs; or the segment scores are of different models.
    """
    _check_one_model(segments)
    beside: list[SegmentScores | None] = [*segments] or [None] * len(runs)
    kept = [_kept(predictions) for predictions in runs]
    loss = has_comparable_loss(kept)
    by_seed = [
        _all_strata(examples, predictions, answer_format, scores, loss)
        for predictions, scores in zip(kept, beside, strict=True)
    ]
    return [found for strata in zip(*by_seed, strict=True) for found in score_seeds(strata, groups, resamples, seed)]


def compare_runs(
    examples: Sequence[TaskExample],
    baseline: Predictions,
    predictions: Predictions,
    answer_format: AnswerFormat = AnswerFormat(),
    *,
    groups: Groups | None = None,
    segments: tuple[SegmentScores, SegmentScores] | None = None,
    resamples: int = RESAMPLES,
    trials: int = TRIALS,
    seed: int = SEED,
) -> list[PairedScore]:
    """Paired comparison of two runs on the same items: every metric's difference, interval and p-values.

    Args:
        examples: Gold, all of one task.
        baseline: Predictions of the run to compare with.
        predictions: Predictions of the other.
        answer_format: As in `score`.
        groups: As in `score`.
        segments: COMET's scores of both, by the same model.
        resamples: Resamples of the paired bootstrap.
        trials: Trials of the approximate randomisation.
        seed: Seed of both tests.

    Raises:
        DataError: As `score`; or the segment scores are of different models.

    Examples:
        >>> examples = midalign.read_task("slots", languages=["en"])
        >>> before = {example.id: "None" for example in examples}
        >>> after = {example.id: f"datetime: {example.words[2]}" for example in examples}
        >>> found = midalign.compare_runs(examples, before, after)[0]
        >>> found.difference, found.low, found.high
        (1.0, 1.0, 1.0)
    """
    _check_one_model(segments or ())
    before, after = _kept(baseline), _kept(predictions)
    loss = has_comparable_loss([before, after])
    first = _all_strata(examples, before, answer_format, segments[0] if segments else None, loss)
    second = _all_strata(examples, after, answer_format, segments[1] if segments else None, loss)
    return [
        found
        for one, other in zip(first, second, strict=True)
        for found in compare_strata(one, other, groups=groups, resamples=resamples, trials=trials, seed=seed)
    ]


def _check_one_model(segments: Sequence[SegmentScores]) -> None:
    if len(signatures := sorted({each.signature for each in segments})) > 1:
        raise DataError(
            f"segment scores of {signatures[0]!r} and {signatures[1]!r} cannot be compared or averaged; score all with "
            "one model"
        )


def _all_strata(
    examples: Sequence[TaskExample],
    predictions: Predictions,
    answer_format: AnswerFormat,
    segments: SegmentScores | None,
    loss: bool,
) -> list[list[Stratum]]:
    """The strata of the task's metrics and, where there are segment scores, those of theirs."""
    found = [strata_of(examples, predictions, answer_format, loss=loss)]
    if segments is not None:
        if examples[0].task != "translation":
            raise DataError(f"segment scores are of translations, and the task is {examples[0].task!r}; leave them out")
        found.append(segment_strata(examples, segments))
    return found


def write_scores(scores: Sequence[Score], path: Path) -> None:
    """Write ``scores.json``: ``{"scores": [{metric, language or group, value, low, high, n, signature}]}``."""
    write_json(path, {"scores": [score.as_dict() for score in scores]})
