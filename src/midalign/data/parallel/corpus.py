"""Parallel corpora of every format behind one function, `read_parallel`, and one object, `ParallelCorpus`.

1. The layout is named or detected, and its reader gives rows with file and line (`midalign.data.parallel.layout`).
2. Empty sides are an error or dropped; identical sides and exact duplicates are counted, logged and kept
   (`midalign.data.parallel.findings`).
3. The corpus yields pairs (for training) or n-way parallel lists (for probing).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from midalign.data.parallel.findings import EXAMPLES, CorpusReport, Finding, exact_duplicates, identical_sides, warn_of
from midalign.data.parallel.layout import ParallelFormat, read_rows
from midalign.data.parallel.line_files import RawRow, restrict
from midalign.errors import DataError, did_you_mean
from midalign.files import is_blank
from midalign.languages import ENGLISH, canonical
from midalign.records import ParallelPair

OnEmpty = Literal["error", "skip"]
ON_EMPTY: tuple[OnEmpty, ...] = get_args(OnEmpty)
Directions = Literal["english", "all"]


@dataclass(frozen=True, slots=True)
class ParallelRow:
    """Sentences that are translations of each other: ``texts`` by canonical language, and where they came from."""

    id: str
    texts: Mapping[str, str]

    def pair(self, source: str, target: str) -> ParallelPair | None:
        """The pair of two different languages, or None where the row lacks one of them."""
        if source == target or source not in self.texts or target not in self.texts:
            return None
        return ParallelPair(self.texts[source], self.texts[target], source, target, self.id)


@dataclass(frozen=True)
class ParallelCorpus:
    """Rows of parallel sentences, all checked.

    Attributes:
        rows: In the order of the files; a row need not have every language.
        languages: Canonical codes: as they were asked for, otherwise English first and the rest by code.
        report: What the checks found.

    Examples:
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
        source = self._chosen([pivot]) if directions == "english" else []
        place = {language: number for number, language in enumerate(order)}
        found: list[ParallelPair] = []
        for row in self.rows:
            there = sorted(place.keys() & row.texts.keys(), key=place.__getitem__)
            couples = itertools.product(source, there) if source else itertools.combinations(there, 2)
            found += [pair for a, b in couples if (pair := row.pair(a, b))]
        paired = {language for pair in found for language in (pair.source_language, pair.target_language)}
        lacking = [language for language in order if language not in paired]
        if not found or (lacking and languages is not None):
            how = f"with {canonical(pivot)} as pivot" if directions == "english" else "with another of them"
            raise DataError(
                f"no row has a pair of {' or '.join(lacking) or order[0]} {how}, and it would silently be left "
                f"out. Do not name it, or name another pivot. The first row has: {', '.join(self.rows[0].texts)}."
            )
        return found

    def multiway(self, languages: Sequence[str] | None = None, *, limit: int | None = None) -> dict[str, list[str]]:
        """N-way parallel sentences: a list for each language; sentence i of every list is a translation of the others.

        Args:
            languages: Any codes; None for all.
            limit: Largest number of rows, from the first; None for all.

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
        return list(restrict(dict.fromkeys(self.languages), codes, "the corpus"))


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
        path: Folder, file, prefix of a pair of files, a test set (``sacrebleu:wmt23/en-de``), or the name of a hub
            dataset (``format="datasets"`` only). Text files may be compressed (``.gz``, ``.bz2``,
            ``.xz``).
        format: ``flores``: ``{dev,devtest}/<language>.{dev,devtest}``. ``ntrex``:
            ``newstest2019-{src,ref}.<language>.txt``. ``lines``: ``<language>.txt``. ``moses``: ``train.en`` with
            ``train.de``, ``<prefix>.<a>-<b>.{<a>,<b>}``. ``tsv``: a header of language codes, or languages from the
            file's name. ``jsonl``: ``source``, ``target``, ``source_language``, ``target_language``; or keys that are
            codes of languages; or the reference's ``text_parallel_0`` and ``_1``. ``tmx``: translation memories.
            ``datasets``: see `midalign.data.parallel.hub.read_datasets`. ``auto``: what the files look like; no
            network.
        languages: Read only these (any codes); None for all. A pair is read if both its sides are named. Files of
            other languages, or of none, are ignored.
        split: Split to read, if the corpus has several (FLORES, ``datasets``, a folder for each, names such as
            ``train.en``); None takes the only one, or ``devtest``.
        columns: Language to column of a TSV, JSONL or ``datasets`` table (numbers from 0: a TSV without header).
        limit: Number of rows to read, from the first (of each table or pair of files); None for all.
        on_empty: ``error``, or ``skip`` to drop a row with an empty side and count it.

    Raises:
        MissingFileError: There is nothing at ``path``.
        LanguageError: A language code, of a file or an argument, is not known.
        DataError: Bytes that are not UTF-8, unequal line counts, an empty line, two files of one language, a wanted
            language that is not there, no rows, or an argument that does not fit the format.

    Examples:
        >>> folder = Path("greetings")
        >>> folder.mkdir()
        >>> _ = (folder / "eng.txt").write_text("Good morning\nThank you\n")
        >>> _ = (folder / "deu.txt").write_text("Guten Morgen\nDanke\n")
        >>> pair = midalign.read_parallel(folder).pairs(["de"])[1]
        >>> pair.source, pair.target, pair.id
        ('Thank you', 'Danke', 'greetings:1')
    """
    _check_choice("format", format, get_args(ParallelFormat))
    _check_choice("on_empty", on_empty, ON_EMPTY)
    _check_limit(limit)
    wanted = None if languages is None else list(dict.fromkeys(canonical(code, "languages") for code in languages))
    if wanted is not None and len(wanted) < 2:
        other = "another language, such as 'deu_Latn'" if wanted == [ENGLISH] else repr(ENGLISH)
        raise DataError(f"languages is {wanted}, but a parallel corpus needs two languages or more. Add {other}.")
    named = None if columns is None else _canonical_columns(columns)
    raw = read_rows(path, format, wanted, split, named, limit)
    return _checked(raw, wanted, on_empty, path)


