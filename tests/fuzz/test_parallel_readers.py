"""Parallel corpora of every layout, damaged: what is read is what stands there, and all else is one message."""

from __future__ import annotations

import gzip
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midalign.data.parallel.corpus import read_parallel
from midalign.files import is_blank
from midalign.languages import known
from tests.fuzz.strategies import FEW_OR_MANY, damaged, outcome, values

EN, DE, TR = "eng_Latn", "deu_Latn", "tur_Latn"
CODES = {EN: "eng", DE: "deu", TR: "tur"}
# Letters of several scripts, and what other readers take for the end of a line or a cell.
SIGNS = "aZ9 #\"',:;{}<>&\\\u2028\x85\x0c\x1e\u3000\u200b\u0301ßıİ你ก👍"
SENTENCES = st.text(st.sampled_from(SIGNS), min_size=1, max_size=8).filter(lambda text: not is_blank(text))
ROWS = st.lists(st.tuples(SENTENCES, SENTENCES, SENTENCES), min_size=1, max_size=5)
Rows = list[tuple[str, str, str]]


class Layout(NamedTuple):
    """How rows are written: the files by name, and what is read (``""`` is the folder)."""

    write: Callable[[Rows], dict[str, bytes]]
    read: str
    languages: tuple[str, ...]
    split: str | None = None


def lines(rows: Rows, side: int) -> bytes:
    return "".join(row[side] + "\n" for row in rows).encode()


def tsv(rows: Rows) -> bytes:
    return ("eng\tdeu\ttur\n" + "".join("\t".join(row) + "\n" for row in rows)).encode()


def jsonl(rows: Rows) -> bytes:
    objects = [{"source": a, "target": b, "source_language": "en", "target_language": "de"} for a, b, _ in rows]
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in objects).encode()


def tmx(rows: Rows) -> bytes:
    units = "".join(
        f'<tu><tuv xml:lang="en"><seg>{escape(a)}</seg></tuv>\n<tuv xml:lang="de"><seg>{escape(b)}</seg></tuv></tu>\n'
        for a, b, _ in rows
    )
    return f'<?xml version="1.0"?>\n<tmx version="1.4"><body>\n{units}</body></tmx>\n'.encode()


LAYOUTS = {
    "lines": Layout(lambda r: {f"{c}.txt": lines(r, i) for i, c in enumerate(CODES.values())}, "", (EN, DE, TR)),
    "flores": Layout(lambda r: {f"dev/{c}.dev": lines(r, i) for i, c in enumerate(CODES)}, "", (EN, DE, TR), "dev"),
    "ntrex": Layout(
        lambda r: {f"newstest2019-ref.{c}.txt": lines(r, i) for i, c in enumerate(CODES.values())}, "", (EN, DE, TR)
    ),
    "moses": Layout(lambda r: {f"x.deu-eng.{c}": lines(r, i) for i, c in enumerate(("eng", "deu"))}, "", (EN, DE)),
    "prefix": Layout(lambda r: {f"train.{c}": lines(r, i) for i, c in enumerate(("en", "de"))}, "train", (EN, DE)),
    "tsv": Layout(lambda r: {"t.tsv": tsv(r)}, "t.tsv", (EN, DE, TR)),
    "jsonl": Layout(lambda r: {"p.jsonl": jsonl(r)}, "p.jsonl", (EN, DE)),
    "tmx": Layout(lambda r: {"m.tmx": tmx(r)}, "m.tmx", (EN, DE)),
}


def put(folder: Path, files: dict[str, bytes]) -> dict[str, bytes]:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return files


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def expected(layout: str, rows: Rows) -> list[dict[str, str]]:
    """The texts of written rows; XML makes white space one blank."""
    languages = LAYOUTS[layout].languages
    texts = [dict(zip(CODES, row, strict=True)) for row in rows]
    if layout == "tmx":
        texts = [{language: " ".join(text.split()) for language, text in row.items()} for row in texts]
    return [{language: row[language] for language in languages} for row in texts]


