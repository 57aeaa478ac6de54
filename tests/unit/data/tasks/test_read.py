from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from midalign.data.tasks.read import read_task, translation_examples
from midalign.errors import DataError, LanguageError, MissingFileError, UserError
from midalign.records import ParallelPair, Span, TaskExample


def conll(folder: Path, name: str, n: int = 2) -> None:
    rows = "".join(f"# text = go {i}\n1\tgo\tmove\tO\n2\t{i}\tmove\tB-speed\n\n" for i in range(n))
    (folder / name).write_text(rows)


@pytest.fixture
def xsid(tmp_path: Path) -> Path:
    for name in ("de.test.conll", "de.valid.conll", "de-st.test.conll", "en.test.conll", "sr.test.conll"):
        conll(tmp_path, name)
    (tmp_path / "README.md").write_text("not data")
    return tmp_path


@pytest.fixture
def massive(tmp_path: Path) -> Path:
    for locale in ("de-DE", "zh-CN"):
        rows = [
            {"id": str(i), "locale": locale, "partition": p, "intent": "go", "utt": "a b", "annot_utt": "a [x : b]"}
            for i, p in enumerate(["train", "test", "dev", "test"])
        ]
        (tmp_path / f"{locale}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return tmp_path


def ids(examples: list[TaskExample]) -> list[str]:
    return [example.id for example in examples]


def test_an_xsid_folder_is_read_with_ids_by_file_stem(xsid: Path) -> None:
    examples = read_task(xsid, languages=["de"])
    assert ids(examples) == ["de.test:0", "de.test:1"]
    assert examples[1] == TaskExample(
        "de.test:1", "slots", "deu_Latn", "go 1", ("go", "1"), (Span("speed", 1, 2),), "move"
    )


@pytest.mark.parametrize("split", ["dev", "valid", "validation"])
def test_dev_is_what_xsid_calls_valid(xsid: Path, split: str) -> None:
    assert ids(read_task(xsid, split=split)) == ["de.valid:0", "de.valid:1"]


def test_xsid_serbian_is_latin_and_answers_to_its_bare_code(xsid: Path) -> None:
    for code in ("sr", "srp_Latn"):
        assert {e.language for e in read_task(xsid, languages=[code])} == {"srp_Latn"}


@pytest.mark.parametrize("code", ["de", "deu", "deu_Latn", "de-DE"])
def test_languages_may_be_written_in_any_code(xsid: Path, code: str) -> None:
    assert {e.language for e in read_task(xsid, languages=[code, "en"])} == {"deu_Latn", "eng_Latn"}


def test_limit_holds_for_each_file(xsid: Path) -> None:
    assert ids(read_task(xsid, limit=1)) == ["de-st.test:0", "de.test:0", "en.test:0", "sr.test:0"]


def test_a_single_file_is_taken_whole_whatever_the_split(xsid: Path) -> None:
    assert ids(read_task(xsid / "de.valid.conll", split="test")) == ["de.valid:0", "de.valid:1"]


def test_massive_ids_count_the_rows_of_the_file_over_all_splits(massive: Path) -> None:
    assert ids(read_task(massive)) == ["de-DE:1", "de-DE:3", "zh-CN:1", "zh-CN:3"]
    assert ids(read_task(massive / "de-DE.jsonl", split="validation")) == ["de-DE:2"]


def test_an_unknown_partition_is_an_error(massive: Path) -> None:
    file = massive / "de-DE.jsonl"
    file.write_text(file.read_text().replace('"dev"', '"heldout"'))
    with pytest.raises(DataError, match=r"de-DE.jsonl: item 2 has the unknown partition 'heldout'"):
        read_task(massive)


def test_snips_dev_and_test_are_its_validation_files(tmp_path: Path) -> None:
    for name, text in [("train_A.json", "x"), ("train_A_full.json", "train"), ("validate_A.json", "validate")]:
        (tmp_path / name).write_text(json.dumps({"A": [{"data": [{"text": text}]}]}))
    assert [e.text for e in read_task(tmp_path, split="train")] == ["train"]
    for split in ("dev", "test"):
        (example,) = read_task(tmp_path, split=split)
        assert (example.id, example.text, example.language) == ("validate_A:0", "validate", "eng_Latn")


def test_uner_languages_come_from_the_treebank(tmp_path: Path) -> None:
    for name in ("en_ewt-ud-test", "zh_pud-ud-test", "zh_gsdsimp-ud-test", "en_ewt-ud-dev"):
        (tmp_path / f"{name}.iob2").write_text("1\tAna\tB-PER\t-\t-\n")
    examples = read_task(tmp_path, task="extraction")
    assert {e.id: e.language for e in examples} == {
        "en_ewt-ud-test:0": "eng_Latn",
        "zh_gsdsimp-ud-test:0": "zho_Hans",
        "zh_pud-ud-test:0": "zho_Hant",
    }
    assert {e.task for e in examples} == {"extraction"}


def test_generic_files_take_their_language_from_the_name_or_from_the_caller(tmp_path: Path) -> None:
    (tmp_path / "de_news.bio").write_text("Ana B-PER\n")
    assert read_task(tmp_path)[0].language == "deu_Latn"
    (tmp_path / "de_news.bio").rename(tmp_path / "mydata.bio")
    with pytest.raises(LanguageError, match=r"mydata.bio: the file's name does not clearly say its language"):
        read_task(tmp_path)
    assert read_task(tmp_path, languages=["tr"])[0].language == "tur_Latn"


def test_the_references_records_need_a_language(tmp_path: Path) -> None:
    row = {"prefix": "<|im_start|>user\nstop<|im_end|>\n", "text": "None"}
    (tmp_path / "train.jsonl").write_text(json.dumps(row))
    assert read_task(tmp_path / "train.jsonl", languages=["en"])[0].text == "stop"
    with pytest.raises(LanguageError, match="give exactly one language"):
        read_task(tmp_path / "train.jsonl", languages=["en", "de"])


# Which file, which language


def bio(folder: Path, *names: str) -> Path:
    for name in names:
        content = f"{name} B-x\n".encode()
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return folder


def languages_of(examples: list[TaskExample]) -> dict[str, str]:
    return {example.id.rpartition(":")[0]: example.language for example in examples}


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["test_de.tsv", "test_fr.tsv", "test_it.tsv"], {"test_de": "deu_Latn", "test_it": "ita_Latn"}),
        (["de-test.conll", "fr-test.conll", "it-test.conll"], {"de-test": "deu_Latn", "it-test": "ita_Latn"}),
        (["de.bio", "it.bio", "pt-BR.bio"], {"de": "deu_Latn", "it": "ita_Latn"}),
        (["NER-de-test.tsv", "NER-it-test.tsv"], {"NER-de-test": "deu_Latn", "NER-it-test": "ita_Latn"}),
        (["de_news.bio.gz", "it_news.bio"], {"de_news": "deu_Latn", "it_news": "ita_Latn"}),
    ],
)
def test_the_language_of_a_file_stands_first_or_last(tmp_path: Path, names: list[str], found: dict[str, str]) -> None:
    bio(tmp_path, *names)
    assert languages_of(read_task(tmp_path, format="bio", languages=["de", "it"])) == found
    assert languages_of(read_task(tmp_path, format="bio")).keys() >= found.keys()
    only = read_task(tmp_path, format="bio", languages=["de"])
    assert set(languages_of(only).values()) == {"deu_Latn"}


