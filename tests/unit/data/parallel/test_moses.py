"""Files of one prefix, a language each."""

import logging

import pytest

from midalign.data.parallel.corpus import read_parallel
from midalign.data.parallel.moses import named_files
from midalign.errors import DataError, MissingFileError
from midalign.records import ParallelPair
from tests.unit.data.parallel.corpora import DE, EN, TR, WORDS, fails, tatoeba, write


def pair(folder, prefix, **texts):
    for code, lines in (texts or {"en": WORDS["eng"], "de": WORDS["deu"]}).items():
        write(folder / f"{prefix}.{code}", lines)
    return folder


def test_a_folder_is_read_pair_by_pair_and_each_is_limited(tmp_path):
    corpus = read_parallel(tatoeba(tmp_path), limit=2)
    assert corpus.languages == (EN, DE, TR)
    assert [row.id for row in corpus.rows] == [
        "tatoeba.deu-eng:0", "tatoeba.deu-eng:1", "tatoeba.tur-eng:0", "tatoeba.tur-eng:1",
    ]  # fmt: skip
    assert corpus.pairs()[0] == ParallelPair("one", "eins", EN, DE, "tatoeba.deu-eng:0")


def test_the_files_of_a_prefix_are_what_its_hash_is_of(tmp_path):
    pair(tmp_path, "train", en=WORDS["eng"], de=WORDS["deu"])
    (tmp_path / "train.log").write_text("no language")
    assert named_files(str(tmp_path / "train")) == [str(tmp_path / name) for name in ("train.de", "train.en")]
    for path in (str(tmp_path), str(tmp_path / "train.de"), str(tmp_path / "none"), "owner/name"):
        assert named_files(path) == [path]


@pytest.mark.parametrize("prefix", ["train", "corpus.clean", "europarl-v7.de-en", "de-en"])
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_plain_prefixes_are_read_from_their_folder_and_by_name(tmp_path, prefix, packed):
    pair(tmp_path, prefix, **{f"en{packed}": WORDS["eng"], "de": WORDS["deu"]})
    for path in (tmp_path, tmp_path / prefix):
        corpus = read_parallel(path)
        assert corpus.multiway() == {EN: WORDS["eng"], DE: WORDS["deu"]}
        assert corpus.rows[0].id == f"{prefix}:0"


@pytest.mark.parametrize(
    ("prefix", "codes"),
    [
        ("x.sr@latin-en", ("sr@latin", "en")),
        ("x.en-es-419", ("en", "es-419")),
        ("x.en-zh_CN", ("en", "zh_CN")),
        ("x.eng_Latn-cat_Latn_vale1252", ("eng_Latn", "cat_Latn_vale1252")),
        ("x", ("en", "pt-BR")),
    ],
)
def test_codes_may_have_digits_an_at_sign_and_regions(tmp_path, prefix, codes):
    pair(tmp_path, prefix, **{code: ["a", "b"] for code in codes})
    pair(tmp_path, "tatoeba.deu-eng", deu=["c"], eng=["d"])
    assert len(read_parallel(tmp_path).rows) == 3
    (tmp_path / f"{prefix}.{codes[1]}").unlink()
    if "-" in prefix:
        fails("does not exist", tmp_path, MissingFileError)


def test_three_files_of_one_prefix_are_parallel_across_all_three(tmp_path):
    pair(tmp_path, "news", en=["a"], de=["b"], tr=["c"])
    assert read_parallel(tmp_path).multiway() == {EN: ["a"], DE: ["b"], TR: ["c"]}
    assert read_parallel(tmp_path, languages=["tr", "de"]).rows[0].texts == {TR: "c", DE: "b"}


def test_other_files_of_a_download_are_left_alone(tmp_path):
    pair(tmp_path, "OpenSubtitles.de-en")
    for name in ("OpenSubtitles.de-en.ids", "OpenSubtitles.de-en.xml", "README", "LICENSE", "clean.pl"):
        (tmp_path / name).write_text("x")
    assert len(read_parallel(tmp_path).rows) == 3


