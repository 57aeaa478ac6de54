"""Files of answers that are damaged, or not what they should be: a message, or exactly what stands there."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midalign.answers.predictions import read_partial, read_predictions, write_predictions
from midalign.answers.write import completion
from midalign.cli.main import main
from midalign.data.examples import read_examples
from midalign.evaluation.comet import read_segments
from midalign.records import Prediction
from tests.fuzz.strategies import FEW_OR_MANY, TEXT, damaged, outcome, values
from tests.tiny_world import write_slots

WRITTEN = [
    Prediction("de.test:0", "deu_Latn", "frag\n\u2028", "datetime: am Freitag; ort: Küche"),
    Prediction("de.test:1", "deu_Latn", "", "None"),
    Prediction("日本:2", "jpn_Jpan", "p", 'a "b" \\ c\x85 😀'),
]


def once(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key comes twice")
    return found


def plainly_read(data):
    """What stands in a file, by a loop that knows nothing of ours; raises where a line is no record of strings."""
    found = []
    text = data.decode("utf-8").removeprefix("\ufeff")
    for line in text.split("\n" if "\n" in text else "\r"):
        if any(character.isprintable() and not character.isspace() for character in line):
            record = json.loads(line, object_pairs_hook=once)
            row = tuple(record.get(name) or "" for name in ("id", "language", "prompt", "prediction"))
            assert all(isinstance(field, str) for field in row)
            assert isinstance(record["id"], str)
            assert isinstance(record["prediction"], str)
            found.append(row)
    return found


def as_rows(predictions):
    return [(p.id, p.language, p.prompt, p.prediction) for p in predictions]


@FEW_OR_MANY
def test_a_damaged_file_is_refused_or_read_as_it_stands(cases, tmp_path):
    path = tmp_path / "p.jsonl"
    write_predictions(WRITTEN, path)

    @settings(max_examples=cases, deadline=None)
    @given(damaged(path.read_bytes()))
    def check(data):
        target = tmp_path / "damaged.jsonl"
        target.write_bytes(data)
        found, message = outcome(read_predictions, target)
        assert len(message) < 2000
        if message:
            assert "damaged.jsonl" in message
        else:
            assert as_rows(found) == plainly_read(data)

    check()


FIELDS = ("id", "language", "prompt", "prediction")


@st.composite
def records(draw):
    """One line: some fields as they should be, some of any other type, perhaps twice, and others beside them."""
    names = draw(st.lists(st.sampled_from([*FIELDS, "id", "prediction", "score"]), min_size=1, max_size=6))
    fields = {f"{json.dumps(name)}: {draw(TEXT.map(json.dumps) | values())}": None for name in names}
    return "{" + ", ".join(fields) + "}"


@FEW_OR_MANY
def test_fields_of_any_type_depth_and_size_are_refused_or_read_as_they_stand(cases, tmp_path):
    target = tmp_path / "p.jsonl"

    @settings(max_examples=cases, deadline=None)
    @given(st.lists(records() | values(), min_size=1, max_size=3))
    def check(lines):
        data = "".join(line + "\n" for line in lines).encode("utf-8", "surrogatepass")
        target.write_bytes(data)
        found, message = outcome(read_predictions, target)
        assert len(message) < 2000
        assert message or as_rows(found) == plainly_read(data)

    check()


@FEW_OR_MANY
def test_the_answers_of_an_interrupted_run_are_kept_or_refused_but_never_others(cases, tmp_path):
    path = tmp_path / "whole"
    write_predictions(WRITTEN, path)
    known = {p.id: p for p in WRITTEN}

    @settings(max_examples=cases, deadline=None)
    @given(st.integers(0, len(path.read_bytes())) | damaged(path.read_bytes()))
    def check(kept):
        target = tmp_path / "partial"
        target.write_bytes(path.read_bytes()[:kept] if isinstance(kept, int) else kept)
        before = target.read_bytes()
        found, message = outcome(read_partial, target)
        if message:
            assert "delete" in message
        elif isinstance(kept, int):  # cut off by a kill: whole lines are kept, and nothing else
            assert found == {name: known[name] for name in list(known)[: before.count(b"\n")]}
        else:
            rows = plainly_read(before[: before.rfind(b"\n") + 1])
            assert sorted(as_rows(found.values())) == sorted({row[0]: row for row in rows}.values())

    check()


@FEW_OR_MANY
def test_segment_scores_of_any_kind_are_refused_or_read_as_numbers(cases, tmp_path):
    target = tmp_path / "s.jsonl"
    good = {p.id: f'{{"id": {json.dumps(p.id)}, "score": 0.5}}' for p in WRITTEN}

    @settings(max_examples=cases, deadline=None)
    @given(st.sampled_from(WRITTEN), st.sampled_from(["id", "score", "translation", "signature"]), values())
    def check(one, field, value):
        bad = {"id": json.dumps(one.id), "score": "0.5"} | {field: value}
        odd = "{" + ", ".join(f'"{name}": {text}' for name, text in bad.items()) + "}"
        target.write_bytes("\n".join({**good, one.id: odd}.values()).encode("utf-8", "surrogatepass"))
        found, message = outcome(read_segments, target, WRITTEN)
        if not message:
            score = json.loads(bad["score"])
            assert found.scores == dict.fromkeys(good, 0.5) | {one.id: score}
            assert type(score) in (int, float)

    check()


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    write_slots(tmp_path / "slots")
    monkeypatch.chdir(tmp_path)
    numbers = iter(range(100_000))

    def call(data):
        (tmp_path / "p.jsonl").write_bytes(data)
        out = f"out{next(numbers)}"
        command = ["evaluate", "--data", "slots", "--predictions", "p.jsonl", "--resamples", "10", "--out", out]
        monkeypatch.setattr(sys, "argv", ["midalign", *command])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        assert code == (0 if (tmp_path / out / "scores.json").exists() else 2)
        assert code == 0 or not (tmp_path / out).exists(), "nothing half-done is left"
        return code

    return call


@pytest.mark.parametrize("cases", [8, pytest.param(150, marks=pytest.mark.slow)])
def test_the_command_scores_or_says_why_not(cases, evaluate, tmp_path):
    examples = read_examples("slots", tmp_path / "slots", languages=["deu_Latn"])
    whole = tmp_path / "whole.jsonl"
    write_predictions([Prediction(e.id, e.language, "", completion(e)) for e in examples], whole)
    assert evaluate(whole.read_bytes()) == 0
    assert evaluate(b"") == 2

    @settings(max_examples=cases, deadline=None)
    @given(damaged(whole.read_bytes(), most=1) | st.lists(records(), max_size=3).map("\n".join).map(str.encode))
    def check(data):
        evaluate(data)

    check()
