"""Task data of every format, written with odd words and damaged: the same items come back, or one message."""

from __future__ import annotations

import gzip
import json
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from midalign.answers.matching import word_offsets
from midalign.data.tasks.chat import read_chat
from midalign.data.tasks.read import read_task
from midalign.files import is_blank
from midalign.records import Span, TaskExample
from tests.fuzz.strategies import FEW_OR_MANY, damaged, outcome, values

# Letters of several scripts, digits, number signs, and white space that is part of a word.
SIGNS = "abZ07#-_=[]:\"'\\\u2028\x85\x0c\xa0\u3000\u200b\u0301ßİ你ก👍"
WORDS = st.text(st.sampled_from(SIGNS), min_size=1, max_size=5).filter(lambda word: not is_blank(word))
TAGS = st.sampled_from(["O", "O", "B-x", "I-x", "B-y", "I-y", "B-a/b"])
SENTENCES = st.lists(st.lists(st.tuples(WORDS, TAGS), min_size=1, max_size=4), min_size=1, max_size=3)
Sentences = list[list[tuple[str, str]]]


def spans_of(tags: list[str]) -> tuple[Span, ...]:
    """Spans of BIO tags by seqeval, which is not ours."""
    return tuple(Span(label, start, end + 1) for label, start, end in get_entities(tags))


def bio(sentences: Sentences, separator: str, middle: str, numbers: int | None, comment: str) -> str:
    """A column file: an optional number, the word, an optional column, the tag."""
    blocks = []
    for sentence in sentences:
        rows = []
        for at, (word, tag) in enumerate(sentence):
            number = [] if numbers is None else [str(at + numbers)]
            rows.append(separator.join([*number, word, *([middle] if middle else []), tag]))
        blocks.append("".join(f"{row}\n" for row in ([comment] if comment else []) + rows))
    return "\n".join(blocks)


@FEW_OR_MANY
def test_words_and_tags_in_columns_come_back_as_they_were_written(cases: int) -> None:
    @settings(max_examples=cases, deadline=None)
    @given(
        SENTENCES,
        st.sampled_from(["\t", " "]),
        st.sampled_from(["", "_", "NNP"]),
        st.sampled_from([None, 0, 1]),
        st.sampled_from(["", "# id 7\tdomain=x", "# text-en = a b", "#"]),
        st.sampled_from(["\n", "\r\n"]),
    )
    def check(sentences: Sentences, separator: str, middle: str, numbers: int | None, comment: str, end: str) -> None:
        words = [word for sentence in sentences for word, _ in sentence]
        # Words of one number each cannot be told from numbers of the words, and a word that fills a sentence cannot be
        # told from the sentence's name.
        assume(not all(re.fullmatch(r"\D*\d+\D*", word) for word in words))
        several = len(words) > len(sentences)
        assume(not (several and all(len({word for word, _ in sentence}) == 1 for sentence in sentences)))
        data = bio(sentences, separator, middle, numbers, comment).replace("\n", end).encode()
        with tempfile.TemporaryDirectory() as name:
            (Path(name) / "de.bio").write_bytes(data)
            found, message = outcome(lambda: read_task(name))
        assert found is not None, message
        assert [(e.words, e.spans) for e in found] == [
            (tuple(word for word, _ in sentence), spans_of([tag for _, tag in sentence])) for sentence in sentences
        ]
        assert all(e.language == "deu_Latn" and word_offsets(e.text, e.words) for e in found)

    check()


XSID = "# text = {0}\n# intent = go\n{1}\n"
FILES = {
    "de.test.conll": "# text = go ön 2\n# intent = move\n1\tgo\tmove\tO\n2\tön\tmove\tB-x\n3\t2\tmove\tI-x\n\n"
    "1\tstop\thalt\tO\n",
    "de_x-ud-test.iob2": "# sent_id = a\n# text = Ana ißt.\n1\tAna\tB-PER\t-\t-\n2\tißt\tO\t-\t-\n3\t.\tO\t-\t-\n",
    "de.bio": "# id 1\td=x\nAna _ B-PER\n#tag _ O\n\nOslo _ B-LOC\n",
    "de-DE.jsonl": "".join(
        json.dumps({"locale": "de-DE", "partition": "test", "utt": u, "annot_utt": a, "intent": "i"}) + "\n"
        for u, a in (("weck mich um neun", "weck mich um [time : neun]"), ("stopp", "stopp"))
    ),
    "validate_A.json": json.dumps({"A": [{"data": [{"text": "play "}, {"text": "Yo", "entity": "t"}]}]}),
    "de.jsonl": json.dumps({"prefix": "<|im_start|>user\ngo on<|im_end|>\n", "text": "x: on<|im_end|>"}) + "\n",
}


