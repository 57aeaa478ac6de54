"""Corpora in one table: TSV and JSONL."""

import logging

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
    fails("may be Indonesian", write(tmp_path / "i.tsv", ["id\ten\tde", "satu\tone\teins"]))
    fails("has only deu_Latn.*Write the codes", write(tmp_path / "u.tsv", ["source\tde", "a\tb"]))
    fails("no column 'nope'", write(tmp_path / "n.tsv", ["en\tde", "a\tb"]), columns={"en": "nope", "de": "de"})
    fails(r"a\.jsonl:1: not JSON", write(tmp_path / "a.jsonl", ["{"]))
    fails(r"b\.jsonl:1: list where", write(tmp_path / "b.jsonl", ["[]"]))
    fails(r"c\.jsonl:1: no key 'source_language'", jsonl(tmp_path / "c.jsonl", {"source": "a", "target": "b"}))
    record = {"source": "a", "target": 3, "source_language": "en", "target_language": "de"}
    fails(r"d\.jsonl:1: 'target' is 3", jsonl(tmp_path / "d.jsonl", record))
    fails("both eng_Latn", jsonl(tmp_path / "e.jsonl", record | {"target_language": "eng"}))
    fails("surrogate", jsonl(tmp_path / "f.jsonl", record | {"target": "\ud83d"}))


@pytest.mark.parametrize(
    ("ids", "languages"),
    [(["1", "2"], {EN, DE}), (["a7", "a8"], {EN, DE}), (["satu dua", "tiga"], {EN, DE, "ind_Latn"})],
)
def test_a_column_named_id_is_the_number_of_the_row_or_indonesian(tmp_path, ids, languages):
    rows = [f"{i}\t{a}\t{b}" for i, a, b in zip(ids, ["one", "two"], ["eins", "zwei"], strict=True)]
    assert set(read_parallel(write(tmp_path / "t.tsv", ["id\ten\tde", *rows])).languages) == languages


def test_other_columns_of_a_header_are_ignored_where_the_languages_are_asked_for(tmp_path):
    path = write(tmp_path / "t.tsv", ["en\tquality\tde\ttr", "one\t0.5\teins\tbir"])
    fails(r"t\.tsv:1 .the header.: unknown language 'quality'", path, LanguageError)
    assert read_parallel(path, languages=["de", "en"]).rows[0].texts == {DE: "eins", EN: "one"}
    fails("has no 'fra_Latn'.*It has: deu_Latn, eng_Latn, tur_Latn", path, languages=["en", "fr"])


@pytest.mark.parametrize(
    "header", ["English\tGerman", "en_text\tde_text", "English sentence\tGerman sentence", "en\tde\tscore",
               "text_en\ttext_de\tid", "score\tsentence_eng_Latn\tsentence_deu_Latn"],
)  # fmt: skip
def test_a_header_may_tell_its_languages_in_other_words_beside_usual_headings(tmp_path, header):
    row = {"score": "0.5", "id": "a1"}
    row = [row.get(cell, "one" if cell[-1:] == "e" or "n" in cell.lower() else "eins") for cell in header.split("\t")]
    texts = [cell for cell in row if cell in ("one", "eins")]
    rows = read_parallel(write(tmp_path / "t.tsv", [header, "\t".join(row)])).rows
    assert [dict(found.texts) for found in rows] == [{EN: texts[0], DE: texts[1]}]


@pytest.mark.parametrize("languages", [None, ["en", "de"]])
def test_a_header_of_usual_words_leaves_the_languages_to_the_name_or_the_order(tmp_path, languages):
    path = write(tmp_path / ("pairs.tsv" if languages else "en-de.tsv"), ["source\ttarget", "one\teins"])
    (row,) = read_parallel(path, languages=languages).rows
    assert (row.texts, row.id) == ({EN: "one", DE: "eins"}, f"{path.stem}:0")


def test_columns_of_numbers_are_scores_and_no_languages(tmp_path):
    path = write(tmp_path / "WikiMatrix.de-en.tsv", ["1.05\teins\tone\t-3e-1", "0,99\tzwei\ttwo\t2"])
    assert read_parallel(path).rows[1].texts == {EN: "two", DE: "zwei"}


def test_blank_lines_of_a_table_are_skipped_and_faults_keep_their_line(tmp_path):
    path = write(tmp_path / "t.tsv", ["en\tde", "one\teins", "", "two\tzwei", " "])
    assert [row.id for row in read_parallel(path).rows] == ["t:0", "t:1"]
    fails(r"t\.tsv:5: empty sentence", write(tmp_path / "t.tsv", ["en\tde", "one\teins", "", "two\tzwei", "\t"]))


# Tables without a header

ATTRIBUTION = "CC-BY 2.0 (France) Attribution: tatoeba.org #1 (a) & #2 (b)"
PAIRS = [("Go.", "Geh."), ("No", "Nein"), ("Hi", "Hallo"), ("it is", "es ist")]


