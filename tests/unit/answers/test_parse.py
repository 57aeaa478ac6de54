from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midalign.answers.format import Style
from midalign.answers.matching import match_items
from midalign.answers.parse import parse_entities, parse_slots
from midalign.answers.write import completion
from midalign.records import Span, TaskExample

LABELS = ("time", "date", "song", "artist", "reminder/todo", "player_setting", "odd:label")
ENGLISH = "play play by adele at 9:30 am on friday ; note: call mum"
CHINESE = "播放adele的歌"

# (name, sentence, output, items, parsed); an item with an empty label is text that did not fit the format
HARD = [
    ("plain", ENGLISH, "time: 9:30 am; date: friday", [("time", "9:30 am"), ("date", "friday")], True),
    ("none", ENGLISH, "None", [], True),
    ("none in another case", ENGLISH, "none", [], True),
    ("none with blanks", ENGLISH, "  None \n", [], True),
    ("empty", ENGLISH, "", [], False),
    ("blanks only", ENGLISH, " \n\t\n ", [], False),
    ("a newline first", ENGLISH, "\n\ndate: friday", [("date", "friday")], True),
    ("a newline last", ENGLISH, "date: friday\n", [("date", "friday")], True),
    ("carriage return", ENGLISH, "date: friday\r\n", [("date", "friday")], True),
    ("goes on chatting", ENGLISH, "date: friday\nUser: next command", [("date", "friday")], True),
    ("one slot a line", ENGLISH, "time: 9:30 am\ndate: friday", [("time", "9:30 am")], True),
    ("newline inside a value", ENGLISH, "time: 9:30\nam", [("time", "9:30")], True),
    ("empty value", ENGLISH, "time: ; date: friday", [("time", ""), ("date", "friday")], False),
    ("empty value last", ENGLISH, "date: friday; time:", [("date", "friday"), ("time", "")], False),
    ("empty label", ENGLISH, ": friday", [("", "friday")], False),
    ("only a colon", ENGLISH, ":", [("", "")], False),
    ("only a semicolon", ENGLISH, ";", [("", "")], False),
    ("no colon", ENGLISH, "friday", [("", "friday")], False),
    ("refusal", ENGLISH, "I cannot do that.", [("", "I cannot do that.")], False),
    ("colon inside a value", ENGLISH, "reminder/todo: note: call mum", [("reminder/todo", "note: call mum")], True),
    ("colon and no blank", ENGLISH, "date:friday", [("date", "friday")], True),
    ("blanks around", ENGLISH, "  date :  friday  ;  time :9:30 am ", [("date", "friday"), ("time", "9:30 am")], True),
    ("clock time as piece", ENGLISH, "9:30 am", [("9", "30 am")], True),
    (
        "semicolon inside a value",
        ENGLISH,
        "reminder/todo: friday ; note: call mum; song: play",
        [("reminder/todo", "friday ; note: call mum"), ("song", "play")],
        True,
    ),
    (
        "an unknown label is no part of a value",
        ENGLISH,
        "date: friday; mood: happy",
        [("date", "friday"), ("mood", "happy")],
        True,
    ),
    (
        "a semicolon that the sentence does not have",
        ENGLISH,
        "date: friday; call mum",
        [("date", "friday"), ("", "call mum")],
        False,
    ),
    ("closing semicolon", ENGLISH, "song: play;", [("song", "play")], True),
    ("closing semicolon that the sentence has", ENGLISH, "date: friday ;", [("date", "friday ;")], True),
    ("two semicolons", ENGLISH, "song: play;; date: friday", [("song", "play"), ("", ""), ("date", "friday")], False),
    (
        "a value ends in a semicolon",
        ENGLISH,
        "date: friday ;; song: play",
        [("date", "friday ;"), ("song", "play")],
        True,
    ),
    ("repeated word", ENGLISH, "song: play", [("song", "play")], True),
    ("the same slot twice", ENGLISH, "date: friday; date: friday", [("date", "friday")] * 2, True),
    ("several slots of one label", ENGLISH, "song: play; song: adele", [("song", "play"), ("song", "adele")], True),
    ("adjacent slots of one type", ENGLISH, "song: play; song: play", [("song", "play")] * 2, True),
    ("out of order", ENGLISH, "date: friday; song: play", [("date", "friday"), ("song", "play")], True),
    ("not in the sentence", ENGLISH, "date: monday", [("date", "monday")], True),
    ("label in another case", ENGLISH, "Date: friday", [("Date", "friday")], True),
    ("known label with a colon", ENGLISH, "odd:label: friday", [("odd:label", "friday")], True),
    ("None beside a slot", ENGLISH, "None; date: friday", [("", "None"), ("date", "friday")], False),
    ("None as a value", ENGLISH, "date: None", [("date", "None")], True),
    ("cut off in a label", ENGLISH, "date: friday; so", [("date", "friday"), ("", "so")], False),
    ("cut off in a value", ENGLISH, "date: friday; song: pl", [("date", "friday"), ("song", "pl")], True),
    ("comma instead of semicolon", ENGLISH, "date: friday, song: play", [("date", "friday, song: play")], True),
    ("brackets of MASSIVE", ENGLISH, "[date : friday]", [("[date", "friday]")], True),
    ("full-width separators", CHINESE, "artist：adele；song：歌", [("", "artist：adele；song：歌")], False),
    ("Latin inside Chinese", CHINESE, "artist: adele; song: 歌", [("artist", "adele"), ("song", "歌")], True),
    ("repetition loop", ENGLISH, "song: play; " * 50, [("song", "play")] * 50, True),
    ("line separator U+2028", ENGLISH, "date: friday\u2028at 9:30 am", [("date", "friday\u2028at 9:30 am")], True),
    ("null character", ENGLISH, "date: fri\x00day", [("date", "fri\x00day")], True),
    ("JSON", ENGLISH, '{"date": "friday"}', [('{"date"', '"friday"}')], True),
]


