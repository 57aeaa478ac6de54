"""The sections of a recipe: roles of languages, layers, and every shipped recipe against peft and trl."""

from dataclasses import fields

import pytest
from pydantic import ValidationError

from midalign.errors import ModelError, RecipeError
from midalign.models.source import ModelSource
from midalign.recipe.alignment import AlignmentConfig
from midalign.recipe.file import build_recipe, load_recipe
from midalign.recipe.sections import LanguagesSection, ModelSection, Recipe
from midalign.training.arguments import check_arguments
from tests.conftest import ROOT
from tests.tiny_world import recipe_content

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize(
    ("layer", "depth", "expected"),
    [("middle", 32, 16), ("middle", 1, 1), (16, 32, 16), (0.5, 28, 14), (0.01, 4, 1), (1.0, 4, 4), (1, 4, 1)],
)
def test_a_layer_is_resolved_to_the_number_of_a_block(layer, depth, expected):
    assert AlignmentConfig(layer=layer).resolve_layers(depth) == {expected: 1.0}


def test_a_layer_beyond_the_depth_names_both_numbers():
    with pytest.raises(ModelError, match=r"alignment\.layer is 5, but this model has 4 blocks"):
        AlignmentConfig(layer=5).resolve_layers(4)


@pytest.mark.parametrize("layer", [0, -1, 1.5, 0.0, "bottom", {}, {0: 1.0}, {3: 0.0}])
def test_a_layer_that_cannot_be_is_refused(layer):
    with pytest.raises(ValidationError):
        AlignmentConfig(layer=layer)


def test_task_updates_after_alignment_need_a_schedule_that_has_some():
    AlignmentConfig(max_updates=3)
    with pytest.raises(ValidationError, match="has no task updates; leave it out"):
        AlignmentConfig(schedule="align", max_updates=3)


def test_options_that_are_gone_may_stand_in_older_recipes_where_they_were_off():
    off = {
        "centered": False, "learn_temperature": None, "modules": None, "patience": None, "preserve": 0.0,
        "preserve_rows": 8, "warmup": 0,
    }  # fmt: skip
    assert AlignmentConfig.model_validate(off) == AlignmentConfig()
    with pytest.raises(ValidationError, match="preserve"):
        AlignmentConfig.model_validate({**off, "preserve": 1.0})


def test_no_layer_is_chosen_and_no_first_word_lost_for_sentences_in_a_prompt():
    with pytest.raises(ValidationError, match=r"layer: auto with prompt: task.*write a number"):
        AlignmentConfig(layer="auto", prompt="task")
    for pooling in ("mean_no_first", "mean_after_sink"):
        with pytest.raises(ValidationError, match=rf"{pooling} with prompt: task.*write pooling: mean"):
            AlignmentConfig(pooling=pooling, prompt="task")


def test_the_two_sides_of_a_pair_are_asked_the_same(tmp_path):
    content = recipe_content(tmp_path)
    content["alignment"]["prompt"] = "task"
    build_recipe(content)
    content["task"] |= {"name": "translation", "format": "lines"}
    with pytest.raises(RecipeError, match=r"alignment.*translation names the languages.*Write prompt: none"):
        build_recipe(content)


def test_groups_are_disjoint_where_they_must_be_and_count_each_language_once():
    languages = LanguagesSection(
        supervised=("en", "eng", "ar"), aligned=("sw", "en"), unseen=("fr", "ja"), low_resource=("swh",)
    )
    groups = languages.groups()
    assert groups["all"] == ("eng_Latn", "arb_Arab", "swh_Latn", "fra_Latn", "jpn_Jpan")
    assert groups["supervised"] == ("eng_Latn", "arb_Arab")
    assert groups["transfer"] == ("swh_Latn", "fra_Latn", "jpn_Jpan")
    assert groups["aligned"] == ("swh_Latn",), "a supervised language is not counted as aligned"
    assert set(groups["low_resource"]) | set(groups["high_resource"]) == set(groups["transfer"])
    assert set(groups["latin"]) | set(groups["non_latin"]) == set(groups["transfer"])
    assert groups["low_resource"] == ("swh_Latn",)


def test_empty_groups_are_left_out():
    assert set(LanguagesSection(supervised=("en",)).groups()) == {"all", "supervised"}


