"""Names that stand for a model or data: what they become, and when something is made."""

from types import SimpleNamespace

import pytest

from midalign.experiment import named
from midalign.experiment.named import model_folder, ready_model, resolve_names
from midalign.recipe.file import load_recipe
from tests.tiny_world import write_world


@pytest.fixture
def recipe(tmp_path):
    path = write_world(tmp_path / "world")
    return lambda *overrides: load_recipe(path, overrides)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """The folders that were asked for, instead of a model that would have to be fetched."""
    asked = []
    monkeypatch.setenv("MIDALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(named, "build_smollm2", lambda out: asked.append(out) or out)
    return asked


def test_a_recipe_without_names_is_left_as_it_is(recipe):
    found = recipe()
    assert resolve_names(found) is found


def test_the_testbeds_names_become_paths(recipe, tmp_path, monkeypatch):
    """The building of the testbed has tests of its own; here only the names are replaced."""
    workspace = pytest.importorskip("midalign.testbed.workspace")
    for name in ("pairs", "slots"):
        (tmp_path / "data" / name).mkdir(parents=True)
    folders = SimpleNamespace(base=tmp_path / "base", data=tmp_path / "data")
    monkeypatch.setattr(workspace, "demo_workspace", lambda *_, **__: folders)
    found = recipe("model.path=testbed", "task.data=testbed:slots", "parallel.data=testbed:pairs")
    resolved = resolve_names(found)
    assert resolved.model.path == str(tmp_path / "base")
    assert resolved.task.data == str(tmp_path / "data" / "slots")
    assert resolved.parallel.data == str(tmp_path / "data" / "pairs")
    assert resolved.probe.data == found.probe.data


def test_smollm2_is_a_model_in_the_cache_wherever_a_model_is_named(recipe, made, tmp_path):
    found = recipe("model.path=smollm2", "model.dtype=float32")
    resolved = resolve_names(found)
    assert resolved.model.path == str(made[0]) == model_folder("smollm2")
    assert made[0].is_relative_to(tmp_path / "cache")
    assert resolved.model.dtype == "float32"
    assert resolved.task == found.task


def test_a_check_of_a_recipe_fetches_nothing(made, tmp_path):
    assert ready_model("smollm2") is None
    assert made == []
    named.cached_smollm2().mkdir(parents=True)
    assert ready_model("smollm2") == str(named.cached_smollm2())
    assert ready_model("testbed") is None
    assert ready_model("owner/model") == "owner/model"
