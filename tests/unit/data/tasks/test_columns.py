from __future__ import annotations

import gzip
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


# Which column


@pytest.mark.parametrize("separator", ["\t", " "])
@pytest.mark.parametrize(
    "numbers",
    ["0 1 2 0 1", "1 2 3 1 2", "1 2 3 4 5", "0 1 2 3 4", "1. 2. 3. 1. 2.", "t1 t2 t3 t1 t2", "(1) (2) (3) (1) (2)",
     "١ ٢ ٣ ١ ٢"],
)  # fmt: skip
@pytest.mark.parametrize("more", ["", "NNP"])
def test_a_first_column_that_numbers_the_words_is_left_out(
    tmp_path: Path, separator: str, numbers: str, more: str
) -> None:
    words = [("Anna", "B-PER"), ("in", "O"), ("Oslo", "B-LOC"), ("7", "O"), ("days", "O")]
    rows = [
        separator.join(part for part in (number, word, more, tag) if part)
        for number, (word, tag) in zip(numbers.split(), words, strict=True)
    ]
    first, second = read(tmp_path, "\n".join([*rows[:3], "", *rows[3:]]), COLUMNS["bio"])
    assert (first.words, first.spans) == (("Anna", "in", "Oslo"), (Span("PER", 0, 1), Span("LOC", 2, 3)))
    assert second.words == ("7", "days")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("5 Anna B-PER\n9 lives O\n", "f.le.conll:1: the first column holds only numbers that do not count 1, 2, 3"),
        ("1 Anna B-PER\n1 lives O\n", "that do not count"),
        ("1 Anna B-PER\n\n3 lives O\n", "that do not count"),
        ("5. Anna B-PER\n9. lives O\n", "holds only numbers that do not count 1, 2, 3"),
        ("s1 Anna B-PER\ns1 lives O\n\ns2 Oslo O\n", "that do not count"),
        ("1b2f Anna B-PER\n1b2f lives O\n\nc3 Oslo O\n", "first column is the same in all rows of a sentence"),
        ("train Anna B-PER\ntrain lives O\n", "is the same in all rows"),
        ("1 B-PER\n2 O\n", "file.conll:1: the first column holds only numbers, so it is unclear where the words"),
        ("1 Anna B-LOC B-PER\n2 in O O\n", "did not raise"),
        ("Anna B-PER B-PER\nin O O\n", r"column 1 .counted from 0. has tags, and the last has the same ones"),
        ("Anna B-PER ann1\nin O -\n", r"column 1 .counted from 0. has tags, and the last has none"),
    ],
)
def test_columns_that_cannot_be_told_apart_are_refused(tmp_path: Path, content: str, says: str) -> None:
    if "did not raise" in says:  # chunks and entities have other labels: the last column, as in CoNLL-2003
        assert read(tmp_path, content, COLUMNS["bio"])[0].spans == (Span("PER", 0, 1),)
        return
    with pytest.raises(DataError, match=says):
        read(tmp_path, content, COLUMNS["bio"])
    named = Columns(word=1, tag=2) if content[0] in "159st" and "Anna" in content else Columns(word=0, tag=1)
    assert read(tmp_path, content, named)[0].spans[0].label == "PER"


def test_numbers_may_be_words(tmp_path: Path) -> None:
    (item,) = read(tmp_path, "3 O\nof O\n7 B-cardinal\n", COLUMNS["bio"])
    assert (item.words, item.spans) == (("3", "of", "7"), (Span("cardinal", 2, 3),))
    (item,) = read(tmp_path, "112 B-number\n", COLUMNS["bio"])
    assert item.words == ("112",)
    (item,) = read(tmp_path, "A4 NN B-road\n", COLUMNS["bio"])
    assert item.words == ("A4",)


def test_sentences_of_one_word_have_no_column_that_is_the_same_in_all_rows(tmp_path: Path) -> None:
    assert [item.words for item in read(tmp_path, "yes UH O\n\nno UH O\n", COLUMNS["bio"])] == [("yes",), ("no",)]


