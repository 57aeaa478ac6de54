"""What names of data files tell: languages, splits, and whether they are data."""

from pathlib import Path

import pytest

from midalign.data.file_names import bare, data_files, is_note, language_of_each, languages_in, split_name, splits_in

DE, EN, FR, IT = "deu_Latn", "eng_Latn", "fra_Latn", "ita_Latn"


def told(stem):
    return [named.language for named in languages_in(stem) if not named.is_word]


@pytest.mark.parametrize(
    ("stem", "languages"),
    [
        ("de", [DE]),
        ("de_news", [DE]),
        ("test_de", [DE]),
        ("NER-de-test", [DE]),
        ("news.deu.train", [DE]),
        ("deu_Latn", [DE]),
        ("test_deu_Latn", [DE]),
        ("de-DE.test", [DE]),
        ("test-de-AT", [DE]),
        ("es-419_dev", ["spa_Latn"]),
        ("pt_br_train", ["por_Latn-BR"]),
        ("zh-Hant-TW", ["zho_Hant"]),
        ("sr@latin-en", ["srp_Latn", EN]),
        ("test.ca@valencia", ["cat_Latn-vale1252"]),
        ("de-st.test", ["bar_Latn-ST"]),
        ("cat_Latn_vale1252", ["cat_Latn-vale1252"]),
        ("en_de", [EN, DE]),  # and not English as in Germany
        ("de-en.train", [DE, EN]),
        ("german_test", [DE]),
        ("my_data", []),
        ("no_context_test", []),
        ("all_max_min", []),
        ("newstest2019", []),
        ("mydata", []),
        ("", []),
    ],
)
def test_languages_stand_first_last_in_between_or_nowhere(stem, languages):
    assert told(stem) == languages


@pytest.mark.parametrize(
    ("stem", "language"), [("it", IT), ("no", "nob_Latn"), ("my", "mya_Mymr"), ("max", "max_Latn")]
)
def test_a_code_that_is_a_word_counts_where_it_is_the_whole_name(stem, language):
    assert told(stem) == [language]


def test_a_word_counts_where_it_was_asked_for_or_stands_where_others_have_a_language():
    assert language_of_each(["test_it"], None) == [None]
    assert language_of_each(["test_it"], [IT]) == [IT]
    assert language_of_each(["test_it", "test_de", "my_notes"], None) == [IT, DE, None]
    assert language_of_each(["it_test", "test_de"], None) == [None, DE]


def test_a_name_with_two_languages_tells_neither():
    assert language_of_each(["de_fr_test"], None) == [None]
    assert language_of_each(["de_fr_test"], [FR]) == [None]
    assert language_of_each(["de_de_test"], None) == [DE]


@pytest.mark.parametrize(
    ("name", "splits"),
    [
        ("de.train.conll", {"train"}),
        ("test_de.tsv", {"test"}),
        ("validate_x_full.json", {"dev"}),
        ("en-Valid.tsv", {"dev"}),
        ("flores.devtest.eng", {"test"}),
        ("latest.txt", set()),
        ("eng.testa", {"dev"}),
        ("testb.tsv", {"test"}),
        ("train_test.tsv", {"train", "test"}),
    ],
)
def test_splits_are_whole_parts_of_a_name(name, splits):
    assert splits_in(name) == splits


def test_a_split_has_one_name():
    assert [split_name(name) for name in ("valid", "val", "devtest", "training", "x")] == [
        "dev", "dev", "test", "train", "x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["README", "README.md", "Readme_de.txt", "LICENSE", "LICENCE.txt", ".DS_Store", "._eng.txt", "eng.txt~",
             "about.txt", "_about.txt", "MD5SUMS", "sha256sums.txt", "DOCUMENT_IDS.tsv", "CITATION.cff",
             "info.json.gz", "LICENSE_CC-BY.txt", "license.json", "Changelog.tsv", "README_files.tsv"],
)  # fmt: skip
def test_what_lies_beside_data_is_a_note(name):
    assert is_note(Path(name))


@pytest.mark.parametrize(
    "name",
    [
        "eng.txt",
        "notes_de.bio",
        "about.de.txt",
        "source.en",
        "info_de.tsv",
        "readable.txt",
        "citation_intent.eng.test.jsonl",
        "license_de.csv.gz",
        "changelog-eng.train.parquet",
    ],
)
def test_data_is_no_note(name):
    assert not is_note(Path(name))


def test_files_of_a_folder_come_in_order_without_notes_and_folders(tmp_path):
    for name in ("b.txt", "a.txt.gz", "README", ".hidden"):
        (tmp_path / name).write_text("x")
    (tmp_path / "c.txt").mkdir()
    assert [file.name for file in data_files(tmp_path)] == ["a.txt.gz", "b.txt"]
    assert bare(data_files(tmp_path)[0]).name == "a.txt"
    assert data_files(tmp_path / "none") == data_files(tmp_path / "b.txt") == []
