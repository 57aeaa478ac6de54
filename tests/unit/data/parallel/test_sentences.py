"""Pairs cut into sentences: nothing is lost, nothing is cut where the counts differ."""

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midalign.data.parallel.sentences import chunked, sentences
from midalign.records import ParallelPair

TEXTS = st.text(alphabet=st.sampled_from("ab Ж3é'\"”)。！.!?…।۔։ \n今คค\u0947"), max_size=40)


def pair(source, target, number=0):
    return ParallelPair(source, target, "eng_Latn", "deu_Latn", f"lines:{number}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("No end", ["No end"]),
        ("He came… She left.", ["He came…", "She left."]),
        ("Wait... What?! Go.", ["Wait...", "What?!", "Go."]),
        ("He said “Stop.” Then he left.", ["He said “Stop.”", "Then he left."]),
        ("今日は。明日も！「はい。」次", ["今日は。", "明日も！", "「はい。」", "次"]),
        ("यह घर है। वह पेड़ है।", ["यह घर है।", "वह पेड़ है।"]),
        ("ती घरी आहेत. तो गेला.", ["ती घरी आहेत.", "तो गेला."]),
        ("یہ گھر ہے۔ کیوں؟ وہ", ["یہ گھر ہے۔", "کیوں؟", "وہ"]),
        ("Սա տուն է։ Նա", ["Սա տուն է։", "Նա"]),
        ("ይህ ቤት ነው። እሱ", ["ይህ ቤት ነው።", "እሱ"]),
        ("Дом стоит. Он большой.", ["Дом стоит.", "Он большой."]),
        ("J. S. Bach wrote it. Yes.", ["J. S. Bach wrote it.", "Yes."]),
        ("Am 3. Mai um 3.30 Uhr. Gut.", ["Am 3. Mai um 3.30 Uhr.", "Gut."]),
        ("Apples etc. are red. I can't. He can.", ["Apples etc. are red.", "I can't.", "He can."]),
        ("So “Dr. Smith met Mr. Jones. Good.", ["So “Dr. Smith met Mr. Jones.", "Good."]),
        ("It was the best. Yes.", ["It was the best.", "Yes."]),
        ("'Why?' she asked.", ["'Why?' she asked."]),
        (" \n ", []),
        (".", ["."]),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(text, expected):
    assert sentences(text) == expected


def test_long_texts_take_time_in_proportion_to_their_length():
    """In quadratic time each of these would take minutes."""
    assert sentences("a" + "." * 200_000 + "b")[0].startswith("a...")
    assert len(sentences("This is a sentence. " * 100_000)) == 100_000
    assert len(sentences("It goes on etc. and " * 100_000)) == 1


@settings(deadline=None)
@given(TEXTS)
def test_joined_sentences_are_the_text_but_for_white_space(text):
    parts = sentences(text)
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(part and part == part.strip() for part in parts)


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_a_pair_is_split_exactly_where_both_sides_have_equally_many(source, target):
    counts = len(sentences(source)), len(sentences(target))
    found = chunked([pair(source, target)])
    if counts[0] != counts[1] or counts[0] < 2:
        assert found == [pair(source, target)]
    else:
        assert [p.source for p in found] == sentences(source)
        assert [p.target for p in found] == sentences(target)
        assert [p.id for p in found] == [f"lines:0.{k}" for k in range(counts[0])]


def test_the_number_of_split_pairs_is_logged(caplog):
    caplog.set_level(logging.INFO, "midalign")
    chunked([pair("A cat. A dog.", "Eine Katze. Ein Hund.", 1), pair("One. Two.", "Eins, zwei."), pair("Yes", "Ja")])
    assert "split 1 of 3 pairs into 2 of one sentence each; 2 stay whole, of which 1 for unequal counts" in caplog.text
