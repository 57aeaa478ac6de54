"""Which layout lies at a path, and which splits it has."""

import pytest

from midalign.data.parallel.corpus import read_parallel
from midalign.data.parallel.layout import detect_format, offers_splits
from midalign.errors import MissingFileError
from tests.unit.data.parallel.corpora import DE, EN, TR, WORDS, fails, flores, plain, tatoeba, write

TMX = '<tmx><body><tu><tuv xml:lang="en"><seg>one</seg></tuv><tuv xml:lang="de"><seg>eins</seg></tuv></tu></body></tmx>'
ROW = '{"en": "one", "de": "eins"}'


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"eng.txt": ["a"], "deu.txt": ["b"]}, "lines"),
        ({"eng.txt": ["a"], "deu.txt.gz": ["b"], "README.txt": ["c\td"], "stats.tsv": ["1\t2"]}, "lines"),
        ({"newstest2019-src.eng.txt": ["a"], "newstest2019-ref.deu.txt.gz": ["b"], "LANGUAGES.tsv": ["x"]}, "ntrex"),
        ({"train.en": ["a"], "train.de": ["b"], "notes.txt": ["x"]}, "moses"),
        ({"tatoeba.deu-eng.deu.gz": ["a"], "tatoeba.deu-eng.eng": ["b"]}, "moses"),
        ({"dev/eng_Latn.dev": ["a"], "dev/deu_Latn.dev.gz": ["b"]}, "flores"),
        ({"dan.txt": ["a\tb"], "ind.txt": ["a\tb"]}, "tsv"),
        ({"eng-deu.tsv": ["a\tb"], "README.md": ["x"]}, "tsv"),
        ({"eng-deu.tsv.gz": ["a\tb"]}, "tsv"),
        ({"a.jsonl": [ROW], "b.jsonl": [ROW]}, "jsonl"),
        ({"a.tmx": [TMX]}, "tmx"),
    ],
)
def test_the_layout_is_told_by_names(tmp_path, files, kind):
    for name, lines in files.items():
        write(tmp_path / name, lines)
    assert detect_format(tmp_path) == kind
    assert set(read_parallel(tmp_path).languages) >= {EN}


@pytest.mark.parametrize(
    ("name", "kind"), [("a.tsv", "tsv"), ("deu.txt", "tsv"), ("a.jsonl.gz", "jsonl"), ("a.tmx", "tmx")]
)
def test_the_format_of_one_file(tmp_path, name, kind):
    assert detect_format(write(tmp_path / name, ["a\tb"])) == kind
    fails("the suffix '.doc' does not say", write(tmp_path / "a.doc", ["a\tb"]))
    fails("the suffix '.txt' does not say", write(tmp_path / "a.txt", ["a b"]))


def test_home_folders_may_be_named_by_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    plain(tmp_path / "set")
    assert len(read_parallel("~/set").rows) == 3
    tatoeba(tmp_path / "m")
    assert len(read_parallel("~/m/tatoeba.deu-eng").rows) == 3


@pytest.mark.parametrize("name", ["README.txt", "qqq.txt", "all_words.txt", ".eng.txt", "germn.txt"])
def test_files_that_nobody_asked_for_are_left_alone(tmp_path, name):
    plain(tmp_path)
    write(tmp_path / name, ["one", "line too", "many", "here"])
    corpus = read_parallel(tmp_path, languages=["en", "de"])
    assert corpus.multiway() == {EN: WORDS["eng"], DE: WORDS["deu"]}


def test_a_language_that_is_added_to_flores_or_ntrex_does_not_matter_to_the_others(tmp_path):
    flores(tmp_path / "f")
    write(tmp_path / "f" / "dev" / "qqq_Latn.dev", ["x"])
    assert read_parallel(tmp_path / "f", languages=["en", "de"], split="dev").languages == (EN, DE)
    for code in ("eng", "deu", "qqq"):
        write(tmp_path / "n" / f"newstest2019-ref.{code}.txt", ["x"])
    assert read_parallel(tmp_path / "n", languages=["en", "de"]).languages == (EN, DE)


