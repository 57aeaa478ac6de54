"""What a run's probes say together, on a folder with made numbers."""

import json

import numpy as np
import pytest
from scipy import stats

from midalign.experiment.probe_comparison import compare_probes, correlate_transfer
from midalign.probing.result import ProbeResult

CODES = ["eng_Latn", "deu_Latn", "rus_Cyrl", "tha_Thai", "fra_Latn", "fin_Latn"]
TRANSFER = CODES[1:]
N = 40


@pytest.fixture
def folder(tmp_path):
    """Probes of three systems at two layers, and scores of two, all drawn at random."""
    rng = np.random.default_rng(0)
    for system in ("base", "sft", "joint"):
        hits = rng.integers(0, 11, size=(2, len(CODES), N)).astype(np.uint16)
        layers = [
            {"layer": k, "matrix": np.where(np.eye(len(CODES)), np.nan, rng.random((len(CODES),) * 2)).tolist()}
            for k in range(2)
        ]
        content = {"languages": CODES, "n": N, "data": "d", "groups": {}, "layers": layers, "best_layer": 1}
        ProbeResult(content, hits).write(tmp_path / "probe" / system)
    for system in ("sft", "joint"):
        place = tmp_path / "evaluation" / system
        place.mkdir(parents=True)
        rows = [{"metric": m, "language": c, "value": rng.random()} for m in ("slot_f1", "other") for c in CODES]
        (place / "scores.json").write_text(json.dumps({"scores": [*rows, {"metric": "slot_f1", "group": "all"}]}))
    return tmp_path


def read(path):
    return json.loads(path.read_text())


def slot_f1(folder, system):
    rows = read(folder / "evaluation" / system / "scores.json")["scores"]
    return {row["language"]: row["value"] for row in rows if row["metric"] == "slot_f1" and "language" in row}


def test_the_score_of_a_language_that_is_translated_both_ways_is_the_mean_of_both(folder):
    compare_probes(folder, {"sft": "base", "joint": "sft"})
    before = slot_f1(folder, "sft")
    for system in ("sft", "joint"):
        file = folder / "evaluation" / system / "scores.json"
        rows = read(file)["scores"]
        others = [row | {"value": 1 - row["value"]} for row in rows if row.get("language") == "deu_Latn"]
        file.write_text(json.dumps({"scores": rows + others}))
    correlate_transfer(folder, "slot_f1", TRANSFER, baseline="sft", systems=["joint"])
    retrieval = ProbeResult.from_file(folder / "probe/base").by_language(1)
    levels = before | {"deu_Latn": 0.5}
    expected = stats.pearsonr([retrieval[code] for code in TRANSFER], [levels[code] for code in TRANSFER])
    found = read(folder / "probe/base/transfer.json")["layers"][1]["pearson"]["value"]
    assert found == pytest.approx(expected.statistic, abs=1e-4)


def test_levels_and_changes_are_correlated_over_languages_without_task_data(folder):
    compare_probes(folder, {"sft": "base", "joint": "sft"})
    correlate_transfer(folder, "slot_f1", TRANSFER, baseline="sft", systems=["joint"])
    before, after = slot_f1(folder, "sft"), slot_f1(folder, "joint")

    levels = read(folder / "probe/base/transfer.json")
    assert (levels["metric"], levels["languages"]) == ("slot_f1", TRANSFER)
    retrieval = ProbeResult.from_file(folder / "probe/base").by_language(1)
    expected = stats.pearsonr([retrieval[code] for code in TRANSFER], [before[code] for code in TRANSFER])
    assert levels["layers"][1]["pearson"]["value"] == pytest.approx(expected.statistic, abs=1e-4)

    gains = read(folder / "probe/joint/gains.json")
    assert gains["scores"] == pytest.approx([after[code] - before[code] for code in TRANSFER], abs=1e-6)
    compared = read(folder / "probe/joint/comparison.json")["layers"][0]["by_language"]
    assert gains["layers"][0]["accuracy"] == [compared[code]["difference"] for code in TRANSFER]
    assert not (folder / "probe/sft/gains.json").exists()


def test_three_languages_are_too_few_and_nothing_is_written(folder):
    compare_probes(folder, {"joint": "sft"})
    correlate_transfer(folder, "slot_f1", TRANSFER[:3], baseline="sft", systems=["joint"])
    assert (folder / "probe/joint/comparison.json").exists()
    assert not list(folder.rglob("transfer.json")) + list(folder.rglob("gains.json"))
