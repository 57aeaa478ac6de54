"""Corpora in one table: TSV and JSONL."""

import pytest

from midalign.data.parallel.corpus import read_parallel
from midalign.errors import DataError, LanguageError
from tests.unit.data.parallel.corpora import DE, EN, TR, fails, jsonl, write


def test_tsv_keeps_quotes_and_counts_rows_from_the_header(tmp_path):
    path = write(tmp_path / "t.tsv", ["en\tde", '"one\teins"', "two\tzwei"])
    corpus = read_parallel(path)
    assert corpus.rows[0].texts == {EN: '"one', DE: 'eins"'}
    assert corpus.rows[1].id == "t:1"


def test_tsv_columns_by_name_and_by_number(tmp_path):
    named = write(tmp_path / "a.tsv", ["id\tsrc\tdst", "7\tone\teins"])
    bare = write(tmp_path / "b.tsv", ["7\tone\teins"])
    by_name = read_parallel(named, columns={"en": "src", "de": "dst"})
    by_number = read_parallel(bare, columns={"en": 1, "de": 2})
    assert by_name.rows[0].texts == by_number.rows[0].texts == {EN: "one", DE: "eins"}
    assert by_name.sha256 == by_number.sha256


def test_jsonl_with_languages_in_each_row(tmp_path):
    rows = [
        {"source": "one", "target": word, "source_language": "en", "target_language": code}
        for word, code in (("eins", "de"), ("bir", "tr"))
    ]
    corpus = read_parallel(jsonl(tmp_path / "p.jsonl", *rows))
    assert [row.texts for row in corpus.rows] == [{EN: "one", DE: "eins"}, {EN: "one", TR: "bir"}]
    assert [row.id for row in read_parallel(tmp_path / "p.jsonl", limit=1).rows] == ["p:0"]
    only = read_parallel(tmp_path / "p.jsonl", languages=["tr", "en"], limit=1)  # of the rows in these languages
    assert [row.id for row in only.rows] == ["p:1"]
    with pytest.raises(DataError, match="no row of tur_Latn is left among the 1 rows"):
        read_parallel(tmp_path / "p.jsonl", languages=["de", "tr", "en"], limit=1)


@pytest.mark.parametrize(
    "how", [{"languages": ["en", "de"]}, {"columns": {"en": "text_parallel_0", "de": "text_parallel_1"}}]
)
def test_jsonl_of_the_reference_takes_its_languages_from_the_caller(tmp_path, how):
    record = {"prefix": "p", "text": "t", "text_parallel_0": "one", "text_parallel_1": "eins"}
    corpus = read_parallel(jsonl(tmp_path / "r.jsonl", record), **how)
    assert corpus.rows[0].texts == {EN: "one", DE: "eins"}
    with pytest.raises(DataError, match=r"r\.jsonl:1: text_parallel_0 and text_parallel_1 do not say"):
        read_parallel(tmp_path / "r.jsonl")


def test_rows_of_tables_that_are_not_as_said(tmp_path):
    fails(r"t\.tsv:3: 3 cells", write(tmp_path / "t.tsv", ["en\tde", "a\tb", "a\tb\tc"]))
    fails("may be Indonesian", write(tmp_path / "i.tsv", ["id\ten\tde", "1\ta\tb"]))
    fails("unknown language 'source'", write(tmp_path / "u.tsv", ["source\tde", "a\tb"]), LanguageError)
    fails("no column 'nope'", tmp_path / "t.tsv", columns={"en": "nope", "de": "de"})
    fails(r"a\.jsonl:1: not JSON", write(tmp_path / "a.jsonl", ["{"]))
    fails(r"b\.jsonl:1: list where", write(tmp_path / "b.jsonl", ["[]"]))
    fails(r"c\.jsonl:1: no key 'source_language'", jsonl(tmp_path / "c.jsonl", {"source": "a", "target": "b"}))
    record = {"source": "a", "target": 3, "source_language": "en", "target_language": "de"}
    fails(r"d\.jsonl:1: 'target' is 3", jsonl(tmp_path / "d.jsonl", record))
    fails("both eng_Latn", jsonl(tmp_path / "e.jsonl", record | {"target_language": "eng"}))
    fails("surrogate", jsonl(tmp_path / "f.jsonl", record | {"target": "\ud83d"}))
