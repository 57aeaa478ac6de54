"""Examples of a task: one split of task data, or of a parallel corpus for translation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from midalign.data.parallel.corpus import ENGLISH, ParallelFormat, read_parallel
from midalign.data.tasks.chat import read_chat
from midalign.data.tasks.read import SPLITS, TaskFormat, read_task, translation_examples
from midalign.records import TaskExample, TaskName


def role_language(example: TaskExample) -> str:
    """The language whose role counts: that of the text, or for a translation the side that is not English."""
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
) -> list[TaskExample]:
    """Examples of one split of a task; for translation a parallel corpus, English into each other language.

    A parallel corpus without splits of its own may have a folder for each: ``<data>/train``, ``<data>/test``, ...
    The ids of translations are ``<target language>:<index>`` where one English sentence has several targets.

    Raises:
        UserError: From the reader.
    """
    if task == "chat":
        return read_chat(data, languages=languages, split=split)
    if task != "translation":
        chosen = None if languages is None else list(dict.fromkeys(languages))
        return read_task(data, task=task, format=cast("TaskFormat", format), languages=chosen, split=split)
    wanted = None if languages is None else list(dict.fromkeys((ENGLISH, *languages)))
    folder = next((Path(data) / name for name in (split, *SPLITS.get(split, ())) if (Path(data) / name).is_dir()), None)
    kind = cast("ParallelFormat", format)
    if folder is not None:
        corpus = read_parallel(folder, format=kind, languages=wanted)
    else:
        corpus = read_parallel(data, format=kind, languages=wanted, split=split)
    pairs = corpus.pairs(wanted)
    if len({pair.id for pair in pairs}) < len(pairs):
        pairs = [replace(pair, id=f"{pair.target_language}:{pair.id.rpartition(':')[2]}") for pair in pairs]
    return translation_examples(pairs)


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


def split_name(split: str) -> str:
    """Our name of a split, whatever the corpus calls it."""
    return next((name for name, aliases in SPLITS.items() if split in aliases), split)
