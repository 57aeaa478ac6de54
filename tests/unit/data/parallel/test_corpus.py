"""Parallel corpora as a whole: formats, arguments, pairs, n-way lists."""

import itertools
import logging

import pytest

from midalign.data.parallel.corpus import ParallelCorpus, ParallelRow, read_parallel
from midalign.errors import DataError, LanguageError, MissingFileError
from tests.unit.data.parallel.corpora import DE, EN, TR, WORDS, fails, flores, jsonl, plain, tatoeba, write


@pytest.mark.parametrize("empty", ["", " ", "\t", "\u3000"])
def test_empty_line_is_an_error_with_its_place_or_is_skipped_and_counted(tmp_path, empty, caplog):
    plain(tmp_path, eng=["one", "two", "three"], deu=["eins", empty, "drei"])
    fails(r"deu\.txt:2: empty", tmp_path)
    with caplog.at_level(logging.WARNING):
        corpus = read_parallel(tmp_path, on_empty="skip")
    assert corpus.multiway() == {EN: ["one", "three"], DE: ["eins", "drei"]}
    assert [row.id[-1] for row in corpus.rows] == ["0", "2"]  # ids still say the line
    assert corpus.report.skipped.count == 1
    assert corpus.report.skipped.places[0].endswith("deu.txt:2")
    assert "1 rows dropped" in caplog.text


def test_empty_cells_are_found_in_tables(tmp_path):
    fails(r"t\.tsv:3: empty", write(tmp_path / "t.tsv", ["en\tde", "one\teins", "two\t"]))
    record = {"source": "", "target": "x", "source_language": "en", "target_language": "de"}
    fails(r"p\.jsonl:1: empty", jsonl(tmp_path / "p.jsonl", record))


def test_wanted_language_that_is_not_there_lists_what_is(tmp_path):
    message = fails("has no 'fra_Latn'", plain(tmp_path), languages=["en", "fr"])
    assert "deu_Latn, eng_Latn, tur_Latn" in message
    plain(tmp_path / "s", eng=["one"], **{"srp-Latn": ["jedan"]})
    fails("has no 'srp_Cyrl'.* Did you mean 'srp_Latn'", tmp_path / "s", languages=["en", "sr"])
    fails("unknown language 'germn'", tmp_path, LanguageError, languages=["en", "germn"])


def test_missing_path_names_the_nearest(tmp_path):
    plain(tmp_path / "ntrex")
    fails("ntrx does not exist.*ntrex", tmp_path / "ntrx", MissingFileError)
    fails("does not exist", tmp_path / "no" / "such" / "pair", MissingFileError, format="moses")
    with pytest.raises(FileNotFoundError):
        read_parallel(tmp_path / "x.tsv", format="tsv")


def test_sets_without_rows(tmp_path):
    (tmp_path / "nothing").mkdir()
    fails("no known layout.*nothing", tmp_path / "nothing")
    fails("no rows", plain(tmp_path / "a", eng=[], deu=[]))
    fails("1 were dropped", plain(tmp_path / "b", eng=[""], deu=["x"]), on_empty="skip")
    fails("no rows", write(tmp_path / "h.tsv", ["en\tde"]))
    fails("is empty", write(tmp_path / "e.tsv", []))
    fails("no rows", write(tmp_path / "e.jsonl", []))
    fails("no pair of files <prefix>.<language>", tmp_path / "nothing", format="moses")
    fails("no file of the format 'ntrex'", tmp_path / "a", format="ntrex")
    fails("has only eng_Latn", plain(tmp_path / "c", eng=["x"]))