def _checked(raw: list[RawRow], wanted: list[str] | None, on_empty: OnEmpty, path: str | Path) -> ParallelCorpus:
    """The corpus of raw rows: empty sides refused or dropped, the rest counted."""
    kept, empty = _without_empty(raw, on_empty)
    if not kept:
        raise DataError(
            f"{path} has no rows{f' ({len(empty)} were dropped for an empty side)' if empty else ''}, so there is "
            f"nothing to align or measure. Check the split and the languages."
        )
    there = {language for row in kept for language in row.texts}
    if len(there) < 2:
        raise DataError(
            f"{path} has only {', '.join(there)}; a parallel corpus needs two languages or more. Write the codes of "
            "all its languages into the first line or the names of its files."
        )
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


def _without_empty(raw: list[RawRow], on_empty: OnEmpty) -> tuple[list[RawRow], list[str]]:
    """The rows that have text on all sides, and the places of empty sides, which are refused or dropped."""
    kept, empty = [], []
    for row in raw:
        place = next((row.place(language) for language, text in row.texts.items() if is_blank(text)), None)
        if place is None:
            kept.append(row)
        elif on_empty == "skip":
            empty.append(place)
        else:
            raise DataError(
                f"{place}: empty sentence. It has no vector and no translation. Fill it in, or remove the line from "
                f"all languages. To align or to probe, such rows can be left out (on_empty: skip)."
            )
    return kept, empty


def _canonical_columns(columns: Mapping[str, str | int]) -> dict[str, str | int]:
    named = {canonical(code, "columns"): column for code, column in columns.items()}
    if len(named) < len(columns) or len(named) < 2:
        raise DataError(
            f"columns is {dict(columns)}: it must name two or more different languages, each with its column."
        )
    return named


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}, which leaves no rows. Give 1 or more, or leave it out for all rows.")


def _check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise DataError(f"{name} is {value!r}.{did_you_mean(value, allowed)} Write one of: {', '.join(allowed)}.")
