import json
import logging
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midalign.data.parallel.corpus import detect_format, read_parallel
from midalign.errors import DataError, LanguageError, MissingFileError
from midalign.records import ParallelPair

EN, DE, TR = "eng_Latn", "deu_Latn", "tur_Latn"
WORDS = {"eng": ["one", "two", "three"], "deu": ["eins", "zwei", "drei"], "tur": ["bir", "iki", "üç"]}


def write(path, lines, end="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


def plain(folder, **texts):
    for code, lines in (texts or WORDS).items():
        write(folder / f"{code}.txt", lines)
    return folder


def flores(root, splits=("dev", "devtest")):
    for split in splits:
        for code, lines in ((EN, WORDS["eng"]), (DE, WORDS["deu"])):
            write(root / split / f"{code}.{split}", [f"{line} {split}" for line in lines])
    return root


def tatoeba(folder):
    for code in ("deu", "tur"):
        write(folder / f"tatoeba.{code}-eng.{code}", WORDS[code])
        write(folder / f"tatoeba.{code}-eng.eng", WORDS["eng"])
    return folder


def jsonl(path, *records):
    return write(path, [json.dumps(record) for record in records])


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


def test_moses_folder_reads_every_pair_and_limits_each(tmp_path):
    corpus = read_parallel(tatoeba(tmp_path), limit=2)
    assert corpus.languages == (EN, DE, TR)
    assert [row.id for row in corpus.rows] == [
        "tatoeba.deu-eng:0", "tatoeba.deu-eng:1", "tatoeba.tur-eng:0", "tatoeba.tur-eng:1",
    ]  # fmt: skip
    assert corpus.pairs()[0] == ParallelPair("one", "eins", EN, DE, "tatoeba.deu-eng:0")


@pytest.mark.parametrize("prefix", ["tatoeba.deu-eng", "corpus"])
def test_moses_prefix_of_one_pair(tmp_path, prefix):
    tatoeba(tmp_path)
    write(tmp_path / "corpus.de", WORDS["deu"])
    write(tmp_path / "corpus.en", WORDS["eng"])
    corpus = read_parallel(tmp_path / prefix)
    assert corpus.multiway() == {EN: WORDS["eng"], DE: WORDS["deu"]}
    assert corpus.rows[0].id == f"{prefix}:0"


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


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    module = pytest.importorskip("datasets")
    monkeypatch.setattr(module.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return module


def test_datasets_saved_folder_with_nested_columns_and_splits(tmp_path, datasets):
    rows = [{"translation": {"en": a, "de": b}} for a, b in zip(WORDS["eng"], WORDS["deu"], strict=True)]
    splits = {"train": datasets.Dataset.from_list(rows), "test": datasets.Dataset.from_list(rows[:1])}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    columns = {"en": "translation.en", "de": "translation.de"}
    corpus = read_parallel(tmp_path / "saved", columns=columns, split="train", limit=2)
    assert corpus.multiway() == {EN: ["one", "two"], DE: ["eins", "zwei"]}
    assert corpus.rows[1].id == "saved:1"
    with pytest.raises(DataError, match="Name one of: train, test"):
        read_parallel(tmp_path / "saved", columns=columns)
    with pytest.raises(DataError, match=r"no column 'translation\.d'. Did you mean 'translation\.de'"):
        read_parallel(tmp_path / "saved", columns={"en": "translation.en", "de": "translation.d"}, split="test")


def test_datasets_parquet_file(tmp_path, datasets):
    path = tmp_path / "pairs.parquet"
    datasets.Dataset.from_dict({"a": WORDS["eng"], "b": [*WORDS["deu"][:2], None]}).to_parquet(str(path))
    with pytest.raises(DataError, match=r"pairs\.parquet:3: 'b' is None"):
        read_parallel(path, columns={"en": "a", "de": "b"})
    assert read_parallel(path, columns={"en": "a", "de": "b"}, limit=2).rows[1].id == "pairs:1"


def test_datasets_one_parquet_for_each_language_joined_by_id(tmp_path, datasets):
    for code, ids in (("eng", [1, 2, 3]), ("deu", [1, 2, 3]), ("tur", [1, 3, 2])):
        table = datasets.Dataset.from_dict({"id": ids, "text": WORDS[code]})
        (tmp_path / "plus" / "devtest").mkdir(parents=True, exist_ok=True)
        table.to_parquet(str(tmp_path / "plus" / "devtest" / f"{code}.parquet"))
    corpus = read_parallel(tmp_path / "plus", languages=["eng", "deu"])
    assert corpus.multiway() == {EN: WORDS["eng"], DE: WORDS["deu"]}
    with pytest.raises(DataError, match=r"tur\.parquet.*do not have the same rows in the same order"):
        read_parallel(tmp_path / "plus")
    datasets.Dataset.from_dict({"id": [1, 2, 3], "text": ["bir", None, "x"]}).to_parquet(
        str(tmp_path / "plus" / "devtest" / "tur.parquet")
    )
    with pytest.raises(DataError, match=r"tur\.parquet:2: 'text' is None"):
        read_parallel(tmp_path / "plus")


def test_datasets_hub_name_with_a_configuration_for_each_language(monkeypatch, datasets):
    asked = []

    def load(name, configuration):
        asked.append(configuration)
        base = configuration[:3]
        return datasets.DatasetDict(
            {s: datasets.Dataset.from_dict({"id": [1, 2, 3], "text": WORDS[base]}) for s in ("dev", "devtest")}
        )

    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name: ["all", "deu_Latn", "eng_Latn", "tur_Latn"])
    monkeypatch.setattr(datasets, "load_dataset", load)
    corpus = read_parallel("openlanguagedata/flores_plus", format="datasets", languages=["en", "tr"])
    assert corpus.multiway() == {EN: WORDS["eng"], TR: WORDS["tur"]}
    assert asked == [EN, TR]  # no other language is fetched
    assert corpus.rows[0].id == "flores_plus:0"


def test_unreachable_hub_dataset_is_a_data_error_and_auto_never_asks_the_hub(monkeypatch, datasets):
    def refuse(*args, **kwargs):
        raise ConnectionError("Couldn't reach it")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(DataError, match="'owner/name' cannot be loaded: Couldn't reach it"):
        read_parallel("owner/name", format="datasets", columns={"en": "a", "de": "b"})
    with pytest.raises(MissingFileError):
        read_parallel("owner/name", columns={"en": "a", "de": "b"})


# Text is taken as it is


@pytest.mark.parametrize("mark", ["\u2028", "\x85", "\x0b", "\x0c", "\x1c", "\u2029", "a\rb"])
def test_only_newline_ends_a_line(tmp_path, mark):
    corpus = read_parallel(plain(tmp_path, eng=[f"o{mark}ne", "two"], deu=["eins", "zwei"]))
    assert corpus.multiway()[EN] == [f"o{mark}ne", "two"]


def test_byte_order_mark_and_missing_last_newline_are_no_text(tmp_path):
    plain(tmp_path, eng=["one", "two"])
    (tmp_path / "deu.txt").write_bytes(b"\xef\xbb\xbfeins\nzwei")
    assert read_parallel(tmp_path).multiway()[DE] == ["eins", "zwei"]


sentences = st.text(st.characters(exclude_characters="\n\r\ufeff", exclude_categories=["Cs"]), min_size=1, max_size=12)
visible = sentences.filter(lambda text: bool(text.strip()))


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


# Faults


def fails(match, path, error=DataError, **options):
    with pytest.raises(error, match=match) as caught:
        read_parallel(path, **options)
    return str(caught.value)


def test_unequal_line_counts_name_both_files_and_counts(tmp_path):
    plain(tmp_path, eng=["a", "b", "c"], deu=["a", "b", "c"], tur=["a", "b"])
    message = fails(r"tur\.txt has 2 lines", tmp_path, limit=1)
    assert "has 3" in message
    tatoeba(tmp_path / "m")
    write(tmp_path / "m" / "tatoeba.tur-eng.tur", ["bir"])
    fails(r"tatoeba\.tur-eng\.(tur|eng) has \d lines, but .*tatoeba\.tur-eng\.(tur|eng) has \d", tmp_path / "m")


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


def test_bytes_that_are_not_utf8_are_named_by_line_and_offset(tmp_path):
    plain(tmp_path, eng=["one", "two"])
    (tmp_path / "deu.txt").write_bytes("eins\nfünf\n".encode("latin-1"))
    fails(r"deu\.txt:2: byte 0xfc at offset 6 is not UTF-8", tmp_path)


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


def test_wanted_language_that_is_not_there_lists_what_is(tmp_path):
    message = fails("has no 'fra_Latn'", plain(tmp_path), languages=["en", "fr"])
    assert "deu_Latn, eng_Latn, tur_Latn" in message
    plain(tmp_path / "s", eng=["one"], **{"srp-Latn": ["jedan"]})
    fails("has no 'srp_Cyrl'.* Did you mean 'srp_Latn'", tmp_path / "s", languages=["en", "sr"])
    fails("unknown language 'germn'", tmp_path, LanguageError, languages=["en", "germn"])


def test_faults_of_languages_that_are_not_wanted_do_not_matter(tmp_path):
    plain(tmp_path, eng=["one"], deu=["eins"], tur=["bir", "iki"])
    assert read_parallel(tmp_path, languages=["de", "en"]).languages == (DE, EN)


def test_moses_languages_without_a_common_pair_say_to_add_english(tmp_path):
    fails("no pair whose two languages are both among.*eng_Latn", tatoeba(tmp_path), languages=["de", "tr"])


def test_missing_path_names_the_nearest(tmp_path):
    plain(tmp_path / "ntrex")
    fails("ntrx does not exist.*ntrex", tmp_path / "ntrx", MissingFileError)
    fails("does not exist", tmp_path / "no" / "such" / "pair", MissingFileError, format="moses")
    with pytest.raises(FileNotFoundError):
        read_parallel(tmp_path / "x.tsv", format="tsv")


def test_missing_side_of_a_pair(tmp_path):
    (tatoeba(tmp_path) / "tatoeba.tur-eng.eng").unlink()
    fails(r"tatoeba\.tur-eng\.eng does not exist", tmp_path, MissingFileError)


def test_sets_without_rows(tmp_path):
    (tmp_path / "nothing").mkdir()
    fails("no known layout.*nothing", tmp_path / "nothing")
    fails("no rows", plain(tmp_path / "a", eng=[], deu=[]))
    fails("1 were dropped", plain(tmp_path / "b", eng=[""], deu=["x"]), on_empty="skip")
    fails("no rows", write(tmp_path / "h.tsv", ["en\tde"]))
    fails("is empty", write(tmp_path / "e.tsv", []))
    fails("no rows", write(tmp_path / "e.jsonl", []))
    fails("no pair <prefix>", tmp_path / "nothing", format="moses")
    fails("no file of the format 'ntrex'", tmp_path / "a", format="ntrex")
    fails("gives only eng_Latn", plain(tmp_path / "c", eng=["x"]))


def test_folder_that_fits_two_layouts_has_to_be_named(tmp_path):
    flores(tatoeba(tmp_path))
    fails("looks like flores and moses", tmp_path)
    assert len(read_parallel(tmp_path, format="moses").rows) == 6


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


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"format": "lins"}, "format is 'lins'. Did you mean 'lines'"),
        ({"on_empty": "drop"}, "on_empty is 'drop'"),
        ({"limit": 0}, "limit is 0"),
        ({"split": "dev"}, "'lines' has no splits"),
        ({"columns": {"en": "a", "de": "b"}}, "'lines' has no columns"),
        ({"languages": ["en"]}, "needs two or more"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(tmp_path, options, match):
    fails(match, plain(tmp_path), **options)


def test_one_file_of_a_pair_says_to_give_the_prefix(tmp_path):
    fails("prefix that both share", tatoeba(tmp_path) / "tatoeba.deu-eng.deu")
    fails("prefix that two files share", tmp_path / "tatoeba.deu-eng.deu", format="moses")
    fails("is a file, but", tmp_path / "tatoeba.deu-eng.deu", format="flores")


# The report


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


def test_hash_depends_on_content_and_not_on_place(tmp_path):
    one, two = read_parallel(plain(tmp_path / "a")), read_parallel(plain(tmp_path / "b"))
    assert one.sha256 == two.sha256
    other = read_parallel(plain(tmp_path / "c", **(WORDS | {"tur": ["bir", "iki", "uc"]})))
    assert one.sha256 != other.sha256
    three = read_parallel(plain(tmp_path / "d", deu=["x"], eng=["y"], tur=["z"]))
    two_that_spell_three = read_parallel(plain(tmp_path / "e", deu=["x"], eng=["ytur_Latn z"]))
    assert three.sha256 != two_that_spell_three.sha256


# Pairs and n-way lists


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


# Real data


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
