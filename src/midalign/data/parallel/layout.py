"""Layouts of parallel corpora: which one a path has, its splits, and its rows by the right reader.

1. A name that begins with ``sacrebleu:`` is a test set; any other is a path, unless the format is ``datasets``.
2. A folder that has a folder for each split (``train``, ``dev``, ``test``) means one of those.
3. The format is named, or told from the names of the files (`detect_format`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from midalign.data.file_names import SPLITS, bare, data_files, languages_in, shown, split_name, splits_in
from midalign.data.parallel import line_files
from midalign.data.parallel.hub import has_splits, is_saved_dataset, read_datasets
from midalign.data.parallel.line_files import RawRow, choose_split, flores_splits, restrict
from midalign.data.parallel.moses import moses_prefixes, moses_splits, read_moses
from midalign.data.parallel.sacrebleu_sets import SACREBLEU, read_test_set
from midalign.data.parallel.tables import read_jsonl, read_tsv, told_by_name
from midalign.data.parallel.tmx import read_tmx
from midalign.errors import DataError, MissingFileError, UserError
from midalign.files import local_path, missing_file, read_lines
from midalign.languages import known

logger = logging.getLogger(__name__)

ParallelFormat = Literal["auto", "flores", "ntrex", "lines", "moses", "tsv", "jsonl", "tmx", "datasets"]
Columns = Mapping[str, str | int]
TABLES: dict[ParallelFormat, tuple[str, ...]] = {"tsv": (".tsv", ".txt"), "jsonl": (".jsonl",), "tmx": (".tmx",)}


def detect_format(path: Path) -> ParallelFormat:
    """Detect the format at ``path`` from file names, and for text files from whether they have tabs.

    Raises:
        DataError: It looks like no format, or like several.
        MissingFileError: Nothing is there.
    """
    if path.is_file():
        return _format_of_file(path)
    if not path.is_dir():
        if any(bare(file).stem == path.name for file in data_files(path.parent)):
            return "moses"
        hub = " A dataset of the hub is read with the format datasets." if str(path).count("/") == 1 else ""
        raise MissingFileError(f"{missing_file(path)}{hub}")
    signs: dict[ParallelFormat, bool] = {
        "flores": bool(flores_splits(path)),
        "ntrex": bool(line_files.ntrex_files(path)),
        "moses": bool(moses_prefixes(path, wanted=())),
        "datasets": is_saved_dataset(path),
    }
    found = [name for name, there in signs.items() if there] or _tables_or_lines(path)
    if len(found) != 1:
        listing = shown((entry.name for entry in sorted(path.iterdir())), 8) or "nothing"
        raise DataError(
            f"{path} {'looks like ' + ' and '.join(found) if found else 'has no known layout of a parallel corpus'}. "
            f"It holds: {listing}. Name the format: {', '.join(get_args(ParallelFormat)[1:])}."
        )
    return found[0]


def _format_of_file(path: Path) -> ParallelFormat:
    suffix = bare(path).suffix
    for kind, suffixes in TABLES.items():
        if suffix == suffixes[0] or (suffix in suffixes and _has_tabs(path)):
            return kind
    if suffix == ".parquet":
        return "datasets"
    raise DataError(
        f"{path}: the suffix {suffix!r} does not say which format it is (.tsv, .jsonl, .tmx and .parquet do). Name the "
        "format; for a pair of files give the folder, or the prefix that both share."
    )


def _tables_or_lines(path: Path) -> list[ParallelFormat]:
    """The format of a folder without a known layout: tables, or a text file for each language."""
    files = data_files(path)
    texts = [file for file in files if bare(file).suffix == ".txt"]
    tabs = bool(texts) and _has_tabs(texts[0])
    if len(texts) > 1 and not tabs:
        return ["lines"]
    tables: list[ParallelFormat] = [
        kind for kind, suffixes in TABLES.items() if any(bare(file).suffix == suffixes[0] for file in files)
    ]
    if tabs and "tsv" not in tables:
        tables.append("tsv")
    return tables or (["lines"] if texts else [])


def _has_tabs(path: Path) -> bool:
    return "\t" in next(iter(read_lines(path)), "")


def offers_splits(path: str | Path, format: ParallelFormat = "auto") -> bool:  # noqa: A002 - the word that recipes use
    """Whether a corpus has splits; a corpus without splits is read whole, for any split.

    Raises:
        UserError: As `detect_format`.
    """
    place = local_path(path)
    if str(path).startswith(SACREBLEU) or place.is_file():
        return False
    if format == "datasets" and not place.exists():
        return True
    if _split_folders(place, format):
        return True
    kind = detect_format(place) if format == "auto" else format
    if kind == "moses":
        return bool(moses_splits(place, moses_prefixes(place, wanted=())))
    if kind in TABLES:
        return bool(_by_split(_tables(place, kind)))
    if kind == "lines":
        return bool(_by_split(file for code, file in line_files.plain_files(place, None) if known(code)))
    return kind == "flores" or (kind == "datasets" and has_splits(place))


def read_rows(
    path: str | Path,
    format: ParallelFormat,  # noqa: A002 - the word that recipes use
    wanted: list[str] | None,
    split: str | None,
    columns: Columns | None,
    limit: int | None,
) -> list[RawRow]:
    """The rows of a corpus, not yet checked; the arguments are those of `midalign.data.parallel.corpus.read_parallel`.

    Raises:
        UserError: As there.
    """
    if str(path).startswith(SACREBLEU):
        _check_fit("sacrebleu", split, columns)
        return read_test_set(str(path), wanted, limit)
    place = local_path(path)
    if folders := _split_folders(place, format):
        place, split = choose_split(folders, split, place), None
    kind = detect_format(place) if format == "auto" else format
    _check_fit(kind, split, columns)
    if kind == "datasets":
        if split is not None and place.exists() and not has_splits(place):
            raise DataError(f"split is {split!r}, but {place} has no splits. Leave it out.")
        return read_datasets(str(place) if place.exists() else str(path), wanted, columns, split, limit)
    if kind == "moses":
        rows = read_moses(place, wanted, split, limit)
    elif not place.exists():
        raise missing_file(place)
    elif kind in TABLES:
        rows = _read_tables(place, kind, wanted, split, columns, limit)
    else:
        rows = line_files.read_folder(_language_files(place, kind, wanted, split), wanted, limit)
    if place.is_dir():
        _warn_of_others(rows, kind, wanted)
    return rows


def _language_files(
    place: Path, kind: ParallelFormat, wanted: list[str] | None, split: str | None
) -> list[tuple[str, Path]]:
    """The (code, file) of a folder with a file for each language."""
    if not place.is_dir():
        raise DataError(
            f"{place} is a file, but the format {kind!r} needs a folder with a file for each language. Name the folder."
        )
    if kind == "flores":
        files = choose_split(flores_splits(place), split, place)
    else:
        files = line_files.ntrex_files(place) if kind == "ntrex" else line_files.plain_files(place, wanted)
    if not files:
        raise DataError(f"{place} has no file of the format {kind!r}. Name another folder or format.")
    if kind != "lines":
        return files
    splits = _by_split(file for code, file in files if known(code))
    if not splits and split is not None:
        raise DataError(f"split is {split!r}, but no file in {place} names a split. Leave it out.")
    chosen = choose_split(splits, split, place) if splits else []
    return [(code, file) for code, file in files if file in chosen or not (splits and known(code))]


def _warn_of_others(rows: Sequence[RawRow], kind: ParallelFormat, wanted: list[str] | None) -> None:
    """Name the files beside those that were read that may be further data, by the languages that their names tell.

    Not meant are files of other splits or languages than those asked for, and those that tell the name of a file that
    was read and more, such as ``corpus.de-en.ids``.
    """
    files = {Path(file) for row in rows for file in row.files.values()}
    there = {language for row in rows for language in row.files}
    others = [file for folder in {file.parent for file in files} for file in data_files(folder) if file not in files]
    if kind == "moses":  # which names a file without partner itself
        others = [file for file in others if not known(bare(file).suffix[1:])]
    lost = [file.name for file in others if _is_further(bare(file).name, files, there, wanted)]
    if lost:
        logger.warning("left out, because their names are not of this layout: %s", shown(sorted(lost)))


def _is_further(name: str, read: set[Path], there: set[str], wanted: list[str] | None) -> bool:
    told = {named.language for named in languages_in(name) if not named.is_word}
    if not told or (wanted is not None and not told <= set(wanted)):
        return False
    stems = {bare(file).stem for file in read}
    of_other_split = splits_in(name) - set().union(*map(splits_in, stems))
    return not of_other_split and bool(told - there or not any(name.startswith(f"{stem}.") for stem in stems))


def _split_folders(path: Path, format: ParallelFormat) -> dict[str, Path]:  # noqa: A002
    """The folders of splits in a folder that holds no data itself; FLORES and ``datasets`` have splits of their own."""
    if not path.is_dir() or format in ("flores", "datasets") or data_files(path):
        return {}
    folders = {folder.name: folder for folder in sorted(path.iterdir()) if folder.is_dir()}
    if flores_splits(path) or is_saved_dataset(path):
        return {}
    return {name: folder for name, folder in folders.items() if split_name(name) in SPLITS}


def _by_split(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Files by the split that their names tell; nothing where none tells any."""
    splits: dict[str, list[Path]] = {}
    for file in files:
        named = splits_in(bare(file).stem)
        splits.setdefault(named.pop() if len(named) == 1 else "(none)", []).append(file)
    return splits if set(splits) - {"(none)"} else {}


