"""Run folders: manifests that recognise their inputs."""

import json
import time
from pathlib import Path

import pytest

from midalign.errors import RunError
from midalign.files import hash_paths, read_json
from midalign.runs import MANIFEST, Run, fingerprint, git_commit, versions


def test_a_fingerprint_ignores_the_order_of_keys_and_nothing_else():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 1.5})
    assert fingerprint([1, 2]) != fingerprint([2, 1])


def test_a_run_goes_on_with_the_same_inputs_and_refuses_others(tmp_path):
    data = tmp_path / "data.txt"
    data.write_text("one")
    out = tmp_path / "out"
    run = Run(out, "probe", {"k": 4}, [data])
    assert not out.exists(), "nothing is written before the work begins"
    run.begin()
    assert not read_json(out / MANIFEST)["done"]
    again = Run(out, "probe", {"k": 4}, [data])
    assert not again.was_done
    again.finish(seeds=[0])
    assert Run(out, "probe", {"k": 4}, [data]).was_done
    for command, inputs in (("probe", {"k": 5}), ("train", {"k": 4})):
        with pytest.raises(RunError, match=r"holds a run of 'probe' with other inputs.*would be overwritten"):
            Run(out, command, inputs, [data])
    data.write_text("two")
    with pytest.raises(RunError, match="other inputs"):
        Run(out, "probe", {"k": 4}, [data])


def test_a_manifest_holds_what_is_needed_to_do_it_again(tmp_path):
    (tmp_path / "d").write_text("x")
    run = Run(tmp_path / "out", "train", {"recipe": {"seed": 3}, "path": Path("a")}, [tmp_path / "d"])
    run.begin()
    with run.timed("work"):
        time.sleep(0.01)
    run.finish(seeds=[3])
    manifest = read_json(tmp_path / "out" / MANIFEST)
    assert manifest["command"] == "train"
    assert manifest["inputs"] == {"recipe": {"seed": 3}, "path": "a"}
    assert manifest["data"] == hash_paths([tmp_path / "d"])
    assert manifest["seeds"] == [3]
    assert manifest["done"] is True
    assert manifest["timings"]["work"] == manifest["timings"]["total"] >= 0.01
    assert {"midalign", "python", "torch", "transformers", "peft", "trl"} <= set(manifest["versions"])
    assert manifest["versions"] == versions()
    assert manifest["git_commit"] == git_commit()
    assert manifest["started"].endswith("+00:00")


def test_timings_of_an_interrupted_run_are_kept_and_add_up(tmp_path):
    first = Run(tmp_path, "run", {})
    first.begin()
    with first.timed("a"):
        time.sleep(0.01)
    second = Run(tmp_path, "run", {})  # the first was killed here
    second.begin()
    with second.timed("b"):
        time.sleep(0.01)
    second.finish()
    timings = read_json(tmp_path / MANIFEST)["timings"]
    assert set(timings) == {"a", "b", "total"}
    assert timings["total"] == pytest.approx(timings["a"] + timings["b"], abs=2e-3)
    before = (tmp_path / MANIFEST).read_bytes()
    third = Run(tmp_path, "run", {})
    third.begin()
    third.finish()
    assert (tmp_path / MANIFEST).read_bytes() == before, "a call that does nothing changes nothing"


def test_a_stage_that_fails_is_not_timed_and_nothing_is_written_before_begin(tmp_path):
    run = Run(tmp_path / "out", "run", {})
    with pytest.raises(ValueError, match="x"), run.timed("a"):
        raise ValueError("x")
    with run.timed("b"):
        pass
    assert set(run.manifest["timings"]) == {"b"}
    assert not (tmp_path / "out").exists()


def test_out_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(RunError, match="is a file"):
        Run(tmp_path / "out", "probe", {})


def test_a_manifest_cut_short_is_refused_not_ignored(tmp_path):
    (tmp_path / MANIFEST).write_text(json.dumps({"command": "x"})[:-2])
    with pytest.raises(RunError, match="not valid JSON"):
        Run(tmp_path, "probe", {})


@pytest.mark.parametrize("content", [[], "text", None, {"timings": []}, {"timings": {"a": "1 s"}}, {"timings": None}])
def test_a_manifest_of_another_form_is_refused(tmp_path, content):
    run = Run(tmp_path, "probe", {})
    run.begin()
    if isinstance(content, dict):
        content = read_json(tmp_path / MANIFEST) | content
    (tmp_path / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"manifest.json' does not have the form .* Give another --out"):
        Run(tmp_path, "probe", {})


def test_an_out_inside_a_folder_that_is_read_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("a")
    with pytest.raises(RunError, match=r"lies inside .*data', which is read"):
        Run(tmp_path / "data" / "scores", "evaluate", {}, [tmp_path / "data"])
    Run(tmp_path / "data-scores", "evaluate", {}, [tmp_path / "data", tmp_path / "data" / "a.txt", "hub/name"])


def test_a_launcher_is_refused_where_all_its_processes_would_write_into_one_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for command in ("run", "merge", "generate", "evaluate", "probe"):
        with pytest.raises(RunError, match=f"midalign {command}` works in one process, and a launcher started 2"):
            Run(tmp_path / "out", command, {})
    Run(tmp_path / "out", "train", {})
