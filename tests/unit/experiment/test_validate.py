"""What ``midalign validate`` finds in a model before anything is trained."""

import pytest

from midalign.errors import DataError, ModelError
from midalign.experiment.experiment import Experiment
from midalign.experiment.validate import ValidateJob
from midalign.recipe.file import load_recipe
from tests.tiny_world import write_world


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """The file of a tiny recipe."""
    return write_world(tmp_path_factory.mktemp("world"))


def test_a_sound_recipe_is_counted(recipe):
    assert ValidateJob(load_recipe(recipe)).check()["task"] == "12 train, 8 dev, 12 test"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (
            "lora.target_modules=[qproj]",
            "names 'qproj', which is not a module of this model. Did you mean 'q_proj'",
        ),
        ("lora.target_modules=[embed_tokens]", "only linear layers can get an adapter"),
        ("lora.layers_to_transform=[3]", "no module that gets an adapter is in blocks 1 to 2"),
        ("lora.rank_pattern={nothing: 3}", "rank_pattern names 'nothing'"),
        ("training.eos_token=<|im_end|>", "no token '<|im_end|>'"),
        ("training.chat_template_path=/nowhere/chat.jinja", "there is no such file"),
        ("training.chat_template_path=/nowhere", "no tokenizer can be loaded"),
        ("alignment.layer=9", "alignment.layer is 9"),
        ("merge={search: coordinate, bands: 5}", "merge.bands is 5, but this model has 4 blocks"),
    ],
)
def test_what_the_model_has_not_is_named(recipe, override, says):
    with pytest.raises(ModelError) as caught:
        ValidateJob(load_recipe(recipe, [override]), str(recipe)).check()
    assert says in str(caught.value)


def test_faults_of_the_libraries_the_model_and_the_data_come_at_once(recipe, tmp_path):
    overrides = [
        "training.optim=adam", "lora.target_modules=[qproj]", "training.eos_token=<|x|>", "alignment.layer=9",
        f"parallel.data={tmp_path / 'absent'}",
    ]  # fmt: skip
    with pytest.raises(ModelError) as caught:
        ValidateJob(load_recipe(recipe, overrides), "r.yaml").check()
    message = str(caught.value)
    for place in ("parallel: ", "training and lora: ", "alignment: alignment.layer is 9", "lora: ", "training: "):
        assert f"\n{place}" in message, message
    assert message.count("alignment.layer is 9") == 1


def test_what_a_run_would_refuse_after_reading_everything_is_named(recipe, tmp_path):
    """Pairs that are all probed too, and answers that do not fit into the model's window."""
    overrides = [f"parallel.data={recipe.parent / 'probe'}", "generation.max_new_tokens=5000"]
    with pytest.raises(ModelError) as caught:
        ValidateJob(load_recipe(recipe, overrides), "r.yaml").check()
    assert "\nparallel: " in str(caught.value)
    assert "with the evaluation data (task or probe)" in str(caught.value)
    assert "\ngeneration: " in str(caught.value)
    assert "does not fit into the model's window" in str(caught.value)


@pytest.mark.parametrize("overrides", [["training.max_length=5"], ["training.max_length=16", "alignment.prompt=task"]])
def test_pairs_that_training_would_leave_out_are_found_before_it(recipe, tmp_path, overrides):
    made = load_recipe(recipe, overrides)
    with pytest.raises(ModelError, match=r"parallel: .*no parallel pair is left to align on"):
        ValidateJob(made).check()
    with pytest.raises(DataError, match="no parallel pair is left to align on"):
        Experiment(made, tmp_path / "out")
