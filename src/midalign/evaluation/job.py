"""The job of ``midalign evaluate``: read gold and predictions, score and compare them, write ``scores.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from midalign.answers.format import AnswerFormat
from midalign.answers.predictions import read_predictions
from midalign.data.examples import TaskSource
from midalign.data.parallel.moses import named_files
from midalign.errors import RunError
from midalign.evaluation.comet import DEFAULT_MODEL, SEGMENTS, read_segments, score_comet, write_segments
from midalign.evaluation.score import (
    COMPARISONS,
    SCORES,
    check_metrics,
    compare_runs,
    score,
    score_over_seeds,
    write_scores,
)
from midalign.files import write_json
from midalign.languages import canonical
from midalign.metrics.chat import own_metric_files
from midalign.metrics.comparison import PairedScore
from midalign.progress import Progress
from midalign.records import RESAMPLES, SEED, Score, TaskName
from midalign.runs import Job, Run


class Evaluation(NamedTuple):
    """Result of an evaluation."""

    scores: Sequence[Score]
    comparisons: Sequence[PairedScore]


@dataclass(frozen=True)
class EvaluateJob(Job[Evaluation]):
    """Scores of the predictions of one system, for one split of a task.

    Attributes:
        items: The items with their gold answers.
        predictions: Files of predictions; several are seeds of one system.
        answer_format: Style of the answers that was asked for.
        groups: Languages of each group to report.
        baseline: Predictions of another system for the same items, for paired tests.
        comet: Segment scores of COMET, one file for each of `predictions`.
        baseline_comet: Those of the baseline.
        resamples: Bootstrap resamples behind every interval.
        seed: Seed of the bootstrap.

    Raises:
        RunError: If the files of predictions, segment scores and baseline do not fit together.
    """

    verb: ClassVar[str] = "evaluate"
    result: ClassVar[str] = SCORES

    items: TaskSource
    predictions: tuple[str, ...]
    answer_format: AnswerFormat = AnswerFormat()
    groups: Mapping[str, tuple[str, ...]] | None = None
    baseline: str | None = None
    comet: tuple[str, ...] = ()
    baseline_comet: str | None = None
    resamples: int = RESAMPLES
    seed: int = SEED

    def __post_init__(self) -> None:
        check_metrics(self.items.task, self.answer_format)
        self.answer_format.check_task(self.items.task)
        if len(set(self.predictions)) < len(self.predictions):
            raise RunError("--predictions names a file twice; each file is another seed of the same system")
        if self.comet and len(self.comet) != len(self.predictions):
            raise RunError(
                f"--comet was given {len(self.comet)} times and --predictions {len(self.predictions)} times; give one "
                "segments.jsonl for each, in the same order"
            )
        if self.baseline is not None and len(self.predictions) > 1:
            raise RunError(
                "--baseline tests two runs on the same items, and which of several seeds should count is not clear; "
                "give one --predictions, or score each system's seeds by themselves"
            )
        if (self.baseline_comet is not None) != bool(self.baseline is not None and self.comet):
            raise RunError("to compare COMET, give --baseline, --comet and --baseline-comet together")

    def paths(self) -> list[str | None]:
        """What the job reads."""
        own = own_metric_files(self.answer_format)
        data = named_files(self.items.data)
        return [*data, *self.predictions, *self.comet, self.baseline, self.baseline_comet, *own]

    def finish(self, run: Run, progress: Progress | None = None) -> Evaluation:  # noqa: ARG002 - it takes seconds
        """Score into the run's folder.

        Raises:
            UserError: If gold and predictions do not fit.
        """
        found = self.write(run.out)
        run.finish(seeds=[self.seed])
        return found

    def write(self, out: Path) -> Evaluation:
        """Score into a folder that already has a manifest, such as that of the answers.

        Raises:
            UserError: As `finish`.
        """
        found = [read_predictions(path) for path in self.predictions]
        examples = self.items.read()
        self.answer_format.check_examples(examples, self.items.data)
        segments = [read_segments(Path(path), of) for path, of in zip(self.comet, found, strict=False)]
        options: dict[str, Any] = {"groups": self.groups, "resamples": self.resamples, "seed": self.seed}
        if len(found) > 1:
            scores: Sequence[Score] = score_over_seeds(
                examples, found, self.answer_format, segments=segments, **options
            )
        else:
            first = segments[0] if segments else None
            scores = score(examples, found[0], self.answer_format, segments=first, **options)
        comparisons: Sequence[PairedScore] = ()
        if self.baseline is not None:
            before = read_predictions(self.baseline)
            both = None
            if self.baseline_comet is not None:
                both = (read_segments(Path(self.baseline_comet), before), segments[0])
            comparisons = compare_runs(examples, before, found[0], self.answer_format, segments=both, **options)
        write_scores(scores, out / SCORES)
        if comparisons:
            write_json(out / COMPARISONS, {"comparisons": [comparison.as_dict() for comparison in comparisons]})
        return Evaluation(scores, comparisons)


def answered_languages(task: TaskName, file: str) -> tuple[str, ...] | None:
    """The languages that a file of predictions names; None if it names none, or for translation.

    Raises:
        DataError: As `read_predictions`.
        LanguageError: A language code is not known.
    """
    answers = [prediction for prediction in read_predictions(file) if prediction.language]
    found = dict.fromkeys(canonical(answer.language, f"{file}, item {answer.id}") for answer in answers)
    return tuple(found) if found and task != "translation" else None


@dataclass(frozen=True)
class CometJob(Job[Sequence[Score]]):
    """COMET of the translations of one system, with segment scores beside its scores.

    Attributes:
        items: The translations with their references.
        predictions: File of predictions.
        model: Checkpoint, folder with one, or hub name.
        env: Folder of COMET's environment; None for midalign's own.
        resamples: Bootstrap resamples behind every interval.
        seed: Seed of the bootstrap.
    """

    verb: ClassVar[str] = "comet score"
    result: ClassVar[str] = SCORES

    items: TaskSource
    predictions: str
    model: str = DEFAULT_MODEL
    env: str | None = None
    resamples: int = RESAMPLES
    seed: int = SEED

    def paths(self) -> list[str]:
        """What the job reads."""
        return [*named_files(self.items.data), self.predictions, self.model]

    def finish(self, run: Run, progress: Progress | None = None) -> Sequence[Score]:  # noqa: ARG002 - COMET has its own
        """Score into the run's folder.

        Raises:
            UserError: As of `midalign.evaluation.comet.score_comet`.
        """
        found = read_predictions(self.predictions)
        examples = self.items.read()
        env = None if self.env is None else Path(self.env)
        with run.timed("comet"):
            scores, segments = score_comet(
                examples, found, model=self.model, env=env, resamples=self.resamples, seed=self.seed
            )
        write_segments(segments, found, run.out / SEGMENTS)
        write_scores(scores, run.out / SCORES)
        run.finish(seeds=[self.seed])
        return scores