def sound(example: TaskExample, text: str) -> None:
    """What must hold for an item of any file."""
    assert example.words
    assert not is_blank(example.text)
    assert all(0 <= span.start < span.end <= len(example.words) and span.label for span in example.spans)
    starts = [span.start for span in example.spans]
    assert starts == sorted(starts)
    assert all(a.end <= b.start for a, b in zip(example.spans, example.spans[1:], strict=False))
    assert word_offsets(example.text, example.words) is not None
    if "\\" not in text:  # an escape spells another character
        assert all(word in text for word in example.words)


@pytest.mark.parametrize("file", FILES)
@FEW_OR_MANY
def test_a_damaged_file_gives_sound_items_or_a_message_that_names_it(file: str, cases: int) -> None:
    @settings(max_examples=cases, deadline=None)
    @given(st.data(), st.booleans())
    def check(data: st.DataObject, packed: bool) -> None:
        whole = FILES[file].encode()
        hurt = data.draw(damaged(gzip.compress(whole, mtime=0) if packed else whole))
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / file
            path.write_bytes(hurt)
            found, message = outcome(lambda: read_task(path, languages=["en" if "validate" in file else "de"]))
            assert path.read_bytes() == hurt
            assert len(list(Path(name).iterdir())) == 1, "a reader writes nothing"
        if found is None:
            assert file in message or "no items" in message or "de_Latn" in message or "the data has no" in message
            return
        text = (gzip.decompress(hurt) if hurt.startswith(b"\x1f\x8b") else hurt).decode()
        for example in found:
            sound(example, text)
        assert len({example.id for example in found}) == len(found)

    check()


CELLS = st.sampled_from(
    ["1", "2", "0", "a", "Ana", "#", "#x", "", "O", "B-x", "I-x", "B-", "OTH", "B-O", "_", "\u200b"]
)


@pytest.mark.parametrize("file", ["de.test.conll", "de_x-ud-test.iob2", "de.bio"])
@FEW_OR_MANY
def test_columns_of_any_cells_are_read_or_refused_by_line(file: str, cases: int) -> None:
    @settings(max_examples=cases, deadline=None)
    @given(st.lists(st.lists(CELLS, max_size=5), max_size=5), st.sampled_from(["\t", " "]))
    def check(rows: list[list[str]], separator: str) -> None:
        text = "".join(separator.join(row) + "\n" for row in rows)
        with tempfile.TemporaryDirectory() as name:
            (Path(name) / file).write_text(text, encoding="utf-8")
            found, message = outcome(lambda: read_task(name, languages=["de"]))
        if found is None:
            assert file in message or "no items" in message
            return
        for example in found:
            sound(example, text)

    check()


KEYS = ("locale", "partition", "utt", "annot_utt", "intent", "prefix", "text")
ANNOTATED = st.text(st.sampled_from("ab :[]|你\u200b\n"), max_size=12)


