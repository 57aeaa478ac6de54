"""Parallel corpora in ``datasets`` form: a hub name, a folder saved by ``datasets``, or Parquet files.

There are two shapes: one table with a column for each language (``columns``), or one table for each language with a
``text`` column, as in FLORES+ (one configuration each on the hub, one Parquet file each in a folder). `read_datasets`
uses the network only for a name that is not a path of this machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from midalign.data.parallel.line_files import RawRow, choose_split, files_by_language, restrict
from midalign.data.parallel.tables import json_text
from midalign.errors import DataError, did_you_mean
from midalign.files import read_parquet
from midalign.languages import known


def is_saved_dataset(path: Path) -> bool:
    """Whether a folder was written by ``save_to_disk``, or a path is or holds Parquet."""
    saved = ("dataset_dict.json", "state.json")
    return path.suffix == ".parquet" or any((path / name).is_file() for name in saved) or any(path.rglob("*.parquet"))


def has_splits(path: Path) -> bool:
    """Whether local ``datasets`` data may have splits: not one table, nor a file for each language."""
    tables = list(path.glob("*.parquet"))
    return path.is_dir() and not (path / "state.json").is_file() and not (tables and all(known(t.stem) for t in tables))


def read_datasets(
    name: str,
    wanted: Sequence[str] | None,
    columns: Mapping[str, str | int] | None,
    split: str | None,
    limit: int | None,
) -> list[RawRow]:
    """Rows of a hub or local dataset; nested columns are written with a dot (``translation.de``).

    Args:
        name: ``owner/name``, ``owner/name:configuration``, or a local path.
        wanted: Canonical languages to read; for one table per language, only these are fetched.
        columns: Canonical language to column of the one table. None: one table for each language.
        split: Name of the split; None where there is one, or a ``devtest``.
        limit: First rows to read; None for all.

    Raises:
        DataError: The dataset cannot be loaded, or has another shape than `columns` says.
    """
    if columns is not None:
        named = restrict({language: str(column) for language, column in columns.items()}, wanted, "`columns`")
        return _one_table(name, named, split, limit)
    return _table_each(name, wanted, split, limit)


def _one_table(name: str, columns: Mapping[str, str], split: str | None, limit: int | None) -> list[RawRow]:
    table = _load(name, split)
    table = table.select(range(min(limit, len(table)))) if limit is not None else table
    table = table.flatten()
    for column in columns.values():
        if column not in table.column_names:
            raise DataError(
                f"{name} has no column {column!r}.{did_you_mean(column, table.column_names)} Its columns: "
                f"{', '.join(table.column_names)}. Say in `columns` which of them is which language."
            )
    files = dict.fromkeys(columns, name)
    stem = _stem(name)
    return [
        RawRow(
            f"{stem}:{i}",
            {language: json_text(row, column, f"{name}:{i + 1}") for language, column in columns.items()},
            files,
            i + 1,
        )
        for i, row in enumerate(table.select_columns(list(columns.values())))
    ]


def _table_each(name: str, wanted: Sequence[str] | None, split: str | None, limit: int | None) -> list[RawRow]:
    """Rows of one table for each language, joined row by row and checked by their ``id`` where they have one."""
    sources = restrict(_language_tables(name, split, wanted), wanted, name)
    if len(sources) < 2:
        raise DataError(
            f"{name}: no two tables that are named after languages. Say in `columns` which column of the table is "
            f"which language, such as {{'eng': 'translation.en', 'deu': 'translation.de'}}."
        )
    tables = {language: _load(source, split) for language, source in sources.items()}
    first, *others = tables
    for language, table in tables.items():
        if "text" not in table.column_names:
            raise DataError(
                f"{sources[language]} has no column 'text', only {', '.join(table.column_names)}. "
                f"One table for each language is read by its 'text'; otherwise say in `columns` which column is which."
            )
    for language in others:
        same = len(tables[first]) == len(tables[language]) and _ids(tables[first]) == _ids(tables[language])
        if not same:
            raise DataError(
                f"{sources[language]} ({len(tables[language])} rows) and {sources[first]} ({len(tables[first])} rows) "
                f"do not have the same rows in the same order, so their sentences are not translations of each other. "
                f"Take one split and one version of both."
            )
    texts = {
        language: [json_text(row, "text", f"{sources[language]}:{i + 1}") for i, row in enumerate(table)][:limit]
        for language, table in tables.items()
    }
    stem = _stem(name)
    return [
        RawRow(f"{stem}:{i}", dict(zip(texts, row, strict=True)), sources, i + 1)
        for i, row in enumerate(zip(*texts.values(), strict=True))
    ]


def _stem(name: str) -> str:
    """Beginning of the rows' ids: a file without its suffix, a folder, or the last part of a hub name."""
    return Path(name).stem if Path(name).is_file() else name.rstrip("/").rpartition("/")[2]


def _ids(table: Any) -> list[Any] | None:
    return list(table["id"]) if "id" in table.column_names else None


def _language_tables(name: str, split: str | None, wanted: Sequence[str] | None) -> dict[str, str]:
    """Canonical language to the name that `_load` takes: a Parquet file, or ``hub name:configuration``."""
    path = Path(name)
    if path.is_dir():
        folders = {folder.name: folder for folder in sorted(path.iterdir()) if any(folder.glob("*.parquet"))}
        folder = choose_split(folders, split, path) if folders and not any(path.glob("*.parquet")) else path
        files = sorted(folder.glob("*.parquet"))
        return {
            language: str(file) for language, file in files_by_language(((f.stem, f) for f in files), wanted).items()
        }
    if path.exists():
        return {}
    from datasets import get_dataset_config_names

    configurations = _fetch(name, get_dataset_config_names, name)
    # Others, such as "all", are no languages.
    return {language: f"{name}:{code}" for code in configurations if (language := known(code))}


def _load(name: str, split: str | None) -> Any:
    """One table by name: saved folder, Parquet file or folder, or ``hub name[:configuration]``."""
    import datasets

    path = Path(name)
    if path.is_file():
        return datasets.Dataset(read_parquet(path))
    if path.is_dir() and any((path / marker).is_file() for marker in ("state.json", "dataset_dict.json")):
        loaded = _fetch(name, datasets.load_from_disk, name)
    elif path.is_dir():
        loaded = _fetch(name, datasets.load_dataset, name)
    else:
        hub, _, configuration = name.partition(":")
        loaded = _fetch(name, datasets.load_dataset, hub, configuration or None)
    return choose_split(loaded, split, name) if isinstance(loaded, dict) else loaded


def _fetch(name: str, function: Any, *args: Any) -> Any:
    """Call a loader of ``datasets``; an absent, gated, unreachable or damaged dataset is the user's to mend."""
    try:
        return function(*args)
    except Exception as error:  # of the network, of Arrow, or of any shape that a damaged file has
        reason = error.__cause__ or error
        raise DataError(
            f"the dataset {name!r} cannot be loaded: {reason}. Check the name and, for a gated one, that you are "
            f"logged in (hf auth login) and have accepted its terms; or name a local folder."
        ) from error
