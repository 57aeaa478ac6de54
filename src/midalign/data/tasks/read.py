"""Task data: from a file or folder in any known format to `TaskExample` records.

=============  ===================================================================  =====================
format         files                                                                language from
=============  ===================================================================  =====================
``xsid``       ``<lang>.<train|valid|test>.conll`` (xSID)                           file name
``massive``    ``*.jsonl`` (MASSIVE 1.0, 1.1)                                       ``locale``, or file name
``snips``      ``train_*_full.json``, ``validate_*.json`` (Snips 2017-06)           English
``uner``       ``<lang>_<treebank>-ud-<train|dev|test>.iob2`` (Universal NER)       file name
``bio``        ``*.conll``, ``*.bio``, ``*.tsv``, ``*.txt``: word first, tag last   file name, or given
``reference``  JSONL with ``prefix`` and ``text`` (mid-align)                       file name, or given
=============  ===================================================================  =====================

Ids are ``<file stem>:<index from 0>``. A folder is read one split at a time; a single file is taken whole, except
MASSIVE's, which hold all splits. Translation examples come from parallel pairs (`translation_examples`).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from midalign.data.file_names import SPLITS, bare, split_name
from midalign.data.tasks.columns import COLUMNS, NO_TYPE, Columns, RawItem, read_conll
from midalign.data.tasks.ids import check_ids_differ
from midalign.data.tasks.json_files import read_massive, read_reference, read_snips
from midalign.data.tasks.layout import TaskFile, TaskFormat, check_format, choose_files, detect_format
from midalign.data.tasks.row_language import check_all_tell
from midalign.errors import DataError, LanguageError, MissingLanguageError, did_you_mean
from midalign.files import local_path, missing_file
from midalign.languages import canonical
from midalign.records import ParallelPair, TaskExample, TaskName

logger = logging.getLogger(__name__)


def read_task(
    path: Path | str,
    *,
    task: TaskName = "slots",
    format: TaskFormat = "auto",  # noqa: A002
    languages: Sequence[str] | None = None,
    split: str = "test",
    limit: int | None = None,
    columns: Mapping[str, int | str] | None = None,
    labels: Sequence[str] | None = None,
) -> list[TaskExample]:
    """Read the examples of one split, files in the order of their names, items in the order of the file.

    Args:
        path: A folder in one of the formats above, or one file of it, packed or not.
        task: ``"slots"`` or ``"extraction"``; the task of the examples.
        format: The format's name; ``"auto"`` detects it from file names and, for JSONL, the first line.
        languages: Codes of any kind to keep; None keeps all. If a file's name does not say its language, the one
            language that it is in.
        split: ``"train"``, ``"dev"`` or ``"test"`` (``"valid"`` and ``"validation"`` mean ``"dev"``). Snips has no
            test set: ``validate_*.json`` serves for both.
        limit: At most this many examples of every file, from its start.
        columns: ``{"word": 1, "tag": 2}``: the columns of ``bio`` files, from 0. By default the word is in the
            first column, or in the second after the number of the word, and the tag in the last.
        labels: Keep only spans with these labels; other spans are left out. None keeps all, but for Universal NER's
            entities of no type (``OTH`` and ``O`` in its first release).

    Raises:
        MissingFileError: ``path`` does not exist.
        LanguageError: An unknown code, or a language that the data does not have.
        DataError: An unknown format, split or label, nothing to read, duplicate ids, or a fault of a file (with its
            line).

    Examples:
        >>> examples = midalign.read_task("slots", languages=["de"], split="test")  # slots/de.test.conll
        >>> examples[0].text, examples[0].spans
        ('ruf um test0', (Span(label='datetime', start=2, end=3),))
    """
    path = local_path(path)
    if task not in ("slots", "extraction"):
        raise DataError(
            f"task {task!r} is not read from task files; translation examples are made from a parallel corpus "
            "(midalign.data.parallel.corpus) with translation_examples"
        )
    if not path.exists():
        raise missing_file(path)
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}, which leaves nothing; write a number from 1, or leave it out")
    name = _checked_split(split)
    kind = detect_format(path) if format == "auto" else check_format(format)
    chosen_columns = _checked_columns(columns, kind)
    files = choose_files(path, kind, name, languages)
    wanted = None if languages is None else {canonical(code) for code in languages}
    examples: list[TaskExample] = []
    told: set[str] = set()
    for file in files:
        items = [item for item in _items(file, kind, chosen_columns) if _in_split(item, name, file.path)]
        if file.language is None:
            check_all_tell({f"{file.path}, item {item.index}": item.language for item in items}, file.path)
        told |= {item.language for item in items if item.language}
        of_file = [_example(item, file, task, wanted) for item in items]
        examples += [example for example in of_file if example is not None][:limit]
    check_ids_differ(examples)
    _check_languages(examples, told, wanted, path)
    if not examples:
        raise DataError(f"{path}: no items in split {split!r}; check the files and the split's name")
    return _with_labels(examples, labels, kind)


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
    check_ids_differ(examples)
    return examples


def _items(file: TaskFile, format: TaskFormat, columns: Columns | None) -> Iterator[RawItem]:  # noqa: A002
    if format in COLUMNS:
        return read_conll(file.path, columns or COLUMNS[format])
    if format == "massive":
        return read_massive(file.path, file.language)
    return {"snips": read_snips, "reference": read_reference}[format](file.path)


def _checked_split(split: str) -> str:
    name = split_name(split)
    if name not in SPLITS:
        raise DataError(
            f"unknown split {split!r}, so it is unclear which items are meant; write train, dev or test."
            + did_you_mean(split, [alias for aliases in SPLITS.values() for alias in aliases])
        )
    return name


def _checked_columns(columns: Mapping[str, int | str] | None, format: TaskFormat) -> Columns | None:  # noqa: A002
    if columns is None:
        return None
    if format != "bio":
        raise DataError(f"columns is {dict(columns)}, but the format {format!r} has columns of its own; leave it out")
    word, tag = columns.get("word"), columns.get("tag")
    if set(columns) != {"word", "tag"} or type(word) is not int or type(tag) is not int or min(word, tag) < 0:
        raise DataError(
            f"columns is {dict(columns)}; it says which column is the word and which the tag, from 0, such as "
            "{'word': 1, 'tag': 2}"
        )
    return Columns(word=word, tag=tag)


def _in_split(item: RawItem, split: str, file: Path) -> bool:
    """Whether an item belongs to the split; formats with one split a file leave the item's own empty."""
    if not item.split:
        return True
    if split_name(item.split) not in SPLITS:
        raise DataError(f"{file}: item {item.index} has the unknown partition {item.split!r}; write train, dev or test")
    return split_name(item.split) == split


