"""Layout of task data: which files to read, by the format, split and language in their names.

1. The format is named, or detected from file names and, for JSON, from the first line (`detect_format`).
2. Of a folder, the files of the format whose names have the split; all of them where no name has one.
3. Of those, the files in the languages that were asked for (`choose_files`). Files whose names tell no language are
   those of the one language asked for, unless others beside them do tell theirs: then they are left alone.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from midalign.data.file_names import bare, data_files, language_of_each, shown, splits_in
from midalign.errors import DataError, LanguageError, MissingLanguageError, did_you_mean
from midalign.files import read_lines
from midalign.languages import canonical, known

logger = logging.getLogger(__name__)

TaskFormat = Literal["auto", "xsid", "massive", "snips", "bio", "uner", "reference"]
FORMATS: tuple[str, ...] = get_args(TaskFormat)
_SUFFIXES = {
    "xsid": (".conll",),
    "massive": (".jsonl",),
    "snips": (".json",),
    "uner": (".iob2",),
    "bio": (".conll", ".bio", ".tsv", ".iob", ".iob2", ".conllu", ".txt"),
    "reference": (".jsonl", ".json"),
}
_SNIPS_NAMES = {True: re.compile(r"train_.+_full\.json"), False: re.compile(r"validate_.+\.json")}
_NAMES: dict[TaskFormat, re.Pattern[str]] = {
    "uner": re.compile(r".+\.iob2"),
    "xsid": re.compile(r".+\.(train|valid|test)\.conll"),
    "snips": re.compile(r"(train_.+_full|validate_.+)\.json"),
}
_SCRIPTS_NOT_IN_THE_CODE = {  # a bare code means another script than these corpora write
    ("xsid", "sr"): "srp_Latn",
    ("uner", "sr_set"): "srp_Latn",
    ("uner", "zh_gsd"): "zho_Hant",
    ("uner", "zh_pud"): "zho_Hant",
}


class TaskFile(NamedTuple):
    """A file to read.

    Attributes:
        path: Where it is.
        code: The file's own code for its language, or the empty string.
        language: The canonical code, or None where only its rows may tell it.
    """

    path: Path
    code: str
    language: str | None


def detect_format(path: Path) -> TaskFormat:
    """The format of a file or folder.

    Raises:
        DataError: It looks like no known format.
    """
    files = data_files(path) if path.is_dir() else [path]
    for kind, pattern in _NAMES.items():
        if any(pattern.fullmatch(bare(file).name) for file in files):
            return kind
    for file in files:
        if bare(file).suffix in _SUFFIXES["reference"] and (told := _format_of_json(file, len(files) > 1)):
            return told
    if any(bare(file).suffix in _SUFFIXES["bio"][:-1] for file in files):
        return "bio"
    there = shown(file.name for file in files) or _folders_in(path) or "an empty folder"
    raise DataError(
        f"{path}: cannot tell the format of the task data ({there}); give it by name: {', '.join(FORMATS[1:])}. "
        "Rows of messages, or of prompt and completion, are the task 'chat'"
    )


def _folders_in(path: Path) -> str:
    """The folders in a folder without data files, and what to do about them; nothing where there are none."""
    folders = sorted(inner.name for inner in path.iterdir() if inner.is_dir() and not inner.name.startswith("."))
    if not folders:
        return ""
    return f"only the folders {shown(folders)}: give one of them, or one folder with all files, such as de.test.tsv"


def _format_of_json(path: Path, beside: bool) -> TaskFormat | None:
    """The format by the first line; None for another, and for a file beside others that cannot be read."""
    try:
        first = next((line for line in read_lines(path) if line.strip()), "")
    except DataError:
        if beside:
            return None
        raise
    if '"annot_utt"' in first:
        return "massive"
    return "reference" if '"prefix"' in first else None


def check_format(name: str) -> TaskFormat:
    """The format of that name.

    Raises:
        DataError: There is none.
    """
    if name not in FORMATS:
        raise DataError(f"unknown task format {name!r}; known are {', '.join(FORMATS)}." + did_you_mean(name, FORMATS))
    return name  # type: ignore[return-value]


def choose_files(path: Path, format: TaskFormat, split: str, languages: Sequence[str] | None) -> list[TaskFile]:  # noqa: A002
    """The files of one split in the languages that were asked for, in the order of their names.

    Args:
        path: A folder, or one file, which is taken whatever split its name has.
        format: Any but ``auto``.
        split: midalign's name of the split.
        languages: Codes of any kind; None for all.

    Raises:
        DataError: No file of the split, or an empty list of languages.
        LanguageError: A code that is not known, a language that no file is in, or a file of no known language.
    """
    wanted = None if languages is None else {code: canonical(code) for code in languages}
    if wanted == {}:
        raise DataError("the list of languages is empty, which leaves nothing; name some, or leave it out for all")
    files = _with_languages(_of_split(path, format, split), format, wanted)
    untold = [file for file in files if file.language is None]
    told = [file for file in files if file.language is not None]
    if untold and format != "massive":  # whose rows tell
        told, untold = _told_by_the_caller(told, untold, wanted), []
    if wanted is not None:
        if not untold:
            _check_all_there(told, wanted)
        told = [file for file in told if asked(file, wanted)]
    return sorted(told + untold)


def _told_by_the_caller(
    told: Sequence[TaskFile], untold: Sequence[TaskFile], wanted: Mapping[str, str] | None
) -> list[TaskFile]:
    """Files whose names tell no language: of the one that was asked for; left alone beside files that tell theirs."""
    only = set((wanted or {}).values())
    if wanted is None or (not told and len(only) != 1):
        raise LanguageError(
            f"{untold[0].path}: the file's name does not clearly say its language; give exactly one language for "
            "it, or write the code into its name, such as de_test or test_de"
        )
    if not told:
        return [file._replace(language=next(iter(only))) for file in untold]
    logger.warning("not read, because their names do not say the language: %s", shown(file.path for file in untold))
    return list(told)


def _check_all_there(told: Sequence[TaskFile], wanted: Mapping[str, str]) -> None:
    found = {code for file in told for code in asked(file, wanted)}
    if missing := [code for code in wanted if code not in found]:
        raise MissingLanguageError(
            f"the data has no {', '.join(map(repr, missing))}, so it can be neither trained on nor scored; "
            f"available here: {', '.join(sorted({str(file.language) for file in told}))}"
        )


def asked(file: TaskFile, wanted: Mapping[str, str]) -> list[str]:
    """The codes among those that were asked for (with their canonical ones) that mean a file's language."""
    return [
        code
        for code, language in wanted.items()
        if file.language == language or (file.code and code.casefold() == file.code.casefold())
    ]


