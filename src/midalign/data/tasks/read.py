"""Task data: from a file or folder in any known format to `TaskExample` records.

=============  ===================================================================  =====================
format         files                                                                language from
=============  ===================================================================  =====================
``xsid``       ``<lang>.<train|valid|test>.conll`` (xSID)                           file name
``massive``    ``<locale>.jsonl`` (MASSIVE 1.0, 1.1)                                file name
``snips``      ``train_*_full.json``, ``validate_*.json`` (Snips 2017-06)           English
``uner``       ``<lang>_<treebank>-ud-<train|dev|test>.iob2`` (Universal NER)       file name
``bio``        ``*.conll``, ``*.bio``, ``*.tsv``, ``*.txt``: word first, tag last   file name, or given
``reference``  JSONL with ``prefix`` and ``text`` (mid-align)                       given
=============  ===================================================================  =====================

Ids are ``<file stem>:<index from 0>``. A folder is read one split at a time; a single file is taken whole, except
MASSIVE's, which hold all splits. Translation examples come from parallel pairs (`translation_examples`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

from midalign.data.tasks.columns import COLUMNS, RawItem, read_conll
from midalign.data.tasks.json_files import read_massive, read_reference, read_snips
from midalign.errors import DataError, LanguageError, did_you_mean
from midalign.files import missing_file, read_lines
from midalign.languages import canonical
from midalign.records import ParallelPair, TaskExample, TaskName

logger = logging.getLogger(__name__)

TaskFormat = Literal["auto", "xsid", "massive", "snips", "bio", "uner", "reference"]
FORMATS: tuple[str, ...] = get_args(TaskFormat)
SPLITS: dict[str, tuple[str, ...]] = {  # our name, and what the corpora call it
    "train": ("train",),
    "dev": ("dev", "valid", "validation", "validate"),
    "test": ("test",),
}
_SUFFIXES = {
    "xsid": (".conll",),
    "massive": (".jsonl",),
    "snips": (".json",),
    "uner": (".iob2",),
    "bio": (".conll", ".bio", ".tsv", ".txt"),
    "reference": (".jsonl", ".json"),
}
_XSID_NAME = re.compile(r".+\.(train|valid|test)\.conll")
_SNIPS_NAME = re.compile(r"(train_.+_full|validate_.+)\.json")
_SCRIPTS_NOT_IN_THE_CODE = {  # a bare code means another script than these corpora write
    ("xsid", "sr"): "srp_Latn",
    ("uner", "sr_set"): "srp_Latn",
    ("uner", "zh_gsd"): "zho_Hant",
    ("uner", "zh_pud"): "zho_Hant",
}


def read_task(
    path: Path | str,
    *,
    task: TaskName = "slots",
    format: TaskFormat = "auto",  # noqa: A002
    languages: Sequence[str] | None = None,
    split: str = "test",
    limit: int | None = None,
) -> list[TaskExample]:
    """Read the examples of one split, files in the order of their names, items in the order of the file.

    Args:
        path: A folder in one of the formats above, or one file of it.
        task: ``"slots"`` or ``"extraction"``; what the examples are marked as.
        format: The format's name; ``"auto"`` tells it by file names and, for JSONL, the first line.
        languages: Codes of any kind to keep; None keeps all. For files whose name does not tell the language, the one
            language that they are in.
        split: ``"train"``, ``"dev"`` or ``"test"`` (``"valid"`` and ``"validation"`` mean ``"dev"``). Snips has no
            test set: ``validate_*.json`` serves for both.
        limit: At most this many examples of every file, from its start.

    Raises:
        MissingFileError: ``path`` does not exist.
        LanguageError: An unknown code, or a language that the data does not have.
        DataError: An unknown format or split, nothing to read, duplicate ids, or a fault of a file (with its line).

    Example:
        >>> examples = midalign.read_task("slots", languages=["de"], split="test")  # slots/de.test.conll
        >>> examples[0].text, examples[0].spans
        ('ruf um test0', (Span(label='datetime', start=2, end=3),))
    """
    path = Path(path)
    if task not in ("slots", "extraction"):
        raise DataError(
            f"task {task!r} is not read from task files; translation examples are made from a parallel corpus "
            "(midalign.data.parallel.corpus) with translation_examples"
        )
    if not path.exists():
        raise missing_file(path)
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}, which leaves nothing; write a number from 1, or leave it out")
    split = _split_name(split)
    format = _detect(path) if format == "auto" else _known_format(format)  # noqa: A001
    chosen = _choose_languages(_files(path, format, split), format, languages)
    examples = []
    for file, language in chosen:
        kept = [item for item in _read_file(file, format) if _in_split(item, split, file)]
        examples += [_example(item, file, task, language) for item in kept[:limit]]
    _check_ids(examples)
    if not examples:
        raise DataError(f"{path}: no items in split {split!r}; check the files and the split's name")
    return examples


def translation_examples(pairs: Iterable[ParallelPair]) -> list[TaskExample]:
    """One translation example per pair, from its source side to its target side; the ids are the pairs'.

    A corpus with several targets from one source file needs pair ids that differ, as `ParallelPair` promises.

    Raises:
        DataError: No pairs, or ids that occur twice.
    """
    examples = [
        TaskExample(
            id=pair.id,
            task="translation",
            language=pair.source_language,
            text=pair.source,
            reference=pair.target,
            target_language=pair.target_language,
        )
        for pair in pairs
    ]
    if not examples:
        raise DataError("no parallel pairs to make translation examples of; check the corpus and its languages")
    _check_ids(examples)
    return examples


def _read_file(file: Path, format: str) -> Iterator[RawItem]:  # noqa: A002
    if format in COLUMNS:
        return read_conll(file, COLUMNS[format])
    return {"massive": read_massive, "snips": read_snips, "reference": read_reference}[format](file)


def _split_name(split: str) -> str:
    for name, aliases in SPLITS.items():
        if split == name or split in aliases:
            return name
    raise DataError(
        f"unknown split {split!r}, so it is unclear which items are meant; write train, dev or test."
        + did_you_mean(split, [alias for aliases in SPLITS.values() for alias in aliases])
    )


def _known_format(name: str) -> TaskFormat:
    if name not in FORMATS:
        raise DataError(f"unknown task format {name!r}; known are {', '.join(FORMATS)}." + did_you_mean(name, FORMATS))
    return name  # type: ignore[return-value]


def _detect(path: Path) -> TaskFormat:
    """The format of a file or folder, by names and, for JSONL, by the first line."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    names = [file.name for file in files]
    if any(name.endswith(".iob2") for name in names):
        return "uner"
    if any(_XSID_NAME.fullmatch(name) for name in names):
        return "xsid"
    if any(_SNIPS_NAME.fullmatch(name) for name in names):
        return "snips"
    for file in files:
        if file.suffix in (".jsonl", ".json"):
            first = next((line for line in read_lines(file) if line.strip()), "")
            if '"annot_utt"' in first:
                return "massive"
            if '"prefix"' in first:
                return "reference"
    if any(file.suffix in _SUFFIXES["bio"][:3] for file in files):
        return "bio"
    shown = ", ".join(names[:5]) or "an empty folder"
    raise DataError(
        f"{path}: cannot tell the format of the task data ({shown}); give it by name: {', '.join(FORMATS[1:])}"
    )