@pytest.mark.parametrize(
    "name", ["deu.txt", "deu.tsv", "deu.txt.gz", "eng-deu.tsv", "en_de.tsv", "Tatoeba.en-de.train.tsv",
             "Sentence pairs in English-German - 2026-01-01.tsv", "test_german.tsv"],
)  # fmt: skip
@pytest.mark.parametrize("extra", [None, ATTRIBUTION, "ids"])
def test_the_file_name_tells_the_languages_of_a_table_without_header(tmp_path, name, extra):
    lines = [f"{a}\t{b}" for a, b in PAIRS]
    if extra == "ids":  # Tatoeba's own exports
        lines = [f"{i}\t{a}\t9{i}\t{b}" for i, (a, b) in enumerate(PAIRS)]
    elif extra:
        lines = [f"{line}\t{extra}" for line in lines]
    corpus = read_parallel(write(tmp_path / name, lines))
    assert corpus.multiway() == {EN: [a for a, _ in PAIRS], DE: [b for _, b in PAIRS]}
    assert [row.id for row in corpus.rows][:1] == [f"{name.removesuffix('.gz').rpartition('.')[0]}:0"]


def test_the_file_name_goes_before_the_order_in_which_languages_are_asked_for(tmp_path):
    path = write(tmp_path / "deu-eng.tsv", [f"{b}\t{a}" for a, b in PAIRS])
    assert read_parallel(path, languages=["en", "de"]).rows[0].texts == {EN: "Go.", DE: "Geh."}


@pytest.mark.parametrize("name", ["it-en.tsv", "it_en.tsv", "ita-eng.tsv", "news.it-en.test.tsv"])
def test_a_code_that_is_a_word_counts_beside_another(tmp_path, name):
    path = write(tmp_path / name, ["Ciao\tHi", "Casa\tHouse"])
    expected = {EN: "Hi", "ita_Latn": "Ciao"}
    assert read_parallel(path, languages=["en", "it"]).rows[0].texts == expected
    if not name.startswith("news"):
        assert read_parallel(path).rows[0].texts == expected
        return
    fails("no header says which", path)


def test_a_name_that_tells_nothing_leaves_it_to_the_order_of_the_languages_and_says_so(tmp_path, caplog):
    path = write(tmp_path / "my_pairs.tsv", [f"{a}\t{b}" for a, b in PAIRS])
    with caplog.at_level(logging.WARNING):
        corpus = read_parallel(path, languages=["en", "de"])
    assert corpus.rows[1].texts == {EN: "No", DE: "Nein"}
    assert "no header; taken in the order" in caplog.text
    fails(r"my_pairs\.tsv:1: no header says which of the 2 columns", path)
    fails("no header says which of the 2 columns", path, languages=["en", "de", "tr"])


def test_columns_that_are_likely_the_other_way_round_are_refused(tmp_path):
    german = ["Das ist mein Haus.", "Wir gehen in die Stadt."]
    english = ["This is my house.", "We go to the town."]
    path = write(tmp_path / "pairs.tsv", [f"{a}\t{b}" for a, b in zip(german, english, strict=True)])
    fails("column 2 has far more English words", path, languages=["en", "de"])
    assert read_parallel(path, languages=["de", "en"]).rows[0].texts == {DE: german[0], EN: english[0]}
    fails("column 2 has far more English words", write(tmp_path / "deu.txt", path.read_text().splitlines()))


@pytest.mark.parametrize("first", ["en\tgermn", "source\tZiel", "id\tSatz", "no\tnei"])
def test_a_first_line_with_a_code_or_a_usual_heading_is_no_sentence(tmp_path, first):
    path = write(tmp_path / "pairs.tsv", [first, "one\teins"])
    fails("unknown language|are both|no header says", path, (LanguageError, DataError))
    fails("has no 'deu_Latn'|the first line names none of the languages", path, languages=["en", "de"])


def test_more_text_columns_than_languages_are_refused(tmp_path):
    path = write(tmp_path / "eng-deu.tsv", ["one\teins\tund", "two\tzwei\tnoch"])
    fails("of the 3 columns of text is which language, and the name of the file has only eng_Latn, deu_Latn", path)


def test_a_table_of_one_language_or_of_numbers_is_no_parallel_corpus(tmp_path):
    fails("has only eng_Latn; a parallel corpus needs two", write(tmp_path / "a.tsv", ["en", "one"]))
    fails("which of the 0 columns of text", write(tmp_path / "b.tsv", ["1", "2"]))
    fails("which of the 1 columns of text", write(tmp_path / "deu.tsv", ["1\teins", "2\tzwei"]))


def test_numbers_of_columns_skip_a_header_of_codes(tmp_path):
    path = write(tmp_path / "t.tsv", ["en\tde", "one\teins"])
    assert len(read_parallel(path, columns={"en": 0, "de": 1}).rows) == 1


def test_a_folder_of_tables_is_read_for_the_languages_asked_for(tmp_path):
    write(tmp_path / "deu.txt", [f"{a}\t{b}\t{ATTRIBUTION}" for a, b in PAIRS])
    write(tmp_path / "tur.txt", ["Go!\tGit!"])
    write(tmp_path / "README.txt", ["About these files"])
    everything = read_parallel(tmp_path)
    assert everything.languages == (EN, DE, TR)
    assert {row.id for row in read_parallel(tmp_path, languages=["en", "tr"]).rows} == {"tur:0"}
    assert [row.id for row in read_parallel(tmp_path, limit=1).rows] == ["deu:0", "tur:0"]


