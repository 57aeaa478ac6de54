"""COMET, in an environment of its own: unbabel-comet needs older transformers and numpy than midalign.

1. `set_up` makes a virtual environment and installs unbabel-comet there (needs the network);
2. `segment_scores` gives it source, translation and reference as JSONL and reads a score per segment;
3. `score_comet` makes scores per direction and group from them, with bootstrap intervals like every other metric;
4. `write_segments` and `read_segments` keep the scores for `midalign evaluate`, which then needs no environment.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from midalign.errors import DataError, MissingFileError, ModelError, RunError
from midalign.evaluation.comet_worker import NO_MODEL
from midalign.files import read_json_lines, write_atomically
from midalign.metrics.scoring import Groups, Predictions, align_outputs, score_strata
from midalign.metrics.translation import SegmentScores, one_line, segment_strata
from midalign.records import RESAMPLES, SEED, Prediction, Score, TaskExample
from midalign.runs import cache_folder, fingerprint

logger = logging.getLogger(__name__)

# 2.2.7 is the newest release; it pins transformers<5, numpy<2 and huggingface-hub<1.
REQUIREMENT = "unbabel-comet==2.2.7"
# Its torchmetrics 0.10 imports pkg_resources, which setuptools had until 81.
SETUPTOOLS = "setuptools<82"
DEFAULT_MODEL = "Unbabel/wmt22-comet-da"  # COMET's own default (Rei et al. 2022); Apache-2.0
METRIC = "comet"
SEGMENTS = "segments.jsonl"
_FORM = 'on each line an object such as {"id": "deu:0", "score": 0.85}'
_SHOWN = 8  # last lines of a failed subprocess
_NETWORK = (
    "This needs the network (PyPI). Give the command again to continue, or create the environment yourself and name it "
    "with --env."
)
_BROKEN = "What was installed does not work together; make an environment in which it does, and name it with --env."


def environment() -> Path:
    """Default folder of COMET's environment."""
    return cache_folder() / "comet"


def interpreter(env: Path) -> Path:
    """The Python of an environment."""
    return env / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def set_up(env: Path) -> str:
    """Create COMET's environment, or complete one after an interrupted call.

    Args:
        env: Its folder.

    Returns:
        The installed version of unbabel-comet.

    Raises:
        RunError: If the folder is in the way, or a step fails (most often: no network).
    """
    if env.exists() and (not env.is_dir() or (any(env.iterdir()) and not (env / "pyvenv.cfg").exists())):
        raise RunError(f"--env {str(env)!r} has other files and is not a virtual environment; give another folder")
    if not interpreter(env).exists():
        _step([sys.executable, "-m", "venv", str(env)], "make a virtual environment", "Is Python's venv installed?")
    python = [str(interpreter(env)), "-I"]
    _step([*python, "-m", "pip", "install", "--quiet", REQUIREMENT, SETUPTOOLS], f"install {REQUIREMENT}", _NETWORK)
    asked = "import comet, importlib.metadata as m; print(m.version('unbabel-comet'))"
    return _step([*python, "-c", asked], "import comet", _BROKEN).strip().splitlines()[-1]


def segment_scores(
    rows: Sequence[Mapping[str, str]], model: str, env: Path, *, batch_size: int = 16
) -> tuple[dict[str, float], dict[str, Any]]:
    """COMET's score of each segment.

    Args:
        rows: ``id``, ``src``, ``mt`` and ``ref`` of each.
        model: A checkpoint file, a folder with one, or a name on the hub.
        env: COMET's environment.
        batch_size: Segments per batch.

    Returns:
        Scores by id, and ``model`` and ``versions`` of the environment.

    Raises:
        MissingFileError: If there is no environment.
        ModelError: If the model cannot be loaded.
        RunError: If COMET fails otherwise, or does not score every segment.
    """
    python = interpreter(env)
    if not python.exists():
        raise MissingFileError(
            f"there is no COMET environment in {str(env)!r}. COMET needs an older transformers than midalign, so it "
            f"has an environment of its own; create it with: midalign comet setup --env {env}"
        )
    with tempfile.TemporaryDirectory() as folder, as_file(files("midalign.evaluation") / "comet_worker.py") as worker:
        source, target = Path(folder) / "in.jsonl", Path(folder) / "out.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        # -I: the worker's own folder holds midalign's modules, one of which is called comet, and PYTHONPATH ours.
        command = [str(python), "-I", str(worker), model, str(source), str(target), str(batch_size)]
        done = _run(command)
        if done.returncode == NO_MODEL:
            raise ModelError(
                f"COMET's model {model!r} cannot be loaded:\n{_last_lines(done.stderr)}\n"
                "Give --model the path of a checkpoint (model.ckpt) or its folder, or a hub name that this machine "
                "can reach and may download (some COMET models want their licence accepted first)."
            )
        if done.returncode or not target.exists():
            raise RunError(f"COMET failed (exit code {done.returncode}):\n{_last_lines(done.stderr)}")
        return _read(target, [row["id"] for row in rows])


