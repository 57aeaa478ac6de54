"""``midalign evaluate``: scores of anybody's predictions, over seeds, against a baseline, with COMET's beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from midalign.answers.format import STYLES, AnswerFormat
from midalign.cli.console import (
    CompletionStyle,
    Languages,
    Out,
    Task,
    choice,
    codes,
    console,
    say_comparisons,
    say_scores,
    say_where,
)
from midalign.errors import RunError
from midalign.records import RESAMPLES, SEED


def evaluate(
    data: Annotated[str, typer.Option(help="Folder or file with the gold data.")],
    predictions: Annotated[
        list[Path],
        typer.Option(
            help="predictions.jsonl, ours or anybody's, with the ids of the data; several are seeds of one system."
        ),
    ],
    out: Out,
    task: Annotated[Task, typer.Option(help="What was answered.")] = Task.slots,
    languages: Languages = None,
    format: Annotated[str, typer.Option(help="Format of the data; told by itself where possible.")] = "auto",  # noqa: A002
    split: Annotated[str, typer.Option(help="train, dev or test.")] = "test",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many items of each language, as task.limit_test.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Predictions of another system for the same items: paired tests.")
    ] = None,
    comet: Annotated[
        list[Path] | None, typer.Option(help="segments.jsonl of `midalign comet score`, one for each --predictions.")
    ] = None,
    baseline_comet: Annotated[Path | None, typer.Option(help="segments.jsonl of the baseline.")] = None,
    completion_style: CompletionStyle = "slots",
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples behind every interval.")] = RESAMPLES,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = SEED,
) -> None:
    """Scores with intervals, per language and over all, of anybody's predictions; no model needed."""
    from midalign.answers.predictions import read_predictions
    from midalign.data.examples import limited, read_examples
    from midalign.evaluation.comet import read_segments
    from midalign.evaluation.score import COMPARISONS, SCORES, compare_runs, score, score_over_seeds, write_scores
    from midalign.files import write_json
    from midalign.runs import Run

    answer_format = AnswerFormat(choice("completion-style", completion_style, STYLES))
    _check_counts(predictions, comet, baseline, baseline_comet)
    found = [read_predictions(path) for path in predictions]
    chosen = codes(languages)
    if chosen is None and task is not Task.translation and any(p.language for p in found[0]):
        chosen = list(dict.fromkeys(p.language for p in found[0] if p.language))
        console.print(f"scoring the languages that were answered: {', '.join(chosen)} (--languages asks for others)")
    examples = limited(read_examples(task.value, data, format=format, languages=chosen, split=split), limit)
    segments = [read_segments(path, of) for path, of in zip(comet or [], found, strict=False)]
    options: dict[str, Any] = {"answer_format": answer_format, "resamples": resamples, "seed": seed}
    if len(found) > 1:
        scores: Sequence[Any] = score_over_seeds(examples, found, segments=segments, **options)
    else:
        scores = score(examples, found[0], segments=segments[0] if segments else None, **options)
    comparisons = []
    if baseline is not None:
        before = read_predictions(baseline)
        both = (read_segments(baseline_comet, before), segments[0]) if baseline_comet is not None else None
        comparisons = compare_runs(examples, before, found[0], segments=both, **options)
    inputs: dict[str, Any] = {
        "task": task.value, "data": data, "split": split, "languages": chosen, "completion_style": completion_style,
        "resamples": resamples, "seed": seed,
    }  # fmt: skip
    more = {"limit": limit, "baseline": baseline, "comet": comet, "baseline_comet": baseline_comet}
    inputs |= {name: value for name, value in more.items() if value}
    files: list[str | Path] = [
        data,
        *predictions,
        *(comet or []),
        *(path for path in (baseline, baseline_comet) if path),
    ]
    run = Run(out, "evaluate", inputs, files)
    write_scores(scores, out / SCORES)
    if comparisons:
        write_json(out / COMPARISONS, {"comparisons": [comparison.as_dict() for comparison in comparisons]})
    run.finish(seeds=[seed])
    say_scores(scores)
    if comparisons:
        say_comparisons(comparisons)
        say_where(out / COMPARISONS)
    say_where(out / SCORES)


def _check_counts(
    predictions: Sequence[Path], comet: Sequence[Path] | None, baseline: Path | None, baseline_comet: Path | None
) -> None:
    if len(set(predictions)) < len(predictions):
        raise RunError("--predictions names a file twice; each file is another seed of the same system")
    if comet and len(comet) != len(predictions):
        raise RunError(
            f"--comet was given {len(comet)} times and --predictions {len(predictions)} times; give one segments.jsonl "
            "for each, in the same order"
        )
    if baseline is not None and len(predictions) > 1:
        raise RunError(
            "--baseline tests two runs on the same items, and which of several seeds should count is not clear; give "
            "one --predictions, or score each system's seeds by themselves"
        )
    if (baseline_comet is not None) != bool(baseline is not None and comet):
        raise RunError("to compare COMET, give --baseline, --comet and --baseline-comet together")
