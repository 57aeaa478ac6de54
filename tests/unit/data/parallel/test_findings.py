"""What a corpus is found to hold: identical sides, duplicates."""

import json
import logging
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from midalign.data.parallel.corpus import read_parallel
from tests.unit.data.parallel.corpora import DE, EN, TR, WORDS, plain


def test_identical_sides_and_duplicates_are_counted_and_kept(tmp_path, caplog):
    plain(tmp_path, eng=["OK", "one", "one", "one"], deu=["OK", "eins", "ein", "eins"], tur=["ok", "bir", "bir", "b"])
    with caplog.at_level(logging.WARNING):
        corpus = read_parallel(tmp_path)
    assert len(corpus.rows) == 4
    identical, duplicates = corpus.report.identical, corpus.report.duplicates
    assert {pair: finding.count for pair, finding in identical.items()} == {(EN, DE): 1}
    assert identical[EN, DE].places[0].endswith("deu.txt:1")
    assert {pair: finding.count for pair, finding in duplicates.items()} == {(EN, DE): 1, (EN, TR): 1}
    assert "deu.txt:4 (repeats" in duplicates[EN, DE].places[0]
    assert "1 identical sides" in caplog.text
    assert "2 exact duplicates" in caplog.text
    assert json.loads(json.dumps(corpus.report.as_dict()))["identical"]["eng_Latn deu_Latn"]["count"] == 1


def test_duplicates_on_one_line_of_a_translation_memory_are_counted(tmp_path):
    unit = '<tu><tuv xml:lang="en"><seg>hello</seg></tuv><tuv xml:lang="de"><seg>hallo</seg></tuv></tu>'
    (tmp_path / "m.tmx").write_text(f'<tmx version="1.4"><body>{unit * 5}</body></tmx>')
    assert read_parallel(tmp_path / "m.tmx").report.duplicates[EN, DE].count == 4


@settings(deadline=None, max_examples=50)
@given(rows=st.lists(st.tuples(*[st.sampled_from("abc")] * 3), min_size=1, max_size=12))
def test_counts_equal_those_of_a_plain_double_loop(rows):
    with tempfile.TemporaryDirectory() as name:
        report = read_parallel(plain(Path(name), **dict(zip(WORDS, zip(*rows, strict=True), strict=True)))).report
    for pair, (i, j) in {(EN, DE): (0, 1), (EN, TR): (0, 2), (DE, TR): (1, 2)}.items():
        couples = [(row[i], row[j]) for row in rows]
        same = sum(a == b for a, b in couples)
        repeats = sum(couple in couples[:n] for n, couple in enumerate(couples))
        assert (report.identical[pair].count if pair in report.identical else 0) == same
        assert (report.duplicates[pair].count if pair in report.duplicates else 0) == repeats