def test_a_file_whose_name_is_not_of_the_layout_is_named(tmp_path, caplog):
    plain(tmp_path / "a", eng=["x"], deu=["y"])
    write(tmp_path / "a" / "tur.text", ["z"])
    assert read_parallel(tmp_path / "a").languages == (EN, DE)
    assert "left out, because their names are not of this layout: tur.text" in caplog.text
    caplog.clear()
    write(tmp_path / "a" / "deu.txt.bak", ["y"])
    read_parallel(tmp_path / "a", languages=["en", "de"])
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("read", "beside", "named"),
    [
        (["a.en", "a.de"], ["b_en.txt", "b_de.txt"], "b_de.txt, b_en.txt"),
        (["a.en", "a.de"], ["b.english", "b.german"], "b.english, b.german"),
        (["a.en", "a.de"], ["en.txt", "de.txt"], "de.txt, en.txt"),
        (["a.en", "a.de"], ["a.fra.text"], "a.fra.text"),
        (["a.en", "a.de"], ["a.ids", "a.de-en.ids", "a.de.bak", "notes"], ""),
        (["en-de.tsv"], ["en-fr.csv"], "en-fr.csv"),
        (["en-de.tsv"], ["en-de.tsv.bak", "stats.csv"], ""),
        (["en.txt", "de.txt"], ["en-fr.csv", "de.txt.bak"], "en-fr.csv"),
    ],
)
def test_pairs_whose_names_are_not_of_the_layout_are_named(tmp_path, caplog, read, beside, named):
    for name in (*read, *beside):
        write(tmp_path / name, ["one\teins" if name.endswith("sv") else "x"])
    read_parallel(tmp_path)
    assert ("left out, because their names" in caplog.text) == bool(named)
    assert f": {named}\n" in caplog.text + ": \n"
    caplog.clear()
    read_parallel(tmp_path, languages=["en", "de"])
    assert "fr.csv" not in caplog.text


@pytest.mark.parametrize("name", ["{split}.{code}.txt", "{split}_{code}.txt", "{code}-{split}.txt.gz"])
def test_text_files_of_each_language_may_have_splits(tmp_path, name):
    for split in ("train", "dev"):
        for code in ("en", "de"):
            write(tmp_path / name.format(split=split, code=code), [f"{code} {split}"])
    assert read_parallel(tmp_path, split="dev").rows[0].texts == {EN: "en dev", DE: "de dev"}
    assert offers_splits(tmp_path)
    fails("several splits, and none was named.*dev, train", tmp_path)
    fails("no split 'test'", tmp_path, split="test")


def test_a_name_of_the_hub_says_which_format_reads_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fails(
        "owner/name does not exist.*dataset of the hub is read with the format datasets", "owner/name", MissingFileError
    )


def test_text_files_whose_names_tell_a_language_among_other_words(tmp_path):
    for code in ("eng", "deu", "it"):
        write(tmp_path / f"news.{code}.txt", [code])
    assert read_parallel(tmp_path).multiway() == {EN: ["eng"], DE: ["deu"], "ita_Latn": ["it"]}
    write(tmp_path / "web.eng.txt", ["again"])
    fails(r"news\.eng\.txt and .*web\.eng\.txt are both eng_Latn", tmp_path)


def test_a_folder_for_each_split(tmp_path):
    for split in ("train", "valid", "test"):
        plain(tmp_path / split, eng=[split], deu=["x"])
    assert offers_splits(tmp_path)
    assert read_parallel(tmp_path, split="dev").rows[0].texts[EN] == "valid"
    assert read_parallel(tmp_path, split="test").rows[0].id == "test:0"
    fails("several splits, and none was named.*test, train, valid", tmp_path)
    fails("no split 'heldout'", tmp_path, split="heldout")


def test_splits_of_flores_by_the_names_of_others(tmp_path):
    flores(tmp_path)
    assert read_parallel(tmp_path, split="test").rows[0].texts[EN] == "one devtest"
    assert read_parallel(tmp_path, split="valid").rows[0].texts[EN] == "one dev"
    fails("no split 'train'", tmp_path, split="train")


def test_what_has_splits_and_what_has_none(tmp_path):
    assert offers_splits(flores(tmp_path / "flores"))
    assert not offers_splits(plain(tmp_path / "lines"))
    assert not offers_splits(tatoeba(tmp_path / "moses"))
    for split in ("train", "test"):
        for code in ("en", "de"):
            write(tmp_path / "splits" / f"{split}.{code}", ["a"])
    assert offers_splits(tmp_path / "splits")
    assert not offers_splits(tmp_path / "splits" / "train")
    assert not offers_splits(write(tmp_path / "a.tsv", ["en\tde", "a\tb"]))
    assert not offers_splits("sacrebleu:wmt23/en-de")
    assert offers_splits("owner/name", "datasets")
    with pytest.raises(MissingFileError):
        offers_splits(tmp_path / "none")


@pytest.mark.data
def test_a_folder_with_a_folder_for_each_pair_says_what_it_holds(data_folder):
    fails("no known layout.*en-ar, en-hi", data_folder / "tico19")


@pytest.mark.data
def test_flores_of_the_data_folder_is_read(data_folder):
    corpus = read_parallel(data_folder / "flores200", split="dev", languages=["eng", "tur", "de"])
    assert len(corpus.rows) == 997
    assert corpus.languages == (EN, TR, DE)
