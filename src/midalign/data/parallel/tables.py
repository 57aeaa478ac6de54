"""Parallel corpora in one table: TSV and JSONL files, to rows with their file and line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from midalign.data.parallel.line_files import RawRow, restrict
from midalign.errors import DataError
from midalign.files import read_json_lines, read_lines
from midalign.languages import canonical


def read_tsv(
    path: Path, wanted: Sequence[str] | None, columns: Mapping[str, str | int] | None, limit: int | None
) -> list[RawRow]:
    """Rows of a table: tabs between cells, no quoting, a first line with language codes or the names in ``columns``.

    Column numbers (from 0) in ``columns`` mean that the file has no header.
    """
    lines = read_lines(path)
    if not lines:
        raise DataError(f"{path} is empty. Write a first line with the languages' codes, then a row a line.")
    headless = columns is not None and all(isinstance(column, int) for column in columns.values())
    header = [str(i) for i in range(lines[0].count("\t") + 1)] if headless else lines[0].split("\t")
    if columns is None:
        named = _header_languages(header, path)
    else:
        named = {language: _column(header, str(column), path) for language, column in columns.items()}
    named = restrict(named, wanted, path)
    files = dict.fromkeys(named, str(path))
    rows = []
    first = 0 if headless else 1
    for i, line in enumerate(lines[first : None if limit is None else first + limit]):
        cells = line.split("\t")
        if len(cells) != len(header):
            raise DataError(
                f"{path}:{i + first + 1}: {len(cells)} cells, but the first line has {len(header)}. A cell "
                f"that holds a tab would shift every column after it. Write one tab between cells and none inside them."
            )
        texts = {language: cells[column] for language, column in named.items()}
        rows.append(RawRow(f"{path.stem}:{i}", texts, files, i + first + 1))
    return rows


def _header_languages(header: list[str], path: Path) -> dict[str, int]:
    """Canonical language to column number, every column being one."""
    if any(cell.strip().casefold() == "id" for cell in header) and len(header) > 2:
        # ISO 639-1 has `id` for Indonesian, but a table's `id` column numbers its rows far more often.
        raise DataError(
            f"{path}:1: a column is named 'id', which may be Indonesian or the number of the row. Write 'ind' for "
            f"Indonesian, or say with columns= which column is which language."
        )
    named: dict[str, int] = {}
    for i, cell in enumerate(header):
        language = canonical(cell, where=f"{path}:1 (header; or say with columns= which column is which language)")
        if language in named:
            raise DataError(f"{path}:1: columns {named[language]} and {i} are both {language}. Keep one of the two.")
        named[language] = i
    return named


def _column(header: list[str], column: str, path: Path) -> int:
    if column not in header:
        raise DataError(
            f"{path}:1: no column {column!r}. The columns are: {', '.join(header)}. Name one of these in columns=."
        )
    return header.index(column)


def read_jsonl(
    path: Path, wanted: Sequence[str] | None, columns: Mapping[str, str | int] | None, limit: int | None
) -> list[RawRow]:
    """Rows of JSON objects, one a line.

    Either ``columns`` names the key of each language, or each object has ``source``, ``target``, ``source_language``
    and ``target_language``, or (the reference implementation's records) ``text_parallel_0`` and ``text_parallel_1``,
    whose two languages are ``wanted`` in this order.
    """
    named = None if columns is None else restrict(columns, wanted, "columns=")
    rows = []
    for i, (line, record) in enumerate(read_json_lines(path)):
        place = f"{path}:{line}"
        if named is None:
            keys = _row_keys(record, wanted, place)
        else:
            keys = {language: str(key) for language, key in named.items()}
        texts = {language: json_text(record, key, place) for language, key in keys.items()}
        rows.append(RawRow(f"{path.stem}:{i}", texts, dict.fromkeys(texts, str(path)), line))
    if wanted is not None and columns is None:
        kept = restrict({language: None for row in rows for language in row.texts}, wanted, path)
        rows = [row for row in rows if kept.keys() >= row.texts.keys()]
    return rows[:limit]


def _row_keys(record: Mapping[str, Any], wanted: Sequence[str] | None, place: str) -> dict[str, str]:
    """Canonical language to key of one JSON object."""
    if "text_parallel_0" in record:
        if wanted is None or len(wanted) != 2:
            raise DataError(
                f"{place}: text_parallel_0 and text_parallel_1 do not say their languages. Give them in this order, "
                f"such as languages=['eng', 'deu'], or columns={{'eng': 'text_parallel_0', 'deu': 'text_parallel_1'}}."
            )
        return {wanted[0]: "text_parallel_0", wanted[1]: "text_parallel_1"}
    source, target = (
        canonical(json_text(record, f"{side}_language", place), where=place) for side in ("source", "target")
    )
    if source == target:
        raise DataError(f"{place}: source_language and target_language are both {source}. Correct one of the two.")
    return {source: "source", target: "target"}


def json_text(record: Mapping[str, Any], key: str, place: str) -> str:
    """The string under a key.

    Raises:
        DataError: There is no such key, or its value is not a string.
    """
    if key not in record:
        raise DataError(
            f"{place}: no key {key!r}. The keys are: {', '.join(record)}. Rows need source, target, "
            f"source_language and target_language, or columns= that says which key is which language."
        )
    value = record[key]
    if not isinstance(value, str):
        raise DataError(f"{place}: {key!r} is {value!r}, not a string. Write a sentence, or remove the row.")
    return value
