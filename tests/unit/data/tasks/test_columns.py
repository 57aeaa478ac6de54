from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from midalign.data.tasks.columns import COLUMNS, Columns, RawItem, Repairs, read_bio, read_conll
from midalign.errors import DataError
from midalign.records import Span

XSID = """\
# id = 1
# text-en = Wake me at nine
# text-de = Weck mich um neun
# text = Weck mi om niine!
# intent = alarm/set_alarm
1\tWeck\talarm/set_alarm\tO
2\tmi\talarm/set_alarm\tO
3\tom\talarm/set_alarm\tB-datetime
4\tniine\talarm/set_alarm\tI-datetime
5\t!\talarm/set_alarm\tO

# text = stop
1\tstop\talarm/cancel_alarm\tO
"""
UNER = """\
# newdoc id = d
# sent_id = d-1
# text = Ana #1 lives.
1\tAna\tB-PER\t-\tannotator
2\t#\tO\t-\t-
3\t1\tO\t-\t-
4\tlives\tO\t-\t-
5\t.\tO\t-\t-
"""


def read(folder: Path, content: str | bytes, columns: Columns) -> list[RawItem]:
    file = folder / "file.conll"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_conll(file, columns))


def test_an_xsid_file_is_read_with_text_intent_and_slots(tmp_path: Path) -> None:
    first, second = read(tmp_path, XSID, COLUMNS["xsid"])
    assert first == RawItem(
        0, "Weck mi om niine!", ("Weck", "mi", "om", "niine", "!"), (Span("datetime", 2, 4),), "alarm/set_alarm"
    )
    assert (second.index, second.text, second.spans, second.intent) == (1, "stop", (), "alarm/cancel_alarm")


def test_a_uner_file_is_read_and_a_hash_inside_a_sentence_is_a_word(tmp_path: Path) -> None:
    (item,) = read(tmp_path, UNER, COLUMNS["uner"])
    assert item.words == ("Ana", "#", "1", "lives", ".")
    assert (item.text, item.spans) == ("Ana #1 lives.", (Span("PER", 0, 1),))


@pytest.mark.parametrize("separator", [" ", "\t"])
def test_a_generic_file_has_the_word_first_and_the_tag_last(tmp_path: Path, separator: str) -> None:
    rows = ["-DOCSTART-|-X-|O|O", "", "EU|NNP|I-NP|B-ORG", "rejects|VBZ|I-VP|O", "", "", "Peter|NNP|I-NP|B-PER"]
    items = read(tmp_path, "\n".join(rows).replace("|", separator), COLUMNS["bio"])
    assert [(i.words, i.spans) for i in items] == [
        (("EU", "rejects"), (Span("ORG", 0, 1),)),
        (("Peter",), (Span("PER", 0, 1),)),
    ]
    assert items[0].text == "EU rejects"


def test_windows_line_ends_a_byte_order_mark_and_a_missing_last_newline_change_nothing(tmp_path: Path) -> None:
    plain = read(tmp_path, XSID, COLUMNS["xsid"])
    windows = b"\xef\xbb\xbf" + XSID.rstrip("\n").replace("\n", "\r\n").encode()
    assert read(tmp_path, windows, COLUMNS["xsid"]) == plain


def test_words_that_do_not_spell_the_text_become_the_text_and_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = UNER.replace("# text = Ana #1 lives.", "# text = Anna #1 lives.")
    (item,) = read(tmp_path, content, COLUMNS["uner"])
    assert item.text == "Ana # 1 lives ."
    assert "file.conll:4: the words do not spell the sentence's text" in caplog.text


def test_empty_words_outside_slots_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = XSID.replace("2\tmi\t", "2\t\t").replace("Weck mi om", "Weck om")
    first, _ = read(tmp_path, content, COLUMNS["xsid"])
    assert first.spans == (Span("datetime", 1, 3),)
    assert "file.conll:7: the word is empty; left out (1 in this file" in caplog.text


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        (XSID.replace("\tB-datetime", ""), "xsid", "file.conll:8: 3 columns where 4 were expected"),
        ("EU B-ORG\nrejects\n", "bio", "file.conll:2: 1 columns where 2 were expected"),
        ("EU\n", "bio", "file.conll:1: 1 columns where 2 were expected"),
        ("EU X B-ORG\nof O\n", "bio", "file.conll:2: 2 columns where 3 were expected"),
        ("EU ORG\n", "bio", "file.conll:1: the tag 'ORG' is not BIO"),
        ("EU B-\n", "bio", "file.conll:1: the tag 'B-' is not BIO"),
        ("EU S-ORG\n", "bio", "file.conll:1: the tag 'S-ORG' is not BIO"),
        (XSID.replace("\tom\t", "\t\t"), "xsid", "file.conll:8: the word is empty but has the tag 'B-datetime'"),
        (XSID.encode().replace(b"niine", b"ni\xefne"), "xsid", "file.conll:4: byte 0xef at column 23 is not UTF-8"),
    ],
)
def test_a_fault_is_named_with_file_and_line(tmp_path: Path, content: str | bytes, columns: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, content, COLUMNS[columns])


def test_an_inside_tag_that_continues_nothing_begins_a_span_and_is_counted_once_a_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        (item,) = read(tmp_path, "a I-x\nb I-y\nc I-y\nd O\ne I-y\n", COLUMNS["bio"])
    assert item.spans == (Span("x", 0, 1), Span("y", 1, 3), Span("y", 4, 5))
    assert "file.conll:1: an I- tag continues no span of its label" in caplog.text
    assert "(3 in this file" in caplog.text


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(["O", "B-x", "I-x", "B-y", "I-y", "B-a-b", "I-a-b"]), max_size=12))
def test_spans_of_any_tags_equal_seqevals(tags: list[str]) -> None:
    spans = read_bio(Path("f"), list(enumerate(tags, start=1)), Repairs(Path("f")))
    assert [(s.label, s.start, s.end - 1) for s in spans] == get_entities(tags)
