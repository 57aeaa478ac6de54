"""Data of a recipe, read and split: task examples of each split, pairs to train on and to hold out."""

from __future__ import annotations

import hashlib
import json
import logging
import unicodedata
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

from midalign.data.examples import TaskSource, limited, role_language
from midalign.data.file_names import split_name
from midalign.data.parallel.corpus import ParallelCorpus, read_parallel
from midalign.data.parallel.moses import named_files
from midalign.data.parallel.sentences import chunked, sentences
from midalign.errors import DataError, MissingLanguageError, did_you_mean
from midalign.languages import ENGLISH
from midalign.recipe.sections import Recipe
from midalign.recipe.task import TaskSection
from midalign.records import ParallelPair, TaskExample

logger = logging.getLogger(__name__)


class TaskData(NamedTuple):
    """Task examples of the three splits; `train` is in the supervised languages only."""

    train: list[TaskExample]
    dev: list[TaskExample]
    test: list[TaskExample]


class PairData(NamedTuple):
    """Parallel pairs: those to train on, and held-out ones for the alignment metrics."""

    train: list[ParallelPair]
    held_out: list[ParallelPair]


def read_task_data(recipe: Recipe) -> TaskData:
    """Read the task data of a recipe.

    If dev and train are the same split of the data, it is divided by the hash of each item's number in its file, so
    that translations of one sentence are on the same side in every language.

    Training items whose text is also a dev or test text of the same language are left out, and so are dev items whose
    text is a test text; items of chat are compared in all turns before the answer, and tools. Both are counted and
    logged.

    Raises:
        UserError: From the reader; or if a language ends up without items that it needs.
    """
    languages = recipe.languages
    task = recipe.task
    train = _read_split(recipe, task.train_split, languages.supervised)
    with_dev = languages.aligned if task.dev_languages == "supervised_and_aligned" else ()
    dev = _read_where_there(recipe, task.dev_split, languages.supervised, with_dev)
    if split_name(task.dev_split) == split_name(task.train_split):
        train = [example for example in train if not _held_out(example.id, task.dev_share)]
        dev = [example for example in dev if _held_out(example.id, task.dev_share)]
    test = _read_where_there(recipe, task.test_split, languages.supervised + languages.unseen, languages.aligned)
    dev = _without(dev, test, "dev_split", "test_split")
    train = _without(train, [*dev, *test], "train_split", "dev_split and task.test_split")
    data = TaskData(limited(train, task.limit_train), limited(dev, task.limit_dev), limited(test, task.limit_test))
    pivot = {ENGLISH} if task.name == "translation" else set()
    needed = {"train": languages.supervised, "dev": languages.supervised}
    for name, wanted in (needed | {"test": languages.supervised + languages.unseen}).items():
        present = {role_language(example) for example in getattr(data, name)}
        if absent := [code for code in wanted if code not in present | pivot]:
            raise DataError(
                f"{task.data}: no {name} item is left in {', '.join(absent)} (task.{name}_split = "
                f"{getattr(task, f'{name}_split')!r}). Every such language needs some: check the files and the split, "
                "or take the language out of languages."
            )
    if unscored := [code for code in languages.aligned if code not in scored_languages(recipe, data)]:
        logger.warning("%s: no test item in %s, so nothing is scored there", task.data, ", ".join(unscored))
    _check_types(recipe, data)
    _check_labels(recipe, data)
    recipe.answer_format.check_examples([*data.train, *data.dev, *data.test], task.data)
    return data


def scored_languages(recipe: Recipe, data: TaskData) -> tuple[str, ...]:
    """The languages of a recipe that have test items; those that are aligned only may have none."""
    pivot = {ENGLISH} if recipe.task.name == "translation" else set()
    present = {role_language(example) for example in data.test} | pivot
    return tuple(code for code in recipe.languages.all if code in present)


