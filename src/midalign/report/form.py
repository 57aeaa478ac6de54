"""The form of a run's manifest and summary: what the page's parts rely on, checked when the files are read.

Every check takes the content of a file and returns it; a KeyError, TypeError or ValueError says what is wrong. What a
file leaves out, or has as null, is not wrong where the page can do without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from midalign.report.views import recipe_of
from midalign.report.words import Difference, differences


def number(value: Any) -> float | None:
    """A finite float, or None for null, NaN and infinities."""
    if value is None:
        return None
    result = float(value)
    return result if math.isfinite(result) else None


def known_number(value: Any, name: str) -> float:
    """A finite float, where one is needed."""
    found = number(value)
    if found is None:
        raise ValueError(f"{name} is {value}")
    return found


def checked_manifest(content: Any) -> dict[str, Any]:
    """A manifest in which timings, versions and hashes have names, and a seed is a number."""
    found = an_object(content, "the manifest")
    for name in ("versions", "data"):
        if not all(isinstance(value, str) for value in an_object(found.get(name) or {}, name).values()):
            raise TypeError(f"{name} has a value that is no text")
    _check_numbers(found.get("timings"), "timings")
    if isinstance(recipe_of(found).get("seed"), dict | list):
        raise TypeError("the seed is no number")
    return found


def checked_summary(content: Any) -> dict[str, Any]:
    """A summary whose systems, training, merge weights, examples and timings can be shown."""
    found = an_object(content, "the summary")
    if not all(isinstance(system, str) for system in _a_list(found.get("systems", []), "systems")):
        raise TypeError("systems has an entry that is no text")
    _a_list(found.get("seeds") or [], "seeds")
    if found.get("aligned_layer") is not None:
        known_number(found["aligned_layer"], "aligned_layer")
    for system, entry in an_object(found.get("training") or {}, "training").items():
        number(an_object(entry, f"training of {system}").get("seconds"))
    _check_merge(an_object(found.get("merge") or {}, "merge"))
    for entry in _a_list(found.get("examples", []), "examples"):
        for name in ("text", "gold", "baseline", "system", "kind"):
            _ = an_object(entry, "an example")[name]
    _check_numbers(found.get("timings"), "timings")
    return found


def checked_differences(entries: Iterable[Mapping[str, Any]]) -> list[Difference]:
    """Paired comparisons, each with a difference and an interval."""
    found = differences(entries)
    for one in found:
        for name in ("difference", "low", "high"):
            known_number(getattr(one, name), name)
    return found


def checked_projection(content: Any) -> Any:
    """A 2-D map with points of two coordinates, or None."""
    if content is not None:
        _ = content["layer"]
        for points in an_object(content["points"], "points").values():
            for x, y in _a_list(points, "points"):
                known_number(x, "a point"), known_number(y, "a point")
        if not any(content["points"].values()):
            raise ValueError("no points")
    return content


def checked_fertility(content: Any, languages: Sequence[str]) -> dict[str, Any]:
    """Numbers of tokens for languages of the probe."""
    found = an_object(content or {}, "fertility")
    for code, entry in found.items():
        if code not in languages:
            raise ValueError(f"fertility of {code}, which was not probed")
        _check_numbers({name: value for name, value in entry.items() if name.startswith("tokens_per")}, "fertility")
    return found


def an_object(content: Any, name: str) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(content, dict):
        raise TypeError(f"{name} is a {type(content).__name__}, not an object")
    return content


def _a_list(content: Any, name: str) -> list[Any]:
    if not isinstance(content, list):
        raise TypeError(f"{name} is a {type(content).__name__}, not a list")
    return content


def _check_numbers(content: Any, name: str) -> None:
    for value in an_object(content or {}, name).values():
        number(value)


def _check_merge(content: Mapping[str, Any]) -> None:
    for entry in _a_list(content.get("table") or [], "merge.table"):
        known_number(an_object(entry, "a row of merge.table")["score"], "score")
        number(entry.get("low")), number(entry.get("high"))
        _check_weights(an_object(entry["weights"], "weights"))
    _check_weights(an_object(content.get("chosen") or {}, "merge.chosen"))


def _check_weights(weights: Mapping[str, Any]) -> None:
    """A weight is a number, or one number for each band of layers."""
    for name, weight in weights.items():
        for each in weight if isinstance(weight, list) and weight else [weight]:
            if not isinstance(each, int | float):
                raise TypeError(f"the weight of {name} is {each!r}")
