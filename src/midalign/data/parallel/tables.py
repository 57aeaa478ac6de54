"""Parallel corpora in tables: TSV and JSONL files, to rows with their file and line.

A TSV may have a header that tells languages (``en``, ``German``, ``de_text``), or none, or one of other words
(``source``): then its languages are those that the file's name tells (``eng-deu.tsv``; ``deu.txt`` has English first,
as manythings.org writes it), or the two that were asked for, in this order. Columns of numbers (of rows, or scores) and
Tatoeba's attributions are not languages. Blank lines are skipped.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from midalign.data.file_names import bare, language_of_each, languages_in, shown
from midalign.data.parallel.line_files import RawRow
from midalign.errors import DataError
from midalign.files import is_blank, read_json_lines, read_lines
from midalign.languages import ENGLISH, canonical, known, languages_by_name

logger = logging.getLogger(__name__)

_NUMBER = re.compile(r"\s*[-+]?\d+([.,]\d+)?([eE]-?\d+)?\s*")
_ATTRIBUTION = re.compile(r".*(CC[- ]BY|CC0|Attribution:|tatoeba\.org).*")
_HEADER = {"id", "source", "target", "src", "tgt", "trg", "text", "sentence", "translation", "score", "attribution"}
_ENGLISH_WORDS = re.compile(
    r"the|and|is|are|you|she|they|that|this|not|don't|my|your|with|have|to|of|it|what", re.IGNORECASE
)


def read_tsv(path: Path, wanted: Sequence[str] | None, columns: Mapping[str, str | int] | None) -> list[RawRow]:
    """Rows of a table: tabs between cells, no quoting.

    Args:
        path: The file.
        wanted: Canonical languages that were asked for; rows hold the others too.
        columns: Canonical language to column: names of a header, or numbers from 0 of a file without one.

    Raises:
        DataError: An empty file, rows of unequal length, languages that cannot be told.
        LanguageError: A header that names an unknown language.
    """
    lines = [(n, line) for n, line in enumerate(read_lines(path), start=1) if "\t" in line or not is_blank(line)]
    cells = [line.split("\t") for _, line in lines]
    if not cells:
        raise DataError(f"{path} is empty. Write a first line with the languages' codes, then one row per line.")
    if columns is None and not _is_header(cells[0], path, wanted):
        cells = [row[:-1] if len(row) > 2 and _ATTRIBUTION.fullmatch(row[-1]) else row for row in cells]
    for (number, _), row in zip(lines, cells, strict=True):
        if len(row) != len(cells[0]):
            raise DataError(
                f"{path}:{number}: {len(row)} cells, but the first line has {len(cells[0])}. A cell "
                f"that holds a tab would shift every column after it. Write one tab between cells and none inside them."
            )
    named, first = _columns(cells, path, wanted, columns)
    files = dict.fromkeys(named, str(path))
    return [
        RawRow(f"{bare(path).stem}:{i}", {language: row[at] for language, at in named.items()}, files, number)
        for i, ((number, _), row) in enumerate(zip(lines[first:], cells[first:], strict=True))
    ]


def _columns(
    cells: list[list[str]], path: Path, wanted: Sequence[str] | None, columns: Mapping[str, str | int] | None
) -> tuple[dict[str, int], int]:
    """Canonical language to column number, and the number of header lines (0 or 1)."""
    header = cells[0]
    if columns is not None:
        if all(isinstance(column, int) for column in columns.values()):
            numbers = [str(number) for number in range(len(header))]
            named = {language: _column(numbers, str(column), path) for language, column in columns.items()}
            return named, int(all(_language_of_cell(header[at]) for at in named.values()))
        return {language: _column(header, str(column), path) for language, column in columns.items()}, 1
    if len(cells) > 1 and all(word.strip().casefold() in _HEADER for word in header):
        return _headless_languages(cells[1:], path, wanted), 1
    if _is_header(header, path, wanted):
        return _header_languages(cells, path, wanted), 1
    return _headless_languages(cells, path, wanted), 0


def _is_header(cells: Sequence[str], path: Path, wanted: Sequence[str] | None) -> bool:
    """Whether a first line names languages: each cell tells another, or one is written as a code or a usual heading.

    In a file whose name tells two languages, a line of words that would mean others (``it``, ``es``) is a row.
    """
    languages = _languages_of_cells(cells, wanted)
    stem = bare(path).stem
    here, told = set(languages) - {None}, set(told_by_name(stem, wanted))
    both_told = bool(told) and told <= {named.language for named in languages_in(stem)}  # English may be a guess
    if both_told and here and here.isdisjoint(told):
        return False
    if None not in languages and len(set(languages)) == len(languages):
        return True
    words = [cell.strip() for cell in cells]
    if all(_language_of_cell(word) for word in words):
        return True
    return any(word.casefold() in _HEADER or (word[:1].islower() and known(word)) for word in words)


def _languages_of_cells(cells: Sequence[str], wanted: Sequence[str] | None) -> list[str | None]:
    """The language that each cell of a header tells: as a whole, or as a part of one or two words (``de_text``)."""
    parts = language_of_each([cell if len(cell.split()) < 3 else "" for cell in cells], wanted)
    return [_language_of_cell(cell.strip()) or part for cell, part in zip(cells, parts, strict=True)]


def _language_of_cell(word: str) -> str | None:
    return known(word) or languages_by_name().get(word.casefold())


def _header_languages(cells: list[list[str]], path: Path, wanted: Sequence[str] | None) -> dict[str, int]:
    """The languages of a header; columns of other names are ignored only where the languages were asked for."""
    named: dict[str, int] = {}
    for at, language in enumerate(_languages_of_cells(cells[0], wanted)):
        cell = cells[0][at].strip()
        if cell.casefold() == "id" and len(cells[0]) > 2 and _numbers_rows(cells, at, path):
            continue
        if language is None and wanted is None and cell.casefold() not in _HEADER:
            canonical(cell, f"{path}:1 (the header)")
        if language is None:
            continue
        if language in named and (wanted is None or language in wanted):
            raise DataError(f"{path}:1: columns {named[language]} and {at} are both {language}. Keep one of the two.")
        named.setdefault(language, at)
    if wanted is not None and named.keys().isdisjoint(wanted) and len(named) < len(cells[0]):
        raise DataError(
            f"{path}:1: the first line names none of the languages asked for: {', '.join(cells[0])}. Write their codes "
            "into it, or above it if it is a sentence already."
        )
    return named


def _numbers_rows(cells: list[list[str]], at: int, path: Path) -> bool:
    """Whether a column named ``id`` numbers the rows; ISO 639-1 has ``id`` for Indonesian as well."""
    texts = [row[at].strip() for row in cells[1:]]
    if all(re.fullmatch(r"[^\s]*\d[^\s]*", text) for text in texts):
        return True
    if any(" " in text for text in texts):
        return False
    raise DataError(
        f"{path}:1: a column is named 'id', which may be Indonesian or the number of the row. Write 'ind' for "
        "Indonesian, or another word for the number."
    )


def _headless_languages(cells: list[list[str]], path: Path, wanted: Sequence[str] | None) -> dict[str, int]:
    """The languages of a table whose first line is a row already."""
    held = [at for at in range(len(cells[0])) if not all(_NUMBER.fullmatch(row[at]) for row in cells)]
    told = told_by_name(bare(path).stem, wanted)
    languages = told or list(wanted or ())
    if len(held) < 2 or len(languages) != len(held) or len(set(languages)) < len(languages):
        raise DataError(
            f"{path}:1: no header says which of the {len(held)} columns of text is which language"
            f"{f', and the name of the file has only {shown(told)}' if told else ''}. Write the codes into a first "
            f"line (such as eng<tab>deu), or into the file's name (eng-deu{bare(path).suffix})."
        )
    named = dict(zip(languages, held, strict=True))
    if not told:
        order = ", ".join(f"column {at + 1} {language}" for language, at in named.items())
        logger.warning("%s has no header; taken in the order in which the languages were named: %s", path, order)
    _check_english(cells, named, path)
    return named


def told_by_name(stem: str, wanted: Sequence[str] | None) -> list[str]:
    """The languages of the columns by the name of the file: English before the one that it tells; none for a guess."""
    found = languages_in(stem)
    told = [named.language for named in found if not named.is_word or named.language in (wanted or ())]
    if len(found) == 2 and not re.search(r"[^\W\d_]", found[0].rest.replace("{}", "").replace(found[1].part, "", 1)):
        return [named.language for named in found]  # the name is these two, as `it-en`
    if len(told) == 1:
        return [ENGLISH, *told] if told != [ENGLISH] else []
    return told


def _check_english(cells: list[list[str]], named: Mapping[str, int], path: Path) -> None:
    """Refuse columns in a likely wrong order: another column looks far more like English than the English one."""
    shares = {language: _share_of_english(row[at] for row in cells) for language, at in named.items()}
    english = shares.get(ENGLISH, 1.0)
    likelier = max(shares, key=lambda language: shares[language])
    if shares[likelier] > max(0.1, 3 * english):
        raise DataError(
            f"{path}:1: column {named[ENGLISH] + 1} is taken for English, but column {named[likelier] + 1} has far "
            "more English words, so the columns seem to be swapped. Write the languages' codes into "
            "a first line."
        )


def _share_of_english(texts: Any) -> float:
    words = [word.strip(".,!?;:\"'") for text in texts for word in text.split()]
    return sum(_ENGLISH_WORDS.fullmatch(word) is not None for word in words) / max(len(words), 1)


def _column(header: list[str], column: str, path: Path) -> int:
    if column not in header:
        raise DataError(
            f"{path}:1: no column {column!r}. The columns are: {', '.join(header)}. Name one of these in `columns`."
        )
    return header.index(column)


def read_jsonl(path: Path, wanted: Sequence[str] | None, columns: Mapping[str, str | int] | None) -> list[RawRow]:
    """Rows of JSON objects, one per line.

    Either ``columns`` names the key of each language, or each object has ``source``, ``target``, ``source_language``
    and ``target_language``; or its texts under codes of languages, by themselves or under ``translation`` (as on the
    hub); or (the reference implementation's records) ``text_parallel_0`` and ``text_parallel_1``, whose two languages
    are ``wanted`` in this order.
    """
    rows = []
    for i, (line, record) in enumerate(read_json_lines(path)):
        place = f"{path}:{line}"
        if columns is not None:
            texts = {language: json_text(record, str(key), place) for language, key in columns.items()}
        else:
            texts = _row_texts(record, wanted, place)
        rows.append(RawRow(f"{bare(path).stem}:{i}", texts, dict.fromkeys(texts, str(path)), line))
    return rows


def _row_texts(record: Mapping[str, Any], wanted: Sequence[str] | None, place: str) -> dict[str, str]:
    """The texts of one JSON object by canonical language."""
    if "text_parallel_0" in record:
        if wanted is None or len(wanted) != 2:
            raise DataError(
                f"{place}: text_parallel_0 and text_parallel_1 do not say their languages. Ask for two languages, in "
                "this order."
            )
        return {
            wanted[0]: json_text(record, "text_parallel_0", place),
            wanted[1]: json_text(record, "text_parallel_1", place),
        }
    held = record["translation"] if isinstance(record.get("translation"), dict) else record
    codes = {key: language for key in held if (language := known(key))}
    if held is record and re.fullmatch(r"\S*\d\S*", str(record.get("id", ""))):
        codes.pop("id", None)  # the number of the row, and not Indonesian
    if "source" in record or len(codes) < 2:
        return _source_and_target(record, wanted, place)
    return _by_code(held, codes, wanted, place)


def _by_code(
    record: Mapping[str, Any], codes: Mapping[str, str], wanted: Sequence[str] | None, place: str
) -> dict[str, str]:
    chosen = {key: language for key, language in codes.items() if wanted is None or language in wanted}
    if len(set(chosen.values())) < len(chosen):
        raise DataError(f"{place}: two of the keys {shown(chosen)} are the same language. Keep one of the two.")
    return {language: json_text(record, key, place) for key, language in chosen.items()}


def _source_and_target(record: Mapping[str, Any], wanted: Sequence[str] | None, place: str) -> dict[str, str]:
    texts: dict[str, str] = {}
    for side in ("source", "target"):
        code = json_text(record, f"{side}_language", place)
        language = canonical(code, where=place) if wanted is None else known(code)
        if language in texts:
            raise DataError(f"{place}: source_language and target_language are both {language}. Correct one of them.")
        if language is not None:  # else a language that is not known and was not asked for
            texts[language] = json_text(record, side, place)
    return texts


def json_text(record: Mapping[str, Any], key: str, place: str) -> str:
    """The string under a key.

    Raises:
        DataError: There is no such key, or its value is not a string.
    """
    if key not in record:
        raise DataError(
            f"{place}: no key {key!r}. The keys are: {shown(record)}. Rows need source, target, source_language and "
            "target_language, or `columns` that says which key is which language."
        )
    value = record[key]
    if not isinstance(value, str):
        raise DataError(f"{place}: {key!r} is {value!r}, not a string. Write a sentence, or remove the row.")
    return value
