"""Values of slots: their labels, the choices of a walk, and their names in a language."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Protocol

from midalign.testbed.chance import bucket
from midalign.testbed.lexicon import Lexicon, TestbedLanguage
from midalign.testbed.templates import INVISIBLE, Key, ListSpec, Piece, UnrenderableError, Walk

NUMBER_LABELS = {
    "brightness": "brightness",
    "temperature": "temperature",
    "position": "position",
    "percentage": "speed",
    "volume_level": "volume",
    "hours": "hours",
    "minutes": "minutes",
    "seconds": "seconds",
}
TEXT_LABELS = {"color": "color", "device_class": "cover"}
LABELS = (*NUMBER_LABELS.values(), *TEXT_LABELS.values(), "area", "device", "person", "place", "item", "timer")
"""Every slot label of the testbed; English words, as slot labels usually are."""

_DOMAIN_THINGS = {
    "light": ("light", "shared"),
    "switch": ("appliance",),
    "fan": ("appliance",),
    "input_boolean": ("appliance",),
    "media_player": ("media", "shared"),
    "cover": ("opening",),
    "lock": ("lock",),
    "climate": ("climate",),
    "person": ("person",),
}
_WILDCARD_THINGS = {"timer_name": ("timer", "item"), "shopping_list_item": ("item", "item"), "zone": ("place", "place")}
WORD_SHARE = 0.25
"""How often a number is spelt out, where the language can."""


class Concepts(Protocol):
    """What a choice must know of the world: its concepts, and their names in every language."""

    lexicons: dict[str, Lexicon]

    def things(self, categories: Sequence[str]) -> Sequence[str]:
        """All concepts of some categories, such as ``"area/3"``."""


@cache
def _speller(code: str) -> object:
    from unicode_rbnf import RbnfEngine

    return RbnfEngine.for_language(code)


@cache
def spell(number: int, code: str) -> str:
    """The number in words, in the language that the speller calls ``code``."""
    # Soft hyphens and zero-width spaces only help typesetting.
    return str(_speller(code).format_number(number).text).translate(INVISIBLE)  # type: ignore[attr-defined]


@dataclass
class Choice:
    """The `Chooser` of one walk: either free, or bound to the values wanted."""

    world: Concepts
    language: TestbedLanguage
    key: Key
    wanted: dict[str, str]
    free: bool
    skewed: bool

    def __post_init__(self) -> None:
        self.used: dict[str, str] = {}
        self.walk: Walk | None = None

    def __call__(self, slot: str, spec: ListSpec, rng: random.Random) -> list[Piece]:
        """The value for a list at this point of the walk; see `midalign.testbed.templates.Chooser`."""
        if slot in self.used or (not self.free and slot not in self.wanted):
            raise UnrenderableError(slot)
        if spec.is_range:
            return [self._number(slot, spec, rng)]
        if spec.values:
            return [self._listed(slot, spec, rng)]
        label, categories = self._kind(slot, spec)
        concept = self._decide(slot, list(self.world.things(categories)), rng)
        return [Piece(self.world.lexicons[self.language.code].name(concept), label, concept)]

    def _kind(self, slot: str, spec: ListSpec) -> tuple[str, tuple[str, ...]]:
        if spec.name in _WILDCARD_THINGS:
            label, category = _WILDCARD_THINGS[spec.name]
            return label, (category,)
        if slot == "area":
            return "area", ("area",)
        categories = tuple(dict.fromkeys(c for d in self.key.domains for c in _DOMAIN_THINGS.get(d, ())))
        if slot != "name" or not categories:
            raise UnrenderableError(f"{{{spec.name}:{slot}}} of {self.key.intent}")
        return ("person" if categories == ("person",) else "device"), categories

    def _number(self, slot: str, spec: ListSpec, rng: random.Random) -> Piece:
        label = NUMBER_LABELS.get(slot)
        if label is None or spec.high > 1000:  # colour temperatures in kelvin would be the only large numbers
            raise UnrenderableError(slot)
        low, high = (10, 30) if label == "temperature" else (max(spec.low, 1), min(spec.high, 100))
        concept = self._decide(slot, [f"number/{n}" for n in range(low, high + 1)], rng)
        digits = concept.partition("/")[2]
        if self.language.spoken is not None and rng.random() < WORD_SHARE:
            return Piece(spell(int(digits), self.language.spoken), label, concept)
        return Piece(digits, label, concept)

    def _listed(self, slot: str, spec: ListSpec, rng: random.Random) -> Piece:
        if slot in NUMBER_LABELS:
            raise UnrenderableError(f"{{{spec.name}}} is a word for a number")
        label = TEXT_LABELS.get(slot)
        prefix = f"{label}/" if label else "state:"
        known = set(self.world.things([label])) if label else None
        by_concept: dict[str, list[str]] = {}
        for said, meant in spec.values:
            if known is None or prefix + meant in known:
                by_concept.setdefault(prefix + meant, []).append(said)
        concept = self._decide(slot, list(by_concept), rng)
        assert self.walk is not None
        return Piece(self.walk.value(by_concept[concept][0]), label, concept if label else None)

    def _decide(self, slot: str, candidates: list[str], rng: random.Random) -> str:
        if self.free:
            concept = self._draw(candidates, rng)
        else:
            concept = self.wanted[slot]
            if concept not in candidates:
                raise UnrenderableError(concept)
        self.used[slot] = concept
        return concept

    def _draw(self, candidates: list[str], rng: random.Random) -> str:
        if not candidates:
            raise UnrenderableError("no candidate")
        if not self.skewed:
            return rng.choice(candidates)
        # What goes with what is the same in every language: the distributional signal that real text has, too.
        first = next(iter(self.used.values()), self.key.intent)
        ranked, weights = _affinity(first, tuple(candidates))
        return rng.choices(ranked, cum_weights=weights)[0]


@cache
def _affinity(first: str, candidates: tuple[str, ...]) -> tuple[list[str], list[float]]:
    """The candidates, those that go best with ``first`` in front, and their cumulative weights 1/2, 1/3, 1/4, ..."""
    ranked = sorted(candidates, key=lambda concept: bucket(7, first, concept, of=2**32))
    return ranked, list(accumulate(1.0 / (rank + 2) for rank in range(len(ranked))))
