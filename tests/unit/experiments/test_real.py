"""Gains over SFT and over shuffled pairs: point, interval over seeds and items, and what is left out."""

import sys

import pytest

from experiments.arms import read_arms
from experiments.real import evidence, many
from experiments.real.choose import choose
from experiments.real.claims import middle_layers, sft_does_not_align, verdict
from experiments.real.measured import Runs, measure, measure_probe
from midalign.answers.predictions import PREDICTIONS, write_predictions
from midalign.files import write_json
from midalign.probing.result import ProbeResult
from midalign.records import Prediction, Span, TaskExample

CODES = ("eng_Latn", "dan_Latn", "nld_Latn")
RIGHT = {"sft": 20, "joint": 30, "shuffled": 20}  # of 40 items


def items():
    return [
        TaskExample(f"{code}:{i}", "slots", code, "call ann now", ("call", "ann", "now"), (Span("who", 1, 2),), "call")
        for code in CODES
        for i in range(40)
    ]


def probe(accuracy):
    """A probe of three layers, all of whose directions have this accuracy at the last two."""
    layers = [
        {"layer": k, "accuracy": a, "matrix": [[a] * 3] * 3, "interval": [a - 0.01, a + 0.01]}
        for k, a in enumerate((0.1, accuracy, accuracy))
    ]
    return {"languages": list(CODES), "layers": layers, "best_layer": 1, "n": 40, "pooling": "mean"}


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
            write_json(file.parent / "probe" / "probe.json", probe(0.6 if arm == "joint" else 0.2))
            write_json(file.parent / "settings.json", {"training": {"max_steps": 70}})
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


def test_a_claim_holds_where_the_interval_lies_on_its_side():
    gain = {"value": 2.0, "low": 1.0, "high": 3.0}
    assert (verdict(gain), verdict(gain, -1), verdict(gain, margin=1.5)) == ("holds", "contradicted", "not shown")
    assert verdict(None) == "not run"


def test_a_middle_layer_is_best_where_its_interval_lies_above_those_of_both_ends():
    found = measure_probe(ProbeResult(probe(0.5)), layer=1)
    assert (found["languages"], found["directions"], found["accuracy"]) == (3, 6, [10, 50, 50])
    assert middle_layers({"probes": {"base": found}}).verdict == "not shown", "the last layer is as good"
    found["accuracy"][2], found["intervals"][2] = 20.0, [19.0, 21.0]
    assert middle_layers({"probes": {"base": found}}).verdict == "holds"


def test_probes_in_many_languages_are_compared_language_by_language(runs):
    task = measure(runs, layer=2)
    probes = {arm: measure_probe(ProbeResult(probe(value)), layer=1) for arm, value in (("base", 0.5), ("sft", 0.4))}
    row = sft_does_not_align({"xsid": task, "probes": probes})
    assert row.ours == "2 languages with English: -10.0 [-10.0, -10.0]"  # the base was not probed in the task's own
    assert not sft_does_not_align({"xsid": task, "probes": {"base": probes["base"]}}).ours.startswith("2 languages")