def test_formats_with_a_number_of_the_word_refuse_other_columns(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"file.conll:1: 'EU' in the first column, which numbers the words"):
        read(tmp_path, "EU NNP B-ORG\nrejects VBZ O\n", COLUMNS["uner"])


def test_the_first_release_of_universal_ner_has_three_columns(tmp_path: Path) -> None:
    content = "# text = Ana in X and Y\n1\tAna\tB-PER\n2\tin\tO\n3\tX\tB-O\n4\tand\tOTH\n5\tY\tOTH\n"
    (item,) = read(tmp_path, content, COLUMNS["uner"])
    assert item.spans == (Span("PER", 0, 1), Span("O", 2, 3), Span("OTH", 3, 5))
    for tag in ("B-O", "OTH"):
        with pytest.raises(DataError, match=f"the tag '{tag}' is not BIO"):
            read(tmp_path, f"a {tag}\n", COLUMNS["bio"])
    with pytest.raises(DataError, match=r"file.conll:2: 3 columns where 5 were expected"):
        read(tmp_path, "1\ta\tO\t-\t-\n2\tb\tO\n", COLUMNS["uner"])


@pytest.mark.parametrize(("columns", "more"), [("bio", ""), ("uner", "\t-\t-")])
def test_rows_for_several_words_at_once_are_left_out(
    tmp_path: Path, columns: str, more: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = ["1-2\tzum\tO", "1\tzu\tO", "2\tdem\tO", "3\tRhein\tB-LOC", "3.1\tfließt\t_"]
    (item,) = read(tmp_path, "".join(f"{row}{more}\n" for row in rows), COLUMNS[columns])
    assert (item.words, item.spans) == (("zu", "dem", "Rhein"), (Span("LOC", 2, 3),))
    assert "file.conll:1: the row stands for several words" in caplog.text
    with pytest.raises(DataError, match=r"file.conll:1: the row 1-2 is for several words and has the tag 'B-LOC'"):
        read(tmp_path, f"1-2\tzum\tB-LOC{more}\n1\tzu\tO{more}\n2\tdem\tO{more}\n", COLUMNS[columns])


def test_words_with_a_hyphen_between_numbers_are_words(tmp_path: Path) -> None:
    (item,) = read(tmp_path, "1-2 B-score\nin O\n", COLUMNS["bio"])
    assert item.words == ("1-2", "in")


def test_a_language_before_every_word_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (item,) = read(tmp_path, "de:Anna\tB-PER\nde::\tO\nde:de\tO\n", COLUMNS["bio"])
    assert (item.words, item.text) == (("Anna", ":", "de"), "Anna : de")
    assert "file.conll:1: every word begins with 'de:'" in caplog.text
    for content in ("de:Anna O\nlebt O\n", "de: O\nde:x O\n", "zz:Anna O\nzz:lebt O\n", "de O\nde O\n"):
        first, *_ = read(tmp_path, content, COLUMNS["bio"])
        assert first.words == tuple(line.split()[0] for line in content.splitlines())


# Comments and words that begin with a number sign


@pytest.mark.parametrize(
    "comment",
    [
        "# id 1a2b\tdomain=xx",
        "# id 1a2b domain=xx",
        "#\tnewdoc",
        "# text = O",
        "# a\tb\tc\td",
        "#",
        "# source = web\tO",
    ],
)
@pytest.mark.parametrize("row", ["{}\t_\t_\t{}", "{} _ _ {}"])
def test_comments_before_a_sentence_may_have_tabs(tmp_path: Path, comment: str, row: str) -> None:
    rows = [row.format("sang", "O"), row.format("anna", "B-artist")]
    (item,) = read(tmp_path, "\n".join([comment, *rows]), COLUMNS["bio"])
    assert (item.words, item.spans) == (("sang", "anna"), (Span("artist", 1, 2),))


@pytest.mark.parametrize("word", ["#", "#metoo", "##", "#1", "#a=b"])
@pytest.mark.parametrize("separator", [" ", "\t"])
@pytest.mark.parametrize("rest", ["and{}O\n", ""])
def test_words_that_begin_with_a_number_sign_are_words(tmp_path: Path, word: str, separator: str, rest: str) -> None:
    content = f"{word}{separator}B-tag\n" + rest.format(separator)
    (item,) = read(tmp_path, content, COLUMNS["bio"])
    assert item.words[0] == word
    assert item.spans == (Span("tag", 0, 1),)


def test_a_word_with_a_number_sign_and_too_few_columns_is_no_comment(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"file.conll:1: 2 columns where 3 were expected"):
        read(tmp_path, "#metoo B-tag\nis X O\n", COLUMNS["bio"])


# White space


@pytest.mark.parametrize("mark", ["\xa0", "\u2028", "\x85", "\x0c", "\u3000", "\u200b", "\x1e", "\u2009"])
@pytest.mark.parametrize("separator", [" ", "\t"])
def test_white_space_other_than_blank_and_tab_is_part_of_a_word(tmp_path: Path, mark: str, separator: str) -> None:
    (item,) = read(tmp_path, f"10{mark}000{separator}B-x\nto{separator}O\n", COLUMNS["bio"])
    assert item.words == (f"10{mark}000", "to")
    assert item.text == f"10{mark}000 to"


def test_blanks_around_cells_are_no_part_of_words_or_tags(tmp_path: Path) -> None:
    (item,) = read(tmp_path, " Anna \tB-PER \n in\tO\n", COLUMNS["bio"])
    assert (item.words, item.spans) == (("Anna", "in"), (Span("PER", 0, 1),))
    (item,) = read(tmp_path, "  Anna   B-PER  \n", COLUMNS["bio"])
    assert (item.words, item.spans) == (("Anna",), (Span("PER", 0, 1),))


@pytest.mark.parametrize("blank", ["", "  ", "\t", "\t\t", "\u200b", "\ufeff", "\u3164"])
def test_a_line_of_which_nothing_can_be_seen_ends_a_sentence(tmp_path: Path, blank: str) -> None:
    assert len(read(tmp_path, f"a O\n{blank}\nb O\n", COLUMNS["bio"])) == 2


@pytest.mark.parametrize("word", ["", "\u200b", "\xa0", "\u2060"])
def test_a_sentence_of_which_no_word_can_be_seen_is_left_out_and_counted(
    tmp_path: Path, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    items = read(tmp_path, f"1\t{word}\tgo\tO\n\n1\tgo\tgo\tO\n", COLUMNS["xsid"])
    assert [(item.index, item.words) for item in items] == [(1, ("go",))]
    assert "file.conll:1: the sentence has no word; left out" in caplog.text


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("B-x I-x I-x", [("x", 0, 2)]),
        ("B-x I-x O", [("x", 0, 1)]),
        ("O B-x I-x", [("x", 1, 2)]),
        ("B-x O I-x", [("x", 0, 2)]),
        ("O B-x O", None),
        ("O I-x O", None),
        ("B-y I-x B-x", None),
        ("B-x B-x B-x", None),
    ],
)
def test_an_invisible_word_inside_a_span_is_left_out_and_no_span_is_lost(
    tmp_path: Path, tags: str, spans: list[tuple[str, int, int]] | None
) -> None:
    rows = "".join(f"{word}\t{tag}\n" for word, tag in zip(("a", "\u200b", "c"), tags.split(), strict=True))
    if spans is None:
        with pytest.raises(DataError, match=r"file.conll:2: the word is empty but has the tag"):
            read(tmp_path, rows, COLUMNS["bio"])
        return
    (item,) = read(tmp_path, rows, COLUMNS["bio"])
    assert item.words == ("a", "c")
    assert item.spans == tuple(Span(*span) for span in spans)


def test_line_ends_of_an_old_mac_and_packed_files_change_nothing(tmp_path: Path) -> None:
    plain = read(tmp_path, XSID, COLUMNS["xsid"])
    assert read(tmp_path, XSID.replace("\n", "\r"), COLUMNS["xsid"]) == plain
    assert read(tmp_path, gzip.compress(XSID.encode()), COLUMNS["xsid"]) == plain


# Tags


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