@pytest.mark.parametrize(("sentence", "output", "items", "parsed"), [c[1:] for c in HARD], ids=[c[0] for c in HARD])
def test_hard_output_is_read_as_written_down(
    sentence: str, output: str, items: list[tuple[str, str]], parsed: bool
) -> None:
    words = list(sentence) if sentence == CHINESE else sentence.split()
    read = parse_slots(output, words, labels=LABELS)
    assert (list(read.items), read.parsed) == (items, parsed)


def test_there_are_at_least_forty_hard_outputs() -> None:
    assert len({case[2] for case in HARD}) >= 40


# The rest of the way for the same outputs: which spans they score as (None is a false positive).
@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("song: play", [(0, 1)]),
        ("song: play; song: play", [(0, 1), (1, 2)]),
        ("song: play play", [(0, 2)]),
        ("date: friday; date: friday", [(8, 9), None]),
        ("time: 9:30AM", [(5, 7)]),
        ("reminder/todo: friday ; note: call mum", [(8, 13)]),
        ("date: monday; time: ; friday", [None, None, None]),
    ],
)
def test_spans_of_hard_outputs(output: str, expected: list[tuple[int, int] | None]) -> None:
    words = ENGLISH.split()
    found = match_items(words, parse_slots(output, words, labels=LABELS).items)
    assert [span and (span.start, span.end) for span in found] == expected


def test_without_known_labels_every_label_is_one() -> None:
    read = parse_slots("mood: happy; time: 9:30 am", ENGLISH.split())
    assert read.items == (("mood", "happy"), ("time", "9:30 am"))


@pytest.mark.parametrize(
    ("output", "intent", "items", "parsed"),
    [
        ("play_music | song: play", "play_music", [("song", "play")], True),
        ("play_music | None", "play_music", [], True),
        ("play_music|None", "play_music", [], True),
        ("song: play", "", [("song", "play")], False),
        ("None", "", [], False),
        ("play_music", "", [("", "play_music")], False),
        ("play_music |", "play_music", [], False),
        ("| song: play", "", [("song", "play")], False),
        ("a | song: x | y", "a", [("song", "x | y")], True),
    ],
)
def test_intent_style(output: str, intent: str, items: list[tuple[str, str]], parsed: bool) -> None:
    read = parse_slots(output, ENGLISH.split(), labels=LABELS, style="intent_slots")
    assert (read.intent, list(read.items), read.parsed) == (intent, items, parsed)


def entities(*items: tuple[str, str]) -> str:
    return json.dumps({"Results": [{"TypeName": t, "Text": x} for t, x in items]}, ensure_ascii=False)