def test_the_page_is_made_of_the_measured_results_alone(runs, tmp_path, monkeypatch):
    write_json(tmp_path / "results" / "xsid.json", measure(runs, layer=2))
    states = {"1": {kind: {code: [50.0] for code in CODES} for kind in ("intent", "label", "retrieval")}}
    states["1"]["intent"] |= {"dan_Latn": [20.0], "nld_Latn": [40.0]}
    states["1"]["retrieval"]["eng_Latn"] = []
    slots = {"joint": {"aligned": {"right": 30.0, "left out": 70.0}}}
    write_json(
        tmp_path / "results" / "transfer_xsid.json", {"slots": slots, "states": {"joint": states}, "layers": [15]}
    )
    page, readme = tmp_path / "docs" / "evidence.md", tmp_path / "README.md"
    readme.write_text("before\n<!-- evidence -->\nold\n<!-- end -->\nafter\n")
    measured = str(tmp_path / "results")
    monkeypatch.setattr(
        sys, "argv", ["evidence.py", "--results", measured, "--write", str(page), "--readme", str(readme)]
    )
    evidence.main()
    text = page.read_text()
    assert "<!--" not in text
    assert "with 70 task updates" in " ".join(text.split())
    assert "| 20.0 to 60.0 %: +40.0 [+40.0, +40.0] | **holds** |" in text.replace("xSID: ", "")
    assert [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `")] == [
        "| `sft`",
        "| `joint`",
        "| `shuffled`",
        "| `joint`",
        "| `joint`",
        "| `joint`",
    ]
    assert "| `joint` | 30.0 | 70.0 |" in text
    assert "| `joint` | English | 50 | 50 |  |" in text
    assert "| `joint` | aligned | 30 | 50 | 50 |" in text
    assert len(list((page.parent / "images").glob("*.svg"))) == text.count("![") == 2
    assert "| xSID | sentences | aligned | 66.7 | +" in readme.read_text()
    assert "] (2) |" in readme.read_text()
    assert "old" not in readme.read_text()


def test_overrides_may_be_for_one_recipe_alone():
    given = ["task.limit_test=100", "translation:task.limit_test=50", "parallel.data=testbed:pairs"]
    assert evidence.overrides_of("xsid", given) == ("task.limit_test=100", "parallel.data=testbed:pairs")
    assert evidence.overrides_of("translation", given) == (
        "task.limit_test=100", "parallel.data=testbed:pairs", "task.limit_test=50",
    )  # fmt: skip


def test_the_larger_runs_stand_for_a_task_where_they_have_the_arm(runs):
    small = measure(runs, layer=2)
    larger = {**small, "arms": {arm: found for arm, found in small["arms"].items() if arm != "joint"}}
    larger["arms"]["prompt_last"] = {**small["arms"]["joint"], "seeds": [0, 1, 2]}
    lines = evidence.readme_table({"xsid": small, "xsid_larger": larger})
    assert [line.split(" | ")[1:3] for line in lines[2:]] == [
        [what, group] for what in ("sentences", "last state") for group in ("supervised", "aligned")
    ]


def test_many_arms_are_begun_in_order_and_the_chosen_one_after_the_last_dev_arm(tmp_path, monkeypatch):
    (tmp_path / "plan").write_text("# all\nxsid 0 CHOSEN a.b=1\ndev xsid 0 sft\ndev xsid 0 warm  # late\nmtop 1 sft\n")
    queue = many.Queue(many.read_plan(tmp_path / "plan"), tmp_path)
    monkeypatch.setattr(many, "choose", lambda _: "warm")
    first, second, third = (queue.next() for _ in range(3))
    assert [first, second, third] == [
        many.Job("xsid", 0, "sft", dev=True), many.Job("xsid", 0, "warm", dev=True), many.Job("mtop", 1, "sft"),
    ]  # fmt: skip
    queue.done(first)
    assert queue.next() is None
    queue.done(second)
    assert queue.next() == many.Job("xsid", 0, "warm", more=("a.b=1",))


@pytest.mark.parametrize(("supervised", "chosen"), [(59.6, "high"), (59.4, "low")])
def test_an_arm_is_chosen_by_aligned_languages_unless_supervised_ones_lose(tmp_path, capsys, supervised, chosen):
    levels = {"sft": (60, 10), "joint": (60, 40), "low": (61, 20), "high": (supervised, 30), "unfinished": (60, 50)}
    for arm, values in levels.items():
        for recipe in ("xsid", "mtop")[: 1 if arm == "unfinished" else 2]:
            scores = [
                {"metric": "slot_f1", "group": group, "value": value / 100}
                for group, value in zip(("supervised", "aligned"), values, strict=True)
            ]
            write_json(tmp_path / recipe / "seed0" / arm / "scores.json", {"scores": scores})
    assert choose(tmp_path) == chosen
    assert f"chosen: {chosen}" in capsys.readouterr().out


def test_an_arm_with_a_key_that_yaml_reads_as_a_number_or_a_truth_value_is_refused(tmp_path):
    (tmp_path / "arms.yaml").write_text("sft: {objective: task}\non_top: {objective: align, on: sft}\n")
    with pytest.raises(ValueError, match=r"on_top has \{True\}"):
        read_arms(tmp_path / "arms.yaml")
