"""Corpora with one file for each language: FLORES, NTREX, plain and Moses folders."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midalign.data.parallel.corpus import read_parallel
from midalign.data.parallel.layout import detect_format
from midalign.errors import DataError, LanguageError
from midalign.files import is_blank
from tests.unit.data.parallel.corpora import DE, EN, TR, WORDS, fails, flores, jsonl, plain, tatoeba, write


def test_plain_folder_gives_rows_in_line_order(tmp_path):
    corpus = read_parallel(plain(tmp_path / "set"))
    assert corpus.languages == (EN, DE, TR)
    assert [row.id for row in corpus.rows] == ["set:0", "set:1", "set:2"]
    assert corpus.rows[2].texts == {EN: "three", DE: "drei", TR: "üç"}
    assert corpus.report.rows == 3


def test_ntrex_names_crlf_and_other_files_in_the_folder(tmp_path):
    write(tmp_path / "newstest2019-src.eng.txt", WORDS["eng"], "\r\n")
    write(tmp_path / "newstest2019-ref.deu.txt", WORDS["deu"], "\r\n")
    write(tmp_path / "newstest2019-ref.fra-CA.txt", ["un", "deux", "trois"], "\r\n")
    write(tmp_path / "LANGUAGES.tsv", ["deu German"])
    assert detect_format(tmp_path) == "ntrex"
    corpus = read_parallel(tmp_path)
    assert corpus.multiway(["eng", "fra-CA"]) == {EN: WORDS["eng"], "fra_Latn-CA": ["un", "deux", "trois"]}


@pytest.mark.parametrize("nested", [True, False])
def test_flores_from_its_root_or_the_folder_above(tmp_path, nested):
    flores(tmp_path / "flores200_dataset" if nested else tmp_path)
    assert detect_format(tmp_path) == "flores"
    assert read_parallel(tmp_path).rows[0].texts[DE] == "eins devtest"
    dev = read_parallel(tmp_path, split="dev")
    assert dev.rows[0].texts[DE] == "eins dev"
    assert dev.rows[1].id == "dev:1"


def test_flores_split_folder_alone(tmp_path):
    assert read_parallel(flores(tmp_path) / "dev").rows[0].texts[DE] == "eins dev"
    with pytest.raises(DataError, match=r"no split 'devtest'.*Name one of: dev"):
        read_parallel(tmp_path / "dev", split="devtest")


@pytest.mark.parametrize("prefix", ["tatoeba.deu-eng", "corpus"])
def test_moses_prefix_of_one_pair(tmp_path, prefix):
    tatoeba(tmp_path)
    write(tmp_path / "corpus.de", WORDS["deu"])
    write(tmp_path / "corpus.en", WORDS["eng"])
    corpus = read_parallel(tmp_path / prefix)
    assert corpus.multiway() == {EN: WORDS["eng"], DE: WORDS["deu"]}
    assert corpus.rows[0].id == f"{prefix}:0"


sentences = st.text(
    st.characters(exclude_characters="\n\r\0\ufeff", exclude_categories=["Cs"]), min_size=1, max_size=12
)


visible = sentences.filter(lambda text: not is_blank(text))


@settings(deadline=None, max_examples=50)
@given(rows=st.lists(st.tuples(visible, visible), min_size=1, max_size=6), end=st.sampled_from(["\n", "\r\n"]))
def test_what_is_written_is_what_is_read(rows, end):
    with tempfile.TemporaryDirectory() as name:
        for code, side in zip(("eng", "deu"), zip(*rows, strict=True), strict=True):
            write(Path(name) / f"{code}.txt", side, end)
            write(Path(name) / f"m.eng-deu.{code}", side, end)
        jsonl(Path(name) / "r.jsonl", *({"text_parallel_0": a, "text_parallel_1": b} for a, b in rows))
        read = [
            read_parallel(name, format="lines"),
            read_parallel(name, format="moses"),
            read_parallel(Path(name) / "r.jsonl", languages=["eng", "deu"]),
        ]
    for corpus in read:
        assert [(row.texts[EN], row.texts[DE]) for row in corpus.rows] == rows
    assert len({corpus.sha256 for corpus in read}) == 1


def test_unequal_line_counts_name_both_files_and_counts(tmp_path):
    plain(tmp_path, eng=["a", "b", "c"], deu=["a", "b", "c"], tur=["a", "b"])
    message = fails(r"tur\.txt has 2 lines", tmp_path, limit=1)
    assert "has 3" in message
    tatoeba(tmp_path / "m")
    write(tmp_path / "m" / "tatoeba.tur-eng.tur", ["bir"])
    fails(r"tatoeba\.tur-eng\.(tur|eng) has \d lines, but .*tatoeba\.tur-eng\.(tur|eng) has \d", tmp_path / "m")


def test_bytes_that_are_not_utf8_are_named_by_line_and_offset(tmp_path):
    plain(tmp_path, eng=["one", "two"])
    (tmp_path / "deu.txt").write_bytes("eins\nfünf\n".encode("latin-1"))
    fails(r"deu\.txt:2: byte 0xfc at column 2 is not UTF-8", tmp_path)


def test_two_files_of_one_language(tmp_path):
    fails(r"de\.txt and .*deu\.txt are both deu_Latn", plain(tmp_path / "a", de=["x"], deu=["y"]))
    tatoeba(tmp_path / "m")
    for code in ("de", "en"):
        write(tmp_path / "m" / f"tatoeba.de-en.{code}", ["x"])
    fails("same pair of languages twice", tmp_path / "m")
    fails("columns 0 and 2 are both eng_Latn", write(tmp_path / "t.tsv", ["en\tde\teng", "a\tb\tc"]))


def test_unknown_language_of_a_file_names_the_file_and_the_nearest(tmp_path):
    message = fails(r"germn\.txt: unknown language", plain(tmp_path, eng=["x"], germn=["y"]), LanguageError)
    assert "deu_Latn" in message


def test_faults_of_languages_that_are_not_wanted_do_not_matter(tmp_path):
    plain(tmp_path, eng=["one"], deu=["eins"], tur=["bir", "iki"])
    assert read_parallel(tmp_path, languages=["de", "en"]).languages == (DE, EN)
