"""From data of one's own to the report by the command line alone: recipe new, validate, run."""

import json

import pytest
from typer.testing import CliRunner

from midalign.cli import main as cli
from tests.conftest import build_model, build_tokenizer

MOODS = {
    "eng": ("this is nice", "this is bad"),
    "deu": ("das ist schön", "das ist schlecht"),
    "spa": ("esto es bonito", "esto es malo"),
}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A classification set in three languages, pairs, and a tiny model that can chat."""
    for language, phrases in MOODS.items():
        for split, n in (("train", 16), ("dev", 4), ("test", 4)):
            if split == "train" and language != "eng":
                continue
            rows = [
                {"messages": [{"role": "user", "content": f"{phrases[i % 2]} {split}{i}"},
                              {"role": "assistant", "content": ("good", "bad")[i % 2]}]}
                for i in range(n)
            ]  # fmt: skip
            path = tmp_path / "mood" / f"{language}.{split}.jsonl"
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        lines = [f"{phrases[i % 2]} pair{i}\n" for i in range(24)]
        path = tmp_path / "pairs" / f"{language}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8")
    build_model("llama", max_position_embeddings=256).save_pretrained(tmp_path / "model")
    build_tokenizer(chat=True).save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*words):
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output


@pytest.mark.slow
def test_a_new_recipe_is_valid_and_runs_to_its_report(world):
    written = invoke(
        "recipe", "new", "--model", "model", "--task", "chat", "--data", "mood", "--languages", "en", "--aligned", "de",
        "--unseen", "es", "--parallel", "pairs", "--gpu-memory", 0, "--metric", "accuracy", "--out", "mood.yaml",
    )  # fmt: skip
    assert "mood.yaml is valid" in written
    assert "mood.yaml is valid" in invoke("validate", "mood.yaml")
    invoke("run", "mood.yaml", "--out", "out", "generation.max_new_tokens=4", "evaluation.resamples=100")
    summary = json.loads((world / "out" / "summary.json").read_text())
    assert summary["main_metric"] == "accuracy"
    assert {language["role"] for language in summary["languages"]} == {"supervised", "aligned", "unseen"}
    assert summary["training"]["sft"]["updates"] == 20, "5 epochs of 16 items, 4 a batch"
    assert "accuracy" in (world / "out" / "report.html").read_text(encoding="utf-8")