def test_one_language_is_that_of_all_files_only_where_no_name_tells_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bio(tmp_path / "a", "part1.bio", "part2.bio")
    assert set(languages_of(read_task(tmp_path / "a", languages=["tr"])).values()) == {"tur_Latn"}
    bio(tmp_path / "b", "part1.bio", "de.bio")
    assert languages_of(read_task(tmp_path / "b", languages=["de"])) == {"de": "deu_Latn"}
    assert "not read, because their names do not say the language" in caplog.text
    with pytest.raises(LanguageError, match=r"the data has no 'tr'.*available here: deu_Latn"):
        read_task(tmp_path / "b", languages=["tr"])
    with pytest.raises(LanguageError, match=r"part1.bio: the file's name does not clearly say its language"):
        read_task(tmp_path / "b")


@pytest.mark.parametrize("name", ["my_data.bio", "no_context_test.bio", "max_len.bio", "de_fr.bio", "words.bio"])
def test_a_name_with_words_that_are_codes_or_with_two_languages_tells_none(tmp_path: Path, name: str) -> None:
    bio(tmp_path, name)
    with pytest.raises(LanguageError, match="does not clearly say its language"):
        read_task(tmp_path)
    assert read_task(tmp_path, languages=["sw"])[0].language == "swh_Latn"