def test_faults_of_tables_of_other_languages_do_not_matter(tmp_path):
    write(tmp_path / "deu.txt", ["Go!\tGeh!"])
    write(tmp_path / "tur.txt", ["Go!\tGit!", "Stop!"])
    assert len(read_parallel(tmp_path, languages=["en", "de"]).rows) == 1
    fails(r"tur\.txt:2: 1 cells", tmp_path, languages=["en", "tr"])
    fails(r"tur\.txt:2: 1 cells", tmp_path)
    fails(r"tur\.txt:2: 1 cells", tmp_path / "tur.txt", languages=["en", "de"])


def test_a_folder_of_tables_may_have_splits(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / f"{split}.tsv", ["en\tde", f"{split}\tx"])
    assert read_parallel(tmp_path, split="test").rows[0].texts[EN] == "test"
    fails("several splits, and none was named.*test, train", tmp_path)
    fails("no split 'dev'", tmp_path, split="dev")
    fails("is one file, which has no splits", tmp_path / "test.tsv", split="test")


# JSONL with languages as keys


@pytest.mark.parametrize(
    "record",
    [
        {"en": "one", "de": "eins"},
        {"translation": {"en": "one", "de": "eins"}},
        {"id": 7, "en": "one", "de": "eins", "score": 0.5},
        {"id": "a7", "eng_Latn": "one", "deu_Latn": "eins"},
    ],
)
def test_jsonl_with_codes_as_keys(tmp_path, record):
    assert read_parallel(jsonl(tmp_path / "p.jsonl", record)).rows[0].texts == {EN: "one", DE: "eins"}


def test_indonesian_as_a_key_is_a_language(tmp_path):
    path = jsonl(tmp_path / "p.jsonl", {"translation": {"en": "one", "id": "satu"}})
    assert read_parallel(path).languages == (EN, "ind_Latn")
    fails("'de' is 3, not a string", jsonl(tmp_path / "q.jsonl", {"en": "one", "de": 3}))
    fails("the same language", jsonl(tmp_path / "r.jsonl", {"en": "a", "eng": "b", "de": "c"}))


def test_blank_lines_of_jsonl_are_skipped_and_faults_keep_their_line(tmp_path):
    row = '{"source": "a", "target": "b", "source_language": "en", "target_language": "de"}'
    corpus = read_parallel(write(tmp_path / "p.jsonl", ["", row, "", row, ""]))
    assert [row.id for row in corpus.rows] == ["p:0", "p:1"]
    fails(r"q\.jsonl:3: empty", write(tmp_path / "q.jsonl", ["", row, row.replace('"b"', '"\u200b"')]))


def test_rows_in_a_language_that_nobody_asked_for_may_be_of_any_name(tmp_path):
    rows = [{"source": "a", "target": "b", "source_language": "en", "target_language": code} for code in ("de", "qqq")]
    path = jsonl(tmp_path / "p.jsonl", *rows)
    fails(r"p\.jsonl:2: unknown language 'qqq'", path, LanguageError)
    assert len(read_parallel(path, languages=["en", "de"]).rows) == 1


@pytest.mark.data
@pytest.mark.parametrize(("code", "rows"), [("dan", 25944), ("ind", 7151)])
def test_manythings_pairs_are_read(data_folder, code, rows):
    corpus = read_parallel(data_folder / "manythings" / f"{code}.txt")
    assert len(corpus.rows) == rows
    assert all("tatoeba.org" not in text for row in corpus.rows for text in row.texts.values())
    both = read_parallel(data_folder / "manythings")
    assert len(both.pairs([code])) == rows


@pytest.mark.parametrize(
    ("name", "row"), [("eng-deu", "it\tes"), ("eng-deu", "no\tnein"), ("eng-nob", "he\that"), ("news.en-de", "it\tes")]
)
def test_words_that_would_mean_other_languages_than_the_name_are_a_row(tmp_path, name, row):
    (tmp_path / f"{name}.tsv").write_text(f"{row}\nyes\tja\n")
    corpus = read_parallel(tmp_path / f"{name}.tsv")
    assert ["\t".join(found.texts.values()) for found in corpus.rows] == [row, "yes\tja"]
    assert corpus.languages[0] == EN


def test_a_header_is_trusted_where_the_name_tells_one_language_or_the_same(tmp_path):
    other = {"fra_Latn", "ita_Latn"}
    for name, header, languages in (
        ("corpus_de", "fr\tit", other), ("my_data_de", "fr\tit", other), ("eng-deu", "de\ten", {EN, DE}),
    ):  # fmt: skip
        (tmp_path / f"{name}.tsv").write_text(f"{header}\nhaus\thouse\n")
        corpus = read_parallel(tmp_path / f"{name}.tsv")
        assert (set(corpus.languages), len(corpus.rows)) == (languages, 1)
