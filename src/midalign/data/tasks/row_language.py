"""The language that a row of a table tells by itself: under ``language``, ``locale`` (MASSIVE) or ``lang``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from midalign.errors import DataError
from midalign.languages import canonical, known, languages_by_name

KEYS = ("language", "locale", "lang")


def language_of_row(row: Mapping[str, Any], place: str) -> str:
    """Canonical code by a code or an English name, or the empty string where the row tells none.

    Raises:
        DataError: As `told_by_row`.
        LanguageError: A language that is not known.
    """
    told = told_by_row(row, place)
    return canonical(told, place) if told else ""


def told_by_row(row: Mapping[str, Any], place: str) -> str:
    """The language as `language_of_row` gives it, but one that is not known as it is written.

    Args:
        row: One object of a JSONL file, or one row of a table.
        place: File and line, for messages.

    Raises:
        DataError: A value is not a string, or two keys tell different languages.
    """
    found: dict[str, str] = {}
    for key in KEYS:
        value = row.get(key)
        if value is None or value == "":
            continue
        if not isinstance(value, str):
            raise DataError(f"{place}: {key!r} is {value!r}, not a string; write a code, or leave the key out")
        if word := value.strip():
            found[key] = known(word) or languages_by_name().get(word.casefold()) or word
    if len(set(found.values())) > 1:
        told = " and ".join(f"{key!r} says {language}" for key, language in found.items())
        raise DataError(f"{place}: {told}, so the row's language is unclear; keep one of the two")
    return next(iter(found.values()), "")


def check_all_tell(told: Mapping[str, str], name: object) -> None:
    """Refuse a file whose name tells no language, and of whose rows only some tell theirs.

    Args:
        told: Language of each row by its place, or the empty string.
        name: The file.

    Raises:
        DataError: Naming the first row without language.
    """
    if any(told.values()) and not all(told.values()):
        place = next(place for place, language in told.items() if not language)
        raise DataError(
            f"{place}: the row has no language, but other rows of {name} have, so it would be guessed; write it under "
            f"{KEYS[0]!r}"
        )
