"""A tiny world on disk and recipes on it, for trainings of a few updates."""

import pytest

from midalign.recipe.file import build_recipe
from tests.tiny_world import recipe_content, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


@pytest.fixture
def recipe(world):
    """A factory of recipes on the tiny world."""

    def made(*overrides):
        return build_recipe(recipe_content(world), overrides)

    return made


@pytest.fixture
def saving(recipe):
    """A recipe that saves after every update, with dropout."""
    return recipe("training.max_steps=3", "training.save_steps=1", "lora.lora_dropout=0.2")