@pytest.mark.parametrize(
    ("output", "failure"),
    [
        (entities(("LOC", "Berlin")), None),
        ("\n " + entities() + " \n", None),
        ('{"Results": []}', None),
        ("", "not_json"),
        ("None", "not_json"),
        ("LOC: Berlin", "not_json"),
        ("```json\n" + entities() + "\n```", "not_json"),
        (entities() + " I hope that helps", "not_json"),
        (entities() + entities(), "not_json"),
        ("{'Results': []}", "not_json"),
        ('{"Results": [,]}', "not_json"),
        ("[" * 100_000, "not_json"),
        ("9" * 10_000, "not_json"),
        ('{"Results": [{"TypeName": "LOC", "Te', "truncated"),
        ('{"Results": [', "truncated"),
        ("{", "truncated"),
        ('{"Results": [{"TypeName": "LOC", "Text": "a\\', "truncated"),
        ('{"Results": [{"TypeName": "LOC", "Text": "a\\u00', "truncated"),
        ("[]", "wrong_schema"),
        ("null", "wrong_schema"),
        ('"LOC"', "wrong_schema"),
        ("{}", "wrong_schema"),
        ('{"results": []}', "wrong_schema"),
        ('{"Results": [], "Note": ""}', "wrong_schema"),
        ('{"Results": {"TypeName": "LOC", "Text": "x"}}', "wrong_schema"),
        ('{"Results": ["LOC"]}', "wrong_schema"),
        ('{"Results": [{"TypeName": "LOC"}]}', "wrong_schema"),
        ('{"Results": [{"TypeName": "LOC", "Text": 3}]}', "wrong_schema"),
        ('{"Results": [{"TypeName": null, "Text": "x"}]}', "wrong_schema"),
        ('{"Results": [{"TypeName": "LOC", "Text": "x", "Start": 0}]}', "wrong_schema"),
        ('{"Results": [], "Results": []}', "wrong_schema"),
        ('{"Results": [{"TypeName": "LOC", "TypeName": "PER", "Text": "x"}]}', "wrong_schema"),
    ],
)
def test_json_failures_are_named(output: str, failure: str | None) -> None:
    assert parse_entities(output).failure == failure


def test_entities_are_read_in_order_with_unknown_types_and_duplicates() -> None:
    items = (("LOC", "Berlin"), ("FOOD", "pie"), ("LOC", "Berlin"), ("", ""))
    assert parse_entities(entities(*items)).items == items


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=4), st.text(max_size=6)), max_size=4), st.data())
def test_every_beginning_of_an_answer_is_truncated(items: list[tuple[str, str]], data: st.DataObject) -> None:
    whole = entities(*items)
    cut = data.draw(st.integers(1, len(whole) - 1))
    assert parse_entities(whole[:cut]).failure == "truncated"
    assert parse_entities(whole).items == tuple(items)


SEPARATORS = "\v\f\x1c\x1d\x1e\x85\u2028\u2029"  # where `str.splitlines` cuts, beside line feed and carriage return


@pytest.mark.parametrize("separator", SEPARATORS, ids=[f"U+{ord(c):04X}" for c in SEPARATORS])
@pytest.mark.parametrize("style", ["slots", "intent_slots"])
def test_only_a_line_feed_ends_an_answer(separator: str, style: Style) -> None:
    words = (f"a{separator}b", "c", "d")
    example = TaskExample("x:0", "slots", "eng_Latn", " ".join(words), words, (Span("x", 0, 1), Span("y", 2, 3)), "go")
    opening = "go | " if style == "intent_slots" else ""
    for answer in (completion(example, style), f"{opening}x: a{separator}b; y: d", f"{opening}x: a b; y: d\nmore"):
        output = parse_slots(answer, words, style=style)
        assert output.parsed
        assert tuple(match_items(words, output.items)) == example.spans
        assert output.intent == ("go" if opening else "")


@settings(deadline=None, max_examples=300)
@given(
    st.text(alphabet=st.sampled_from('abtime:;|\n {}[]"\\,None'), max_size=60) | st.text(max_size=60),
    st.lists(st.text(max_size=4), max_size=6),
    st.lists(st.text(max_size=4), max_size=3),
)
def test_no_output_makes_a_parser_fail(output: str, words: list[str], labels: list[str]) -> None:
    for style in ("slots", "intent_slots"):
        read = parse_slots(output, words, labels=labels, style=style)  # type: ignore[arg-type]
        assert len(match_items(words, read.items)) == len(read.items)
    parse_entities(output)