def test_notes_beside_the_data_are_left_alone(tmp_path: Path) -> None:
    bio(tmp_path, "en.bio")
    for name in ("README.txt", "LICENSE", ".en.bio.swp", "notes.txt"):
        (tmp_path / name).write_text("About these data\n")
    assert languages_of(read_task(tmp_path)) == {"en": "eng_Latn"}
    assert languages_of(read_task(tmp_path, languages=["en"])) == {"en": "eng_Latn"}


def test_a_file_of_json_that_cannot_be_read_is_left_alone_beside_the_data(tmp_path: Path) -> None:
    bio(tmp_path, "en.bio")
    (tmp_path / "a.json").write_bytes(b"\xff")
    assert languages_of(read_task(tmp_path)) == {"en": "eng_Latn"}
    with pytest.raises(DataError, match=r"a.json:1: byte 0xff"):
        read_task(tmp_path / "a.json")


def test_a_file_whose_name_tells_no_split_is_named_beside_others_that_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bio(tmp_path, "de_test.bio", "fr.bio", "de_train.bio")
    assert languages_of(read_task(tmp_path)) == {"de_test": "deu_Latn"}
    assert "not read, because their names do not say the split:" in caplog.text
    assert "fr.bio" in caplog.text
    bio(tmp_path, "de_train_test.bio")
    with pytest.raises(DataError, match=r"de_train_test.bio: the name contains two splits"):
        read_task(tmp_path)


def test_rows_of_several_locales_in_one_file(tmp_path: Path) -> None:
    rows = [
        {"locale": locale, "partition": "test", "utt": "a", "annot_utt": "a"} for locale in ("de-DE", "fr-FR", "de-DE")
    ]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert ids(read_task(tmp_path, languages=["de"])) == ["test:0", "test:2"]
    assert ids(read_task(tmp_path, languages=["de"], limit=1)) == ["test:0"]
    assert [e.language for e in read_task(tmp_path)] == ["deu_Latn", "fra_Latn", "deu_Latn"]
    with pytest.raises(LanguageError, match=r"no row is in tur_Latn; by what they tell.* in deu_Latn, fra_Latn"):
        read_task(tmp_path, languages=["de", "tr"])
    (tmp_path / "test.jsonl").write_text(json.dumps(rows[0] | {"locale": "fr-FR"}) + "\n")
    (tmp_path / "test.jsonl").rename(tmp_path / "de-DE.jsonl")
    with pytest.raises(
        LanguageError, match="no row is in deu_Latn; by what they tell themselves there are rows in fra"
    ):
        read_task(tmp_path, languages=["de"])


@pytest.mark.parametrize("key", ["language", "locale", "lang"])
@pytest.mark.parametrize("kind", ["massive", "reference"])
def test_the_language_of_a_row_may_have_any_usual_key(tmp_path: Path, key: str, kind: str) -> None:
    row = {"partition": "test", "utt": "a", "annot_utt": "a"}
    if kind == "reference":
        row = {"prefix": "<|im_start|>user\na<|im_end|>", "text": "None"}
    rows = [row | {key: code} for code in ("de", "fr")]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert ids(read_task(tmp_path, languages=["de"])) == ["test:0"]
    if kind == "massive":
        (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, row]))
        with pytest.raises(DataError, match="item 2: the row has no language, but other"):
            read_task(tmp_path, languages=["de"])
    (tmp_path / "test.jsonl").write_text(json.dumps(rows[0] | {"language": "fr", "locale": "de"}))
    with pytest.raises(DataError, match=r"test.jsonl:1: 'language' says fra_Latn and 'locale' says deu_Latn"):
        read_task(tmp_path, languages=["de"])