def test_a_file_without_its_other_side_is_named_in_a_warning(tmp_path, caplog):
    pair(tmp_path, "train")
    pair(tmp_path, "extra", fr=["a"])
    with caplog.at_level(logging.WARNING):
        read_parallel(tmp_path)
    assert "left out, because no file is their other side: extra.fr" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        read_parallel(tmp_path, languages=["en", "de"])
    assert caplog.text == ""


def test_a_side_in_an_unknown_language_is_named_and_not_left_out(tmp_path):
    pair(tmp_path, "train")
    pair(tmp_path, "news", en=["a"], germn=["b"])
    fails(r"news\.en has no partner in a known language, only news\.germn beside it", tmp_path)
    assert len(read_parallel(tmp_path, languages=["en", "de"]).rows) == 3


def test_prefixes_that_name_splits_are_splits(tmp_path):
    for split in ("train", "valid", "test"):
        pair(tmp_path, split, en=[split], de=["x"])
    fails("several splits, and none was named.*Name one of: test, train, dev|test, train", tmp_path)
    assert read_parallel(tmp_path, split="dev").rows[0].texts[EN] == "valid"
    assert read_parallel(tmp_path, split="test").rows[0].id == "test:0"
    assert read_parallel(tmp_path / "train").rows[0].texts[EN] == "train"
    fails("no split 'heldout'", tmp_path, split="heldout")


def test_a_set_beside_others_of_no_split_does_not_slip_into_training(tmp_path):
    pair(tmp_path, "corpus")
    pair(tmp_path, "test")
    fails(r"several splits.*\(none\), test", tmp_path)
    assert [row.id for row in read_parallel(tmp_path / "corpus", limit=1).rows] == ["corpus:0"]


def test_one_split_alone_is_read_without_its_name(tmp_path):
    pair(tmp_path, "tico19-test")
    assert len(read_parallel(tmp_path).rows) == len(read_parallel(tmp_path, split="test").rows) == 3
    fails("no split 'train'", tmp_path, split="train")


def test_languages_without_a_common_pair_say_to_add_english(tmp_path):
    fails("no pair whose two languages are both among.*eng_Latn", tatoeba(tmp_path), languages=["de", "tr"])


def test_a_missing_side_is_named_where_the_pair_is_wanted(tmp_path):
    (tatoeba(tmp_path) / "tatoeba.tur-eng.eng").unlink()
    fails(r"tatoeba\.tur-eng\.eng does not exist", tmp_path, MissingFileError)
    assert len(read_parallel(tmp_path, languages=["en", "de"]).rows) == 3


def test_one_file_of_a_pair_says_to_give_the_prefix(tmp_path):
    fails("prefix that both share", tatoeba(tmp_path) / "tatoeba.deu-eng.deu")
    fails("prefix that two files share", tmp_path / "tatoeba.deu-eng.deu", format="moses")
    fails("is a file, but", tmp_path / "tatoeba.deu-eng.deu", format="flores")


def test_the_same_pair_twice(tmp_path):
    tatoeba(tmp_path)
    pair(tmp_path, "tatoeba.de-en")
    with pytest.raises(DataError, match="same pair of languages twice"):
        read_parallel(tmp_path)
    (tmp_path / "b").mkdir()
    pair(tmp_path / "b", "train", **{"en": ["a"], "en.gz": ["b"], "de": ["c"]})
    fails(r"train\.en and .*train\.en\.gz are both eng_Latn", tmp_path / "b")


@pytest.mark.data
def test_tico19_is_read_as_plain_files(data_folder):
    corpus = read_parallel(data_folder / "tico19" / "en-id")
    assert corpus.languages == (EN, "ind_Latn")
    assert len(corpus.rows) == 2100
