"""Examples of a task: one split of task data, or of a parallel corpus for translation.

The ids of translations from English are those of the pairs, or ``<target language>:<number>`` where one English
sentence has several targets. Those of translations into English have ``-eng_Latn`` before the number.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import cast, get_args

from midalign.data.parallel.corpus import read_parallel
from midalign.data.parallel.layout import ParallelFormat, offers_splits
from midalign.data.parallel.sacrebleu_sets import SACREBLEU, direction_of
from midalign.data.tasks.chat import read_chat
from midalign.data.tasks.layout import TaskFormat
from midalign.data.tasks.read import read_task, translation_examples
from midalign.errors import DataError
from midalign.languages import ENGLISH, canonical
from midalign.records import ParallelPair, TaskExample, TaskName, Translated

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskSource:
    """Which items of which task data.

    Attributes:
        task: The task.
        data: Folder or file with the task data, or a name; for translation a parallel corpus.
        format: Format of the data.
        languages: Canonical codes; None for all.
        split: ``train``, ``dev`` or ``test``.
        columns: Which column is what, as of `read_examples`; likewise `labels` and `directions`.
        limit: Number of items of each language, from the first; None for all.

    Examples:
        >>> TaskSource("slots", "xsid", languages=("dan_Latn",), limit=100).read()
    """

    task: TaskName
    data: str
    format: str = "auto"
    languages: tuple[str, ...] | None = None
    split: str = "test"
    columns: Mapping[str, str | int] | None = None
    labels: tuple[str, ...] | None = None
    directions: Translated = "from_english"
    limit: int | None = None

    def read(self) -> list[TaskExample]:
        """The items; errors as of `read_examples`."""
        found = read_examples(
            self.task, self.data, format=self.format, languages=self.languages, split=self.split,
            columns=self.columns, labels=self.labels, directions=self.directions,
        )  # fmt: skip
        return limited(found, self.limit)


def role_language(example: TaskExample) -> str:
    """The language whose role decides: that of the text, or for a translation that of the side that is not English."""
    if example.task == "translation" and example.language == ENGLISH:
        return example.target_language
    return example.language


def read_examples(
    task: TaskName,
    data: str | Path,
    *,
    format: str = "auto",  # noqa: A002 - the word that recipes use
    languages: Sequence[str] | None = None,
    split: str = "test",
    columns: Mapping[str, str | int] | None = None,
    labels: Sequence[str] | None = None,
    directions: Translated = "from_english",
) -> list[TaskExample]:
    """Examples of one split of a task; for translation a parallel corpus, English with each other language.

    A parallel corpus without splits is read whole, for any split. A test set by name (``sacrebleu:wmt23/de-en``) is
    translated in its own direction.

    Args:
        task: The task.
        data: Folder, file, or name.
        format: As the readers of tasks (`read_task`) and of parallel corpora (`read_parallel`) have it.
        languages: Codes of any kind; None for all.
        split: ``train``, ``dev``, ``test``, or the name of a test set, which is then read in place of the data.
        columns: Which column is what, where the data do not tell: see the two readers.
        labels: Labels of spans to keep, for slots and extraction; None for all.
        directions: What is translated: ``from_english``, ``into_english`` or ``both``.

    Raises:
        UserError: From the reader.
    """
    if directions not in get_args(Translated):
        raise DataError(f"directions is {directions!r}; it is one of {', '.join(get_args(Translated))}")
    if directions != "from_english" and task != "translation":
        raise DataError(f"directions is {directions!r}, but the task {task!r} translates nothing; leave it out")
    if labels is not None and task not in ("slots", "extraction"):
        raise DataError(f"labels is {list(labels)}, but the task {task!r} has no labelled spans; leave it out")
    if format != "auto" and task == "chat":
        raise DataError(f"format is {format!r}, but files of the task 'chat' say their format; leave it out")
    if columns is not None and task == "chat":
        raise DataError(f"columns is {dict(columns)}, but rows of the task 'chat' have names; leave it out")
    if task == "chat":
        return read_chat(data, languages=languages, split=split)
    if task != "translation":
        chosen = None if languages is None else list(dict.fromkeys(languages))
        return read_task(
            data, task=task, format=cast("TaskFormat", format), languages=chosen, split=split, columns=columns,
            labels=labels,
        )  # fmt: skip
    return _translations(data, cast("ParallelFormat", format), languages, split, columns, directions)


def _translations(
    data: str | Path,
    kind: ParallelFormat,
    languages: Sequence[str] | None,
    split: str,
    columns: Mapping[str, str | int] | None,
    directions: Translated,
) -> list[TaskExample]:
    if split.startswith(SACREBLEU):
        data, kind = split, "auto"
    ends = direction_of(str(data)) if str(data).startswith(SACREBLEU) else (ENGLISH,)
    wanted = None if languages is None else list(dict.fromkeys(canonical(code) for code in (*ends, *languages)))
    chosen_split = split if offers_splits(data, kind) else None
    if chosen_split is None:
        logger.info("%s has no splits: all of it is read as %r", data, split)
    corpus = read_parallel(data, format=kind, languages=wanted, split=chosen_split, columns=columns)
    pairs = corpus.pairs(wanted, pivot=ends[0])
    if len({pair.id for pair in pairs}) < len(pairs):
        pairs = _with_ids_of_their_own(pairs)
    if str(data).startswith(SACREBLEU) or directions == "from_english":
        return translation_examples(pairs)
    turned = [_turned(pair) for pair in pairs]
    if directions == "into_english":
        return translation_examples(turned)
    return translation_examples(chain.from_iterable(zip(pairs, turned, strict=True)))


def _with_ids_of_their_own(pairs: Sequence[ParallelPair]) -> list[ParallelPair]:
    """Pairs of rows in several languages, whose ids would else be those of the rows."""
    numbers = [pair.id.rpartition(":")[2] for pair in pairs]
    ids = [f"{pair.target_language}:{number}" for pair, number in zip(pairs, numbers, strict=True)]
    if len(set(ids)) < len(ids):  # rows of several files
        ids = [f"{pair.id.rpartition(':')[0]}-{short}" for pair, short in zip(pairs, ids, strict=True)]
    return [replace(pair, id=own) for pair, own in zip(pairs, ids, strict=True)]


def _turned(pair: ParallelPair) -> ParallelPair:
    """The pair in the other direction, with an id of its own."""
    origin, _, number = pair.id.rpartition(":")
    return ParallelPair(
        pair.target,
        pair.source,
        pair.target_language,
        pair.source_language,
        id=f"{origin}-{pair.source_language}:{number}",
    )


def limited(examples: Iterable[TaskExample], limit: int | None) -> list[TaskExample]:
    """The first `limit` examples of each language (that of `role_language`), all for None."""
    counts: dict[str, int] = defaultdict(int)
    kept = []
    for example in examples:
        language = role_language(example)
        counts[language] += 1
        if limit is None or counts[language] <= limit:
            kept.append(example)
    return kept
