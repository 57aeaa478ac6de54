"""Writes the testbed's data sets as ordinary files, in formats that the readers of `midalign.data` know.

parallel/<lang_Scrp>.txt              probing: n-way parallel by line, meanings that no training text pairs up
parallel_anchor_free/<lang_Scrp>.txt  the same without numbers, names shared between languages, and held-out values
pairs/testbed.<xxx>-eng.{<xxx>,eng}   alignment: Moses pairs of English and each aligned language
pairs_other_domain/                   the same of timers and shopping lists only: another domain than the house itself
slots/<lang_Scrp>.{train,valid,test}.conll   slot filling in xSID's columns; train for supervised languages only
data_card.json                        languages, roles, resource levels, sizes, seed
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from midalign.files import write_atomically
from midalign.testbed.chance import chance
from midalign.testbed.lexicon import LANGUAGES, TestbedLanguage
from midalign.testbed.templates import Key
from midalign.testbed.values import LABELS
from midalign.testbed.world import Meaning, Split, Utterance, World, anchor_free, is_value

_WORDS = re.compile(r"\d+(?:[.,:]\d+)?|[%°?!.,;:\"()]|[^\s\d%°?!.,;:\"()]+")


def words_of(text: str, language: TestbedLanguage) -> list[tuple[str, int]]:
    """The words of a text with the offset of each; single characters for languages without spaces."""
    if not language.spaces:
        return [(c, i) for i, c in enumerate(text) if not c.isspace()]
    return [(match.group(), match.start()) for match in _WORDS.finditer(text)]


def bio(said: Utterance) -> list[tuple[str, str]]:
    """``(word, tag)`` of an utterance. A word that a slot covers in part (a case ending) belongs to it wholly."""
    rows, last = [], None
    for word, start in words_of(said.text, LANGUAGES[said.language]):
        slot = next((s for s in said.slots if s.start < start + len(word) and start < s.end), None)
        rows.append((word, "O" if slot is None else f"{'I' if slot is last else 'B'}-{slot.label}"))
        last = slot
    return rows


def conll(number: int, said: Utterance, english: str) -> str:
    """One sentence in the columns of xSID 0.7, with the comment lines its files have."""
    intent = said.meaning.intent
    head = f"# id = {number}\n# text-en = {english}\n# text = {said.text}\n# intent = {intent}\n"
    return head + "".join(f"{i}\t{w}\t{intent}\t{tag}\n" for i, (w, tag) in enumerate(bio(said), 1)) + "\n"


def _meanings(
    world: World, rng: random.Random, keep: Callable[[Meaning], bool], keys: Sequence[Key] | None = None
) -> Iterator[Meaning]:
    """Distinct meanings that ``keep`` accepts, until new ones become rare."""
    seen: set[Meaning] = set()
    misses = 0
    while misses < 20_000:
        meaning = world.invent(rng, keys=keys)
        if meaning in seen or not keep(meaning):
            misses += 1
            continue
        misses = 0
        seen.add(meaning)
        yield meaning


def known_anchor_free(world: World) -> Callable[[Meaning], bool]:
    """Whether to probe on a meaning: it has no anchors and no held-out value.

    Training text may contain each word and its translation, but no bilingual text contains the meaning. So retrieval
    tests whether sentences are composed alike, not whether a word was seen.
    """
    return lambda meaning: (
        anchor_free(meaning)
        and world.split(meaning) == "probe"
        and not any(world.held_out(concept) for _, concept in meaning.values if is_value(concept))
    )


def of_other_domain(intent: str) -> bool:
    """Whether an intent, such as ``"start_timer"``, is about timers or shopping lists rather than the house."""
    return "timer" in intent or intent.startswith("shopping_list")


class _Stream:
    """The distinct meanings of a split, drawn once and used again for every language."""

    def __init__(self, world: World, split: Split, purpose: str, keep: Callable[[Meaning], bool] | None = None) -> None:
        rng = chance(f"{world.seed} {purpose} {split}")
        self.split = split
        self.purpose = purpose
        self._source = _meanings(world, rng, lambda m: world.split(m) == split and (keep is None or keep(m)))
        self._drawn: list[Meaning] = []

    def __iter__(self) -> Iterator[Meaning]:
        for i in itertools.count():
            if i == len(self._drawn):
                fresh = next(self._source, None)
                if fresh is None:
                    return
                self._drawn.append(fresh)
            yield self._drawn[i]


def parallel_rows(
    world: World, languages: Sequence[str], n: int, rng: random.Random, keep: Callable[[Meaning], bool]
) -> list[tuple[Utterance, ...]]:
    """Up to ``n`` meanings that every language can express, and that neither bilingual text nor task training contains.

    No sentence occurs twice in any language.
    """
    keys = [k for group in world.keys.values() for k in group]
    shared = [k for k in keys if k.combination != "default" and all(k in world.grammar(x).blocks for x in languages)]
    rows: list[tuple[Utterance, ...]] = []
    seen: set[tuple[str, str]] = set()
    fresh = lambda m: bool(m.values) and world.split(m) != "train" and keep(m)  # noqa: E731
    for meaning in _meanings(world, rng, fresh, shared):
        said = [world.say(meaning, language, rng) for language in languages]
        row = tuple(utterance for utterance in said if utterance is not None)
        if len(row) < len(languages) or any((u.language, u.text) in seen for u in row):
            continue
        seen.update((u.language, u.text) for u in row)
        rows.append(row)
        if len(rows) == n:
            break
    return rows


def _slot_rows(world: World, language: str, stream: _Stream, n: int) -> list[tuple[Utterance, str]]:
    """Up to ``n`` sentences of a split, with their English; the meanings come in the same order for every language."""
    rows: list[tuple[Utterance, str]] = []
    seen: set[str] = set()
    for meaning in stream:
        rng = chance(f"{world.seed} {stream.split} {language} {meaning}")
        said = world.say(meaning, language, rng, split=stream.split)
        if said is None or said.text in seen:
            continue
        seen.add(said.text)
        english = world.say(meaning, "eng_Latn", rng)
        rows.append((said, english.text if english else ""))
        if len(rows) == n:
            break
    return rows


def _pairs(world: World, language: str, stream: _Stream, n: int) -> list[tuple[str, str]]:
    """Up to ``n`` (sentence, English) pairs of meanings and wordings of a split, no sentence twice on a side."""
    rng = chance(f"{world.seed} {stream.purpose} {stream.split} {language}")
    rows: list[tuple[str, str]] = []
    seen: set[str] = set()
    for meaning in stream:
        theirs = world.say(meaning, language, rng, split=stream.split)
        english = world.say(meaning, "eng_Latn", rng, split=stream.split)
        if theirs is None or english is None or theirs.text in seen or english.text in seen:
            continue
        if theirs.text == english.text:
            continue
        seen.update((theirs.text, english.text))
        rows.append((theirs.text, english.text))
        if len(rows) == n:
            break
    return rows


def build_data(
    out: Path,
    *,
    seed: int = 0,
    languages: Sequence[str] = tuple(LANGUAGES),
    train: int = 400,
    valid: int = 60,
    test: int = 150,
    pairs: int = 1000,
    parallel: int = 200,
) -> dict[str, Any]:
    """Writes all data sets of the testbed (see the module's docstring for the files).

    Args:
        out: Folder to write to; files of the same names are overwritten.
        seed: Decides what is held out and what is drawn; the same seed writes the same bytes.
        languages: Canonical codes, English among them.
        train: Sentences for each supervised language.
        valid: Sentences for each language.
        test: Sentences for each language.
        pairs: Pairs for each aligned language.
        parallel: Lines of the probing corpora, at most.

    Returns:
        The data card, as written.
    """
    world = World(seed, languages)
    sizes: dict[str, Any] = {}
    for folder, keep in (("parallel", lambda _: True), ("parallel_anchor_free", known_anchor_free(world))):
        rows = parallel_rows(world, languages, parallel, chance(f"{seed} {folder}"), keep)
        for i, code in enumerate(languages):
            _write(out / folder / f"{code}.txt", "".join(row[i].text + "\n" for row in rows))
        sizes[folder] = len(rows)
    lengths: dict[Split, int] = {"train": train, "valid": valid, "test": test}
    for split, n in lengths.items():
        _write_tasks(out, world, split, n, sizes)
    for code in languages:
        if LANGUAGES[code].role == "aligned":
            # A stream of its own for each language: real corpora of two languages rarely share their English side.
            for name in ("pairs", "pairs_other_domain"):
                only = None if name == "pairs" else lambda meaning: of_other_domain(meaning.intent)
                rows_of_pairs = _pairs(world, code, _Stream(world, "train", f"{name} {code}", only), pairs)
                _write_moses(out / name, LANGUAGES[code], rows_of_pairs)
                sizes.setdefault(name, {})[code] = len(rows_of_pairs)
    card = data_card(world, sizes)
    _write(out / "data_card.json", json.dumps(card, ensure_ascii=False, indent=2) + "\n")
    return card


def _write_tasks(out: Path, world: World, split: Split, n: int, sizes: dict[str, Any]) -> None:
    """Slot filling and translation of one split; adds what was written to ``sizes``."""
    commands, translations = _Stream(world, split, "slots"), _Stream(world, split, "translation")
    for code in world.languages:
        if split == "train" and LANGUAGES[code].role != "supervised":
            continue
        sentences = _slot_rows(world, code, commands, n)
        text = "".join(conll(i, said, english) for i, (said, english) in enumerate(sentences, 1))
        _write(out / "slots" / f"{code}.{split}.conll", text)
        sizes.setdefault(f"slots.{split}", {})[code] = len(sentences)
        if code != "eng_Latn":
            rows = _pairs(world, code, translations, n)
            _write_moses(out / "translation" / split, LANGUAGES[code], rows)
            sizes.setdefault(f"translation.{split}", {})[code] = len(rows)


def data_card(world: World, sizes: dict[str, Any]) -> dict[str, Any]:
    """Data card of the data sets, ready for JSON."""
    told = [LANGUAGES[code] for code in world.languages]
    return {
        "source": "home-assistant-intents (CC BY 4.0), read with hassil; names of things written for midalign",
        "seed": world.seed,
        "labels": list(LABELS),
        "languages": {
            t.code: {"role": t.role, "resource": t.resource, "script": t.script, "spaces": t.spaces} for t in told
        },
        "roles": {role: [t.code for t in told if t.role == role] for role in ("supervised", "aligned", "unseen")},
        "sizes": sizes,
        "held_out": "a third of all values and 40 % of each language's wordings never occur in task training or in "
        "pairs; a tenth of all meanings, half of those without anchors (the probing sets), and all meanings of "
        "held-out values never occur in any bilingual text",
    }


def _write_moses(folder: Path, language: TestbedLanguage, rows: Sequence[tuple[str, str]]) -> None:
    """Pairs with English as two files that are parallel by line."""
    stem = folder / f"testbed.{language.iso639_3}-eng"
    _write(Path(f"{stem}.{language.iso639_3}"), "".join(theirs + "\n" for theirs, _ in rows))
    _write(Path(f"{stem}.eng"), "".join(english + "\n" for _, english in rows))


def _write(path: Path, text: str) -> None:
    write_atomically(path, text)
