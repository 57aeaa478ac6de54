"""Trackers: TensorBoard's files outlive the checkpoints, and a tracker that cannot be used is named before training."""

import os

import pytest

from midalign.errors import RecipeError
from midalign.recipe.file import build_recipe
from midalign.training.arguments import check_arguments
from midalign.training.trackers import tensorboard_in
from midalign.training.train import train
from tests.tiny_world import recipe_content, write_world


def quiet(*_):
    pass


def logged(folder):
    """What is in a folder of TensorBoard's files: values by name."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder))
    found.Reload()
    return {name: [event.value for event in found.Scalars(name)] for name in found.Tags()["scalars"]}


def test_tensorboard_gets_both_losses_and_keeps_them_when_the_checkpoints_are_gone(tmp_path):
    write_world(tmp_path / "world")
    recipe = build_recipe(
        recipe_content(tmp_path / "world"),
        [
            "training.report_to=[tensorboard]",
            "training.eval_strategy=epoch",
            "training.run_name=off",
        ],
    )
    check_arguments(recipe)
    summary = train(recipe, tmp_path / "out", progress=quiet)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["adapter", "tensorboard", "training.json"]
    found = logged(tmp_path / "out" / "tensorboard")
    for name in ("task_loss", "alignment_loss"):
        expected = [entry[name] for entry in summary["log_history"] if name in entry]
        assert found[f"train/{name}"] == pytest.approx(expected)
    for name in ("retrieval", "retrieval_deu_Latn", "alignment_loss", "loss"):
        assert len(found[f"eval/{name}"]) == 1, name


def test_the_users_own_folder_comes_first(monkeypatch, tmp_path):
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    with tensorboard_in(tmp_path):
        assert os.environ["TENSORBOARD_LOGGING_DIR"] == str(tmp_path)
    assert "TENSORBOARD_LOGGING_DIR" not in os.environ
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "mine")
    with tensorboard_in(tmp_path):
        assert os.environ["TENSORBOARD_LOGGING_DIR"] == "mine"


@pytest.mark.parametrize(
    ("name", "says"),
    [("tensorbord", "not a tracker that transformers knows. Did you mean 'tensorboard'"), ("neptune", "not installed")],
)
def test_a_tracker_that_cannot_be_used_is_named(tmp_path, name, says):
    recipe = build_recipe(recipe_content(tmp_path), [f"training.report_to={name}"])
    with pytest.raises(RecipeError) as caught:
        check_arguments(recipe)
    assert says in str(caught.value)