def score_comet(
    examples: Sequence[TaskExample],
    predictions: Predictions,
    *,
    model: str = DEFAULT_MODEL,
    env: Path | None = None,
    groups: Groups | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[list[Score], SegmentScores]:
    """COMET per language or direction and per group (mean over its languages), with 95 % bootstrap intervals.

    A system's COMET is the mean over its segments; resampling resamples segments, so nothing is scored twice.

    Args:
        examples: Source texts with references.
        predictions: Output per id, exactly the examples' ids; line breaks become spaces, as for BLEU.
        model: See `segment_scores`.
        env: COMET's environment; `environment` by default.
        groups: Group name to canonical codes.
        resamples: Bootstrap resamples.
        seed: Bootstrap seed.

    Returns:
        The scores, and each segment's.

    Raises:
        DataError: No examples, examples that are no translations, or ids that do not fit.
        UserError: As `segment_scores`.
    """
    outputs = align_outputs(examples, predictions)
    if other := next((example for example in examples if example.task != "translation"), None):
        raise DataError(
            f"item {other.id} is of the task {other.task!r}, but COMET scores translations only; leave COMET out"
        )
    rows = [
        {"id": e.id, "src": e.text, "mt": one_line(output), "ref": e.reference}
        for e, output in zip(examples, outputs, strict=True)
    ]
    values, about = segment_scores(rows, model, env or environment())
    versions = "|".join(f"{name}:{number}" for name, number in sorted(about["versions"].items()))
    segments = SegmentScores(METRIC, values, f"comet|model:{about['model']}|{versions}")
    return score_strata(segment_strata(examples, segments), groups, resamples, seed), segments


def write_segments(segments: SegmentScores, predictions: Sequence[Prediction], path: Path) -> None:
    """Write segment scores as JSONL: ``id``, ``score``, ``translation`` (a hash of what was scored), ``signature``."""
    of = {prediction.id: fingerprint(one_line(prediction.prediction)) for prediction in predictions}
    lines = [
        {"id": name, "score": score, "translation": of[name], "signature": segments.signature}
        for name, score in segments.scores.items()
    ]
    write_atomically(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_segments(path: str | Path, predictions: Sequence[Prediction]) -> SegmentScores:
    """Read segment scores of these predictions, of midalign or any other program (``id`` and ``score``).

    Raises:
        MissingFileError: If there is no such file.
        DataError: A line is not a segment score, ids differ from those of the predictions, scores are of other
            translations (if the file has their hashes), or of more than one model.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"segment scores {str(path)!r} do not exist; `midalign comet score` writes them")
    of = {prediction.id: fingerprint(one_line(prediction.prediction)) for prediction in predictions}
    scores: dict[str, float] = {}
    signatures = set()
    for number, row in read_json_lines(path, _FORM):
        place = f"{path}:{number}"
        name, score = _segment(row, place)
        if name in scores or name not in of:
            why = "comes twice" if name in scores else "is of no prediction"
            raise DataError(f"{place}: the score of {name!r} {why}, so the file is not of these predictions")
        if row.get("translation") not in (None, of[name]):
            raise DataError(
                f"{place}: the score of {name!r} is of another translation than the predictions have; score these with "
                "`midalign comet score`"
            )
        scores[name] = score
        signatures.add(str(row.get("signature", f"{METRIC}|segments:of another program")))
    if missing := [name for name in of if name not in scores]:
        raise DataError(f"{path}: {len(missing)} predictions have no score, such as {missing[0]!r}; score all of them")
    if len(signatures) > 1:
        raise DataError(
            f"{path}: scores of different models cannot be averaged: {', '.join(sorted(signatures))}. Score all with "
            "one model"
        )
    return SegmentScores(METRIC, scores, signatures.pop())


def _segment(row: Mapping[str, Any], place: str) -> tuple[str, float]:
    """Id and score of one line."""
    name, score = row.get("id"), row.get("score")
    if not isinstance(name, str) or isinstance(score, bool) or not isinstance(score, int | float):
        raise DataError(f"{place}: not a segment score: 'id' must be a string and 'score' a number. Write {_FORM}.")
    if not -sys.float_info.max <= score <= sys.float_info.max:  # nor is it in order with NaN
        raise DataError(
            f"{place}: the score of {name!r} is not a finite number, so no mean can be computed. Write {_FORM}."
        )
    return name, float(score)


def _read(target: Path, ids: Sequence[str]) -> tuple[dict[str, float], dict[str, Any]]:
    first, *lines = [record for _, record in read_json_lines(target)]
    scores = {line["id"]: float(line["score"]) for line in lines}
    if list(scores) != list(ids):
        raise RunError(f"COMET scored {len(scores)} of {len(ids)} segments; try again, or look into its environment")
    return scores, first


def _step(command: Sequence[str], purpose: str, hint: str) -> str:
    logger.info("%s: %s", purpose, " ".join(command))
    done = _run(command)
    if done.returncode:
        shown = _last_lines(done.stderr or done.stdout)
        raise RunError(f"could not {purpose} ({' '.join(command)}):\n{shown}\n{hint}")
    return done.stdout


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)


def _last_lines(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-_SHOWN:]) or "(it said nothing)"
