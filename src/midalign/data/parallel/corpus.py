"""Parallel corpora of every format behind one function, `read_parallel`, and one object, `ParallelCorpus`.

1. The format is named or told from what is there (`detect_format`).
2. Its reader gives rows with file and line (`corpus_readers`, `corpus_tables`, `corpus_datasets` beside this file).
3. Empty sides are an error or dropped; identical sides and exact duplicates are counted, logged and kept
   (`corpus_report`).
4. The corpus yields pairs (for training) or n-way parallel lists (for probing).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from midalign.data.parallel import line_files as readers
from midalign.data.parallel.findings import EXAMPLES, CorpusReport, Finding, exact_duplicates, identical_sides, warn_of
from midalign.data.parallel.hub import is_saved_dataset, read_datasets
from midalign.data.parallel.line_files import RawRow
from midalign.data.parallel.tables import read_jsonl, read_tsv
from midalign.errors import DataError, did_you_mean
from midalign.files import is_blank, missing_file
from midalign.languages import canonical
from midalign.records import ParallelPair

ParallelFormat = Literal["auto", "flores", "ntrex", "lines", "moses", "tsv", "jsonl", "datasets"]
OnEmpty = Literal["error", "skip"]
Directions = Literal["english", "all"]

ENGLISH = "eng_Latn"


@dataclass(frozen=True, slots=True)
class ParallelRow:
    """Sentences that are translations of each other: ``texts`` by canonical language, and where they came from."""

    id: str
    texts: Mapping[str, str]


@dataclass(frozen=True)
class ParallelCorpus:
    """Rows of parallel sentences, all checked.

    Attributes:
        rows: In the order of the files; a row need not have every language.
        languages: Canonical codes: as they were asked for, otherwise English first and the rest by code.
        report: What the checks found.

    Example:
        >>> corpus = midalign.read_parallel("lines")  # lines/eng.txt, lines/deu.txt, lines/rus.txt
        >>> corpus.languages, len(corpus.rows)
        (('eng_Latn', 'deu_Latn', 'rus_Cyrl'), 20)
        >>> len(corpus.pairs(["de"])), len(corpus.pairs(directions="all"))
        (20, 60)
        >>> corpus.multiway(["en", "ru"], limit=1)
        {'eng_Latn': ['call at a en'], 'rus_Cyrl': ['звони в a ru']}
    """

    rows: tuple[ParallelRow, ...]
    languages: tuple[str, ...]
    report: CorpusReport

    @cached_property
    def sha256(self) -> str:
        """Hash of the content (languages and sentences in row order), the same wherever the files lie."""
        digest = hashlib.sha256()
        for row in self.rows:
            for language, text in sorted(row.texts.items()):
                data = text.encode()
                digest.update(f"{language} {len(data)} ".encode() + data)
            digest.update(b"\n")
        return digest.hexdigest()

    def pairs(
        self,
        languages: Sequence[str] | None = None,
        *,
        pivot: str = ENGLISH,
        directions: Directions = "english",
    ) -> list[ParallelPair]:
        """Pairs of sentences, in row order.

        Args:
            languages: Any codes; None for all. With ``"english"`` these are the targets (the pivot need not be named).
            pivot: The source side of ``"english"``.
            directions: ``"english"``: the pivot with each other language. ``"all"``: every unordered pair of
                languages once, the one that comes first in ``languages`` as the source.

        Raises:
            DataError: A language is not in the corpus, or a named one is in no pair.
        """
        _check_choice("directions", directions, get_args(Directions))
        order = self._chosen(languages)
        if directions == "english":
            pivot = self._chosen([pivot])[0]
            couples = [(pivot, language) for language in order if language != pivot]
        else:
            couples = list(itertools.combinations(order, 2))
        found = [
            ParallelPair(row.texts[a], row.texts[b], a, b, row.id)
            for row in self.rows
            for a, b in couples
            if a in row.texts and b in row.texts
        ]
        paired = {language for pair in found for language in (pair.source_language, pair.target_language)}
        lacking = [language for language in order if language not in paired]
        if not found or (lacking and languages is not None):
            how = f"with {pivot} as pivot" if directions == "english" else "with another of them"
            raise DataError(
                f"no row has a pair of {' or '.join(lacking) or order[0]} {how}, and it would silently be left "
                f"out. Do not name it, or name another pivot. The first row has: {', '.join(self.rows[0].texts)}."
            )
        return found

    def multiway(self, languages: Sequence[str] | None = None, *, limit: int | None = None) -> dict[str, list[str]]:
        """Sentences that are parallel across all the languages: the i-th of each list mean the same.

        Args:
            languages: Any codes; None for all.
            limit: At most so many rows, the first ones; None for all.

        Raises:
            DataError: A language is not in the corpus, or no row has them all.
        """
        _check_limit(limit)
        order = self._chosen(languages)
        rows = [row for row in self.rows if all(language in row.texts for language in order)]
        if not rows:
            shown = ", ".join(order[:5]) + (f" and {len(order) - 5} more" if len(order) > 5 else "")
            raise DataError(
                f"no row has all of {shown}, so the corpus is not parallel across them: its rows are of "
                f"{' with '.join(self.rows[0].texts)} and the like. Ask for two languages that form a pair, or read an "
                f"n-way parallel corpus such as FLORES-200 or NTREX-128."
            )
        return {language: [row.texts[language] for row in rows[:limit]] for language in order}

    def _chosen(self, languages: Sequence[str] | None) -> list[str]:
        codes = None if languages is None else list(dict.fromkeys(canonical(code) for code in languages))
        return list(readers.restrict(dict.fromkeys(self.languages), codes, "the corpus"))


def read_parallel(
    path: str | Path,
    *,
    format: ParallelFormat = "auto",  # noqa: A002 - the word that recipes use
    languages: Sequence[str] | None = None,
    split: str | None = None,
    columns: Mapping[str, str | int] | None = None,
    limit: int | None = None,
    on_empty: OnEmpty = "error",
) -> ParallelCorpus:
    r"""Read and check a parallel corpus.

    Args:
        path: Folder, file, prefix of a pair of files, or (``format="datasets"`` only) the name of a hub dataset.
        format: ``flores``: ``{dev,devtest}/<language>.{dev,devtest}``. ``ntrex``:
            ``newstest2019-{src,ref}.<language>.txt``. ``lines``: ``<language>.txt``. ``moses``:
            ``<prefix>.<a>-<b>.{<a>,<b>}``. ``tsv``: a header of language codes. ``jsonl``: ``source``, ``target``,
            ``source_language``, ``target_language``, or the reference's ``text_parallel_0`` and ``_1``.
            ``datasets``: see `midalign.data.parallel.hub.read_datasets`. ``auto``: what the files look like;
            never the network.
        languages: Read only these (any codes); None for all. A pair is read where both its sides are named.
        split: FLORES and ``datasets`` only; None is the only split, or ``devtest``.
        columns: Language to column of a TSV, JSONL or ``datasets`` table (numbers from 0: a TSV without header).
        limit: First rows to read (of each pair of files, for ``moses``); None for all.
        on_empty: ``error``, or ``skip`` to drop a row with an empty side and count it.

    Raises:
        MissingFileError: There is nothing at ``path``.
        LanguageError: A language code, of a file or an argument, is not known.
        DataError: Bytes that are not UTF-8, unequal line counts, an empty line, two files of one language, a wanted
            language that is not there, no rows, or an argument that does not fit the format.

    Example:
        >>> folder = Path("greetings")
        >>> folder.mkdir()
        >>> _ = (folder / "eng.txt").write_text("Good morning\nThank you\n")
        >>> _ = (folder / "deu.txt").write_text("Guten Morgen\nDanke\n")
        >>> pair = midalign.read_parallel(folder).pairs(["de"])[1]
        >>> pair.source, pair.target, pair.id
        ('Thank you', 'Danke', 'greetings:1')
    """
    _check_choice("format", format, get_args(ParallelFormat))
    _check_choice("on_empty", on_empty, get_args(OnEmpty))
    _check_limit(limit)
    wanted = None if languages is None else list(dict.fromkeys(canonical(code, "languages") for code in languages))
    if wanted is not None and len(wanted) < 2:
        raise DataError(f"languages is {wanted}; a parallel corpus needs two or more. Add {ENGLISH!r} or another.")
    kind = detect_format(Path(path)) if format == "auto" else format
    _check_fit(kind, split, columns)
    named = None if columns is None else _canonical_columns(columns)
    raw = _read(kind, path, wanted, split, named, limit)
    return _checked(raw, wanted, on_empty, path)


def detect_format(path: Path) -> ParallelFormat:
    """The format of what is at ``path``, told from names only.

    Raises:
        MissingFileError: Nothing is there.
        DataError: It looks like no format, or like several.
    """
    if path.is_file():
        by_suffix: dict[str, ParallelFormat] = {".tsv": "tsv", ".jsonl": "jsonl", ".parquet": "datasets"}
        if path.suffix not in by_suffix:
            raise DataError(
                f"{path}: the suffix {path.suffix!r} does not tell the format ({', '.join(by_suffix)} do). Name it "
                f"with format=; for a pair of files give the folder, or the prefix that both share."
            )
        return by_suffix[path.suffix]
    if not path.is_dir():
        if path.parent.is_dir() and any(file.stem == path.name for file in path.parent.iterdir()):
            return "moses"
        raise missing_file(path)
    signs: dict[ParallelFormat, bool] = {
        "flores": bool(readers.flores_splits(path)),
        "ntrex": bool(readers.ntrex_files(path)),
        "moses": bool(readers.moses_pairs(path)),
        "datasets": is_saved_dataset(path),
    }
    found = [name for name, there in signs.items() if there]
    if not found and any(path.glob("*.txt")):
        found = ["lines"]  # last, because a README.txt lies beside many corpora
    if len(found) != 1:
        listing = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
        raise DataError(
            f"{path} {'looks like ' + ' and '.join(found) if found else 'has no known layout of a parallel corpus'}. "
            f"It holds: {listing}. Name the format with format= ({', '.join(get_args(ParallelFormat)[1:])})."
        )
    return found[0]


def _read(
    kind: ParallelFormat,
    path: str | Path,
    wanted: list[str] | None,
    split: str | None,
    columns: Mapping[str, str | int] | None,
    limit: int | None,
) -> list[RawRow]:
    """The rows of one format, not yet checked."""
    place = Path(path)
    if kind == "datasets":
        return read_datasets(str(path), wanted, columns, split, limit)
    if kind == "moses":
        return readers.read_moses(place, wanted, limit)
    if not place.exists():
        raise missing_file(place)
    if kind in ("tsv", "jsonl"):
        return (read_tsv if kind == "tsv" else read_jsonl)(place, wanted, columns, limit)
    if not place.is_dir():
        raise DataError(
            f"{path} is a file, but the format {kind!r} is a folder with a file for each language. Name it."
        )
    if kind == "flores":
        files = readers.choose_split(readers.flores_splits(place), split, place)
    else:
        files = readers.ntrex_files(place) if kind == "ntrex" else readers.plain_files(place)
    if not files:
        raise DataError(f"{path} has no file of the format {kind!r}. Check the folder, or name another format.")
    return readers.read_folder(files, wanted, limit)


def _checked(raw: list[RawRow], wanted: list[str] | None, on_empty: OnEmpty, path: str | Path) -> ParallelCorpus:
    """The corpus of raw rows: empty sides refused or dropped, the rest counted."""
    kept, empty = [], []
    for row in raw:
        places = [row.place(language) for language, text in row.texts.items() if is_blank(text)]
        if places and on_empty == "error":
            raise DataError(
                f"{places[0]}: empty sentence. It has no vector and no translation. Fill it in, remove the line from "
                f"all languages, or drop such rows with on_empty='skip'."
            )
        if places:
            empty.append(places[0])
        else:
            kept.append(row)
    if not kept:
        raise DataError(
            f"{path} has no rows{f' ({len(empty)} were dropped for an empty side)' if empty else ''}, so there is "
            f"nothing to align or measure. Check the path, the split and the languages."
        )
    there = {language for row in kept for language in row.texts}
    lost = [language for language in wanted or () if language not in there]
    if lost:
        raise DataError(
            f"{path}: no row of {', '.join(lost)} is left among the {len(kept)} rows read. Raise or remove the limit, "
            f"or leave out the language."
        )
    order = tuple(wanted or sorted(there, key=lambda language: (language != ENGLISH, language)))
    skipped = Finding(len(empty), tuple(empty[:EXAMPLES]))
    report = CorpusReport(len(kept), skipped, identical_sides(kept, order), exact_duplicates(kept, order))
    warn_of(report, path)
    return ParallelCorpus(tuple(ParallelRow(row.id, row.texts) for row in kept), order, report)


def _canonical_columns(columns: Mapping[str, str | int]) -> dict[str, str | int]:
    named = {canonical(code, "columns"): column for code, column in columns.items()}
    if len(named) < len(columns) or len(named) < 2:
        raise DataError(
            f"columns is {dict(columns)}: it must name two or more different languages, each with its column."
        )
    return named


def _check_fit(kind: ParallelFormat, split: str | None, columns: Mapping[str, str | int] | None) -> None:
    """Refuse arguments that the format has no use for, rather than ignore them."""
    if split is not None and kind not in ("flores", "datasets"):
        raise DataError(f"split is {split!r}, but the format {kind!r} has no splits. Leave it out.")
    if columns is not None and kind not in ("tsv", "jsonl", "datasets"):
        raise DataError(f"columns is {dict(columns)}, but the format {kind!r} has no columns. Leave it out.")


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}, which leaves no rows. Give 1 or more, or leave it out for all rows.")


def _check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise DataError(f"{name} is {value!r}.{did_you_mean(value, allowed)} Write one of: {', '.join(allowed)}.")
