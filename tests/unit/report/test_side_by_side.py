"""Several runs on one page: how they are named, and which of them are averaged."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from midalign.report.page import render_report
from midalign.report.read import read_run
from midalign.report.results import Results
from midalign.report.side_by_side import named_apart, over_seeds
from tests.synthetic_run import write_run


def edit(path, change):
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def seeds(tmp_path):
    return [write_run(tmp_path / f"seed-{seed}", seed=seed) for seed in range(2)]


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["a/run", "b/run"], ["demo, a/run", "demo, b/run"]),
        (["a/x/run", "b/x/run", "b/y"], ["demo, a/x/run", "demo, b/x/run", "demo, y"]),
        (["a/one", "b/two"], ["demo, one", "demo, two"]),
        (["a"], ["demo"]),
    ],
)
def test_runs_of_equal_names_are_told_apart_by_as_many_folders_as_it_takes(tmp_path, folders, names):
    view = read_run(write_run(tmp_path / "run", name="demo"))
    found = named_apart([replace(view, folder=tmp_path / folder) for folder in folders])
    assert [run.name for run in found] == names


def test_the_same_folder_twice_is_named_by_its_whole_path(tmp_path, monkeypatch):
    view = read_run(write_run(tmp_path / "run", name="demo"))
    monkeypatch.chdir(tmp_path)
    names = {run.name for run in named_apart([view, replace(view, folder=Path("run"))])}
    assert names == {f"demo, {tmp_path}/run"}


def test_runs_over_other_data_are_not_averaged_and_the_page_says_why(seeds):
    edit(seeds[1] / "manifest.json", lambda m: m.update(data={"/data/synthetic": "cd" * 32}))
    assert over_seeds([Results(read_run(run)) for run in seeds], ["aligned"]) is None
    page = render_report(seeds)
    assert "Over 2 runs of one recipe" not in page
    assert "Not averaged" in page
    assert "/data/synthetic" in page.partition("Not averaged")[2].partition("</div>")[0]


def test_the_same_data_in_another_place_is_the_same_data(seeds):
    edit(seeds[1] / "manifest.json", lambda m: m.update(data={"/home/data": "ab" * 32}))
    page = render_report(seeds)
    assert "Over 2 runs of one recipe" in page
    assert "Not averaged" not in page


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n": 17}, "on German is over 17 and over 500 items"),
        ({"signature": "slot_f1|another"}, "computed in different ways"),
    ],
)
def test_scores_over_other_items_or_of_another_kind_are_not_averaged(seeds, change, words):
    def of_german(content):
        next(e for e in content["scores"] if e.get("language") == "deu_Latn" and e["metric"] == "slot_f1").update(
            change
        )

    edit(seeds[1] / "evaluation" / "joint" / "scores.json", of_german)
    assert over_seeds([Results(read_run(run)) for run in seeds], ["aligned"]) is None
    assert words in render_report(seeds).partition("Not averaged")[2].partition("</div>")[0]


def test_runs_of_two_recipes_are_no_seeds_and_need_no_reason(seeds):
    edit(seeds[1] / "manifest.json", lambda m: m["inputs"]["recipe"].update(model={"path": "other"}))
    edit(seeds[1] / "manifest.json", lambda m: m.update(data={"/data/synthetic": "cd" * 32}))
    assert "Not averaged" not in render_report(seeds)
