"""Every argument of peft's LoraConfig: applied with the value that the recipe gives, or refused with a reason."""

import dataclasses

import pytest
from peft import LoraConfig

from midalign.errors import RecipeError
from midalign.models.adapter_settings import _UNSUPPORTED
from midalign.recipe.file import build_recipe
from midalign.recipe.lora import REFUSED, LoraArguments, LoraSection
from midalign.training.arguments import lora_config
from tests.conftest import build_model
from tests.tiny_world import recipe_content

APPLIED = {
    "r": 3,
    "lora_alpha": 6,
    "lora_dropout": 0.5,
    "target_modules": ["q_proj", "up_proj"],
    "exclude_modules": ["down_proj"],
    "use_rslora": True,
    "rank_pattern": {"q_proj": 5},
    "alpha_pattern": {"layers.1.mlp.up_proj": 7},
    "layers_to_transform": [1, 2],
    "layers_pattern": "layers",
    "init_lora_weights": "gaussian",
}


@pytest.fixture
def content(tmp_path):
    return recipe_content(tmp_path) | {"lora": {}}


def test_every_argument_is_applied_or_refused():
    known = {field.name for field in dataclasses.fields(LoraConfig)}
    assert set(APPLIED) == set(LoraArguments.model_fields)
    assert set(APPLIED) | set(REFUSED) == known == set(LoraSection.model_fields)
    assert not set(APPLIED) & set(REFUSED)


@pytest.mark.parametrize("key", APPLIED)
def test_an_applied_argument_reaches_the_adapters_configuration(content, key):
    content["lora"] = {key: APPLIED[key]} | ({"layers_to_transform": [1]} if key == "layers_pattern" else {})
    found = getattr(lora_config(build_recipe(content), build_model("llama")), key)
    assert (sorted(found) if isinstance(found, set) else found) == APPLIED[key]


@pytest.mark.parametrize("key", REFUSED)
def test_a_refused_argument_says_why_and_takes_only_what_is_done_anyway(content, key):
    for accepted in REFUSED[key].accepted:
        content["lora"] = {key: accepted}
        build_recipe(content)
    content["lora"] = {key: {"odd": [1]}}
    with pytest.raises(RecipeError, match="recipe has 1 fault") as caught:
        build_recipe(content)
    assert REFUSED[key].reason in str(caught.value)


@pytest.mark.parametrize(
    ("ranks", "even"), [({"r": 3}, False), ({"r": 4, "rank_pattern": {"q_proj": 5}}, False), ({}, True)]
)
def test_an_orthogonal_start_needs_even_ranks(content, ranks, even):
    content["lora"] = {"init_lora_weights": "orthogonal"} | ranks
    if even:
        build_recipe(content)
        return
    with pytest.raises(RecipeError, match="orthogonal needs even ranks"):
        build_recipe(content)


def test_what_other_verbs_refuse_in_an_adapter_is_never_trained():
    assert set(_UNSUPPORTED) <= set(REFUSED)


@pytest.mark.parametrize(
    "start", ["pissa", "pissa_niter_4", "olora", "eva", "corda", "loftq", "lora_ga", "mica", "PiSSA", "odd", 2]
)
def test_a_start_that_changes_the_base_model_is_refused(content, start):
    content["lora"] = {"init_lora_weights": start}
    with pytest.raises(RecipeError, match="init_lora_weights"):
        build_recipe(content)