def _files(path: Path, format: str, split: str) -> list[Path]:  # noqa: A002
    """The files to read: ``path`` itself, or those of a folder that belong to the format and the split."""
    if path.is_file():
        return [path]
    of_format = [file for file in sorted(path.iterdir()) if file.is_file() and file.suffix in _SUFFIXES[format]]
    if format == "massive":
        chosen = of_format
    elif format == "snips":
        pattern = "train_*_full.json" if split == "train" else "validate_*.json"
        chosen = [file for file in of_format if file.match(pattern)]
    else:
        chosen = [file for file in of_format if _splits_named(file) & set(SPLITS[split])]
        if not chosen and not any(_splits_named(file) for file in of_format):
            chosen = of_format  # names without any split: one set, taken whole
    if not chosen:
        shown = ", ".join(file.name for file in of_format[:5]) or f"no {' or '.join(_SUFFIXES[format])} files"
        raise DataError(
            f"{path}: no {format} files for the split {split!r} (found: {shown}); give another split or folder"
        )
    return chosen


def _splits_named(file: Path) -> set[str]:
    """The split names among the parts of a file's name."""
    known = {alias for aliases in SPLITS.values() for alias in aliases}
    return set(re.split(r"[._-]", file.stem.casefold())) & known


def _choose_languages(
    files: Sequence[Path],
    format: str,  # noqa: A002
    languages: Sequence[str] | None,
) -> list[tuple[Path, str]]:
    """Files with their languages, kept to those asked for."""
    wanted = {code: canonical(code) for code in languages} if languages is not None else None
    if wanted is not None and not wanted:
        raise DataError("the list of languages is empty, which leaves nothing; name some, or leave it out for all")
    named = [(file, _language_of(file, format)) for file in files]
    unnamed = [file for file, (_, language) in named if language is None]
    if unnamed:
        if wanted is None or len(set(wanted.values())) != 1:
            raise LanguageError(
                f"{unnamed[0]}: the file's name does not tell its language; give exactly one language for it"
            )
        (only,) = set(wanted.values())
        return [(file, language or only) for file, (_, language) in named if language in (None, only)]
    chosen = []
    found: set[str] = set()
    for file, (own_code, language) in named:
        asked = [
            code for code, full in (wanted or {}).items() if language == full or code.casefold() == own_code.casefold()
        ]
        found.update(asked)
        if language is not None and (wanted is None or asked):
            chosen.append((file, language))
    missing = [code for code in wanted or {} if code not in found]
    if missing:
        available = sorted({language for _, (_, language) in named if language})
        raise LanguageError(
            f"the data has no {', '.join(map(repr, missing))}, so nothing could be said about it; "
            f"available here: {', '.join(available)}"
        )
    return chosen


