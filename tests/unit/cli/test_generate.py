"""``midalign generate`` from the command line."""

import contextlib
import json
import sys

import pytest

from midalign.answers.parse import parse_entities
from midalign.cli.main import main
from tests.conftest import build_model, build_tokenizer
from tests.greedy import closing
from tests.tiny_world import write_slots


@pytest.fixture
def generate(tmp_path, monkeypatch):
    """Runs the command in a folder with a model and commands in two languages; returns the exit code."""
    monkeypatch.chdir(tmp_path)
    build_model("llama", max_position_embeddings=256).save_pretrained("model")
    build_tokenizer().save_pretrained("model")
    write_slots(tmp_path / "slots")

    def call(*arguments):
        base = [
            "--model",
            "model",
            "--data",
            "slots",
            "--system",
            "",
            "--max-new-tokens",
            "2",
            "--languages",
            "eng,deu",
        ]
        monkeypatch.setattr(sys, "argv", ["midalign", "generate", *base, *arguments])
        try:
            main()
        except SystemExit as ended:
            return ended.code or 0
        return 0

    return call


def answered(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_limit_answers_the_first_items_of_each_language_which_evaluate_then_scores(generate, tmp_path, monkeypatch):
    assert generate("--out", "all") == 0
    assert generate("--limit", "3", "--out", "some") == 0
    whole, some = answered(tmp_path / "all"), answered(tmp_path / "some")
    assert some == [line for line in whole if int(line["id"].rpartition(":")[2]) < 3]
    assert len(some) == 6
    assert generate("--limit", "2", "--out", "some") == 2, "another run"
    assert generate("--limit", "0", "--out", "none") == 2
    command = ["--data", "slots", "--predictions", "some/predictions.jsonl", "--resamples", "100", "--out", "scores"]
    monkeypatch.setattr(sys, "argv", ["midalign", "evaluate", *command, "--limit", "3"])
    with contextlib.suppress(SystemExit):
        main()
    rows = json.loads((tmp_path / "scores" / "scores.json").read_text())["scores"]
    assert {row["n"] for row in rows if row.get("group") == "all"} == {6}


@pytest.mark.parametrize(
    ("options", "module", "extra"),
    [(["--backend", "vllm"], "vllm", "vllm"), (["--constrained", "slots"], "llguidance", "constrained")],
)
def test_an_option_whose_package_is_not_there_is_found_before_the_model_is_loaded(
    generate, tmp_path, monkeypatch, capsys, options, module, extra
):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("midalign.models.loading.load_model", lambda *_, **__: pytest.fail("loaded"))
    assert generate(*options, "--out", "out") == 2
    assert f"pip install 'midalign[{extra}]'" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_the_command_holds_answers_and_tells_its_run_from_a_free_one(tmp_path, monkeypatch, capsys):
    model, tokenizer = closing("llama", 1)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "data").mkdir()
    lines = ["# text = in Rom", "1\tin\tO\t-\t-", "2\tRom\tB-LOC\t-\t-", ""] * 2
    (tmp_path / "data" / "de_x-ud-test.iob2").write_text("\n".join([*lines, ""]))
    monkeypatch.chdir(tmp_path)
    command = [
        "midalign", "generate", "--model", "model", "--data", "data", "--task", "extraction", "--languages", "deu",
        "--max-new-tokens", "80", "--system", "x",
    ]  # fmt: skip

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [*command, *arguments])
        try:
            main()
        except SystemExit as ended:
            return ended.code
        return 0

    assert run("--out", "held", "--constrained", "json") in (0, None)
    predictions = [json.loads(line) for line in (tmp_path / "held" / "predictions.jsonl").read_text().splitlines()]
    assert {parse_entities(p["prediction"]).failure for p in predictions} <= {None, "truncated"}
    assert run("--out", "held") == 2
    assert "other inputs" in capsys.readouterr().err.replace("\n", " ")
    assert run("--out", "free") in (0, None)
    fingerprints = [
        json.loads((tmp_path / out / "manifest.json").read_text())["fingerprint"] for out in ("held", "free")
    ]
    assert fingerprints[0] != fingerprints[1]
    assert run("--out", "vllm", "--constrained", "json", "--backend", "vllm") == 2
    assert run("--out", "slots", "--constrained", "json", "--task", "slots") == 2


def test_arguments_of_the_chat_template_are_json(generate, tmp_path, capsys):
    tokenizer = build_tokenizer(chat=True)
    tokenizer.chat_template += "{% if enable_thinking is false %}</s>{% endif %}"
    tokenizer.save_pretrained("model")
    switch = "--chat-template-kwargs"
    assert generate("--out", "own") == 0
    assert generate(switch, '{"enable_thinking": false}', "--out", "at-once") == 0
    own, at_once = answered(tmp_path / "own"), answered(tmp_path / "at-once")
    assert [line["prompt"] + "</s>" for line in own] == [line["prompt"] for line in at_once]
    for text in ("enable_thinking=false", '["a"]', '{"enable_thinking": null}'):
        assert generate(switch, text, "--out", "none") == 2
        assert "is not a JSON object of names and values" in capsys.readouterr().err
    assert generate(switch, '{"enable_thinkin": false}', "--out", "none") == 2
    assert "does not read" in capsys.readouterr().err
