"""The command line on a tiny model and tiny files: every verb alone, and the whole job killed and resumed."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from midalign.cli import main as cli
from midalign.files import hash_paths
from tests.tiny_world import write_world

SYSTEMS = ("sft", "joint", "merged")
CONTRACT = [
    "manifest.json", "summary.json", "report.html", "merge/merge.json", "merge/adapter/adapter_config.json",
    "merge/adapter/adapter_model.safetensors",
    *(f"probe/{s}/probe.json" for s in ("base", "sft", "joint", "alignment", "merged")),
    *(f"train/{s}/training.json" for s in ("sft", "joint", "alignment")),
    *(f"train/{s}/adapter/adapter_model.safetensors" for s in ("sft", "joint", "alignment")),
    *(f"evaluation/{s}/{f}" for s in SYSTEMS for f in ("predictions.jsonl", "scores.json")),
]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with model, data, recipe, and one finished run in ``out``."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert invoke("run", "recipe.yaml", "--out", "out")[0] == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(world, monkeypatch, tmp_path):
    """Stand in the world; results go to a fresh folder."""
    monkeypatch.chdir(world)
    return tmp_path


def invoke(*words):
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def read(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


# Made anew by each call.
CHEAP = ("manifest.json", "report.html", "summary.json", "comparison.json", "transfer.json", "gains.json")


def snapshot(folder, leave_out=CHEAP):
    return {
        p.relative_to(folder): (p.stat().st_mtime_ns, p.read_bytes())
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name not in leave_out
    }


def test_a_run_leaves_every_file_of_the_contract_and_nothing_unfinished(world):
    out = world / "out"
    assert [name for name in CONTRACT if not (out / name).is_file()] == []
    names = {p.name for p in out.rglob("*")}
    assert not [n for n in names if n.startswith(".") or "checkpoint" in n or n.endswith((".bin", ".pt", ".part"))]


def test_the_manifest_says_what_was_done_to_what(world):
    manifest = read(world / "out" / "manifest.json")
    assert manifest["command"] == "run"
    assert manifest["done"] is True
    assert manifest["inputs"]["seed"] == 3
    assert manifest["inputs"]["languages"]["supervised"] == ["eng_Latn"]
    assert manifest["inputs"]["alignment"]["temperature"] == 0.1, "defaults are resolved"
    assert manifest["data"] == hash_paths([world / name for name in ("model", "slots", "lines", "probe")])
    assert {"torch", "transformers", "peft", "trl", "midalign"} <= set(manifest["versions"])
    stages = {"probe.base", "train.sft", "train.joint", "train.alignment", "merge", "evaluate.merged", "total"}
    assert stages <= set(manifest["timings"])


def test_predictions_and_scores_keep_to_the_contract(world):
    for system in SYSTEMS:
        folder = world / "out" / "evaluation" / system
        rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [set(row) for row in rows] == [
            {"id", "language", "prompt", "prediction", "gold_loss", "gold_tokens"}
        ] * 12
        assert [row["id"] for row in rows] == [f"{c}.test:{i}" for c in ("de", "en", "ru") for i in range(4)]
        scores = read(folder / "scores.json")["scores"]
        assert {s["language"] for s in scores if "language" in s} == {"eng_Latn", "deu_Latn", "rus_Cyrl"}
        groups = {s["group"] for s in scores if "group" in s}
        assert groups >= {"all", "supervised", "transfer", "aligned", "unseen", "low_resource"}


def test_probes_keep_to_the_contract(world):
    for system in ("base", *SYSTEMS, "alignment"):
        probe = read(world / "out" / "probe" / system / "probe.json")
        assert {"languages", "n", "margin", "k", "candidates", "pooling", "layers", "best_layer"} <= set(probe)
        assert [layer["layer"] for layer in probe["layers"]] == [0, 1, 2, 3, 4]
        for layer in probe["layers"]:
            assert {"layer", "accuracy", "stderr", "matrix"} <= set(layer)
            assert 0 <= layer["accuracy"] <= 1
        assert probe["n"] == 20


def test_the_alignment_adapter_and_nothing_else_stops_at_the_aligned_layer(world):
    def blocks(system):
        names = load_file(world / "out" / "train" / system / "adapter" / "adapter_model.safetensors")
        return {int(name.split(".layers.")[1].split(".")[0]) for name in names}

    assert read(world / "out" / "summary.json")["aligned_layer"] == 2
    assert blocks("alignment") == {0, 1}
    assert blocks("sft") == blocks("joint") == {0, 1, 2, 3}


def test_the_second_call_does_nothing_again_and_exits_with_zero(here, monkeypatch, world):
    before = snapshot(world / "out")
    for name in ("probing.job.probe", "training.job.train", "merging.job.tune_weights", "generation.job.generate"):
        monkeypatch.setattr(f"midalign.{name}", lambda *_, name=name, **__: pytest.fail(f"{name} again"))
    code, output = invoke("run", "recipe.yaml", "--out", "out")
    assert code == 0, output
    assert "report.html" in output
    assert snapshot(world / "out") == before
    assert read("out/manifest.json")["done"] is True


def test_a_run_with_one_stage_missing_does_that_stage_only_and_comes_to_the_same(here, world, monkeypatch):
    monkeypatch.chdir(here)  # records hold paths as they were given
    out = shutil.copytree(world / "out", here / "out")
    expected = snapshot(out)
    shutil.rmtree(out / "evaluation" / "joint")
    (out / "merge" / "merge.json").unlink()
    assert invoke("run", world / "recipe.yaml", "--out", "out")[0] == 0
    found = snapshot(out)
    assert {name: content for name, (_, content) in found.items()} == {n: c for n, (_, c) in expected.items()}
    changed = {str(name) for name in found if found[name][0] != expected[name][0]}
    assert {name.split("/")[0] for name in changed} == {"evaluation", "merge"}
    assert not [name for name in changed if name.startswith("evaluation") and "joint" not in name]


def test_another_recipe_or_other_data_is_refused_for_the_same_folder(here, world):
    with pytest.raises(cli.UserError, match="would be overwritten"):
        invoke("run", "recipe.yaml", "--out", "out", "alignment.temperature=0.2")
    with pytest.raises(cli.UserError, match="would be overwritten"):
        invoke("train", "recipe.yaml", "--out", "out")


def test_two_runs_of_one_recipe_are_the_same_to_the_byte(here, world):
    assert invoke("run", "recipe.yaml", "--out", here / "again")[0] == 0

    def content(folder):
        kept = ("adapter_model.safetensors", "predictions.jsonl", "scores.json", "probe.json")
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.name in kept}

    assert content(here / "again") == content(world / "out")


def test_each_verb_alone_comes_to_what_the_run_came_to(here, world):
    done = world / "out"
    base = ["--model", "model"]
    code, output = invoke("probe", *base, "--data", "probe", "--k", "2", "--out", here / "probe")
    assert code == 0, output
    layers = [read(p)["layers"] for p in (here / "probe" / "probe.json", done / "probe" / "base" / "probe.json")]
    assert [x["accuracy"] for x in layers[0]] == [x["accuracy"] for x in layers[1]]
    assert [x["matrix"] for x in layers[0]] == [x["matrix"] for x in layers[1]]

    for objective, system in (("task", "sft"), ("joint", "joint"), ("align", "alignment")):
        assert invoke("train", "recipe.yaml", "--out", here / system, "--objective", objective)[0] == 0
        paths = [f / "adapter" / "adapter_model.safetensors" for f in (here / system, done / "train" / system)]
        first, second = map(load_file, paths)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert "done by an earlier call" in invoke("train", "recipe.yaml", "--out", here / "sft", "--objective", "task")[1]

    adapters = ["--adapter", f"task={here / 'sft/adapter'}", "--adapter", f"alignment={here / 'alignment/adapter'}"]
    assert invoke("merge", "--base", "model", *adapters, "--tune", "recipe.yaml", "--out", here / "tuned")[0] == 0
    tuned, inside = read(here / "tuned" / "merge.json"), read(done / "merge" / "merge.json")
    assert tuned["table"] == inside["table"]
    assert tuned["chosen"] == inside["chosen"]
    weights = ",".join(f"{name}={weight}" for name, weight in tuned["chosen"].items())
    assert invoke("merge", "--base", "model", *adapters, "--weights", weights, "--out", here / "weighed")[0] == 0
    assert (
        "done by an earlier call"
        in invoke("merge", "--base", "model", *adapters, "--weights", weights, "--out", here / "weighed")[1]
    )
    first, second = (load_file(here / f / "adapter" / "adapter_model.safetensors") for f in ("tuned", "weighed"))
    assert all(torch.equal(first[name], second[name]) for name in first)

    task = ["--task", "slots", "--data", "slots", "--languages", "eng,de,rus_Cyrl"]
    answered = here / "generated"
    asked = ["--adapter", here / "joint/adapter", "--max-new-tokens", "4", "--system", ""]
    assert invoke("generate", *base, *asked, *task, "--split", "test", "--out", answered)[0] == 0
    expected = (done / "evaluation" / "joint" / "predictions.jsonl").read_bytes()
    assert (answered / "predictions.jsonl").read_bytes() == expected
    assert not list(answered.glob("*.partial"))

    scored = ["--predictions", answered / "predictions.jsonl", "--resamples", "100"]
    assert invoke("evaluate", *task, *scored, "--out", here / "scored")[0] == 0
    scores = {
        (s["metric"], s["language"]): s for s in read(here / "scored" / "scores.json")["scores"] if "language" in s
    }
    for row in read(done / "evaluation" / "joint" / "scores.json")["scores"]:
        if "language" in row:
            assert scores[row["metric"], row["language"]] == row

    assert invoke("report", "out", "--out", here / "report")[0] == 0
    assert (here / "report" / "report.html").stat().st_size > 10_000

    for folder in ("probe", "sft", "tuned", "weighed", "generated", "scored", "report"):
        manifest = read(here / folder / "manifest.json")
        assert manifest["done"] is True, folder
        assert manifest["inputs"], folder


def test_validate_counts_what_a_run_would_read_and_writes_nothing(here, world):
    before = sorted(world.rglob("*"))
    code, output = invoke("validate", "recipe.yaml")
    assert code == 0
    assert "12 train, 8 dev, 12 test" in output
    assert "17 train, 3 held_out" in output
    assert "20 sentences in 3 languages" in output
    assert "is valid" in output
    assert sorted(world.rglob("*")) == before


def test_validate_names_every_source_that_is_not_there(here):
    wrong = ["task.data=no1", "parallel.data=no2", "probe.data=no3", "model.path=./no4"]
    with pytest.raises(cli.UserError) as caught:
        invoke("validate", "recipe.yaml", *wrong)
    for name in ("no1", "no2", "no3", "no4"):
        assert name in str(caught.value)


def command(*words, cwd):
    return subprocess.Popen(
        [sys.executable, "-m", "midalign", *words], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip


def test_help_names_every_verb_and_comes_without_torch(tmp_path):
    code = "import sys; sys.argv = ['midalign', '--help']\nimport runpy\ntry:\n    runpy.run_module('midalign', run_name='__main__')\nexcept SystemExit as e:\n    print('torch' in sys.modules, e.code)"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    for verb in ("probe", "train", "merge", "generate", "evaluate", "report", "run", "demo", "validate"):
        assert verb in done.stdout
    assert done.stdout.strip().endswith("False 0")


@pytest.mark.slow
def test_a_run_killed_at_many_moments_comes_to_the_same(here, world):
    """`kill -9` of the real command, again and again, after ever another stage has left its file."""
    out, kills = here / "killed", 0
    for _ in range(40):
        before = len(list(out.rglob("*")))
        with command("run", "recipe.yaml", "--out", str(out), cwd=world) as process:
            while process.poll() is None and len(list_quietly(out)) <= before + 2:
                time.sleep(0.01)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
                continue
            assert process.returncode == 0, process.stdout.read()
        break
    assert kills >= 3
    assert [name for name in CONTRACT if not (out / name).is_file()] == []
    kept = ("adapter_model.safetensors", "predictions.jsonl", "scores.json", "probe.json")
    for path in (world / "out").rglob("*"):
        if path.name in kept:
            assert (out / path.relative_to(world / "out")).read_bytes() == path.read_bytes(), path


def list_quietly(folder):
    with contextlib.suppress(FileNotFoundError):
        return list(folder.rglob("*"))
    return []