def _tables(place: Path, kind: ParallelFormat) -> list[Path]:
    return [file for file in data_files(place) if bare(file).suffix in TABLES[kind]]


def _read_tables(
    place: Path,
    kind: ParallelFormat,
    wanted: list[str] | None,
    split: str | None,
    columns: Columns | None,
    limit: int | None,
) -> list[RawRow]:
    """Rows of one table, or of those of a folder (of one split), in the wanted languages; ``limit`` counts in each."""
    readers: dict[ParallelFormat, Callable[[Path], list[RawRow]]] = {
        "tsv": lambda file: read_tsv(file, wanted, columns),
        "jsonl": lambda file: read_jsonl(file, wanted, columns),
        "tmx": lambda file: read_tmx(file, wanted),
    }
    files = _tables_of(place, kind, split)
    tables = [_rows_of_table(file, readers[kind], wanted if len(files) > 1 else None) for file in files]
    if wanted is not None:
        if any(tables):
            restrict({language: None for rows in tables for row in rows for language in row.texts}, wanted, place)
        tables = [[cut for row in rows if (cut := row.only(wanted))] for rows in tables]
    return [row for rows in tables for row in rows[:limit]]


def _rows_of_table(file: Path, reader: Callable[[Path], list[RawRow]], wanted: list[str] | None) -> list[RawRow]:
    """Rows of one table; a fault of a table whose name tells that it is of other languages does not matter."""
    try:
        return reader(file)
    except UserError:
        told = told_by_name(bare(file).stem, wanted)
        if wanted is None or not told or set(told) <= set(wanted):
            raise
        return []


def _tables_of(place: Path, kind: ParallelFormat, split: str | None) -> list[Path]:
    if place.is_file():
        if split is not None:
            raise DataError(f"split is {split!r}, but {place} is one file, which has no splits. Leave it out.")
        return [place]
    files = _tables(place, kind)
    if splits := _by_split(files):
        files = choose_split(splits, split, place)
    elif split is not None:
        raise DataError(f"split is {split!r}, but no table in {place} names a split. Leave it out.")
    if not files:
        raise DataError(f"{place} has no {' or '.join(TABLES[kind])} files. Name another folder or format.")
    return files


def _check_fit(kind: str, split: str | None, columns: Columns | None) -> None:
    """Refuse arguments that the format does not use, rather than ignore them."""
    if split is not None and kind in ("ntrex", "sacrebleu"):
        raise DataError(f"split is {split!r}, but the format {kind!r} has no splits. Leave it out.")
    if columns is not None and kind not in ("tsv", "jsonl", "datasets"):
        raise DataError(f"columns is {dict(columns)}, but the format {kind!r} has no columns. Leave it out.")