def _check_labels(recipe: Recipe, data: TaskData) -> None:
    """Refuse a label that no item has in any split; each split may lack some."""
    found = {span.label for part in data for example in part for span in example.spans}
    if lacking := [label for label in recipe.task.labels or () if label not in found]:
        raise DataError(
            f"{recipe.task.data}: task.labels names {', '.join(lacking)}, which no span has in any split."
            f"{did_you_mean(lacking[0], found)} The labels are: {', '.join(sorted(found)) or 'none'}"
        )


def _check_types(recipe: Recipe, data: TaskData) -> None:
    """Refuse entity types in the data that the prompt does not name."""
    if recipe.task.name != "extraction":
        return
    known = {name for name, _ in recipe.task.types}
    found = {span.label for part in data for example in part for span in example.spans}
    if strange := sorted(found - known):
        raise DataError(
            f"{recipe.task.data}: there are entities of type {', '.join(strange)}, which the prompt does not name "
            f"({', '.join(sorted(known))}). Write them in task.types, such as {{{strange[0]}: what it means}}"
        )


def read_pair_data(recipe: Recipe, evaluated: Iterable[str] = ()) -> PairData:
    """Read the pairs of a recipe and hold some out per language pair, at most a fifth of them.

    Every language pair holds out the same sentences where it has them: those whose English side, or with
    ``parallel.directions: all`` whose id, has the smallest hashes.

    Pairs that share a text with a held-out pair or with the evaluation data are left out of training, counted and
    logged. With ``parallel.chunks: sentences``, so are chunks that share a sentence with them.

    Args:
        recipe: The recipe.
        evaluated: Texts that the model is evaluated on: of the dev and test items, of the probe.

    Raises:
        UserError: From the reader; or if no pair of two languages is left to train on.
    """
    section = recipe.parallel
    languages = tuple(dict.fromkeys((ENGLISH, *recipe.languages.aligned)))
    if len(languages) < 2:
        return PairData([], [])
    corpus = read_parallel(
        section.data, format=section.format, languages=languages, split=section.split, columns=section.columns,
        on_empty=section.on_empty,
    )  # fmt: skip
    grouped: dict[tuple[str, str], list[ParallelPair]] = defaultdict(list)
    for pair in corpus.pairs(languages, directions=section.directions):
        grouped[pair.source_language, pair.target_language].append(pair)
    # A sentence that is held out in one language is held out in all: each would take its translations with it.
    english = section.directions == "english"
    train, held_out = [], []
    for pairs in grouped.values():
        ordered = sorted(pairs, key=lambda pair: _hash(pair.source if english else pair.id))
        aside = min(section.held_out, len(ordered) // 5)
        held_out += ordered[:aside]
        train += ordered[aside:][: section.limit_per_language]
    texts = {text for pair in held_out for text in (pair.source, pair.target)} | set(evaluated)
    kept = _sharing_none_of(texts, train)
    if section.chunks == "sentences":
        texts |= {sentence for text in texts for sentence in sentences(text)}
        kept, held_out = _sharing_none_of(texts, chunked(kept)), chunked(held_out)
    if not kept:
        raise DataError(
            f"{section.data}: every pair shares a text with a held-out pair or with the evaluation data (task or "
            "probe), so nothing is left to align on. Probe on another corpus, or on another part of it."
        )
    left = {(pair.source_language, pair.target_language) for pair in kept}
    if lost := [f"{source} and {target}" for source, target in grouped if (source, target) not in left]:
        raise DataError(
            f"{section.data}: every pair of {', '.join(lost)} shares a text with a held-out pair or with the "
            "evaluation data (task or probe), and would silently not be aligned. Give more pairs, lower "
            "parallel.held_out, or take the language out of languages.aligned."
        )
    return PairData(kept, held_out)


def evaluation_texts(task: TaskData, probe: ParallelCorpus | None = None) -> set[str]:
    """Every text of the dev and test items, their reference translations, and of the probe corpus."""
    items = [*task.dev, *task.test]
    texts = {text for item in items for text in (item.text, item.reference) if text}
    texts |= {turn["content"] for item in items for turn in item.messages if turn["role"] != "system"}
    return texts | {text for row in (probe.rows if probe else ()) for text in row.texts.values()}


def read_probe_corpus(recipe: Recipe) -> ParallelCorpus:
    """Read the corpus that a recipe probes on.

    Raises:
        UserError: From the reader; or if no row has all languages.
    """
    section = recipe.probe
    corpus = read_parallel(
        section.data,
        format=section.format,
        languages=section.languages,
        split=section.split,
        limit=section.limit,
        columns=section.columns,
        on_empty=section.on_empty,
    )
    try:
        corpus.multiway()
    except DataError as fault:
        raise DataError(f"{section.data}: {fault}") from None
    return corpus


def data_paths(recipe: Recipe) -> list[str]:
    """The files and folders that a recipe reads, the model among them, for the hashes in the manifest."""
    data = (recipe.task.data, recipe.parallel.data, recipe.probe.data)
    template = recipe.training.chat_template_path
    files = [file for path in data for file in named_files(path)]
    return [recipe.model.path, *files, *([template] if template is not None else [])]


def task_source(task: TaskSection, split: str, languages: Sequence[str], limit: int | None = None) -> TaskSource:
    """The items of one split that the section ``task`` of a recipe names."""
    return TaskSource(
        task.name, task.data, task.format, tuple(languages), split, task.columns, task.labels, task.directions, limit
    )


def _read_split(recipe: Recipe, split: str, languages: Sequence[str]) -> list[TaskExample]:
    return task_source(recipe.task, split, languages).read()


def _read_where_there(
    recipe: Recipe, split: str, needed: tuple[str, ...], wished: tuple[str, ...]
) -> list[TaskExample]:
    """Items of the needed languages, and of those of the wished ones that have some."""
    asked = [code for code in recipe.languages.all if code in needed + wished]
    try:
        return _read_split(recipe, split, asked)
    except MissingLanguageError:
        there = [code for code in asked if code in needed or _is_there(recipe, split, needed, code)]
        return _read_split(recipe, split, there)


def _is_there(recipe: Recipe, split: str, needed: tuple[str, ...], code: str) -> bool:
    """Whether a split has items in a language beside the needed ones."""
    try:
        _read_split(recipe, split, [*needed, code])
    except MissingLanguageError:
        return False
    return True


def _without(
    examples: list[TaskExample], unseen: Iterable[TaskExample], split: str, unseen_split: str
) -> list[TaskExample]:
    """The examples that ask what none in `unseen` does; the others are counted and logged."""
    asked = {_asked(example) for example in unseen}
    kept = [example for example in examples if _asked(example) not in asked]
    if len(kept) < len(examples):
        logger.warning(
            "left out %d of %d items of task.%s whose text is in task.%s as well",
            len(examples) - len(kept),
            len(examples),
            split,
            unseen_split,
        )
    if examples and not kept:
        raise DataError(
            f"every item of task.{split} is in task.{unseen_split} as well, so that scores would be of items already "
            "seen. Give another split."
        )
    return kept


def _sharing_none_of(texts: set[str], pairs: list[ParallelPair]) -> list[ParallelPair]:
    """The pairs with neither side in `texts`; the others are counted and logged."""
    known = set(map(_folded, texts))
    kept = [pair for pair in pairs if known.isdisjoint((_folded(pair.source), _folded(pair.target)))]
    if len(kept) < len(pairs):
        logger.warning(
            "left out %d of %d training pairs that share a text with a held-out pair or the evaluation data",
            len(pairs) - len(kept),
            len(pairs),
        )
    return kept


def _asked(example: TaskExample) -> Hashable:
    """The language of an example and what its prompt holds; chat may have turns and tools beside the text."""
    turns = tuple((turn["role"], _folded(turn["content"])) for turn in example.messages)
    tools = json.dumps(example.tools, sort_keys=True, default=str) if example.tools else ""
    return example.language, _folded(example.text), turns, tools


def _folded(text: str) -> str:
    """What equal texts share that differ in white space or in how Unicode writes a letter (NFC, NFD)."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _held_out(item_id: str, share: float) -> bool:
    return _hash(item_id.rpartition(":")[2]) % 10_000 < share * 10_000


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
