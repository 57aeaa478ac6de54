"""Examples of a task: one split, for translation of a parallel corpus."""

import pytest

from midalign.data.examples import limited, read_examples, role_language
from midalign.errors import DataError
from tests.unit.data.parallel.corpora import DE, EN, TR, flores, plain, tatoeba, write


def translations(data, **options):
    return [(e.id, e.text, e.reference, e.target_language) for e in read_examples("translation", data, **options)]


def test_a_corpus_without_splits_is_taken_whole_for_any_split(tmp_path):
    plain(tmp_path / "d", eng=["hello", "bye"], deu=["hallo", "adieu"])
    expected = [("d:0", "hello", "hallo", DE), ("d:1", "bye", "adieu", DE)]
    for split in ("test", "train", "dev"):
        assert translations(tmp_path / "d", split=split, languages=["de"]) == expected
    write(tmp_path / "deu.tsv", ["hello\thallo", "bye\tadieu"])
    assert translations(tmp_path / "deu.tsv") == [("deu:0", *expected[0][1:]), ("deu:1", *expected[1][1:])]
    write(tmp_path / "m" / "x.en", ["hello", "bye"])
    write(tmp_path / "m" / "x.de", ["hallo", "adieu"])
    assert [row[1:] for row in translations(tmp_path / "m" / "x")] == [row[1:] for row in expected]


def test_a_corpus_with_splits_gives_the_one_asked_for_and_no_other(tmp_path):
    for split in ("train", "test"):
        for code in ("en", "de"):
            write(tmp_path / "m" / f"{split}.{code}", [f"{split} {code}"])
    assert translations(tmp_path / "m") == [("test:0", "test en", "test de", DE)]
    with pytest.raises(DataError, match="no split 'dev'"):
        translations(tmp_path / "m", split="dev")
    flores(tmp_path / "f")
    assert translations(tmp_path / "f")[0] == ("devtest:0", "one devtest", "eins devtest", DE)
    assert translations(tmp_path / "f", split="dev")[0][1] == "one dev"
    with pytest.raises(DataError, match="no split 'train'"):
        translations(tmp_path / "f", split="train")


def test_ids_say_the_target_where_one_english_sentence_has_several(tmp_path):
    found = translations(plain(tmp_path / "d"))
    assert [row[0] for row in found[:3]] == [f"{DE}:0", f"{TR}:0", f"{DE}:1"]
    pairs = translations(tatoeba(tmp_path / "m"))
    assert [row[0] for row in pairs[:1]] == ["tatoeba.deu-eng:0"]


def test_ids_say_the_file_too_where_several_have_rows_in_many_languages(tmp_path):
    for name in ("news", "talks"):
        lines = "".join(f"{name} en {n}\t{name} de {n}\t{name} tr {n}\n" for n in range(2))
        (tmp_path / f"{name}.tsv").write_text(f"eng\tdeu\ttur\n{lines}", encoding="utf-8")
    found = read_examples("translation", tmp_path, languages=["eng", "deu", "tur"], directions="both")
    assert len({example.id for example in found}) == len(found) == 16
    assert {f"news-{DE}:0", f"talks-{DE}:0", f"news-{DE}-{EN}:1", f"talks-{TR}:1"} <= {e.id for e in found}


def test_a_corpus_is_translated_from_english_into_it_or_both_with_ids_of_their_own(tmp_path):
    plain(tmp_path / "d")
    forth, back, both = (
        read_examples("translation", tmp_path / "d", directions=directions)
        for directions in ("from_english", "into_english", "both")
    )
    assert [(e.id, e.text, e.language, e.reference, e.target_language) for e in back] == [
        (e.id.replace(":", f"-{EN}:"), e.reference, e.target_language, e.text, e.language) for e in forth
    ]
    assert both == [example for pair in zip(forth, back, strict=True) for example in pair]
    assert {role_language(e) for e in back} == {DE, TR}
    assert [(e.language, e.target_language) for e in limited(both, 2)] == [(EN, DE), (DE, EN), (EN, TR), (TR, EN)]


@pytest.mark.parametrize(
    ("task", "directions", "message"),
    [
        ("translation", "english", "directions is 'english'; it is one of from_english, into_english, both"),
        ("slots", "both", "directions is 'both', but the task 'slots' translates nothing; leave it out"),
    ],
)
def test_directions_that_are_none_are_refused(tmp_path, task, directions, message):
    with pytest.raises(DataError, match=message):
        read_examples(task, plain(tmp_path / "d"), directions=directions)


def test_languages_may_be_named_with_or_without_english(tmp_path):
    plain(tmp_path / "d")
    for languages in (["tr"], ["en", "tr"], ["tur_Latn", "eng"]):
        assert {row[3] for row in translations(tmp_path / "d", languages=languages)} == {TR}
    with pytest.raises(DataError, match="Add another language"):
        translations(tmp_path / "d", languages=["en"])


def test_the_first_examples_of_each_language_are_kept(tmp_path):
    examples = read_examples("translation", plain(tmp_path / "d"))
    assert [(e.language, e.target_language) for e in limited(examples, 1)] == [(EN, DE), (EN, TR)]
    assert limited(examples, None) == examples


def test_columns_and_labels_go_to_the_reader_of_the_task(tmp_path):
    (tmp_path / "de.tsv").write_text("x\tAna\tB-PER\tB-LOC\n")
    (found,) = read_examples("extraction", tmp_path, columns={"word": 1, "tag": 3}, labels=["LOC"])
    assert [span.label for span in found.spans] == ["LOC"]
    pairs = write(tmp_path / "pairs.tsv", ["eins\tone", "zwei\ttwo"])
    assert translations(pairs, columns={"eng": 1, "deu": 0})[0] == ("pairs:0", "one", "eins", DE)
    with pytest.raises(DataError, match=r"labels is .*'translation' has no labelled spans"):
        translations(pairs, labels=["LOC"])
    with pytest.raises(DataError, match="rows of the task 'chat' have names"):
        read_examples("chat", tmp_path, columns={"word": 1})


def test_a_test_set_by_name_may_stand_for_the_test_split(tmp_path):
    with pytest.raises(DataError, match="no test set 'wmt99'"):
        translations(plain(tmp_path / "d"), split="sacrebleu:wmt99/en-de")
