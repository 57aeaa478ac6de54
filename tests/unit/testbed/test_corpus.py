"""Pretraining text: every kind of document, planned resource levels, nothing held out in bilingual text."""

from __future__ import annotations

import hashlib
import importlib.metadata
import random
import re
from collections import Counter

import pytest

pytest.importorskip("hassil")
pytest.importorskip("home_assistant_intents")

from midalign.testbed.base import PROFILES
from midalign.testbed.chance import chance
from midalign.testbed.corpus import Corpus
from midalign.testbed.lexicon import LANGUAGES
from midalign.testbed.workspace import SHIPPED_SEED
from midalign.testbed.world import World

WORLD = World(0)


def drawn(n: int, what: str = "corpus", **options):
    rng = chance(what)
    corpus = Corpus(WORLD, **options)
    return [corpus.draw(rng) for _ in range(n)]


def test_the_same_source_of_chance_gives_the_same_documents():
    assert drawn(200) == drawn(200)
    assert drawn(200) != drawn(200, "other")


def test_every_kind_and_language_occurs_and_low_resource_text_is_twenty_times_rarer_but_for_copying():
    documents = drawn(6000)
    kinds = Counter(d.kind for d in documents)
    assert set(kinds) == {"chatter", "readback", "copying", "numbers", "naming", "bilingual"}
    assert 0.015 < kinds["bilingual"] / len(documents) < 0.025
    own = Counter(LANGUAGES[d.language].resource for d in documents if d.kind in ("chatter", "readback"))
    per_language = {r: own[r] / sum(t.resource == r for t in LANGUAGES.values()) for r in ("high", "low")}
    assert 14 < per_language["high"] / per_language["low"] < 30
    copying = Counter(d.language for d in documents if d.kind == "copying")
    assert set(copying) == set(LANGUAGES)
    assert max(copying.values()) < 2 * min(copying.values())


def test_bilingual_text_falls_with_the_resource_level():
    documents = drawn(4000, bilingual=0.5)
    bilingual = Counter(d.language for d in documents if d.kind == "bilingual")
    assert "eng_Latn" not in bilingual
    assert bilingual["deu_Latn"] > 3 * bilingual["ell_Grek"] > 0


def test_without_bilingual_text_there_is_none():
    assert all(d.kind != "bilingual" for d in drawn(2000, bilingual=0.0))


def test_bilingual_text_says_training_meanings_only(monkeypatch):
    meanings = []
    say = World.say
    monkeypatch.setattr(World, "say", lambda self, m, *a, **k: meanings.append(m) or say(self, m, *a, **k))
    drawn(300, bilingual=1.0)
    assert len(meanings) > 200
    assert {WORLD.split(meaning) for meaning in meanings} == {"train"}


def test_no_held_out_name_stands_in_bilingual_text():
    text = "\n".join(d.text for d in drawn(3000, bilingual=1.0))
    held = [c for c in WORLD.things(["item", "appliance", "person", "light"]) if WORLD.held_out(c)]
    trained = [c for c in WORLD.things(["item"]) if not WORLD.held_out(c)]

    def stands(concept: str, language: str) -> bool:
        return re.search(rf"\b{re.escape(WORLD.lexicons[language].name(concept))}\b", text) is not None

    # German nouns only: some words of other languages mean other things elsewhere (Spanish "sal", Polish "ser").
    assert not [c for c in held if stands(c, "deu_Latn")]
    assert all(stands(c, "deu_Latn") for c in trained)  # the same search finds what is there


def test_copied_words_stand_twice():
    for document in drawn(500):
        if document.kind == "copying":
            lines = document.text.split("\n")
            assert len(lines) >= 2
            first = lines[0].split(": ", 1)[-1]
            assert all(line.endswith(first) for line in lines)


def test_a_readback_answers_with_a_part_of_its_command():
    seen = 0
    for document in drawn(1500):
        if document.kind == "readback":
            command, *answers = document.text.split("\n")
            for answer in answers:
                assert answer.split("? ", 1)[1] in command
                seen += 1
    assert seen > 100


def test_no_document_looks_like_the_task():
    # The completion of the slot task is `label: phrase`; pretraining text must not teach it.
    pattern = re.compile(r"\b(area|device|item|timer|brightness|person|place|cover|minutes): ")
    assert not [d.text for d in drawn(4000) if pattern.search(d.text)]


def test_the_shipped_base_was_trained_on_exactly_this_text():
    version = importlib.metadata.version("home-assistant-intents")
    if version != "2026.10.27":
        pytest.skip(f"the text was drawn from home-assistant-intents 2026.10.27, here is {version}")
    corpus = Corpus(World(SHIPPED_SEED), bilingual=PROFILES["base"].bilingual)
    digest = hashlib.sha256()
    for step in range(40):
        rng = random.Random(f"batch {SHIPPED_SEED} {step}")
        for _ in range(50):
            digest.update(corpus.draw(rng).text.encode())
    assert digest.hexdigest() == "faf872d1d5720f237f2e1c443fa122fed2c2c3c358fdd78b2ff613cea8bf819f"


def test_lists_hold_the_punctuation_of_answers_and_are_said_twice():
    corpus = Corpus(WORLD)
    documents = [corpus.lists("deu_Latn", random.Random(seed)) for seed in range(60)]
    text = " ".join(document.text for document in documents)
    assert all(mark in text for mark in ("; ", " | ", "_", '{"', '"]', ": "))
    assert {document.kind for document in documents} == {"lists"}
    for document in documents:
        first, second = document.text.split("\n")
        assert first == second
