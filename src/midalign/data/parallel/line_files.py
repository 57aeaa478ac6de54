"""Parallel corpora with one file per language (FLORES, NTREX, plain folders): from a path to rows with places.

File names become canonical languages, and the files are checked to be parallel. `midalign.data.parallel.moses` reads
pairs of files, `midalign.data.parallel.tables` TSV and JSONL, `midalign.data.parallel.hub` hub and local ``datasets``
data; `midalign.data.parallel.findings` checks the sentences.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from midalign.data.file_names import bare, data_files, language_of_each, split_name
from midalign.errors import DataError, MissingLanguageError
from midalign.files import read_lines
from midalign.languages import canonical, known

T = TypeVar("T")

NTREX_NAME = re.compile(r"newstest\d+-(?:src|ref)\.(?P<code>.+)\.txt")


@dataclass(frozen=True, slots=True)
class RawRow:
    """Sentences that are translations of each other, not yet checked.

    Attributes:
        id: ``<file stem>:<index from 0>``, or ``<folder name>:<index>`` where each language is a file.
        texts: Canonical language to sentence.
        files: Canonical language to the file of its sentence.
        line: Line in each of the files, from 1.
    """

    id: str
    texts: dict[str, str]
    files: Mapping[str, str]
    line: int

    def place(self, language: str) -> str:
        """``file:line`` of one sentence."""
        return f"{self.files[language]}:{self.line}"

    def only(self, languages: Sequence[str]) -> RawRow | None:
        """The row in these languages, in their order; None where fewer than two are left."""
        texts = {language: self.texts[language] for language in languages if language in self.texts}
        return replace(self, texts=texts) if len(texts) > 1 else None


def restrict(available: Mapping[str, T], wanted: Sequence[str] | None, where: object) -> dict[str, T]:
    """``available`` restricted to the ``wanted`` canonical languages, in their order (None: everything).

    Raises:
        DataError: A wanted language is not there.
    """
    if wanted is None:
        return dict(available)
    for language in wanted:
        if language not in available:
            same = [other for other in available if other[:3] == language[:3]]  # another script or region
            hint = f" Did you mean {' or '.join(map(repr, same))}?" if same else ""
            raise MissingLanguageError(
                f"{where} has no {language!r}, so nothing could be aligned or measured in it.{hint} "
                f"It has: {', '.join(sorted(available)) or 'none'}. Leave out the language or name another corpus."
            )
    return {language: available[language] for language in wanted}


def read_aligned(files: Mapping[str, Path], stem: str, limit: int | None) -> list[RawRow]:
    """Rows of files that are parallel by line, one file for each language.

    Raises:
        DataError: The files do not have the same number of lines.
    """
    texts = {language: read_lines(path) for language, path in files.items()}
    counts = {language: len(lines) for language, lines in texts.items()}
    usual = max(counts.values(), key=list(counts.values()).count)  # most files have it: the others are at fault
    for language, count in counts.items():
        if count != usual:
            other = next(name for name, n in counts.items() if n == usual)
            raise DataError(
                f"{files[language]} has {count} lines, but {files[other]} has {usual}. The files are parallel by line, "
                f"so from the first missing line on every pair would be wrong. Restore the line, or leave out "
                f"one of the two languages."
            )
    names = {language: str(path) for language, path in files.items()}
    n = usual if limit is None else min(limit, usual)
    return [
        RawRow(f"{stem}:{i}", {language: lines[i] for language, lines in texts.items()}, names, i + 1) for i in range(n)
    ]


def files_by_language(coded: Iterable[tuple[str, Path]], wanted: Sequence[str] | None = None) -> dict[str, Path]:
    """Canonical language to file, from codes as the file names have them; of ``wanted`` languages only.

    Raises:
        LanguageError: A file's code is not known, and no languages were asked for.
        DataError: Two files are of the same language.
    """
    files: dict[str, Path] = {}
    for code, path in coded:
        language = canonical(code, where=str(path)) if wanted is None else known(code)
        if language is None or (wanted is not None and language not in wanted):
            continue
        if language in files:
            raise DataError(
                f"{files[language]} and {path} are both {language}, so one would silently win. "
                f"Keep one of the two in the folder."
            )
        files[language] = path
    return files


def read_folder(coded: list[tuple[str, Path]], wanted: Sequence[str] | None, limit: int | None) -> list[RawRow]:
    """Rows of a folder with one file for each language (the FLORES, NTREX and plain layouts)."""
    folder = coded[0][1].parent
    found = files_by_language(coded, wanted)
    if wanted is not None and len(found) < len(wanted):
        there = {language: file for code, file in coded if (language := known(code))}
        restrict(there, wanted, folder)
    files = restrict(found, wanted, folder)
    if len(files) < 2:
        raise DataError(
            f"{folder} has only {', '.join(files)}; a parallel corpus needs two languages or more. "
            f"Add a file of another language, or name more languages."
        )
    return read_aligned(files, folder.resolve().name, limit)


def flores_splits(path: Path) -> dict[str, list[tuple[str, Path]]]:
    """FLORES-200: ``{dev,devtest}/<lang_Scrp>.{dev,devtest}`` from its root, the folder above it, or one split.

    Returns:
        The (code, file) of each split that is there.
    """
    found: dict[str, list[tuple[str, Path]]] = {"dev": [], "devtest": []}
    for base in (path / "flores200_dataset", path):
        for split, coded in found.items():
            for folder in (base / split, base):
                coded += [(bare(file).stem, file) for file in data_files(folder) if bare(file).suffix == f".{split}"]
    return {split: coded for split, coded in found.items() if coded}


def choose_split(available: Mapping[str, T], split: str | None, where: object) -> T:
    """The named split by whatever name the corpus has for it, or the only one, or ``devtest``.

    Raises:
        DataError: The named split is not there, or none was named and there are several without a ``devtest``.
    """
    if split is None:
        names = list(available) if len(available) == 1 else [name for name in available if name == "devtest"]
    else:
        names = [name for name in available if name == split]
        names = names or [name for name in available if split_name(name) == split_name(split)]
    if len(names) != 1:
        wrong = "several splits, and none was named" if split is None else f"no split {split!r}"
        raise DataError(
            f"{where} has {wrong}; without the right one, training and test sentences could mix. "
            f"Name one of: {', '.join(available) or '(it has none)'}."
        )
    return available[names[0]]


def ntrex_files(path: Path) -> list[tuple[str, Path]]:
    """NTREX-128: ``newstest2019-src.eng.txt`` and ``newstest2019-ref.<code>.txt``."""
    names = ((NTREX_NAME.fullmatch(bare(file).name), file) for file in data_files(path))
    return [(match["code"], file) for match, file in names if match]


def plain_files(path: Path, wanted: Sequence[str] | None) -> list[tuple[str, Path]]:
    """Text files that are parallel by line: ``<language>.txt``, or names that each tell one language."""
    files = [file for file in data_files(path) if bare(file).suffix == ".txt"]
    stems = [bare(file).stem for file in files]
    languages = language_of_each(stems, wanted)
    return [(language or stem, file) for language, stem, file in zip(languages, stems, files, strict=True)]
