"""Parallel corpora in Moses' layout: files with a common prefix, one per language, parallel by line.

``train.en`` with ``train.de``, or ``tatoeba.deu-eng.deu`` with ``tatoeba.deu-eng.eng``, packed or not; a prefix with
three languages is parallel across all three. Prefixes that name a split (``train.en``, ``test.en``) are splits.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from midalign.data.file_names import bare, data_files, shown, splits_in
from midalign.data.parallel.line_files import RawRow, choose_split, files_by_language, read_aligned, restrict
from midalign.errors import DataError
from midalign.files import local_path, missing_file
from midalign.languages import known

logger = logging.getLogger(__name__)

Prefixes = dict[str, list[tuple[str, Path]]]
"""For each prefix the (code, file) of its languages."""


def moses_prefixes(path: Path, wanted: Sequence[str] | None = None) -> Prefixes:
    """The prefixes of a folder that have two languages or more; or those of the one prefix that ``path`` is.

    Files without a partner are skipped and named in a warning.

    Raises:
        MissingFileError: There is nothing at ``path``, or one side of a pair is not there.
        DataError: A prefix has no two languages, or a language that is not known.
    """
    if not path.is_dir():
        return {path.name: _one_prefix(path)}
    found: Prefixes = {}
    others: dict[str, list[str]] = {}
    for file in data_files(path):
        prefix, _, code = bare(file).name.rpartition(".")
        if prefix and known(code):
            found.setdefault(prefix, []).append((code, file))
        else:
            others.setdefault(prefix, []).append(file.name)
    lost = []
    for prefix, coded in found.items():
        if len(coded) == 1 and (wanted is None or known(coded[0][0]) in wanted):
            _check_alone(prefix, *coded[0], others.get(prefix, ()), wanted)
            lost.append(coded[0][1].name)
    found = {prefix: coded for prefix, coded in found.items() if len(coded) > 1}
    if found and lost:
        logger.warning("%s: left out, because no file is their other side: %s", path, shown(lost))
    return found


def _check_alone(prefix: str, code: str, file: Path, beside: Sequence[str], wanted: Sequence[str] | None) -> None:
    """Refuse a file whose other side is lacking although its name tells that there should be one."""
    pair = _pair_of(prefix)
    if known(code) in pair.values() and (wanted is None or set(pair.values()) <= set(wanted)):
        lacking = next(side for side, language in pair.items() if language != known(code))
        raise missing_file(file.with_name(f"{prefix}.{lacking}"))
    if wanted is None and beside:
        raise DataError(
            f"{file} has no partner in a known language, only {shown(beside)} beside it. "
            f"Name the other side {prefix}.<language>, or say which languages to read."
        )


def _pair_of(prefix: str) -> dict[str, str]:
    """The two codes at the end of a prefix such as ``tatoeba.deu-eng``, with their canonical ones; else nothing."""
    parts = prefix.rpartition(".")[2].split("-")
    for at in range(1, len(parts)):
        pair = {side: known(side) for side in ("-".join(parts[:at]), "-".join(parts[at:]))}
        if len(pair) == 2 and all(pair.values()):
            return {side: language for side, language in pair.items() if language}
    return {}


def named_files(path: str) -> list[str]:
    """What a corpus' path names: itself, or the files of a prefix, which no file or folder is called like."""
    place = local_path(path)
    if place.exists() or not place.parent.is_dir():
        return [path]
    return [str(file) for file in _sides(place) if known(bare(file).suffix[1:])] or [path]


def _sides(path: Path) -> list[Path]:
    return [file for file in data_files(path.parent) if bare(file).stem == path.name and bare(file).suffix]


def _one_prefix(path: Path) -> list[tuple[str, Path]]:
    sides = _sides(path)
    if not sides and not path.exists():
        raise missing_file(path)
    languages = [file for file in sides if known(bare(file).suffix[1:])]
    if len(languages) < 2:
        raise DataError(
            f"{path}: a pair needs two files {path.name}.<language>, but there are {len(languages)}"
            f"{': ' if sides else ''}{', '.join(file.name for file in sides)}. "
            f"Name the prefix that two files share."
        )
    return [(bare(file).suffix[1:], file) for file in languages]


def moses_splits(path: Path, prefixes: Prefixes) -> dict[str, Prefixes]:
    """The prefixes of a folder by the split that they name; nothing where none names any."""
    if not path.is_dir():
        return {}
    splits: dict[str, Prefixes] = {}
    for prefix, coded in prefixes.items():
        named = splits_in(prefix)
        splits.setdefault(named.pop() if len(named) == 1 else "", {})[prefix] = coded
    return splits if len(splits) > 1 or "" not in splits else {}


def read_moses(path: Path, wanted: Sequence[str] | None, split: str | None, limit: int | None) -> list[RawRow]:
    """Rows of all prefixes of a folder in the wanted languages; ``limit`` counts in each prefix.

    Raises:
        UserError: As `moses_prefixes`; a split or language that is not there; a pair of languages twice.
    """
    prefixes = _of_split(path, moses_prefixes(path, wanted), split)
    groups = {prefix: files_by_language(coded, wanted) for prefix, coded in prefixes.items()}
    _check_twice(groups)
    restrict({language: None for files in groups.values() for language in files}, wanted, path)
    rows: list[RawRow] = []
    for prefix, files in groups.items():
        if len(files) > 1:
            order = [language for language in wanted or files if language in files]
            rows += read_aligned({language: files[language] for language in order}, prefix, limit)
    if all(len(files) < 2 for files in groups.values()):
        pairs = [" with ".join(code for code, _ in coded) for coded in prefixes.values()]
        raise DataError(
            f"{path} has no pair whose two languages are both among {', '.join(wanted or ())}. "
            f"Its pairs: {shown(pairs)}. Name both sides (most corpora are paired with eng_Latn)."
        )
    return rows


def _of_split(path: Path, prefixes: Prefixes, split: str | None) -> Prefixes:
    if not prefixes:
        raise DataError(
            f"{path} has no pair of files <prefix>.<language>, such as train.en with train.de. Check their names."
        )
    splits = moses_splits(path, prefixes)
    if len(splits) < 2 and split is None:
        return prefixes
    return choose_split({name or "(none)": of for name, of in splits.items()}, split, path)


def _check_twice(groups: Mapping[str, Mapping[str, Path]]) -> None:
    pairs: dict[tuple[str, frozenset[str]], Mapping[str, Path]] = {}
    for prefix, files in groups.items():
        if not _pair_of(prefix) or len(files) < 2:
            continue
        earlier = pairs.setdefault((prefix.rpartition(".")[0], frozenset(files)), files)
        if earlier is not files:
            raise DataError(
                f"{', '.join(str(file) for file in (*earlier.values(), *files.values()))} are the same pair of "
                f"languages twice. Keep one of the two."
            )
