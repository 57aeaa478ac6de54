"""From data of one's own to the report by the command line alone, as installed from the wheel."""

import json
import os
import subprocess
import sys
import sysconfig
import venv

import pytest

from tests.conftest import ROOT, build_model, build_tokenizer

MOODS = {
    "eng": ("this is nice", "this is bad"),
    "deu": ("das ist schön", "das ist schlecht"),
    "spa": ("esto es bonito", "esto es malo"),
}
METRIC = "def first_letter(prediction, reference):\n    return float(prediction[:1] == reference[:1])\n"


@pytest.fixture
def world(tmp_path):
    """A classification set in three languages, pairs, a metric, and a tiny model that can chat."""
    folder = tmp_path / "world"
    for language, phrases in MOODS.items():
        for split, n in (("train", 16), ("dev", 4), ("test", 4)):
            if split == "train" and language != "eng":
                continue
            rows = [
                {"messages": [{"role": "user", "content": f"{phrases[i % 2]} {split}{i}"},
                              {"role": "assistant", "content": ("good", "bad")[i % 2]}]}
                for i in range(n)
            ]  # fmt: skip
            path = folder / "mood" / f"{language}.{split}.jsonl"
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        lines = [f"{phrases[i % 2]} pair{i}\n" for i in range(24)]
        path = folder / "pairs" / f"{language}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8")
    (folder / "mine.py").write_text(METRIC)
    build_model("llama", max_position_embeddings=256).save_pretrained(folder / "model")
    build_tokenizer(chat=True).save_pretrained(folder / "model")
    return folder


@pytest.fixture
def installed(tmp_path):
    """An environment with midalign from its wheel; what it depends on comes from the environment of the tests."""
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    (site,) = (tmp_path / "venv" / "lib").glob("*/site-packages")
    # Folders named in a .pth file are searched, but their own .pth files are not read: no editable midalign.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return tmp_path / "venv" / "bin"


def invoke(installed, world, *words):
    """Run the installed command in the world's folder; its output."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(installed / "midalign"), *map(str, words)]
    done = subprocess.run(command, cwd=world, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_new_recipe_is_valid_and_runs_to_its_report(installed, world):
    where = [str(installed / "python"), "-c", "import midalign; print(midalign.__file__)"]
    assert str(installed.parent) in subprocess.run(where, cwd=world, capture_output=True, text=True, check=True).stdout
    assert "xsid_small" in invoke(installed, world, "recipe", "list")
    written = invoke(
        installed, world, "recipe", "new", "--model", "model", "--task", "chat", "--data", "mood", "--languages", "en",
        "--aligned", "de", "--unseen", "es", "--parallel", "pairs", "--gpu-memory", 0, "--metric", "accuracy",
        "--out", "mood.yaml",
    )  # fmt: skip
    assert "mood.yaml is valid" in written
    assert "mood.yaml is valid" in invoke(installed, world, "validate", "mood.yaml")
    assert "mood.yaml is valid" in invoke(installed, world, "validate", "mood.yaml", "task.metric=mine:first_letter")
    few = ["generation.max_new_tokens=4", "evaluation.resamples=100"]
    invoke(installed, world, "run", "mood.yaml", "--out", "out", "task.metric=[accuracy, mine:first_letter]", *few)
    summary = json.loads((world / "out" / "summary.json").read_text())
    assert summary["main_metric"] == "accuracy"
    assert {language["role"] for language in summary["languages"]} == {"supervised", "aligned", "unseen"}
    assert summary["training"]["sft"]["updates"] == 20, "5 epochs of 16 items, 4 a batch"
    scores = json.loads((world / "out" / "evaluation" / "joint" / "scores.json").read_text())["scores"]
    assert {score["metric"] for score in scores} == {"accuracy", "mine:first_letter", "loss"}
    page = (world / "out" / "report.html").read_text(encoding="utf-8")
    assert "accuracy" in page
