"""The data sets as files: readable by midalign's own readers, and nothing of the test in what is trained on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

pytest.importorskip("hassil")
pytest.importorskip("home_assistant_intents")

from midalign.data.parallel.corpus import read_parallel
from midalign.data.tasks.read import read_task
from midalign.errors import RunError
from midalign.testbed.base import build_base
from midalign.testbed.lexicon import LANGUAGES
from midalign.testbed.tasks import bio, build_data, words_of
from midalign.testbed.world import Key, Meaning, Slot, Utterance, anchor_free

CODES = ("eng_Latn", "deu_Latn", "zho_Hans", "spa_Latn", "ell_Grek", "tha_Thai", "hun_Latn")
SIZES = {"train": 80, "valid": 15, "test": 30, "pairs": 40, "parallel": 30}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("data")
    build_data(out, seed=0, languages=CODES, **SIZES)
    return out


def said(language: str, text: str, *slots: Slot) -> Utterance:
    return Utterance(language, text, Meaning(Key("HassTurnOn", "", (), ()), ()), slots, "")


def fingerprint(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(data, tmp_path):
    build_data(tmp_path / "again", seed=0, languages=CODES, **SIZES)
    build_data(tmp_path / "other", seed=1, languages=CODES, **SIZES)
    assert fingerprint(tmp_path / "again") == fingerprint(data)
    other = fingerprint(tmp_path / "other")
    assert other.keys() == fingerprint(data).keys()
    assert other["slots/deu_Latn.train.conll"] != fingerprint(data)["slots/deu_Latn.train.conll"]


def test_only_supervised_languages_have_task_training_data_and_only_aligned_ones_pairs(data):
    trained = {path.name.split(".")[0] for path in (data / "slots").glob("*.train.conll")}
    assert trained == {"eng_Latn", "deu_Latn", "zho_Hans"}
    paired = {path.suffix[1:] for path in (data / "pairs").iterdir()}
    assert paired == {"eng", "spa", "ell", "tha"}
    for split in ("valid", "test"):
        assert {path.name.split(".")[0] for path in (data / "slots").glob(f"*.{split}.conll")} == set(CODES)


def test_the_readers_of_midalign_read_what_was_written(data):
    examples = read_task(data / "slots", task="slots", format="xsid", split="test")
    assert {e.language for e in examples} == set(CODES)
    for code in CODES:
        own = [e for e in examples if e.language == code]
        assert len(own) == SIZES["test"]
        for example in own:
            assert "".join(example.words) == "".join(example.text.split())
            assert example.intent
    corpus = read_parallel(data / "parallel")
    assert set(corpus.languages) == set(CODES)
    assert len(corpus.rows) == SIZES["parallel"]
    pairs = read_parallel(data / "pairs").pairs()
    assert {p.target_language for p in pairs} | {p.source_language for p in pairs} == {
        "eng_Latn",
        "spa_Latn",
        "ell_Grek",
        "tha_Thai",
    }
    assert len(pairs) == 3 * SIZES["pairs"]


def phrases(data: Path, code: str, split: str) -> set[tuple[str, str]]:
    found = set()
    for example in read_task(data / "slots" / f"{code}.{split}.conll", task="slots", format="xsid"):
        for span in example.spans:
            found.add((span.label, " ".join(example.words[span.start : span.end])))
    return found


@pytest.mark.parametrize("code", ["eng_Latn", "deu_Latn", "zho_Hans"])
def test_no_value_sentence_or_wording_of_the_test_is_in_task_training(data, code):
    trained = phrases(data, code, "train")
    for split in ("valid", "test"):
        assert phrases(data, code, split)
        assert not phrases(data, code, split) & trained
    for split in ("valid", "test"):
        for example in read_task(data / "slots" / f"{code}.{split}.conll", task="slots", format="xsid"):
            delexicalised = list(example.words)
            for span in reversed(example.spans):
                delexicalised[span.start : span.end] = ["{" + span.label + "}"]
            assert " ".join(delexicalised) not in wordings(data, code)


def wordings(data: Path, code: str) -> set[str]:
    found = set()
    for example in read_task(data / "slots" / f"{code}.train.conll", task="slots", format="xsid"):
        words = list(example.words)
        for span in reversed(example.spans):
            words[span.start : span.end] = ["{" + span.label + "}"]
        found.add(" ".join(words))
    return found


def test_no_sentence_of_probing_or_test_is_in_the_pairs(data):
    for code in ("spa_Latn", "ell_Grek", "tha_Thai"):
        lines = (data / "pairs" / f"testbed.{code[:3]}-eng.{code[:3]}").read_text().splitlines()
        assert len(set(lines)) == len(lines) == SIZES["pairs"]
        for other in ("parallel", "parallel_anchor_free"):
            assert not set(lines) & set((data / other / f"{code}.txt").read_text().splitlines())
        tests = read_task(data / "slots" / f"{code}.test.conll", task="slots", format="xsid")
        assert not set(lines) & {e.text for e in tests}


def test_translation_has_training_pairs_for_supervised_languages_only_and_none_of_the_tests(data):
    languages = {
        split: {path.suffix[1:] for path in (data / "translation" / split).iterdir()} - {"eng"}
        for split in ("train", "valid", "test")
    }
    assert languages["train"] == {"deu", "zho"}
    assert languages["valid"] == languages["test"] == {code[:3] for code in CODES} - {"eng"}
    for code in ("deu", "zho"):
        sides = {}
        for split in ("train", "valid", "test"):
            pairs = read_parallel(data / "translation" / split, languages=[code, "eng"]).pairs()
            assert pairs
            sides[split] = {p.source for p in pairs} | {p.target for p in pairs}
        assert not sides["train"] & (sides["valid"] | sides["test"])


def test_sentences_without_anchors_share_no_digit_and_no_latin_word_between_scripts(data):
    rows = {code: (data / "parallel_anchor_free" / f"{code}.txt").read_text().splitlines() for code in CODES}
    assert len(rows["eng_Latn"]) >= 20
    for code, lines in rows.items():
        assert len(set(lines)) == len(lines) == len(rows["eng_Latn"])
        assert not [line for line in lines if any(c.isdigit() for c in line)], code


def test_a_word_that_a_slot_covers_in_part_belongs_to_it_and_neighbouring_slots_stay_apart():
    area, device = Slot("area", "area/0", 0, 6), Slot("device", "light/0", 0, 0)
    assert bio(said("hun_Latn", "konyhában lámpa fel", area)) == [
        ("konyhában", "B-area"),
        ("lámpa", "O"),
        ("fel", "O"),
    ]
    living, lamp = Slot("area", "area/2", 0, 11), Slot("device", "light/1", 12, 21)
    tags = [tag for _, tag in bio(said("eng_Latn", "living room desk lamp on", living, lamp))]
    assert tags == ["B-area", "I-area", "B-device", "I-device", "O"]
    first, second = Slot("item", "item/0", 0, 4), Slot("item", "item/1", 5, 10)
    assert [tag for _, tag in bio(said("eng_Latn", "milk bread", first, second))] == ["B-item", "B-item"]
    assert device.start == device.end


def test_a_percent_sign_is_a_word_of_its_own_and_languages_without_spaces_count_characters():
    assert [w for w, _ in words_of("set it to 50%", LANGUAGES["eng_Latn"])] == ["set", "it", "to", "50", "%"]
    assert words_of("开灯 9", LANGUAGES["zho_Hans"]) == [("开", 0), ("灯", 1), ("9", 3)]


def test_the_data_card_tells_roles_levels_scripts_sizes_and_seed(data):
    card = json.loads((data / "data_card.json").read_text())
    assert card["seed"] == 0
    assert card["roles"]["supervised"] == ["eng_Latn", "deu_Latn", "zho_Hans"]
    assert card["roles"]["unseen"] == ["hun_Latn"]
    assert card["languages"]["ell_Grek"] == {"role": "aligned", "resource": "low", "script": "Grek", "spaces": True}
    assert card["sizes"]["pairs"] == {"spa_Latn": 40, "ell_Grek": 40, "tha_Thai": 40}
    assert card["sizes"]["slots.test"] == dict.fromkeys(CODES, 30)


def test_what_counts_as_an_anchor_is_told_by_the_meaning():
    assert anchor_free(Meaning(Key("HassTurnOn", "", (), ()), (("area", "area/0"),)))


def test_a_file_in_place_of_the_folder_is_the_users_mistake(tmp_path):
    (tmp_path / "afile").touch()
    with pytest.raises(RunError, match="cannot write"):
        build_data(tmp_path / "afile", train=1, valid=1, test=1, pairs=1, parallel=1)
    with pytest.raises(RunError, match="is a file, and the model is a folder"):
        build_base(tmp_path / "afile")
