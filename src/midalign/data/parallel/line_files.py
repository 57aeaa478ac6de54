"""Corpora with one file for each language (FLORES, NTREX, plain, Moses): from a path to rows, each with its place.

Here a file's name becomes a canonical language, and files that ought to be parallel are checked for it. Tables (TSV,
JSONL) are in `midalign.data.parallel.tables`, hub and local ``datasets`` data in `midalign.data.parallel.hub`; what the
sentences say is looked at in `midalign.data.parallel.findings`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from midalign.errors import DataError
from midalign.files import missing_file, read_lines
from midalign.languages import canonical

T = TypeVar("T")

NTREX_NAME = re.compile(r"newstest\d+-(?:src|ref)\.(?P<code>.+)\.txt")
MOSES_NAME = re.compile(r"(?P<prefix>.+\.(?P<a>[A-Za-z_]+)-(?P<b>[A-Za-z_]+))\.(?P<code>[A-Za-z_]+)")


@dataclass(frozen=True, slots=True)
class RawRow:
    """Sentences that are translations of each other, not yet checked.

    Attributes:
        id: ``<file stem>:<index from 0>``, or ``<folder name>:<index>`` where each language is a file.
        texts: Canonical language to sentence.
        files: Canonical language to the file that its sentence stands in.
        line: Line in each of the files, from 1.
    """

    id: str
    texts: dict[str, str]
    files: Mapping[str, str]
    line: int

    def place(self, language: str) -> str:
        """``file:line`` of one sentence."""
        return f"{self.files[language]}:{self.line}"


def restrict(available: Mapping[str, T], wanted: Sequence[str] | None, where: object) -> dict[str, T]:
    """``available`` cut down to the ``wanted`` canonical languages, in their order (None: everything).

    Raises:
        DataError: A wanted language is not there.
    """
    if wanted is None:
        return dict(available)
    for language in wanted:
        if language not in available:
            same = [other for other in available if other[:3] == language[:3]]  # another script or region
            hint = f" Did you mean {' or '.join(map(repr, same))}?" if same else ""
            raise DataError(
                f"{where} has no {language!r}, so nothing could be aligned or measured in it.{hint} "
                f"It has: {', '.join(sorted(available))}. Leave out the language or name another corpus."
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


def files_by_language(coded: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Canonical language to file, from codes as the file names have them.

    Raises:
        LanguageError: A file's code is not known.
        DataError: Two files are of the same language.
    """
    files: dict[str, Path] = {}
    for code, path in coded:
        language = canonical(code, where=str(path))
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
    files = restrict(files_by_language(coded), wanted, folder)
    if len(files) < 2:
        raise DataError(
            f"{folder} gives only {', '.join(files)}; a parallel corpus needs two languages or more. "
            f"Add a file of another language, or name more languages."
        )
    return read_aligned(files, folder.resolve().name, limit)


def flores_splits(path: Path) -> dict[str, list[tuple[str, Path]]]:
    """FLORES-200: ``{dev,devtest}/<lang_Scrp>.{dev,devtest}`` from its root, the folder above it, or one split.

    Returns:
        The (code, file) of each split that is there.
    """
    folders = (path / "flores200_dataset", path)
    found = {
        split: [file for folder in folders for deep in (folder / split, folder) for file in deep.glob(f"*.{split}")]
        for split in ("dev", "devtest")
    }
    return {split: [(file.stem, file) for file in sorted(files)] for split, files in found.items() if files}


def choose_split(available: Mapping[str, T], split: str | None, where: object) -> T:
    """The named split, or the only one, or ``devtest``.

    Raises:
        DataError: The named split is not there, or none was named and there are several without a ``devtest``.
    """
    if split is None:
        split = next(iter(available)) if len(available) == 1 else "devtest"
    if split not in available:
        raise DataError(
            f"{where} has no split {split!r}; without the right one, training and test sentences could mix. "
            f"Name one of: {', '.join(available) or '(it has none)'}."
        )
    return available[split]


def ntrex_files(path: Path) -> list[tuple[str, Path]]:
    """NTREX-128: ``newstest2019-src.eng.txt`` and ``newstest2019-ref.<code>.txt``."""
    names = ((NTREX_NAME.fullmatch(file.name), file) for file in sorted(path.iterdir()))
    return [(match["code"], file) for match, file in names if match]


def plain_files(path: Path) -> list[tuple[str, Path]]:
    """``<language>.txt``, parallel by line."""
    return [(file.stem, file) for file in sorted(path.glob("*.txt"))]


def moses_pairs(path: Path) -> list[tuple[str, list[tuple[str, Path]]]]:
    """Moses pairs ``<prefix>.<a>-<b>.<a>`` and ``.<b>`` of a folder, or ``<prefix>.<a>`` and ``.<b>`` of one prefix.

    Returns:
        For each pair its prefix and its two (code, file).

    Raises:
        MissingFileError: One side of a pair is not there.
    """
    if not path.is_dir():
        beside = path.parent.iterdir() if path.parent.is_dir() else []
        sides = sorted(file for file in beside if file.stem == path.name and file.is_file())
        if not sides and not path.exists():
            raise missing_file(path)
        if len(sides) != 2:
            raise DataError(
                f"{path}: a pair needs exactly two files {path.name}.<language>, but there are {len(sides)}"
                f"{': ' if sides else ''}{', '.join(file.name for file in sides)}. "
                f"Name the prefix that two files share."
            )
        return [(path.name, [(file.suffix[1:], file) for file in sides])]
    matches = [match for file in sorted(path.iterdir()) if (match := MOSES_NAME.fullmatch(file.name))]
    pairs = {m["prefix"]: (m["a"], m["b"]) for m in matches if m["code"] in (m["a"], m["b"])}
    return [(prefix, [(c, path / f"{prefix}.{c}") for c in codes]) for prefix, codes in pairs.items()]


def read_moses(path: Path, wanted: Sequence[str] | None, limit: int | None) -> list[RawRow]:
    """Rows of all pairs of a folder whose two languages are wanted; ``limit`` counts in each pair of files."""
    pairs: dict[tuple[str, frozenset[str]], dict[str, Path]] = {}
    for prefix, coded in moses_pairs(path):
        files = files_by_language(coded)
        key = (prefix.rpartition(".")[0], frozenset(files))
        if key in pairs:
            raise DataError(
                f"{', '.join(str(file) for file in (*pairs[key].values(), *files.values()))} are the same pair of "
                f"languages twice. Keep one of the two."
            )
        pairs[key] = files
    if not pairs:
        raise DataError(f"{path} has no pair <prefix>.<a>-<b>.<a> with <prefix>.<a>-<b>.<b>. Check the folder's names.")
    languages = {language: None for files in pairs.values() for language in files}
    kept = set(restrict(languages, wanted, path))
    rows = [
        row
        for files in pairs.values()
        if kept.issuperset(files)
        for row in read_aligned(files, next(iter(files.values())).stem, limit)
    ]
    if not rows and wanted is not None:
        raise DataError(
            f"{path} has no pair whose two languages are both among {', '.join(wanted)}. "
            f"Its pairs: {', '.join(' with '.join(files) for files in list(pairs.values())[:5])}, ... "
            f"Name both sides (most corpora are paired with eng_Latn)."
        )
    return rows
