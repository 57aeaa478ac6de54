"""COMET of a whole run: scores of every system's translations, added to the run's scores, comparisons and report.

COMET's environment is often made after a run, or on another machine, so this is a separate step. It needs the run
folder and the data, and generates nothing. Segment scores are kept beside their predictions.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from midalign.answers.predictions import PREDICTIONS, read_predictions
from midalign.data.parallel.moses import named_files
from midalign.errors import RunError
from midalign.evaluation.comet import DEFAULT_MODEL, METRIC, SEGMENTS, read_segments, score_comet, write_segments
from midalign.evaluation.score import SCORES
from midalign.experiment.summary import BASELINE, SUMMARY
from midalign.files import MANIFEST, hash_paths, read_json, write_json
from midalign.metrics.comparison import compare_strata
from midalign.metrics.scoring import align_outputs, score_strata
from midalign.metrics.translation import segment_strata
from midalign.recipe.data import read_task_data
from midalign.recipe.file import build_recipe
from midalign.records import Score
from midalign.report.page import write_report


def add_comet(folder: Path, *, model: str = DEFAULT_MODEL, env: Path | None = None) -> dict[str, list[Score]]:
    """Score every system of a finished run with COMET; scores of an earlier call with the same model are kept.

    Args:
        folder: Folder of ``midalign run``, of a recipe whose task is translation.
        model: See `midalign.evaluation.comet.segment_scores`.
        env: COMET's environment; midalign's own by default.

    Returns:
        COMET per language and group, by system. It is also added to each ``scores.json``; ``summary.json`` gets paired
        comparisons with the baseline; the report is written again.

    Raises:
        RunError: If the folder holds no finished run on translation, or its data has changed since.
        UserError: As `midalign.evaluation.comet.score_comet`.
    """
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("command") != "run" or not manifest.get("done"):
        raise RunError(
            f"{str(folder)!r} holds no finished `midalign run`; score single predictions with `midalign comet score`"
        )
    recipe = build_recipe(manifest["inputs"], where=str(folder / MANIFEST))
    if recipe.task.name != "translation":
        raise RunError(
            f"{str(folder)!r} is a run on {recipe.task.name}, and COMET scores translations only; give a run on "
            "translation"
        )
    for path, digest in hash_paths(named_files(recipe.task.data)).items():
        if digest not in manifest.get("data", {}).values():
            raise RunError(
                f"{path!r} is not the data of this run any more, so its translations would be scored by other "
                "references. Put the earlier data back, or run the recipe again into another --out"
            )
    examples = read_task_data(recipe).test
    summary: dict[str, Any] = read_json(folder / SUMMARY)
    options: dict[str, Any] = {"groups": recipe.languages.groups(), "resamples": recipe.evaluation.resamples}
    found, strata = {}, {}
    for system in summary["systems"]:
        place = folder / "evaluation" / system
        predictions = read_predictions(place / PREDICTIONS)
        align_outputs(examples, predictions)
        kept = read_segments(place / SEGMENTS, predictions) if (place / SEGMENTS).exists() else None
        if kept is None or f"|model:{model}|" not in kept.signature:
            _, kept = score_comet(examples, predictions, model=model, env=env, resamples=1)
            write_segments(kept, predictions, place / SEGMENTS)
        strata[system] = segment_strata(examples, kept)
        found[system] = score_strata(strata[system], **options)
    for system, scores in found.items():
        place = folder / "evaluation" / system / SCORES
        others = [row for row in read_json(place)["scores"] if row["metric"] != METRIC]
        write_json(place, {"scores": others + [score.as_dict() for score in scores]})
    summary["comparisons"] = [row for row in summary["comparisons"] if row["metric"] != METRIC] + [
        {"baseline": BASELINE, "system": system} | asdict(comparison)
        for system in found
        if system != BASELINE
        for comparison in compare_strata(strata[BASELINE], strata[system], **options)
    ]
    write_json(folder / SUMMARY, summary)
    write_report([folder], folder)
    return found
