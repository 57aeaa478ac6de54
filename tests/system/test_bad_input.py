"""Mistakes a user makes: exit code 2, one clear message, no traceback, nothing half-written."""
# ruff: noqa: E501 - a table of faults reads best with one a line

import json
import shutil
import subprocess
import sys

import pytest
import yaml
from typer.testing import CliRunner

from midalign.cli import main as cli

WORDS = {"eng": ["hello one", "good day two", "bye three"], "deu": ["hallo eins", "guten tag zwei", "tschau drei"]}
CONLL = "# id = {i}\n# text = {a} {b}\n# intent = greet\n1\t{a}\tgreet\tO\n2\t{b}\tgreet\tB-name\n\n"


@pytest.fixture
def world(tmp_path, model_folder, monkeypatch):
    """A good recipe and its data, which each fault then breaks in one place."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lines").mkdir()
    (tmp_path / "slots").mkdir()
    (tmp_path / "probe").mkdir()
    for code, sentences in WORDS.items():
        (tmp_path / "lines" / f"{code}.txt").write_text("".join(f"{s}\n" for s in sentences))
        (tmp_path / "probe" / f"{code}.txt").write_text("".join(f"{s} again\n" for s in sentences))
        for split in ("train", "valid", "test"):
            rows = [CONLL.format(i=i, a=f"{split}{code}", b=f"name{i}") for i in range(4)]
            (tmp_path / "slots" / f"{code[:2]}.{split}.conll").write_text("".join(rows))
    shutil.copytree(model_folder, tmp_path / "model")
    recipe = {
        "name": "test",
        "model": {"path": "model"},
        "languages": {"supervised": ["en"], "aligned": ["de"]},
        "task": {"data": "slots", "format": "xsid", "system": ""},
        "parallel": {"data": "lines", "held_out": 0},
        "probe": {"data": "probe", "k": 2},
        "alignment": {"batch_size": 2},
        "training": {"max_steps": 1},
        "generation": {"max_new_tokens": 8},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return tmp_path


def invoke(*words):
    """Run the command as `main` does: user errors become exit code 2 and a message."""
    result = CliRunner().invoke(cli.app, [str(word) for word in words], catch_exceptions=True)
    if isinstance(result.exception, cli.UserError):
        return 2, f"error: {result.exception}"
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result.exit_code, result.output


def change(world, **sections):
    path = world / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    for section, values in sections.items():
        if isinstance(values, dict):
            recipe.setdefault(section, {}).update(values)
        else:
            recipe[section] = values
    path.write_text(yaml.safe_dump(recipe))


def break_lines(world, code, text, encoding="utf-8"):
    (world / "lines" / f"{code}.txt").write_bytes(text.encode(encoding))


PROBE = ["probe", "--model", "model", "--data", "lines", "--out", "out", "--k", "2"]
TRAIN = ["train", "recipe.yaml", "--out", "out"]
RUN = ["run", "recipe.yaml", "--out", "out"]
MERGE = ["merge", "--base", "model", "--out", "out", "--adapter", "task=a", "--adapter", "alignment=b"]
GOLD = ["evaluate", "--data", "slots", "--predictions", "p.jsonl", "--out", "out", "--languages", "en"]

FAULTS = {
    "missing corpus": (lambda w: shutil.rmtree(w / "lines"), PROBE, ["lines"]),
    "missing model": (lambda w: shutil.rmtree(w / "model"), [*PROBE, "--model", "./model"], ["./model", "does not exist"]),
    "model folder without a model": (lambda w: (w / "model/config.json").unlink(), PROBE, ["config.json"]),
    "truncated weights": (
        lambda w: (w / "model/model.safetensors").write_bytes((w / "model/model.safetensors").read_bytes()[:999]),
        PROBE, ["model"],
    ),
    "unequal line counts": (lambda w: break_lines(w, "deu", "hallo\n"), PROBE, ["deu.txt", "eng.txt", "3", "1"]),
    "not UTF-8": (lambda w: break_lines(w, "deu", "grün\nä\nö\n", "latin-1"), PROBE, ["deu.txt:1", "UTF-8"]),
    "empty line": (lambda w: break_lines(w, "deu", "hallo\n\ntag\n"), PROBE, ["deu.txt:2"]),
    "empty file": (lambda w: (break_lines(w, "deu", ""), break_lines(w, "eng", "")), PROBE, ["lines has no rows"]),
    "unknown language of a file": (lambda w: break_lines(w, "xq7", "a\nb\nc\n"), PROBE, ["xq7"]),
    "unknown language asked for": (lambda w: None, [*PROBE, "--languages", "eng,germn"], ["germn"]),
    "language that the corpus does not have": (lambda w: None, [*PROBE, "--languages", "eng,tur"], ["tur_Latn"]),
    "unknown pooling": (lambda w: None, [*PROBE, "--pooling", "maen"], ["maen", "mean"]),
    "k beyond the sentences": (lambda w: None, [*PROBE, "--k", "9"], ["9"]),
    "out is a file": (lambda w: (w / "out").write_text("x"), PROBE, ["out", "file"]),
    "missing recipe": (lambda w: (w / "recipe.yaml").unlink(), TRAIN, ["recipe.yaml"]),
    "recipe that is not YAML": (lambda w: (w / "recipe.yaml").write_text("a: [1"), TRAIN, ["recipe.yaml:"]),
    "key given twice": (lambda w: (w / "recipe.yaml").write_text("name: a\nname: b\n"), TRAIN, ["recipe.yaml:2", "twice"]),
    "recipe typo": (lambda w: change(w, alignment={"temprature": 0.1}), TRAIN, ["alignment.temprature", "temperature"]),
    "temperature zero": (lambda w: change(w, alignment={"temperature": 0}), TRAIN, ["alignment.temperature", "0"]),
    "negative layer": (lambda w: change(w, alignment={"layer": -3}), TRAIN, ["alignment.layer", "-3"]),
    "layer beyond depth": (lambda w: change(w, alignment={"layer": 40}), RUN, ["alignment.layer", "40", "4 blocks"]),
    "unknown schedule": (lambda w: change(w, alignment={"schedule": "now"}), TRAIN, ["alignment.schedule", "now"]),
    "trainer argument typo": (lambda w: change(w, training={"learning_rat": 1}), TRAIN, ["learning_rat", "learning_rate"]),
    "lora argument typo": (lambda w: change(w, lora={"rank": 4}), TRAIN, ["lora.rank"]),
    "no supervised language": (lambda w: change(w, languages={"supervised": []}), TRAIN, ["languages"]),
    "language both unseen and aligned": (lambda w: change(w, languages={"unseen": ["deu"]}), TRAIN, ["deu_Latn"]),
    "unset environment variable": (lambda w: change(w, task={"data": "${NOT_SET_ANYWHERE}"}), TRAIN, ["NOT_SET_ANYWHERE"]),
    "override without a value": (lambda w: None, [*TRAIN, "alignment.layer"], ["alignment.layer", "section.key=value"]),
    "no test items": (
        lambda w: (w / "slots/en.test.conll").write_text(""), RUN, ["eng_Latn", "test"],
    ),
    "missing adapter": (lambda w: None, [*MERGE, "--weights", "task=1,alignment=1"], ["a"]),
    "merge without weights": (lambda w: None, MERGE, ["--weights", "--tune"]),
    "weights that are no numbers": (lambda w: None, [*MERGE, "--weights", "task=x,alignment=1"], ["task=x"]),
    "missing predictions": (lambda w: None, GOLD, ["p.jsonl"]),
    "predictions that are not JSON": (lambda w: (w / "p.jsonl").write_text("hello\n"), GOLD, ["p.jsonl:1"]),
    "predictions for other items": (
        lambda w: (w / "p.jsonl").write_text(json.dumps({"id": "en.test:99", "prediction": "None"})), GOLD, ["en.test:"],
    ),
    "report on nothing": (lambda w: (w / "empty").mkdir(), ["report", "empty", "--out", "out"], ["empty"]),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_mistake_ends_in_exit_code_two_and_one_clear_message(world, name):
    spoil, command, expected = FAULTS[name]
    spoil(world)
    before = sorted(world.rglob("*"))
    code, message = invoke(*command)
    assert code == 2, message
    assert "Traceback" not in message
    for words in expected:
        assert words in message, message
    assert sorted(world.rglob("*")) == before, "something was left behind"


def test_adapter_of_another_model_is_refused(world):
    from peft import LoraConfig, get_peft_model

    from tests.conftest import build_model

    for name in ("a", "b"):
        other = get_peft_model(build_model("llama", hidden_size=16), LoraConfig(target_modules=["q_proj"]))
        other.save_pretrained(world / name)
    before = sorted(world.rglob("*"))
    code, message = invoke(*MERGE, "--weights", "task=1,alignment=1")
    assert code == 2
    assert "Traceback" not in message
    assert sorted(world.rglob("*")) == before


def test_all_faults_of_a_recipe_are_reported_at_once(world):
    change(world, alignment={"temperature": -1, "pooling": "men"}, probe={"k": 0}, nam="x")
    code, message = invoke("validate", "recipe.yaml")
    assert code == 2
    for place in ("alignment.temperature", "alignment.pooling", "probe.k", "nam"):
        assert place in message
    assert "4 faults" in message


def test_a_folder_of_another_run_is_not_overwritten(world):
    (world / "out").mkdir()
    (world / "out" / "manifest.json").write_text(json.dumps({"command": "train", "fingerprint": "other", "done": True}))
    code, message = invoke(*PROBE)
    assert code == 2
    assert "would be overwritten" in message


def test_an_interrupted_command_says_how_to_go_on(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("midalign.recipe.file.load_recipe", interrupted)
    monkeypatch.setattr(sys, "argv", ["midalign", "validate", "xsid_small"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 130
    assert "the same command continues from here" in capsys.readouterr().err


def test_the_real_command_exits_with_two_and_prints_no_traceback(world):
    done = subprocess.run(
        [sys.executable, "-m", "midalign", "probe", "--model", "model", "--data", "nowhere", "--out", "out"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
