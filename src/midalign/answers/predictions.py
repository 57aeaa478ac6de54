"""``predictions.jsonl``: one answer per line, with the id of its item."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from midalign.errors import DataError, MissingFileError, RunError
from midalign.files import local_path, read_json_lines, write_atomically
from midalign.records import Prediction

logger = logging.getLogger(__name__)

PREDICTIONS = "predictions.jsonl"
_FIELDS = ("id", "language", "prompt", "prediction", "target_language")
_FORM = (
    'on each line an object such as {"id": "de.test:0", "language": "deu_Latn", "prediction": "datetime: am Freitag"}'
)


def write_predictions(predictions: Sequence[Prediction], path: Path) -> None:
    """Write predictions as JSONL, atomically."""
    write_atomically(path, "".join(_line(prediction) for prediction in predictions))


def read_predictions(path: str | Path) -> list[Prediction]:
    """Read a predictions file, of midalign or any other program; ``language`` and ``prompt`` may be missing or null.

    Raises:
        MissingFileError: If there is no such file.
        DataError: With file and line, if a line is not a JSON object with the strings ``id`` and ``prediction``, or
            another field is not a string.

    Examples:
        >>> line = '{"id": "en.test:0", "language": "eng_Latn", "prediction": "time: nine"}'
        >>> _ = Path("predictions.jsonl").write_text(line)
        >>> [(found.id, found.prediction) for found in midalign.read_predictions("predictions.jsonl")]
        [('en.test:0', 'time: nine')]
    """
    path = local_path(path)
    if not path.is_file():
        raise MissingFileError(f"predictions file {str(path)!r} does not exist; `midalign generate` writes one")
    found = [_prediction(record, f"{path}:{number}") for number, record in read_json_lines(path, _FORM)]
    if not found:
        raise DataError(f"{path}: there are no predictions in this file, so nothing can be scored; give another file")
    return found


def _line(prediction: Prediction) -> str:
    given = {name: value for name, value in asdict(prediction).items() if value is not None}
    return json.dumps(given, ensure_ascii=False) + "\n"


def append_predictions(partial: Path, predictions: Sequence[Prediction]) -> None:
    """Add predictions to a partial file.

    Raises:
        RunError: If it cannot be written to.
    """
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("a", encoding="utf-8", newline="\n") as file:
            file.write("".join(_line(prediction) for prediction in predictions))
    except OSError as fault:
        raise RunError(
            f"cannot write {str(partial)!r}: {fault.strerror}. The answers so far are kept: free some space, then give "
            "the same command to continue."
        ) from fault


def read_partial(partial: Path) -> dict[str, Prediction]:
    """Finished predictions by id; a half-written last line of a killed process is removed from the file.

    Raises:
        RunError: If a whole line is damaged.
    """
    if not partial.exists():
        return {}
    lines = partial.read_bytes().split(b"\n")
    whole = lines[:-1]  # what follows the last line break is empty, or half a line
    if lines[-1]:
        logger.warning("%s ends in half a line, which is generated again", partial)
        write_atomically(partial, b"".join(line + b"\n" for line in whole))
    try:
        predictions = [_prediction(record, f"{partial}:{number}") for number, record in read_json_lines(partial)]
    except DataError as fault:
        raise RunError(
            f"the answers of the interrupted run are damaged: {fault} Or delete {str(partial)!r} to start again."
        ) from None
    return {prediction.id: prediction for prediction in predictions}


def _prediction(record: dict[str, Any], place: str) -> Prediction:
    given = {name: record[name] for name in _FIELDS if record.get(name) is not None}
    for name, value in given.items():
        if not isinstance(value, str):
            kind = type(value).__name__
            raise DataError(f"{place}: not a prediction: {name!r} is of the type {kind}, not a string. Write {_FORM}.")
    if lacking := {"id", "prediction"} - set(given):
        raise DataError(f"{place}: not a prediction: there is no {' and no '.join(sorted(lacking))}. Write {_FORM}.")
    return Prediction(**{"language": "", "prompt": ""} | given | _gold(record, place))


def _gold(record: dict[str, Any], place: str) -> dict[str, Any]:
    """The loss of the gold answer and its number of tokens: both or none."""
    found = {name: record[name] for name in ("gold_loss", "gold_tokens") if record.get(name) is not None}
    if not found:
        return {}
    loss, tokens = found.get("gold_loss"), found.get("gold_tokens")
    is_loss = isinstance(loss, int | float) and not isinstance(loss, bool) and 0 <= loss < math.inf
    if not is_loss or type(tokens) is not int or tokens < 1:
        raise DataError(
            f"{place}: 'gold_loss' is {loss!r} and 'gold_tokens' {tokens!r}: a loss is a number from 0 on, and "
            "there is at least one token; leave both out where they are not known"
        )
    return found