def test_a_low_resource_language_without_a_role_is_refused():
    with pytest.raises(ValidationError, match="swh_Latn, which is neither"):
        LanguagesSection(supervised=("en",), low_resource=("sw",))


def test_a_recipe_is_frozen_and_survives_the_way_through_plain_data(tmp_path):
    recipe = build_recipe(recipe_content(tmp_path))
    assert Recipe.model_validate(recipe.as_dict()) == recipe
    with pytest.raises(ValidationError):
        recipe.seed = 1


def test_every_field_of_every_section_is_described():
    sections = [Recipe, *(f.annotation for f in Recipe.model_fields.values() if hasattr(f.annotation, "model_fields"))]
    assert len(sections) > 7
    for section in sections:
        for name, field in section.model_fields.items():
            described = field.description or hasattr(field.annotation, "model_fields")
            assert described, f"{section.__name__}.{name}"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_loads_and_peft_and_trl_know_its_arguments(path):
    recipe = load_recipe(path)
    check_arguments(recipe, str(path))
    assert recipe.languages.supervised
    assert all(code in recipe.languages.all for code in recipe.languages.low_resource)


def test_recipes_are_there_to_be_tested():
    assert {path.stem for path in RECIPES} >= {
        "demo", "xsid_small", "reference_llama3_8b_massive", "reference_qwen25_7b_massive",
    }  # fmt: skip


def test_the_model_section_is_a_source_of_a_model():
    """Every setting reaches `ModelSource`, under the name that it has there."""
    section = ModelSection(path="here", revision="v1", dtype="bfloat16", quantization="4bit", trust_remote_code=True)
    assert ModelSource.of(section) == ModelSource("here", "v1", "bfloat16", "4bit", True)
    assert set(ModelSection.model_fields) == {field.name for field in fields(ModelSource)}


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (
            "enable_thinking=no",
            "'no' is text, which a chat template reads as true; write true or false",
        ),
        ("enable_thinking=On", "write true or false"),
        ("messages=x", "midalign gives the template messages itself"),
        ("depth=[1]", "chat_template_kwargs"),
    ],
)
def test_an_argument_of_the_chat_template_that_cannot_be_meant_is_refused(tmp_path, override, says):
    with pytest.raises(RecipeError) as caught:
        build_recipe(recipe_content(tmp_path), [f"model.chat_template_kwargs.{override}"])
    assert says in str(caught.value)


def test_arguments_of_the_chat_template_keep_their_types(tmp_path):
    text = "model.chat_template_kwargs={enable_thinking: false, date_string: 26 Jul 2024, depth: 2, share: 0.5}"
    found = build_recipe(recipe_content(tmp_path), [text]).model.chat_template_kwargs
    assert found == {"enable_thinking": False, "date_string": "26 Jul 2024", "depth": 2, "share": 0.5}
    assert found["enable_thinking"] is False


def test_what_a_model_has_no_room_for_is_found_before_a_training():
    AlignmentConfig(layer=4, subspace=8).check_model(depth=4, hidden=8)
    AlignmentConfig(layer="auto").check_model(depth=4, hidden=8)
    with pytest.raises(ModelError, match="layer is 5, but this model has 4 blocks"):
        AlignmentConfig(layer=5).check_model(depth=4, hidden=8)
    with pytest.raises(ModelError, match="subspace is 9, but this model has hidden size 8"):
        AlignmentConfig(layer=4, subspace=9).check_model(depth=4, hidden=8)


def test_a_recipe_holds_answers_for_extraction_and_transformers_only(tmp_path):
    content = recipe_content(tmp_path)
    held = ["generation.constrained=json", "task.name=extraction"]
    assert build_recipe(content, held).generation.constrained == "json"
    assert build_recipe(content).generation.constrained is None
    assert build_recipe(content, ["generation.constrained=slots"]).generation.constrained == "slots"
    with pytest.raises(RecipeError, match="constrained: slots is for the task slots; the answers of extraction"):
        build_recipe(content, ["generation.constrained=slots", "task.name=extraction"])
    with pytest.raises(
        RecipeError, match="generation: constrained: json is for the task extraction; the answers of slots"
    ):
        build_recipe(content, held[:1])
    with pytest.raises(RecipeError, match="constrained: json does not work with backend: vllm"):
        build_recipe(content, [*held, "generation.backend=vllm"])