@pytest.mark.parametrize("layout", LAYOUTS)
@FEW_OR_MANY
def test_what_is_written_is_read_back_packed_or_not(layout: str, cases: int) -> None:
    @settings(max_examples=cases, deadline=None)
    @given(ROWS, st.booleans(), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
    def check(rows: Rows, packed: bool, end: bytes, marked: bool) -> None:
        chosen = LAYOUTS[layout]
        if layout == "tmx":
            rows = [tuple("".join(c for c in text if c >= " ") or "a" for text in row) for row in rows]  # type: ignore[misc]
        files = {name: data.replace(b"\n", end) for name, data in chosen.write(rows).items()}
        if marked:
            files = {name: b"\xef\xbb\xbf" + data for name, data in files.items()}
        if packed:
            files = {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in files.items()}
        with tempfile.TemporaryDirectory() as name:
            put(Path(name), files)
            suffix = ".gz" if packed and "." in chosen.read else ""
            corpus, message = outcome(lambda: read_parallel(Path(name) / (chosen.read + suffix), split=chosen.split))
            assert corpus is not None, message
            assert [dict(row.texts) for row in corpus.rows] == expected(layout, rows)

    check()


def oracle(layout: str, files: dict[str, bytes]) -> list[dict[str, str]]:
    """The rows of damaged files of lines or tabs by the plainest reading there is."""

    def plain(data: bytes) -> list[str]:
        text = re.sub("(?m)^\ufeff", "", data.decode())
        return [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")] if text else []

    if layout == "tsv":
        header, *cells = [line.split("\t") for line in plain(files["t.tsv"]) if not is_blank(line)]
        codes = [known(re.sub(r"^[\W_]+|[\W_]+$", "", cell)) for cell in header]  # a heading may be "text-eng" too
        return [dict(zip(codes, row, strict=True)) for row in cells]
    sides = [plain(data) for data in files.values()]
    return [dict(zip(LAYOUTS[layout].languages, row, strict=True)) for row in zip(*sides, strict=True)]


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name not in ("jsonl", "tmx")])
@FEW_OR_MANY
def test_damaged_lines_are_read_as_they_stand_or_refused(layout: str, cases: int) -> None:
    @settings(max_examples=cases, deadline=None)
    @given(ROWS, st.data())
    def check(rows: Rows, data: st.DataObject) -> None:
        chosen = LAYOUTS[layout]
        files = chosen.write(rows)
        hurt = data.draw(st.sampled_from(sorted(files)))
        files[hurt] = data.draw(damaged(files[hurt]))
        with tempfile.TemporaryDirectory() as name:
            put(Path(name), files)
            languages = list(chosen.languages)
            corpus, message = outcome(
                lambda: read_parallel(Path(name) / chosen.read, languages=languages, split=chosen.split)
            )
            assert contents(Path(name)) == files, "a reader writes nothing"
        if corpus is None:
            assert len(message) > 20
            return
        found = [dict(row.texts) for row in corpus.rows]
        known = oracle(layout, files)
        assert found == [{language: row[language] for language in chosen.languages} for row in known]
        assert not any(is_blank(text) for row in found for text in row.values())

    check()


@pytest.mark.parametrize("layout", ["jsonl", "tmx"])
@FEW_OR_MANY
def test_damaged_tables_give_rows_that_were_written_or_a_message_with_file_and_line(layout: str, cases: int) -> None:
    @settings(max_examples=cases, deadline=None)
    @given(ROWS, st.data(), st.booleans())
    def check(rows: Rows, data: st.DataObject, packed: bool) -> None:
        chosen = LAYOUTS[layout]
        ((file, whole),) = chosen.write(rows).items()
        hurt = data.draw(damaged(gzip.compress(whole, mtime=0) if packed else whole))
        with tempfile.TemporaryDirectory() as name:
            put(Path(name), {file: hurt})
            corpus, message = outcome(lambda: read_parallel(Path(name) / file))
        if corpus is None:
            assert file in message
            return
        text = (gzip.decompress(hurt) if packed else hurt).decode()
        for row in corpus.rows:
            assert len(row.texts) == 2
            for sentence in row.texts.values():
                assert not is_blank(sentence)
                if layout == "jsonl" and "\\" not in text:
                    assert json.dumps(sentence, ensure_ascii=False)[1:-1] in text

    check()


