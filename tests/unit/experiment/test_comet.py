"""``midalign comet add``: COMET of every system of a run in its scores, comparisons and report."""

import json
from dataclasses import asdict

import pytest

from midalign.answers.predictions import write_predictions
from midalign.answers.write import completion
from midalign.errors import DataError, RunError
from midalign.evaluation import comet
from midalign.evaluation.score import compare_runs, score, write_scores
from midalign.experiment.comet import add_comet
from midalign.experiment.summary import SYSTEMS
from midalign.files import hash_paths, write_json
from midalign.recipe.data import read_task_data
from midalign.recipe.file import build_recipe
from midalign.records import Prediction
from tests.tiny_world import recipe_content, write_lines


@pytest.fixture
def run(tmp_path):
    """A finished run of a translation recipe, without its models; half of SFT's answers are wrong."""
    content = recipe_content(tmp_path)
    for split in ("train", "dev", "test"):
        write_lines(tmp_path / "corpus" / split, split, n=6)
    write_lines(tmp_path / "lines")
    write_lines(tmp_path / "probe", "again")
    content["task"] = {"name": "translation", "data": str(tmp_path / "corpus")}
    content["languages"] = {"supervised": ["en", "de"], "aligned": ["ru"]}
    recipe = build_recipe(content)
    examples, folder, answers = read_task_data(recipe).test, tmp_path / "run", {}
    for system in SYSTEMS:
        wrong = 2 if system == "sft" else 100
        answers[system] = [
            Prediction(e.id, e.language, "", "x" if i % wrong == 0 else completion(e)) for i, e in enumerate(examples)
        ]
        write_predictions(answers[system], folder / "evaluation" / system / "predictions.jsonl")
        write_scores(score(examples, answers[system], resamples=100), folder / "evaluation" / system / "scores.json")
    compared = compare_runs(examples, answers["sft"], answers["joint"], resamples=100, trials=20)
    rows = [{"baseline": "sft", "system": "joint"} | asdict(found) for found in compared]
    summary = {"name": "t", "task": "translation", "main_metric": "chrf", "systems": list(SYSTEMS), "comparisons": rows}
    write_json(folder / "summary.json", summary)
    manifest = {"command": "run", "done": True, "inputs": recipe.as_dict(), "data": hash_paths([recipe.task.data])}
    write_json(folder / "manifest.json", manifest)
    return folder


@pytest.fixture
def calls(monkeypatch):
    """COMET's environment, made up: 1 for a translation that is the reference, else 0."""
    made = []

    def segment_scores(rows, model, env):
        made.append(model)
        return {row["id"]: float(row["mt"] == row["ref"]) for row in rows}, {"model": model, "versions": {"torch": "1"}}

    monkeypatch.setattr(comet, "segment_scores", segment_scores)
    return made


def rows(path, key, **wanted):
    content = json.loads(path.read_text(encoding="utf-8"))[key]
    return [row for row in content if all(row.get(name) == value for name, value in wanted.items())]


def test_every_system_gets_comet_beside_its_scores_and_against_the_baseline(run, calls):
    before = {system: rows(run / "evaluation" / system / "scores.json", "scores") for system in SYSTEMS}
    compared = rows(run / "summary.json", "comparisons")
    found = add_comet(run, model="m")
    assert list(found) == list(SYSTEMS)
    for system in SYSTEMS:
        after = rows(run / "evaluation" / system / "scores.json", "scores")
        assert after[: len(before[system])] == before[system], "the others stay as they are"
        added = after[len(before[system]) :]
        assert {row["metric"] for row in added} == {"comet"}
        assert {row.get("group") for row in added} >= {"all", "supervised", "aligned"}
    (baseline,) = rows(run / "evaluation" / "sft" / "scores.json", "scores", metric="comet", group="all")
    assert baseline["value"] == pytest.approx(0.5)
    summary = rows(run / "summary.json", "comparisons")
    assert [row for row in summary if row["metric"] != "comet"] == compared
    (joint,) = rows(run / "summary.json", "comparisons", metric="comet", group="all", system="joint")
    assert joint["difference"] > 0.3
    assert joint["low"] > 0
    assert "COMET" in (run / "report.html").read_text(encoding="utf-8")


def test_segment_scores_are_kept_for_the_same_model_and_made_anew_for_another(run, calls):
    add_comet(run, model="m")
    first = (run / "summary.json").read_bytes(), (run / "evaluation" / "joint" / "scores.json").read_bytes()
    add_comet(run, model="m")
    assert calls == ["m"] * 3
    again = (run / "summary.json").read_bytes(), (run / "evaluation" / "joint" / "scores.json").read_bytes()
    assert again == first, "adding it again adds nothing"
    add_comet(run, model="other")
    assert calls == ["m"] * 3 + ["other"] * 3
    (row,) = rows(run / "evaluation" / "joint" / "scores.json", "scores", metric="comet", group="all")
    assert "|model:other|" in row["signature"]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"command": "evaluate"}, "no finished `midalign run`"), ({"done": False}, "no finished `midalign run`")],
)
def test_other_folders_are_refused(run, calls, change, message):
    manifest = json.loads((run / "manifest.json").read_text())
    write_json(run / "manifest.json", manifest | change)
    with pytest.raises(RunError, match=message):
        add_comet(run)
    assert not calls


def test_a_run_on_another_task_is_refused(run, calls):
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["inputs"]["task"]["name"] = "slots"
    write_json(run / "manifest.json", manifest)
    with pytest.raises(RunError, match="a run on slots, and COMET scores translations"):
        add_comet(run)


@pytest.mark.parametrize("kept", [False, True])
def test_data_that_has_changed_since_the_run_is_refused(run, calls, tmp_path, kept):
    if kept:
        add_comet(run, model="m")
    before = {path: path.read_bytes() for path in run.rglob("*.json*")}
    for path in (tmp_path / "corpus" / "test").iterdir():
        path.write_text(path.read_text(encoding="utf-8") + "one line more\n", encoding="utf-8")
    with pytest.raises(RunError, match=r"corpus' is not the data of this run.*run the recipe again"):
        add_comet(run, model="m")
    assert {path: path.read_bytes() for path in run.rglob("*.json*")} == before
    assert len(calls) == 3 * kept


def test_predictions_of_other_ids_are_refused(run, calls):
    add_comet(run, model="m")
    for name in ("predictions.jsonl", "segments.jsonl"):
        path = run / "evaluation" / "sft" / name
        path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")
    with pytest.raises(DataError, match="have no prediction"):
        add_comet(run, model="m")