def test_massive_rows_without_a_locale_are_of_the_files_language_or_the_one_asked_for(tmp_path: Path) -> None:
    row = {"partition": "test", "utt": "a", "annot_utt": "a"}
    (tmp_path / "test.jsonl").write_text(json.dumps(row))
    assert read_task(tmp_path, languages=["de"])[0].language == "deu_Latn"
    with pytest.raises(LanguageError, match="neither the file's name nor item 0 says its language"):
        read_task(tmp_path)
    (tmp_path / "test.jsonl").rename(tmp_path / "fr-FR.jsonl")
    assert read_task(tmp_path)[0].language == "fra_Latn"


@pytest.mark.parametrize("name", ["de.test.conll.gz", "de_x-ud-test.iob2.gz", "de-DE.jsonl.gz", "validate_A.json.gz"])
def test_packed_files_of_every_format_are_read_by_their_names(tmp_path: Path, name: str) -> None:
    contents = {
        "conll": "1\tgo\tmove\tO\n",
        "iob2": "1\tgo\tO\t-\t-\n",
        "jsonl": json.dumps({"partition": "test", "utt": "go", "annot_utt": "go"}),
        "json": json.dumps({"A": [{"data": [{"text": "go"}]}]}),
    }
    (tmp_path / name).write_bytes(gzip.compress(contents[name.split(".")[-2]].encode()))
    (example,) = read_task(tmp_path)
    assert (example.text, example.id) == ("go", f"{name.removesuffix('.gz').rpartition('.')[0]}:0")


def test_home_folders_may_be_named_by_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    bio(tmp_path / "d", "de.bio")
    assert languages_of(read_task("~/d")) == {"de": "deu_Latn"}


# Columns and labels by option


def test_columns_may_be_said(tmp_path: Path) -> None:
    (tmp_path / "de.tsv").write_text("x\tAna\tB-PER\tB-LOC\n")
    (example,) = read_task(tmp_path, columns={"word": 1, "tag": 2})
    assert (example.words, example.spans) == (("Ana",), (Span("PER", 0, 1),))
    for wrong in ({"word": 1}, {"word": "a", "tag": 2}, {"word": 1, "tag": -1}, {"eng": 0, "deu": 1}):
        with pytest.raises(DataError, match="it says which column is the word and which the tag"):
            read_task(tmp_path, columns=wrong)
    with pytest.raises(DataError, match="'xsid' has columns of its own"):
        read_task(tmp_path / "de.tsv", format="xsid", columns={"word": 1, "tag": 2})
    with pytest.raises(DataError, match=r"de.tsv:1: 4 columns where 8 were expected"):
        read_task(tmp_path, columns={"word": 1, "tag": 7})


UNER_FIRST = "1\tAna\tB-PER\n2\tX\tB-OTH\n3\tY\tI-OTH\n4\tZ\tB-O\n5\tW\tI-O\n"


def test_entities_of_no_type_are_no_spans_unless_they_are_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "en_ewt-ud-test.iob2").write_text(UNER_FIRST)
    (example,) = read_task(tmp_path)
    assert example.spans == (Span("PER", 0, 1),)
    assert "spans of these labels are left out: O (1), OTH (1)" in caplog.text
    (example,) = read_task(tmp_path, labels=["PER", "OTH"])
    assert example.spans == (Span("PER", 0, 1), Span("OTH", 1, 3))


def test_only_spans_of_the_labels_asked_for_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "de.bio").write_text("Ana B-PER\nx B-MISC\n")
    assert read_task(tmp_path, labels=["PER"])[0].spans == (Span("PER", 0, 1),)
    assert read_task(tmp_path, labels=["PRE", "MISC"])[0].spans == (Span("MISC", 1, 2),)
    assert "labels names 'PRE', which no span has here. Did you mean 'PER'?" in caplog.text
    with pytest.raises(DataError, match=r"labels names 'PRE', which no span has here\. Did you mean 'PER'"):
        read_task(tmp_path, labels=["PRE", "LOC"])
    with pytest.raises(DataError, match="labels is empty"):
        read_task(tmp_path, labels=[])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"split": "tset"}, DataError, "unknown split 'tset'.*Did you mean 'test'"),
        ({"split": "train"}, DataError, "no xsid files for the split 'train' .found: de-st.test.conll"),
        ({"format": "xsdi"}, DataError, "unknown task format 'xsdi'.*Did you mean 'xsid'"),
        ({"format": "uner"}, DataError, "no uner files for the split 'test' .found: no .iob2 files"),
        ({"languages": ["fr"]}, LanguageError, "the data has no 'fr'.*available here: bar_Latn-ST, deu_Latn"),
        ({"languages": ["xx"]}, LanguageError, "unknown language 'xx'"),
        ({"languages": []}, DataError, "the list of languages is empty"),
        ({"limit": 0}, DataError, "limit is 0"),
        ({"task": "translation"}, DataError, "translation_examples"),
    ],
)
def test_a_wrong_request_is_refused_with_a_hint(
    xsid: Path, options: dict[str, object], error: type[UserError], message: str
) -> None:
    with pytest.raises(error, match=message):
        read_task(xsid, **options)  # type: ignore[arg-type]


