"""``midalign recipe``: what it prints, writes, asks for and refuses."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from midalign.cli import main as cli
from midalign.recipe.file import load_recipe
from midalign.recipe.reference import json_schema
from midalign.recipe.shipped import shipped
from tests.conftest import build_model
from tests.tiny_world import write_world


def invoke(*words, answers=None):
    return CliRunner().invoke(cli.app, ["recipe", *map(str, words)], input=answers)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny model with slot filling and parallel lines; its window holds the prompt of a new recipe and its answer."""
    path = tmp_path_factory.mktemp("world")
    write_world(path)
    build_model("llama", max_position_embeddings=1024).save_pretrained(path / "model")
    return path


def flags(world, **changes):
    given = {
        "model": world / "model", "task": "slots", "data": world / "slots", "languages": "en", "aligned": "de",
        "parallel": world / "lines", "gpu-memory": 0,
    }  # fmt: skip
    return [word for name, value in (given | changes).items() if value is not None for word in (f"--{name}", value)]


def test_every_shipped_recipe_is_listed_and_shown_as_it_is():
    listed = invoke("list").output
    for name, path in shipped().items():
        assert name in listed
        first, _, rest = invoke("show", name).stdout.partition("\n")
        assert rest == path.read_text(encoding="utf-8").partition("\n")[2]
        assert Path(first.partition("$schema=")[2]).is_file(), "wherever it is copied to"
    fault = invoke("show", "xsid").exception
    assert isinstance(fault, cli.UserError)
    assert "Did you mean 'xsid_small'" in str(fault)


def test_new_writes_a_recipe_that_is_valid(world, tmp_path):
    out = tmp_path / "sub" / "mine.yaml"
    result = invoke("new", *flags(world, unseen="ru"), "--out", out)
    assert result.exit_code == 0, result.output
    assert "is valid" in result.output
    recipe = load_recipe(out)
    assert (recipe.name, recipe.languages.unseen) == ("mine", ("rus_Cyrl",))
    again = invoke("new", *flags(world), "--out", out)
    assert isinstance(again.exception, cli.UserError)
    assert "never overwritten" in str(again.exception)


def test_new_says_what_is_not_valid_yet(world, tmp_path):
    result = invoke("new", *flags(world, parallel="/nowhere"), "--out", tmp_path / "mine.yaml")
    assert result.exit_code == 0
    assert "not valid yet" in result.output
    assert "/nowhere" in result.output


def test_new_asks_at_a_terminal_and_says_which_flags_are_missing_elsewhere(world, tmp_path, monkeypatch):
    some = flags(world, model=None, languages=None, **{"gpu-memory": None})
    fault = invoke("new", *some, "--out", tmp_path / "mine.yaml").exception
    assert isinstance(fault, cli.UserError)
    assert "these options are missing: --model, --languages, --gpu-memory" in str(fault)
    monkeypatch.setattr("midalign.cli.recipe._can_ask", lambda: True)
    result = invoke("new", *some, "--out", tmp_path / "mine.yaml", answers=f"{world / 'model'}\nen\n24\n")
    assert result.exit_code == 0, result.output
    assert load_recipe(tmp_path / "mine.yaml").training.bf16


def test_new_asks_again_for_a_task_that_there_is_not(world, tmp_path, monkeypatch):
    monkeypatch.setattr("midalign.cli.recipe._can_ask", lambda: True)
    some = flags(world, task=None)
    result = invoke("new", *some, "--out", tmp_path / "mine.yaml", answers="slot\nslots\n")
    assert result.exit_code == 0, result.output + repr(result.exception)
    assert result.output.count("Task (slots, translation, extraction, chat): ") == 2
    assert load_recipe(tmp_path / "mine.yaml").task.name == "slots"


@pytest.mark.parametrize(("flag", "value"), [("aligned", "klingon"), ("languages", ","), ("unseen", "en")])
def test_new_refuses_what_makes_no_recipe_and_writes_nothing(world, tmp_path, flag, value):
    fault = invoke("new", *flags(world, **{flag: value}), "--out", tmp_path / "mine.yaml").exception
    assert isinstance(fault, cli.UserError)
    assert not (tmp_path / "mine.yaml").exists()
    assert value != "klingon" or str(fault).startswith(f"--{flag}: unknown language")


def test_the_schema_is_printed_or_written(tmp_path):
    assert json.loads(invoke("schema").stdout) == json_schema()
    assert invoke("schema", "--out", tmp_path / "s.json").exit_code == 0
    assert json.loads((tmp_path / "s.json").read_text()) == json_schema()


def test_a_verb_takes_the_name_of_a_shipped_recipe():
    result = CliRunner().invoke(cli.app, ["validate", "demo"])
    assert result.exit_code == 0, result.output
