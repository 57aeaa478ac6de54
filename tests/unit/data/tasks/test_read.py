from __future__ import annotations

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
    with pytest.raises(LanguageError, match=r"mydata.bio: the file's name does not tell its language"):
        read_task(tmp_path)
    assert read_task(tmp_path, languages=["tr"])[0].language == "tur_Latn"


def test_the_references_records_need_a_language(tmp_path: Path) -> None:
    row = {"prefix": "<|im_start|>user\nstop<|im_end|>\n", "text": "None"}
    (tmp_path / "train.jsonl").write_text(json.dumps(row))
    assert read_task(tmp_path / "train.jsonl", languages=["en"])[0].text == "stop"
    with pytest.raises(LanguageError, match="give exactly one language"):
        read_task(tmp_path / "train.jsonl", languages=["en", "de"])


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
    with pytest.raises(DataError, match=r"cannot tell the format.*an empty folder"):
        read_task(tmp_path)
    (tmp_path / "de.test.conll").write_text("\n\n")
    with pytest.raises(DataError, match="no items in split 'test'"):
        read_task(tmp_path)


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