def test_folder_that_fits_two_layouts_has_to_be_named(tmp_path):
    flores(tatoeba(tmp_path))
    fails("looks like flores and moses", tmp_path)
    assert len(read_parallel(tmp_path, format="moses").rows) == 6


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"format": "lins"}, "format is 'lins'. Did you mean 'lines'"),
        ({"on_empty": "drop"}, "on_empty is 'drop'"),
        ({"limit": 0}, "limit is 0"),
        ({"split": "dev"}, "split is 'dev', but no file in .* names a split"),
        ({"columns": {"en": "a", "de": "b"}}, "'lines' has no columns"),
        ({"languages": ["de"]}, "Add 'eng_Latn'"),
        ({"languages": ["en"]}, "Add another language, such as 'deu_Latn'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(tmp_path, options, match):
    fails(match, plain(tmp_path), **options)


def test_hash_depends_on_content_and_not_on_place(tmp_path):
    one, two = read_parallel(plain(tmp_path / "a")), read_parallel(plain(tmp_path / "b"))
    assert one.sha256 == two.sha256
    other = read_parallel(plain(tmp_path / "c", **(WORDS | {"tur": ["bir", "iki", "uc"]})))
    assert one.sha256 != other.sha256
    three = read_parallel(plain(tmp_path / "d", deu=["x"], eng=["y"], tur=["z"]))
    two_that_spell_three = read_parallel(plain(tmp_path / "e", deu=["x"], eng=["ytur_Latn z"]))
    assert three.sha256 != two_that_spell_three.sha256


def test_pairs_in_both_modes(tmp_path):
    corpus = read_parallel(plain(tmp_path))
    english = corpus.pairs()
    assert [(p.source, p.target, p.id[-1]) for p in english[:3]] == [
        ("one", "eins", "0"), ("one", "bir", "0"), ("two", "zwei", "1"),
    ]  # fmt: skip
    assert {(p.source_language, p.target_language) for p in english} == {(EN, DE), (EN, TR)}
    everything = corpus.pairs(directions="all")
    assert {(p.source_language, p.target_language) for p in everything} == {(EN, DE), (EN, TR), (DE, TR)}
    assert len(everything) == 9
    assert {p.target_language for p in corpus.pairs(["tr"])} == {TR}  # the pivot need not be named
    assert {p.source_language for p in corpus.pairs(pivot="de")} == {DE}


def test_pairs_that_no_row_has_are_an_error(tmp_path):
    corpus = read_parallel(tatoeba(tmp_path))
    with pytest.raises(DataError, match="no row has a pair of tur_Latn with deu_Latn as pivot"):
        corpus.pairs(["en", "tr"], pivot="de")
    assert len(corpus.pairs(pivot="de")) == 3  # where none is named, those that pair with it
    with pytest.raises(DataError, match="no row has a pair of eng_Latn"):
        corpus.pairs(["en"])
    with pytest.raises(DataError, match="the corpus has no 'fra_Latn'"):
        corpus.pairs(["fr"])
    with pytest.raises(DataError, match="directions is 'both'"):
        corpus.pairs(directions="both")


def test_multiway_takes_the_same_rows_for_all_and_refuses_pairs(tmp_path):
    corpus = read_parallel(plain(tmp_path / "n"))
    assert corpus.multiway(["tr", "en"], limit=2) == {TR: ["bir", "iki"], EN: ["one", "two"]}
    pairs = read_parallel(tatoeba(tmp_path / "m"))
    assert pairs.multiway(["en", "tr"])[TR] == WORDS["tur"]
    with pytest.raises(DataError, match=r"not parallel across them.*NTREX-128"):
        pairs.multiway()
    with pytest.raises(DataError, match="limit is 0"):
        pairs.multiway(["en", "tr"], limit=0)


@pytest.mark.data
def test_ntrex_is_parallel_across_all_its_languages(data_folder):
    corpus = read_parallel(data_folder / "ntrex")
    lists = corpus.multiway()
    files = list((data_folder / "ntrex").glob("newstest*.txt"))
    assert len(lists) == len(files) >= 46
    assert {len(texts) for texts in lists.values()} == {1997}
    raw = (data_folder / "ntrex" / "newstest2019-ref.tha.txt").read_bytes().split(b"\n")
    assert [text.encode() for text in lists["tha_Thai"]] == [line.rstrip(b"\r") for line in raw[:1997]]


@pytest.mark.data
def test_tatoeba_reads_all_its_pairs(data_folder):
    corpus = read_parallel(data_folder / "tatoeba")
    assert len(corpus.languages) == 46
    pairs = corpus.pairs()
    assert len({pair.target_language for pair in pairs}) == 45
    lines = sum(file.read_bytes().count(b"\n") for file in (data_folder / "tatoeba").glob("*.eng"))
    assert len(pairs) == len(corpus.rows) == lines


def test_only_the_languages_that_a_row_has_are_combined(monkeypatch):
    codes = ("eng_Latn", "deu_Latn", "fra_Latn", "ita_Latn", "spa_Latn")
    rows = [ParallelRow(f"x:{n}", {codes[(n + 1) % 5]: "b", codes[n % 5]: "a"}) for n in range(10)]
    corpus = ParallelCorpus(tuple(rows), codes, None)
    asked = []
    plain = ParallelRow.pair
    monkeypatch.setattr(ParallelRow, "pair", lambda row, a, b: asked.append((a, b)) or plain(row, a, b))
    pairs = corpus.pairs(directions="all")
    assert asked == [(pair.source_language, pair.target_language) for pair in pairs]
    assert asked[:5] == [*itertools.pairwise(codes), (codes[0], codes[4])]
