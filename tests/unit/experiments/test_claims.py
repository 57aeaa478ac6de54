"""docs/evidence_world.md from a folder of made runs: verdicts follow from the numbers, and no mark stays unfilled."""

import json
import random
import sys

import pytest

from experiments.claims import evidence
from experiments.claims import run as arms_of
from experiments.claims.measured import GROUPS, Estimate, Runs
from midalign.answers.predictions import write_predictions
from midalign.records import Prediction, Span, TaskExample

LAYERS = 11
CODES_OF_ITEMS = ("eng_Latn", "spa_Latn", "ita_Latn")  # one of each role


def scores(codes, level, rng):
    metrics = ("slot_f1", "label_f1", "value_f1", "intent_accuracy", "entity_f1")
    rows = [
        {"metric": m, "language": code, "value": level + rng.uniform(-0.02, 0.02)} for m in metrics for code in codes
    ]
    return {"scores": rows}


def probe(codes, lift, rng):
    layers = []
    for layer in range(LAYERS):
        level = 0.2 + 0.3 * (1 - abs(layer - 5) / 5) + (lift if layer >= 6 else 0)
        matrix = [[None if a == b else level + rng.uniform(0, 0.02) for b in codes] for a in codes]
        layers.append({"layer": layer, "matrix": matrix})
    return {"languages": codes, "layers": layers}


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def items():
    return [
        TaskExample(f"{code}:{i}", "slots", code, "call ann now", ("call", "ann", "now"), (Span("who", 1, 2),), "call")
        for code in CODES_OF_ITEMS
        for i in range(12)
    ]


def answers(right):
    """The first so many items of each language answered rightly, the others not at all."""
    return [
        Prediction(e.id, e.language, "", "call | who: ann" if int(e.id.split(":")[1]) < right else "call | None")
        for e in items()
    ]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Three runs of all arms: every aligning arm is 10 points above SFT, the controls are as good as SFT."""

    codes = [code for role in ("supervised", "aligned", "unseen") for code in GROUPS[role]]
    level = {"sft": 0.5, "sft_json": 0.5, "shuffled": 0.5, "sft_long": 0.5, "plain_json": 0.4}
    for seed in range(3):
        rng = random.Random(seed)
        base = tmp_path / "bases" / f"b{seed}"
        probes = {lift: json.dumps(probe(codes, lift, rng)) for lift in (0.0, 0.3)}
        put(base / "pretraining.json", {"parameters": 3_000_000, "tokens": 6_000_000, "bilingual_share": 0.02})
        put(tmp_path / "runs" / base.name / "seed0" / "base.json", {"path": str(base)})
        for arm in arms_of.ARMS:
            folder = tmp_path / "runs" / base.name / "seed0" / arm
            put(folder / "scores.json", scores(codes, level.get(arm, 0.6), rng))
            put(folder / "free" / "scores.json", scores(codes, level.get(arm, 0.6) - 0.1, rng))
            put(folder / "training.json", {"layer": None if arm.startswith("sft") else 10, "seconds": 60.0})
            put(folder / "merge.json", {"chosen": {"alignment": 0.1}})
            for kind, probed in arms_of.PROBES.items():
                if not probed or arm in probed:
                    put(folder / kind / "probe.json", probes[0.0 if arm in ("base", "sft") else 0.3])
            write_predictions(answers(4 if arm in level else 8), folder / "predictions.jsonl")
    monkeypatch.setattr(Runs, "test_items", lambda *_: items())
    return Runs(tmp_path / "runs")


def test_every_claim_is_tested_and_its_verdict_follows_from_the_numbers(runs):
    rows = {number: claim(runs) for number, claim in evidence.CLAIMS.items()}
    assert list(rows) == list(range(14))
    assert all(row.number == number for number, row in rows.items())
    verdicts = {number: row.verdict for number, row in rows.items()}
    assert verdicts[0] == verdicts[1] == verdicts[5] == verdicts[6] == "holds"
    assert verdicts[4].startswith("holds (over shuffled pairs: holds)")
    assert verdicts[7] == "contradicted", "the bottom layer was to hurt, and all aligning arms gain"
    assert verdicts[11] == "holds", "JSON loses 10 points"
    assert verdicts[13] == "holds"


def test_an_interval_across_zero_shows_nothing():

    assert Estimate((1.0, 2.0, 1.5)).verdict() == "holds"
    assert Estimate((1.0, 2.0, 1.5)).verdict(-1) == "contradicted"
    assert Estimate((-1.0, 2.0, 1.5)).verdict() == "not shown"
    assert Estimate((1.0,)).verdict() == "not shown", "one run has no interval"
    assert str(Estimate((1.0, 2.0, 3.0))) == "+2.0 [-0.5, +4.5]"


def test_the_page_has_every_table_and_no_mark_is_left(runs, tmp_path, monkeypatch):
    page = tmp_path / "evidence.md"
    words = ["evidence.py", "--out", str(runs.out), "--write", str(page)]
    monkeypatch.setattr(sys, "argv", words)
    evidence.main()
    text = page.read_text()
    assert "<!--" not in text
    assert "from 3 runs (3 bases)" in text
    assert "3,000,000 parameters" in text
    assert text.count("| **") >= 14
    assert "| spa_Latn | aligned | high |" in text
