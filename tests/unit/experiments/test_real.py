"""Gains over SFT and over shuffled pairs: point, interval over seeds and items, and what is left out."""

import pytest

from experiments.real.evidence import Runs, table
from midalign.answers.predictions import PREDICTIONS, write_predictions
from midalign.records import Prediction, Span, TaskExample

CODES = ("eng_Latn", "dan_Latn", "nld_Latn")
RIGHT = {"sft": 20, "joint": 30, "shuffled": 20}  # of 40 items


def items():
    return [
        TaskExample(f"{code}:{i}", "slots", code, "call ann now", ("call", "ann", "now"), (Span("who", 1, 2),), "call")
        for code in CODES
        for i in range(40)
    ]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("REAL_MODEL", "m")
    monkeypatch.setenv("REAL_DATA", "d")
    monkeypatch.setenv("REAL_PAIRS", "p")
    for seed in (0, 1):
        for arm, right in RIGHT.items():
            if arm == "shuffled" and seed == 1:
                continue
            good = right + (seed if arm == "joint" else 0)
            slots = ["who: ann" if int(e.id.split(":")[1]) < good else "None" for e in items()]
            answers = [Prediction(e.id, e.language, "", f"call | {s}") for e, s in zip(items(), slots, strict=True)]
            file = tmp_path / "xsid" / f"seed{seed}" / arm / PREDICTIONS
            file.parent.mkdir(parents=True)
            write_predictions(answers, file)
    monkeypatch.setattr(Runs, "items", lambda _: items())
    return Runs(tmp_path, "xsid")


def test_a_gain_is_the_mean_over_seeds_and_languages_within_its_interval(runs):
    codes = runs.languages("aligned")
    assert codes == ["dan_Latn", "nld_Latn"]
    gain = runs.gain("joint", "sft", codes, "intent_accuracy")
    assert (gain.value, gain.low, gain.high) == (0, 0, 0)
    gain = runs.gain("joint", "sft", codes, "slot_f1")
    before = 2 * 20 / (2 * 20 + 20)
    after = [2 * right / (2 * right + 40 - right) for right in (30, 31)]
    assert gain.value == pytest.approx(100 * (sum(after) / 2 - before))
    assert 0 < gain.low < gain.value < gain.high
    assert gain.seeds == 2


def test_only_seeds_of_both_arms_are_compared(runs):
    assert runs.gain("joint", "shuffled", runs.languages("aligned"), "slot_f1").seeds == 1
    assert runs.gain("tatoeba", "sft", runs.languages("aligned"), "slot_f1") is None


def test_the_table_has_a_row_for_each_arm_that_was_run(runs):
    rows = [line.split(" | ")[0] for line in table(runs, "slot_f1") if line.startswith("| ")]
    assert rows == ["| arm", "| sft", "| joint", "| shuffled"]