KEYS = ("source", "target", "source_language", "target_language", "en", "de", "id", "translation", "text_parallel_0")


@FEW_OR_MANY
def test_json_rows_of_any_keys_and_values_are_read_or_refused_by_line(cases: int) -> None:
    @settings(max_examples=cases, deadline=None)
    @given(st.lists(st.dictionaries(st.sampled_from(KEYS), values() | st.just('"de"'), max_size=6), max_size=3))
    def check(rows: list[dict[str, str]]) -> None:
        text = "".join("{" + ", ".join(f"{json.dumps(k)}: {v}" for k, v in row.items()) + "}\n" for row in rows)
        with tempfile.TemporaryDirectory() as name:
            put(Path(name), {"p.jsonl": text.encode()})
            corpus, message = outcome(lambda: read_parallel(Path(name) / "p.jsonl"))
            assert "p.jsonl" in message if corpus is None else True
            asked, message = outcome(lambda: read_parallel(Path(name) / "p.jsonl", languages=["en", "de"]))
        for found in (corpus, asked):
            for row in found.rows if found else ():
                assert all(isinstance(sentence, str) and not is_blank(sentence) for sentence in row.texts.values())

    check()


CELLS = st.sampled_from(["en", "de", "No", "Hi", "id", "1", "27", "Go.", "Geh.", "so", "", "source", "\u200b", "x y"])


@FEW_OR_MANY
def test_small_tables_of_any_cells_are_read_without_a_change_or_refused(cases: int) -> None:
    names = st.sampled_from(["t.tsv", "eng-deu.tsv", "deu.txt", "en_de.tsv", "my-no.tsv"])

    @settings(max_examples=cases, deadline=None)
    @given(st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=4), names, st.booleans())
    def check(cells: list[list[str]], file: str, asked: bool) -> None:
        with tempfile.TemporaryDirectory() as name:
            put(Path(name), {file: "".join("\t".join(row) + "\n" for row in cells).encode()})
            languages = ["en", "de"] if asked else None
            corpus, message = outcome(
                lambda: read_parallel(Path(name) / file, format="tsv", languages=languages, on_empty="skip")
            )
        if corpus is None:
            assert message
            return
        written = [set(row) for row in cells]
        for row in corpus.rows:
            assert any(set(row.texts.values()) <= each for each in written)
            assert len(row.texts) > 1
        assert len({len(row) for row in cells if not is_blank("\t".join(row))}) == 1, "a blank line is no row"

    check()


NAMES = st.text(st.sampled_from("abdefnrt-_.@019 #éB\u200b"), min_size=1, max_size=14).filter(
    lambda name: name.strip(".") and len(name.encode()) < 200
)


@FEW_OR_MANY
def test_other_files_in_a_folder_change_nothing_for_the_languages_asked_for(cases: int) -> None:
    @settings(max_examples=cases, deadline=None)
    @given(ROWS, st.lists(st.tuples(NAMES, st.binary(max_size=20)), max_size=4), st.sampled_from(["lines", "moses"]))
    def check(rows: Rows, others: list[tuple[str, bytes]], layout: str) -> None:
        chosen = LAYOUTS[layout]
        files = chosen.write(rows)
        with tempfile.TemporaryDirectory() as name:
            put(Path(name), dict(others) | files)
            corpus, _ = outcome(
                lambda: read_parallel(name, format=layout, languages=list(chosen.languages), split=chosen.split)
            )
        if corpus is not None:
            texts = [dict(row.texts) for row in corpus.rows]
            assert all(row in texts for row in expected(layout, rows))
            assert layout == "moses" or texts == expected(layout, rows)

    check()