def test_a_missing_path_an_empty_folder_and_an_empty_file_are_errors(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="none does not exist"):
        read_task(tmp_path / "none")
    with pytest.raises(DataError, match=r"cannot tell the format.*an empty folder.*are the task 'chat'"):
        read_task(tmp_path)
    (tmp_path / "de.test.conll").write_text("\n\n")
    with pytest.raises(DataError, match="no items in split 'test'"):
        read_task(tmp_path)


@pytest.mark.parametrize("format", ["auto", "bio", "massive"])
def test_a_folder_of_folders_names_them(tmp_path: Path, format: str) -> None:  # noqa: A002
    for language in ("fr", "de", ".git"):
        (tmp_path / language).mkdir()
        (tmp_path / language / "test.tsv").write_text("Bonn\tB-city\n")
    with pytest.raises(DataError, match="only the folders de, fr: give one of them"):
        read_task(tmp_path, format=format, languages=["de"])
    assert read_task(tmp_path / "de", format="bio", languages=["de"])[0].text == "Bonn"


def test_files_of_one_stem_would_give_duplicate_ids(tmp_path: Path) -> None:
    for suffix in ("bio", "tsv"):
        (tmp_path / f"de.{suffix}").write_text("Ana\tB-PER\n")
    with pytest.raises(DataError, match="the id 'de:0' occurs twice"):
        read_task(tmp_path, format="bio")


def test_translation_examples_keep_ids_languages_and_reference() -> None:
    pair = ParallelPair("Hello", "Hallo", "eng_Latn", "deu_Latn", "news:0")
    (example,) = translation_examples([pair])
    assert (example.id, example.text, example.reference) == ("news:0", "Hello", "Hallo")
    assert (example.language, example.target_language) == ("eng_Latn", "deu_Latn")
    with pytest.raises(DataError, match="'news:0' occurs twice"):
        translation_examples([pair, pair])
    with pytest.raises(DataError, match="no parallel pairs"):
        translation_examples([])


@pytest.mark.data
def test_every_xsid_file_of_the_data_folder_is_read(data_folder: Path) -> None:
    test, dev = (read_task(data_folder / "xsid", split=split) for split in ("test", "dev"))
    assert len({e.language for e in test}) == 12
    per_file = {e.id.split(":")[0] for e in test}
    assert len(test) == 500 * (len(per_file) - 1) + 250  # Japanese has half of them
    assert len(dev) == 300 * (len(per_file) - 1) + 150
    assert all(e.intent and e.text for e in [*test, *dev])


@pytest.mark.data
def test_mtop_and_universal_ner_of_the_data_folder_are_read(data_folder: Path) -> None:
    languages = ["en", "de", "es", "fr", "hi", "th"]
    for split, n in (("train", 770), ("test", 1092)):
        examples = read_task(data_folder / "mtop", split=split, languages=languages)
        assert len(examples) == n * len(languages)
        assert all(e.intent and e.words for e in examples)
    uner = read_task(data_folder / "uner", task="extraction")
    assert {e.language for e in uner} == {
        "dan_Latn", "deu_Latn", "eng_Latn", "por_Latn", "swe_Latn", "zho_Hant",
    }  # fmt: skip
    assert {span.label for e in uner for span in e.spans} == {"PER", "ORG", "LOC"}
    assert len([e for e in uner if e.id.startswith("de_pud")]) == 1000
