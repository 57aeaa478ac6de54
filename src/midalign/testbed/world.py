"""The small world of the testbed: meanings, their utterances in every language, and what is held out.

1. A `Meaning` is a template key and the concepts in its slots; it has no language.
2. `World.invent` draws a meaning by a free walk over the English templates; `World.say` says it in any language, by
   walking that language's templates with the values given until the walk uses exactly these.
3. Things are held out by a hash of (seed, thing), so that a split needs no stored list and never changes:
   a third of all values, a part of the meanings, and a part of each language's patterns.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

from midalign.testbed.chance import bucket, chance
from midalign.testbed.lexicon import LANGUAGES, SHARED_NAMES, load_lexicons
from midalign.testbed.templates import Grammar, Key, UnrenderableError, Walk, join, load_grammar
from midalign.testbed.values import TEXT_LABELS, Choice

Split = Literal["train", "valid", "test", "probe", "mixed"]

_INTENT_WEIGHTS = {"HassTurnOn": 4, "HassTurnOff": 4, "HassLightSet": 4, "HassGetState": 3, "HassStartTimer": 3}
_SKIPPED_INTENTS = ("HassBroadcast", "HassRespond", "HassMediaSearchAndPlay", "HassClimateSetFanMode")
COMMON_SHARE = 0.85
"""What fewer languages can say is left out: a small model should see what there is often, and in every language."""
MOST_VALUES = 2
"""Keys with more slots (``64 hours 5 minutes 10 seconds timer named coffee``) are left out, for the same reason."""
_ANCHORS = ("shared/", "person/", "number/")


@dataclass(frozen=True, slots=True)
class Meaning:
    """Meaning of a sentence, independent of language: the key and, sorted, ``(slot, concept)``."""

    key: Key
    values: tuple[tuple[str, str], ...]

    @property
    def intent(self) -> str:
        """The intent in plain words: ``"HassTurnOn"`` is ``"turn_on"``."""
        name = self.key.intent.removeprefix("Hass")
        return "".join("_" + c.lower() if c.isupper() and i else c.lower() for i, c in enumerate(name))


@dataclass(frozen=True, slots=True)
class Slot:
    """A labelled part of an utterance: characters ``start`` to ``end`` of its text."""

    label: str
    concept: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Utterance:
    """A sentence with its meaning, its slots in order, and its pattern (the text without the slots' values)."""

    language: str
    text: str
    meaning: Meaning
    slots: tuple[Slot, ...]
    pattern: str


def is_value(concept: str) -> bool:
    """Whether a concept is an open value that can be held out (a state such as ``"state:open"`` is not)."""
    return "/" in concept


def anchor_free(meaning: Meaning) -> bool:
    """Whether nothing in a meaning is written alike in many languages (numbers, persons, brand names)."""
    return not any(concept.startswith(_ANCHORS) for _, concept in meaning.values)


class World:
    """World: meanings and utterances in a set of languages, and what of them is held out.

    Args:
        seed: Seed of what is held out.
        languages: Canonical codes; English is always among them.
    """

    def __init__(self, seed: int = 0, languages: Sequence[str] = tuple(LANGUAGES)) -> None:
        self.seed = seed
        self.languages = tuple(languages)
        self.lexicons = load_lexicons()

    @cached_property
    def keys(self) -> dict[str, list[Key]]:
        """The keys that English and nearly every other language have, by intent, if this world can fill their slots."""
        grammars = [self.grammar(code) for code in LANGUAGES]  # of all, so that every choice of languages has the same
        common = COMMON_SHARE * len(grammars)
        rng = chance(0)
        keys: dict[str, list[Key]] = {}
        for key in sorted(self.grammar("eng_Latn").blocks):
            if key.intent in _SKIPPED_INTENTS or sum(key in grammar.blocks for grammar in grammars) < common:
                continue
            tries = [self._try(key, "eng_Latn", {}, rng, free=True) for _ in range(20)]
            said = [utterance for utterance in tries if utterance is not None]
            if said and max(len(utterance.meaning.values) for utterance in said) <= MOST_VALUES:
                keys.setdefault(key.intent, []).append(key)
        return keys

    def grammar(self, language: str) -> Grammar:
        """The templates of a language."""
        return load_grammar(LANGUAGES[language].grammar)

    # -- what is held out -------------------------------------------------------------------------------------------

    @cache  # noqa: B019 - a world lives as long as its process
    def held_out(self, concept: str) -> bool:
        """Whether a value is kept for validation and test (a third of each category)."""
        category, _, which = concept.partition("/")
        if category == "number":
            return bucket(self.seed, "number", which, of=3) == 0
        ranked = sorted(self._members(category), key=lambda member: bucket(self.seed, member, of=2**32))
        return concept in ranked[: len(ranked) // 3]

    def split(self, meaning: Meaning) -> Split:
        """Which data sets a meaning may enter.

        ``probe``: a tenth, for retrieval only; half of the fewer meanings without anchors. ``train``: only
        values that may be trained on. ``valid`` and ``test``: only held-out values. ``mixed``: anything else, which
        only monolingual pretraining text contains. Meanings without any value are divided by hash alone.
        """
        share = bucket(self.seed, meaning)
        if share < (500 if anchor_free(meaning) else 100):
            return "probe"
        held = [self.held_out(concept) for _, concept in meaning.values if is_value(concept)]
        if not held:
            return "train" if share < 750 else "valid" if share < 850 else "test"
        if not any(held):
            return "train"
        if not all(held):
            return "mixed"
        return "valid" if share % 4 == 0 else "test"

    def pattern_split(self, language: str, pattern: str) -> Split:
        """Which data sets a wording may enter: 60 % train, 15 % valid, 25 % test, divided by hash."""
        share = bucket(self.seed, language, pattern, of=100)
        return "train" if share < 60 else "valid" if share < 75 else "test"

    # -- saying things ----------------------------------------------------------------------------------------------

    def invent(self, rng: random.Random, *, skewed: bool = False, keys: Sequence[Key] | None = None) -> Meaning:
        """A random meaning.

        Args:
            rng: Source of chance.
            skewed: Draw values as the world has them (some devices belong to some rooms), rather than evenly.
            keys: Draw among these keys only.
        """
        while True:
            if keys is None:
                names = list(self.keys)
                intent = rng.choices(names, weights=[_INTENT_WEIGHTS.get(name, 1) for name in names])[0]
                key = rng.choice(self.keys[intent])
            else:
                key = rng.choice(keys)
            utterance = self._try(key, "eng_Latn", {}, rng, free=True, skewed=skewed)
            if utterance is not None:
                return utterance.meaning

    def say(
        self, meaning: Meaning, language: str, rng: random.Random, *, split: Split | None = None, tries: int = 60
    ) -> Utterance | None:
        """A sentence of that meaning, or None where the language has no template for it.

        Args:
            meaning: The meaning to express.
            language: Canonical code.
            rng: Source of chance.
            split: If given, only wordings of this part.
            tries: Walks to try before giving up.
        """
        if meaning.key not in self.grammar(language).blocks:
            return None
        wanted = dict(meaning.values)
        for _ in range(tries):
            said = self._try(meaning.key, language, wanted, rng, free=False)
            if said is not None and (split is None or self.pattern_split(language, said.pattern) == split):
                return said
        return None

    def chatter(self, language: str, rng: random.Random) -> Utterance:
        """Any sentence of a language, in the frequencies of pretraining text."""
        while True:
            said = self.say(self.invent(rng, skewed=True), language, rng, tries=6)
            if said is not None:
                return said

    def _try(
        self,
        key: Key,
        language: str,
        wanted: dict[str, str],
        rng: random.Random,
        *,
        free: bool,
        skewed: bool = False,
    ) -> Utterance | None:
        told = LANGUAGES[language]
        choice = Choice(self, told, key, wanted, free, skewed)
        walk = Walk(self.grammar(language), rng, choice)
        choice.walk = walk
        try:
            pieces = walk.sentence(key)
        except UnrenderableError:
            return None
        if not free and choice.used != wanted:
            return None
        text, slots, pattern = join(pieces, spaces=told.spaces)
        if not text:
            return None
        meaning = Meaning(key, tuple(sorted(choice.used.items())))
        labelled = tuple(Slot(str(p.label), str(p.concept), start, end) for start, end, p in slots)
        return Utterance(language, text, meaning, labelled, pattern)

    # -- values -----------------------------------------------------------------------------------------------------

    @cache  # noqa: B019
    def _members(self, category: str) -> tuple[str, ...]:
        if category == "shared":
            return tuple(f"shared/{name}" for name in SHARED_NAMES)
        if category in TEXT_LABELS.values():
            name = "color" if category == "color" else "cover_classes"
            return tuple(f"{category}/{meant}" for _, meant in self.grammar("eng_Latn").lists[name].values)
        return tuple(f"{category}/{i}" for i in range(len(self.lexicons["eng_Latn"].entries[category])))

    def things(self, categories: Sequence[str]) -> list[str]:
        """All concepts of some categories."""
        return [concept for category in categories for concept in self._members(category)]
