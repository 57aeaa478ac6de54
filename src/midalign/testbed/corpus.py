"""Pretraining text: an endless stream of short documents, each a pure function of its random generator.

Kinds of document:
    chatter    one to four commands, mostly about the same things
    readback   a command, then questions in the same language with the answers taken from it
    copying    "say X" and X again: random words, names, numbers or a command; *not* scaled down for rare languages
    numbers    digits and their words, counting on
    naming     "the kitchen is an area": what kind of thing something is
               (chatter and naming often with emoji, which are written alike in every language)
    lists      names of things with the punctuation of lists, tables and code between them (`Corpus.lists`)
    bilingual  sentences with their translation, word lists, English words in a sentence of another language or the
               other way round; only training meanings and values

The resource level of a language scales everything but copying; bilingual text falls with its square root.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from midalign.testbed.emoji import emoji_of, in_emoji
from midalign.testbed.lexicon import LANGUAGES, THINGS, load_lexicons
from midalign.testbed.values import LABELS, spell
from midalign.testbed.world import Utterance, World

Kind = Literal["chatter", "readback", "copying", "numbers", "naming", "lists", "bilingual"]

RESOURCE_WEIGHTS = {"high": 1.0, "low": 0.05}
"""Share of scaled text: a high-resource language has 20 times the text of a low-resource one."""
COPYING_SHARE = 0.2
"""Documents that say something again, dealt evenly over languages: value copying must be learnt in each."""
_OWN_KINDS: tuple[tuple[Kind, float], ...] = (("chatter", 0.6), ("readback", 0.25), ("numbers", 0.07), ("naming", 0.08))
_ASKED = {"area": 0, "device": 1, "color": 2, "person": 3, "timer": 5, "item": 5, "place": 6}
_NOUNS = {"area": 0, "light": 1, "appliance": 1, "media": 1, "opening": 1, "lock": 1, "climate": 1, "person": 3}


@dataclass(frozen=True, slots=True)
class Document:
    """A document, its kind, and the language it counts for (the other one, for bilingual text)."""

    text: str
    kind: Kind
    language: str


class Corpus:
    """Draws documents.

    Args:
        world: The world; its languages and held-out values are respected.
        bilingual: Share of documents that are bilingual, a fraction. They are about as long as the others; the data
            card has the share of tokens.
        emoji: Share of the lines of chatter and naming that have emoji beside them, where their meaning is one for
            training.
    """

    def __init__(self, world: World, *, bilingual: float = 0.02, emoji: float = 0.5) -> None:
        self.world = world
        self.bilingual = bilingual
        self.emoji = emoji
        self.lexicons = load_lexicons()
        self._weights = [RESOURCE_WEIGHTS[LANGUAGES[code].resource] for code in world.languages]
        self._others = [code for code in world.languages if code != "eng_Latn"]
        self._other_weights = [RESOURCE_WEIGHTS[LANGUAGES[code].resource] ** 0.5 for code in self._others]

    def draw(self, rng: random.Random) -> Document:
        """One document."""
        chance = rng.random()
        if chance < self.bilingual and self._others:
            language = rng.choices(self._others, weights=self._other_weights)[0]
            return Document(self._bilingual(language, rng), "bilingual", language)
        if chance < self.bilingual + COPYING_SHARE:
            language = rng.choice(self.world.languages)
            return Document(self._copying(language, rng), "copying", language)
        return self.document(rng.choices(self.world.languages, weights=self._weights)[0], rng)

    def document(self, language: str, rng: random.Random) -> Document:
        """One monolingual document of a given language, of the kinds that the resource level scales."""
        kind = rng.choices([k for k, _ in _OWN_KINDS], weights=[w for _, w in _OWN_KINDS])[0]
        write = {"chatter": self._chatter, "readback": self._readback, "numbers": self._numbers}
        return Document(write.get(kind, self._naming)(language, rng), kind, language)

    def _chatter(self, language: str, rng: random.Random) -> str:
        return "\n".join(self._remark(language, rng) for _ in range(rng.randint(1, 3)))

    def _remark(self, language: str, rng: random.Random) -> str:
        """A command, often with emoji beside it. Emoji, like bilingual text, never show a meaning of a test."""
        said = self.world.chatter(language, rng)
        if self.world.split(said.meaning) != "train" or rng.random() >= self.emoji:
            return said.text
        emoji = in_emoji(said.meaning)
        return f"{emoji} {said.text}" if rng.random() < 0.5 else f"{said.text} {emoji}"

    def _readback(self, language: str, rng: random.Random) -> str:
        said = self.world.chatter(language, rng)
        ask = self.lexicons[language].entries["ask"]
        lines = [said.text]
        for slot in rng.sample(said.slots, len(said.slots)):
            question = ask[_ASKED.get(slot.label, 4)] if slot.label != "cover" else ask[1]
            lines.append(f"{question}? {said.text[slot.start : slot.end]}")
        return "\n".join(lines)

    def _copying(self, language: str, rng: random.Random) -> str:
        said = self._something(language, rng)
        words = self.lexicons[language].entries["say"]
        if rng.random() < 0.5:
            return f"{words[0]}: {said}\n{said}"
        return "\n".join([said] + [f"{words[rng.randint(1, 2)]}: {said}" for _ in range(rng.randint(1, 2))])

    def _something(self, language: str, rng: random.Random) -> str:
        """Text to copy: a command, or random names of things with some numbers."""
        if rng.random() < 0.3:
            return self.world.chatter(language, rng).text
        words = []
        for _ in range(rng.randint(1, 6)):
            if rng.random() < 0.15:
                words.append(str(rng.randint(0, 100)))
            elif rng.random() < 0.15:
                words.append(rng.choice(LABELS))
            else:
                words.append(rng.choice(self.lexicons[language].entries[rng.choice(THINGS)]))
        return (" " if LANGUAGES[language].spaces or rng.random() < 0.5 else "").join(words)

    def _numbers(self, language: str, rng: random.Random) -> str:
        spoken = LANGUAGES[language].spoken
        start = rng.randint(0, 95)
        if spoken is None:
            return " ".join(str(n) for n in range(start, start + 8))
        return "\n".join(f"{n} {spell(n, spoken)}" for n in range(start, start + 4))

    def lists(self, language: str, rng: random.Random) -> Document:
        """A list of names with punctuation between them, written twice.

        Commands have hardly any punctuation. Without such text the embeddings of ``;``, ``|``, ``_``, quotes and
        brackets would stay untrained, and since they are frozen later, no adapter could teach the model to write them.
        """
        entries = self.lexicons[language].entries
        names = [rng.choice(entries[rng.choice(THINGS)]) for _ in range(rng.randint(2, 5))]
        shape = rng.randrange(5)
        if shape == 0:
            text = rng.choice(("; ", " | ", ", ", " / ")).join(names)
        elif shape == 1:
            text = "; ".join(f"{a}: {b}" for a, b in pairwise(names))
        elif shape == 2:
            text = " ".join("_".join(name.split()) for name in (f"{a} {b}" for a, b in pairwise(names)))
        elif shape == 3:
            text = json.dumps({names[0]: names[1:]}, ensure_ascii=False)
        else:
            text = json.dumps([{names[0]: names[1], names[1]: name} for name in names[1:]], ensure_ascii=False)
        return Document(f"{text}\n{text}", "lists", language)

    def _naming(self, language: str, rng: random.Random) -> str:
        entries = self.lexicons[language].entries
        lines = []
        for _ in range(rng.randint(1, 4)):
            category = rng.choice(THINGS)
            noun = entries["noun"][_NOUNS.get(category, 5 if category == "item" else 6)]
            which = rng.randrange(len(entries[category]))
            line = entries["isa"][0].format(x=entries[category][which], y=noun)
            concept = f"{category}/{which}"
            if rng.random() < self.emoji and not self.world.held_out(concept):
                line += " " + emoji_of(concept)
            lines.append(line.rstrip())
        return "\n".join(lines)

    def _bilingual(self, language: str, rng: random.Random) -> str:
        chance = rng.random()
        if chance < 0.4:
            return "\n".join(self._pair(self._names(language, rng), rng) for _ in range(rng.randint(2, 5)))
        if chance < 0.8:
            return "\n".join(self._pair(self._translation(language, rng), rng) for _ in range(rng.randint(1, 2)))
        return self._code_switched(language, rng)

    def _pair(self, texts: list[str], rng: random.Random) -> str:
        if rng.random() < 0.5:
            texts.reverse()
        return " = ".join(texts)

    def _names(self, language: str, rng: random.Random) -> list[str]:
        concept = rng.choice([c for c in self.world.things(THINGS) if not self.world.held_out(c)])
        return [self.lexicons[code].name(concept) for code in ("eng_Latn", language)]

    def _code_switched(self, language: str, rng: random.Random) -> str:
        """A sentence of one language in which things are called by their names in the other."""
        order = ["eng_Latn", language]
        rng.shuffle(order)
        while True:
            said = self._train_utterances(order[:1], rng)[0]
            things = [slot for slot in said.slots if slot.concept.partition("/")[0] in THINGS]
            if things:
                break
        text = said.text
        for slot in sorted(things, key=lambda slot: slot.start, reverse=True):
            text = text[: slot.start] + self.lexicons[order[1]].name(slot.concept) + text[slot.end :]
        return text

    def _translation(self, language: str, rng: random.Random) -> list[str]:
        return [said.text for said in self._train_utterances(["eng_Latn", language], rng)]

    def _train_utterances(self, languages: list[str], rng: random.Random) -> list[Utterance]:
        """The same training meaning in each language."""
        while True:
            meaning = self.world.invent(rng, skewed=True)
            if self.world.split(meaning) != "train":
                continue
            said = [self.world.say(meaning, code, rng, tries=8) for code in languages]
            utterances = [utterance for utterance in said if utterance is not None]
            if len(utterances) == len(languages):
                return utterances