def _language_of(file: Path, format: str) -> tuple[str, str | None]:  # noqa: A002
    """The file's own code for its language and the canonical one, or None where the name does not tell."""
    if format == "snips":
        return "en", canonical("eng_Latn")
    if format == "reference":
        return "", None
    name = file.name.split(".")[0].split("-ud")[0]
    code = name.split("_")[0] if format == "uner" else name
    if (format, name) in _SCRIPTS_NOT_IN_THE_CODE:
        return code, _SCRIPTS_NOT_IN_THE_CODE[format, name]
    candidates = [code, re.split(r"[_-]", code)[0]] if format == "bio" else [code]
    for candidate in candidates:
        try:
            return candidate, canonical(candidate, str(file))
        except LanguageError:
            continue
    return code, None


def _in_split(item: RawItem, split: str, file: Path) -> bool:
    """Whether an item belongs to the split; formats with one split a file leave the item's own empty."""
    if not item.split:
        return True
    if not any(item.split in aliases for aliases in SPLITS.values()):
        raise DataError(f"{file}: item {item.index} has the unknown partition {item.split!r}; write train, dev or test")
    return item.split in SPLITS[split]


def _example(item: RawItem, file: Path, task: TaskName, language: str) -> TaskExample:
    return TaskExample(
        id=f"{file.stem}:{item.index}",
        task=task,
        language=language,
        text=item.text,
        words=item.words,
        spans=item.spans,
        intent=item.intent,
    )


def _check_ids(examples: Sequence[TaskExample]) -> None:
    seen: set[str] = set()
    for example in examples:
        if example.id in seen:
            raise DataError(
                f"the id {example.id!r} occurs twice, so predictions could not be told apart; give the files "
                "different names"
            )
        seen.add(example.id)
