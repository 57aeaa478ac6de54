"""The walk over hassil's trees: repeatable, only what hassil itself accepts, offsets that fit."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("hassil")
pytest.importorskip("home_assistant_intents")

from hassil.parse_expression import parse_sentence
from hassil.sample import sample_expression
from hypothesis import given, settings
from hypothesis import strategies as st

from midalign.testbed.templates import Grammar, Piece, UnrenderableError, Walk, join, load_grammar, pick

EMPTY = Grammar("xx", {}, {})


def no_value(slot, spec, rng):
    raise UnrenderableError(slot)


def walked(template: str, seed: int) -> str:
    walk = Walk(EMPTY, random.Random(seed), no_value)
    return join(walk.expression(parse_sentence(template).expression, {}), spaces=True)[0]


TEMPLATES = [
    "(turn|switch) on [all [of] the] light[s]",
    "[please] stop",
    "(now;go;home)",
    "set (the|my) timer[ ](now|later) [for me]",
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_walk_gives_only_sentences_that_hassils_own_sampler_gives_and_in_time_all_of_them(template):
    expression = parse_sentence(template).expression
    theirs = {" ".join(text.split()) for text in sample_expression(expression)}
    ours = {walked(template, seed) for seed in range(3000)}
    assert ours <= theirs
    assert len(ours) == len(theirs)


def test_early_alternatives_dominate_and_optional_words_are_said_less_often_than_not():
    said = [walked("[please] (turn|switch|bring) it", seed) for seed in range(2000)]
    counts = {word: sum(word in text.split() for text in said) for word in ("turn", "switch", "bring", "please")}
    assert counts["turn"] > 2 * counts["switch"] > 2 * counts["bring"] > 0
    assert 0.2 < counts["please"] / len(said) < 0.3


def test_one_item_is_picked_without_using_up_chance():
    rng = random.Random(1)
    before = rng.getstate()
    assert pick(["only"], rng) == "only"
    assert rng.getstate() == before


@given(
    st.lists(st.tuples(st.text(" ab", max_size=4), st.sampled_from([None, "area"])), max_size=8),
    st.booleans(),
)
@settings(deadline=None)
def test_joined_text_has_no_stray_spaces_and_every_slot_stands_at_its_offsets(parts, spaces):
    pieces = [Piece(text, label, "area/0" if label else None) for text, label in parts]
    text, slots, pattern = join(pieces, spaces=spaces)
    assert text == text.strip()
    assert "  " not in text
    assert spaces or " " not in text
    wanted = ["".join(p.text.split()) for p in pieces if p.label and p.text.strip()]
    assert ["".join(text[start:end].split()) for start, end, _ in slots] == wanted
    assert pattern.count("{area}") == len(wanted)
    # The pattern is the text with the values taken out.
    rebuilt, last = "", 0
    for start, end, _ in slots:
        rebuilt, last = rebuilt + text[last:start] + "{area}", end
    assert rebuilt + text[last:] == pattern


def test_the_grammar_of_a_language_that_does_not_exist_is_refused():
    with pytest.raises(UnrenderableError, match="xx-none"):
        load_grammar("xx-none")


def test_templates_that_differ_only_in_where_the_speaker_stands_have_one_key():
    keys = [key for key in load_grammar("en").blocks if key.intent == "HassTurnOn"]
    assert all("area" not in dict(key.context) for key in keys)
    assert ("light",) in {key.domains for key in keys}