def _of_split(path: Path, format: TaskFormat, split: str) -> list[Path]:  # noqa: A002
    """The files to read: ``path`` itself, or those of a folder that belong to the format and the split."""
    if path.is_file():
        return [path]
    of_format = [file for file in data_files(path) if bare(file).suffix in _SUFFIXES[format]]
    if format == "massive":  # one file holds all splits
        chosen = of_format
    elif format == "snips":
        chosen = [file for file in of_format if _SNIPS_NAMES[split == "train"].fullmatch(bare(file).name)]
    else:
        chosen = files_of_split(of_format, split)
    if not chosen:
        found = shown(file.name for file in of_format) or _folders_in(path)
        found = found or f"no {' or '.join(_SUFFIXES[format])} files"
        raise DataError(
            f"{path}: no {format} files for the split {split!r} (found: {found}); give another split or folder"
        )
    return chosen


def files_of_split(files: Sequence[Path], split: str) -> list[Path]:
    """Those of some files whose names tell a split; all of them, where no name tells any.

    Raises:
        DataError: A name tells two splits.
    """
    named = {file: splits_in(bare(file).stem) for file in files}
    if both := [file for file, splits in named.items() if len(splits) > 1]:
        raise DataError(f"{both[0]}: the name contains two splits, so it is unclear which one it is; rename it")
    if not any(named.values()):
        return list(files)
    if lost := [file for file, splits in named.items() if not splits]:
        logger.warning("not read, because their names do not say the split: %s", shown(lost))
    return [file for file, splits in named.items() if split in splits]


def _with_languages(files: Sequence[Path], format: TaskFormat, wanted: Mapping[str, str] | None) -> list[TaskFile]:  # noqa: A002
    """The files with their languages, by the habits of each format."""
    if format == "snips":
        return [TaskFile(file, "en", "eng_Latn") for file in files]
    if format not in ("xsid", "uner"):
        languages = language_of_each([bare(file).stem for file in files], (wanted or {}).values())
        return [TaskFile(file, "", language) for file, language in zip(files, languages, strict=True)]
    found = []
    for file in files:
        name = file.name.split(".")[0].split("-ud")[0]
        code = name.split("_")[0] if format == "uner" else name
        found.append(TaskFile(file, code, _SCRIPTS_NOT_IN_THE_CODE.get((format, name)) or known(code)))
    return found
