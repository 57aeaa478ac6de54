"""Corpora in the form of the ``datasets`` library."""

import pytest

from midalign.data.parallel.corpus import read_parallel
from midalign.errors import DataError, MissingFileError
from tests.unit.data.parallel.corpora import DE, EN, TR, WORDS


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