@pytest.mark.parametrize("format", ["massive", "reference", "snips"])
@FEW_OR_MANY
def test_rows_of_any_values_are_read_or_refused(format: str, cases: int) -> None:  # noqa: A002
    texts = ANNOTATED.map(json.dumps) | st.sampled_from(['"test"', '"de-DE"', '"<|im_start|>user\\na<|im_end|>"'])
    rows = st.lists(st.dictionaries(st.sampled_from(KEYS), values() | texts | texts, max_size=7), max_size=3)

    @settings(max_examples=cases, deadline=None)
    @given(rows)
    def check(rows: list[dict[str, str]]) -> None:
        objects = ["{" + ", ".join(f"{json.dumps(k)}: {v}" for k, v in row.items()) + "}" for row in rows]
        text = "".join(each + "\n" for each in objects)
        if format == "snips":
            text = '{"A": [' + ", ".join(f'{{"data": [{each}, {{"text": "x"}}]}}' for each in objects) + "]}"
        with tempfile.TemporaryDirectory() as name:
            file = Path(name) / ("validate_A.json" if format == "snips" else "de.jsonl")
            file.write_text(text, encoding="utf-8")
            found, message = outcome(lambda: read_task(file, format=format, languages=None))
        if found is None:
            assert message
            return
        for example in found:
            sound(example, "\\")
            assert isinstance(example.intent, str)

    check()


@FEW_OR_MANY
def test_slots_of_massive_come_back_as_they_were_annotated(cases: int) -> None:
    words = st.text(st.sampled_from("abÄß7'你\u0301"), min_size=1, max_size=4).filter(lambda w: not is_blank(w))
    pieces = st.lists(st.tuples(st.lists(words, min_size=1, max_size=3), st.sampled_from(["", "t", "a_b"])), min_size=1)

    @settings(max_examples=cases, deadline=None)
    @given(pieces)
    def check(pieces: list[tuple[list[str], str]]) -> None:
        annotated = " ".join(f"[{label} : {' '.join(ws)}]" if label else " ".join(ws) for ws, label in pieces)
        text = " ".join(word for ws, _ in pieces for word in ws)
        spans, at = [], 0
        for ws, label in pieces:
            spans += [Span(label, at, at + len(ws))] if label else []
            at += len(ws)
        row = {"locale": "de-DE", "partition": "test", "utt": text, "annot_utt": annotated}
        with tempfile.TemporaryDirectory() as name:
            (Path(name) / "de-DE.jsonl").write_text(json.dumps(row), encoding="utf-8")
            (example,) = read_task(name)
        assert (example.text, example.words, example.spans) == (text, tuple(text.split(" ")), tuple(spans))

    check()


CHAT = "".join(
    json.dumps({"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": "ja"}]}) + "\n"
    for q in ("Gut?", "Größer?")
)
CSV = 'prompt,completion\n"Gut, oder?",ja\nGrößer?,"nein"\n'


@pytest.mark.parametrize(("file", "whole"), [("de.test.jsonl", CHAT), ("de.test.csv", CSV)])
@FEW_OR_MANY
def test_damaged_rows_of_chat_are_read_or_refused(file: str, whole: str, cases: int) -> None:
    @settings(max_examples=cases, deadline=None)
    @given(damaged(whole.encode()))
    def check(hurt: bytes) -> None:
        with tempfile.TemporaryDirectory() as name:
            (Path(name) / file).write_bytes(hurt)
            found, message = outcome(lambda: read_chat(name))
        if found is None:
            assert file in message or "no rows" in message or "no test rows" in message or Path(name).name in message
            return
        for example in found:
            assert example.reference.strip()
            assert example.language == "deu_Latn"

    check()


NAMES = st.text(st.sampled_from("abdeinoprt-_.@0 "), min_size=1, max_size=12).map(lambda stem: f"{stem}.bio")


@FEW_OR_MANY
def test_files_of_any_names_are_read_in_the_language_asked_for_or_refused(cases: int) -> None:
    @settings(max_examples=cases, deadline=None)
    @given(st.lists(NAMES, min_size=1, max_size=4, unique=True), st.sampled_from([None, ["de"], ["de", "it"], ["no"]]))
    def check(names: list[str], languages: list[str] | None) -> None:
        with tempfile.TemporaryDirectory() as name:
            for file in names:
                (Path(name) / file).write_text(f"{file} B-x\n".replace(" B-x", "\tB-x"))
            found, message = outcome(lambda: read_task(name, format="bio", languages=languages))
        if found is None:
            assert message
            return
        asked = {"de": "deu_Latn", "it": "ita_Latn", "no": "nob_Latn"}
        wanted = {asked[code] for code in languages} if languages else {e.language for e in found}
        assert {e.language for e in found} == wanted

    check()
