from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midalign.answers.matching import FoldedSentence, fold, match_items, span_phrases, word_offsets
from midalign.records import Span, TaskExample


def spans(sentence: str, *items: tuple[str, str]) -> list[tuple[str, int, int] | None]:
    found = match_items(sentence.split(), items)
    return [span and (span.label, span.start, span.end) for span in found]


def test_a_phrase_takes_its_leftmost_occurrence() -> None:
    assert spans("play the song play", ("song", "play")) == [("song", 0, 1)]


def test_a_repeated_item_takes_the_next_occurrence() -> None:
    assert spans("play play", ("x", "play"), ("y", "play"), ("z", "play")) == [("x", 0, 1), ("y", 1, 2), None]


def test_an_item_prefers_an_occurrence_after_the_previous_item() -> None:
    assert spans("one table for one", ("object", "table"), ("number", "one")) == [("object", 1, 2), ("number", 3, 4)]


def test_an_item_written_out_of_order_falls_back_to_the_leftmost_free_occurrence() -> None:
    assert spans("nine am on friday", ("date", "friday"), ("time", "nine am")) == [("date", 3, 4), ("time", 0, 2)]


def test_items_may_not_share_a_word() -> None:
    assert spans("wake me at nine am", ("time", "nine am"), ("time", "am")) == [("time", 3, 5), None]


def test_a_phrase_must_cover_whole_words() -> None:
    assert spans("weather in Berlin", ("place", "Berl"), ("x", "er in")) == [None, None]


def test_case_and_blanks_do_not_matter() -> None:
    assert spans("weather in New York", ("place", "new  YORK"), ("x", "WEATHERIN")) == [("place", 2, 4), ("x", 0, 2)]


def test_composed_and_decomposed_letters_are_the_same() -> None:
    word = "Caf\u00e9"
    assert spans(word, ("x", unicodedata.normalize("NFD", word))) == [("x", 0, 1)]


def test_a_phrase_over_a_word_that_begins_with_a_combining_mark_is_found() -> None:
    words = ["e", "\u0301t"]
    assert match_items(words, [("x", "\u00e9t")]) == [Span("x", 0, 2)]


@pytest.mark.parametrize("item", [("", "nine"), ("time", ""), ("time", " "), ("time", "ten")])
def test_an_item_without_label_phrase_or_place_matches_nothing(item: tuple[str, str]) -> None:
    assert spans("at nine", item) == [None]


def test_latin_inside_chinese_characters_is_found() -> None:
    words = [*"播放", "adele", *"的歌"]
    assert match_items(words, [("artist", "adele"), ("media", "歌")]) == [Span("artist", 2, 3), Span("media", 4, 5)]


def test_words_without_letters_belong_to_no_phrase() -> None:
    assert match_items(["a", " ", "b"], [("x", "a b")]) == [Span("x", 0, 3)]
    assert match_items(["", "b"], [("x", "b")]) == [Span("x", 1, 2)]


words_strategy = st.lists(st.text(alphabet="abAB é", min_size=1, max_size=2).filter(str.strip), max_size=8)


@settings(deadline=None)
@given(words_strategy, st.text(alphabet="abAB é", max_size=5))
def test_occurrences_equal_a_loop_over_all_word_ranges(words: list[str], phrase: str) -> None:
    plain = [
        (start, end)
        for start in range(len(words))
        for end in range(start + 1, len(words) + 1)
        if fold("".join(words[start:end])) == fold(phrase) and fold(phrase)
    ]
    assert FoldedSentence(words).occurrences(phrase) == plain


@settings(deadline=None)
@given(
    st.lists(st.text(max_size=4), max_size=6), st.lists(st.tuples(st.text(max_size=2), st.text(max_size=4)), max_size=6)
)
def test_matched_spans_never_overlap(words: list[str], items: list[tuple[str, str]]) -> None:
    taken = [index for span in match_items(words, items) if span for index in range(span.start, span.end)]
    assert len(taken) == len(set(taken))


def test_offsets_of_words_without_blanks_between_them() -> None:
    assert word_offsets("Berlin, bitte", ["Berlin", ",", "bitte"]) == [(0, 6), (6, 7), (8, 13)]


def test_offsets_are_none_where_words_do_not_spell_the_text() -> None:
    assert word_offsets("no time", ["em", "o", "time"]) is None
    assert word_offsets("a b c", ["a", "b"]) is None


@settings(deadline=None)
@given(
    st.lists(st.text(min_size=1, max_size=3).filter(lambda w: not any(c.isspace() for c in w)), max_size=6), st.data()
)
def test_offsets_cut_the_words_out_of_any_text_that_they_spell(words: list[str], data: st.DataObject) -> None:
    text = "".join(word + data.draw(st.sampled_from(["", " ", "  ", "\t"])) for word in words)
    offsets = word_offsets(text, words)
    assert offsets is not None
    assert [text[start:end] for start, end in offsets] == words


def test_a_span_reads_as_in_the_text() -> None:
    example = TaskExample(
        "x:0", "slots", "eng_Latn", "at 9:30  am.", ("at", "9", ":", "30", "am", "."), (Span("time", 1, 5),)
    )
    assert span_phrases(example) == ["9:30 am"]
