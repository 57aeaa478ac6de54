"""A task of the user's own, from rows of messages to a report, through the real command line."""

import json
import random

import pytest
from typer.testing import CliRunner

from midalign.cli.main import app
from midalign.errors import UserError
from tests.tiny_world import write_world

WORDS = {
    "eng": {"good": ["good", "fine", "nice"], "bad": ["bad", "poor", "awful"], "say": "this is {}"},
    "deu": {"good": ["gut", "fein", "nett"], "bad": ["schlecht", "mies", "übel"], "say": "das ist {}"},
    "rus": {"good": ["хорошо", "мило", "славно"], "bad": ["плохо", "худо", "скверно"], "say": "это {}"},
}
METRIC = "def first_letter(prediction, reference):\n    return float(prediction[:1] == reference[:1])\n"


def row(language, label, rng):
    text = WORDS[language]["say"].format(" ".join(rng.choices(WORDS[language][label], k=3)))
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": label}]}


def invoke(*words):
    """Exit code and output; a mistake of the user is what the command makes of it, code 2 and its message."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(result.exception, UserError):
        return 2, str(result.exception)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A tiny model and a classification set of messages in three languages; the recipe names metrics of both kinds."""
    monkeypatch.chdir(tmp_path)
    rng = random.Random(0)
    (tmp_path / "mood").mkdir()
    for language in WORDS:
        for split, size in (("train", 12), ("dev", 6), ("test", 8)):
            rows = [row(language, ("good", "bad")[i % 2], rng) for i in range(size)]
            text = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows)
            (tmp_path / "mood" / f"{language}.{split}.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "mine.py").write_text(METRIC)
    task = {"name": "chat", "data": "mood", "format": "auto", "metric": ["accuracy", "macro_f1", "mine:first_letter"]}
    write_world(tmp_path, task=task)
    return tmp_path


def test_a_task_of_messages_runs_from_validate_to_the_report(world):
    code, output = invoke("validate", "recipe.yaml")
    assert code == 0, output
    assert "test" in output
    code, output = invoke("run", "recipe.yaml", "--out", "out")
    assert code == 0, output
    summary = json.loads((world / "out" / "summary.json").read_text())
    assert (summary["task"], summary["main_metric"]) == ("chat", "accuracy")
    scores = json.loads((world / "out" / "evaluation" / "joint" / "scores.json").read_text())["scores"]
    assert {s["metric"] for s in scores} == {"accuracy", "macro_f1", "mine:first_letter", "loss"}
    assert {s["language"] for s in scores if "language" in s} == {"eng_Latn", "deu_Latn", "rus_Cyrl"}
    assert "accuracy" in (world / "out" / "report.html").read_text()
    answers = [json.loads(line) for line in (world / "out/evaluation/sft/predictions.jsonl").read_text().splitlines()]
    assert all("this is" in a["prompt"] for a in answers if a["language"] == "eng_Latn")


def test_each_verb_takes_the_task(world):
    asked = ["--task", "chat", "--data", "mood", "--languages", "eng,deu"]
    assert invoke("generate", "--model", "model", *asked, "--limit", "3", "--max-new-tokens", "4", "--out", "a")[0] == 0
    scored = [*asked, "--limit", "3", "--predictions", "a/predictions.jsonl"]
    assert invoke("evaluate", *scored, "--metric", "exact_match", "--metric", "chrf", "--out", "s")[0] == 0
    scores = json.loads((world / "s" / "scores.json").read_text())["scores"]
    assert {s["metric"] for s in scores} == {"exact_match", "chrf", "loss"}
    code, output = invoke("evaluate", *scored, "--metric", "exactmatch", "--out", "t")
    assert code == 2
    assert "Did you mean 'exact_match'" in " ".join(output.split())


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("task.metric=acuracy", "Did you mean 'accuracy'"),
        ("task.metric=nowhere:f", "No module named"),
        ("generation.constrained=slots", "is for the task slots"),
        ("task.data=elsewhere", "does not exist"),
    ],
)
def test_a_mistake_is_found_by_validate(world, key, words):
    code, output = invoke("validate", "recipe.yaml", key)
    assert code == 2
    assert words in " ".join(output.split())


def test_sentences_of_pairs_stand_in_the_turn_of_a_user(world):
    assert invoke("train", "recipe.yaml", "alignment.prompt=task", "training.max_steps=1", "--out", "t")[0] == 0
    text = (world / "mood" / "eng.train.jsonl").read_text().replace('{"messages"', '{"x": 1, "messages"')
    (world / "mood" / "eng.train.jsonl").write_text(text)
    rows = [json.dumps({"prompt": f"{i} good or bad?\n", "completion": "good"}) + "\n" for i in range(12)]
    (world / "mood" / "eng.train.jsonl").write_text("".join(rows))
    code, output = invoke("train", "recipe.yaml", "alignment.prompt=task", "--out", "u")
    assert code == 2
    assert "needs rows of messages" in " ".join(output.split())