def _example(item: RawItem, file: TaskFile, task: TaskName, wanted: set[str] | None) -> TaskExample | None:
    """The example of an item; None where its row tells a language that was not asked for."""
    language = item.language or file.language
    if language is None and wanted is not None and len(wanted) == 1:
        (language,) = wanted
    if language is None:
        raise LanguageError(
            f"{file.path}: neither the file's name nor item {item.index} says its language; give exactly one language"
        )
    if item.language and wanted is not None and language not in wanted:
        return None
    return TaskExample(
        id=f"{bare(file.path).stem}:{item.index}",
        task=task,
        language=language,
        text=item.text,
        words=item.words,
        spans=item.spans,
        intent=item.intent,
    )


def _check_languages(examples: Sequence[TaskExample], told: set[str], wanted: set[str] | None, path: Path) -> None:
    """Refuse a language that no row is in, where rows tell their language."""
    if told and (missing := sorted((wanted or set()) - {example.language for example in examples})):
        raise MissingLanguageError(
            f"{path}: no row is in {', '.join(missing)}; by what they tell themselves there are rows in "
            f"{', '.join(sorted(told))}"
        )


def _with_labels(examples: list[TaskExample], labels: Sequence[str] | None, format: TaskFormat) -> list[TaskExample]:  # noqa: A002
    """The examples with spans of these labels only."""
    counts = Counter(span.label for example in examples for span in example.spans)
    if labels is not None and not labels:
        raise DataError("labels is empty, so there would be nothing to find; name some, or leave it out for all")
    if labels is None:
        dropped = set(NO_TYPE) & set(counts) if format == "uner" else set()
    else:
        others = [label for label in counts if label not in labels]
        for label in [label for label in labels if label not in counts]:
            lacking = f"labels names {label!r}, which no span has here.{did_you_mean(label, others)}"
            if not set(labels) & set(counts):
                raise DataError(f"{lacking} The labels are: {', '.join(sorted(counts)) or 'none'}.")
            logger.warning("%s", lacking)
        dropped = set(counts) - set(labels)
    if not dropped:
        return examples
    total = ", ".join(f"{label} ({counts[label]})" for label in sorted(dropped))
    logger.warning("spans of these labels are left out: %s; `labels` says which to keep", total)
    return [
        replace(example, spans=tuple(span for span in example.spans if span.label not in dropped))
        for example in examples
    ]
