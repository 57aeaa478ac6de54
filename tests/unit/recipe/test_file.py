"""Reading a recipe: strict YAML, the environment, overrides, and all faults at once."""

import math
import re
import string

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from midalign.errors import MissingFileError, RecipeError
from midalign.recipe.file import build_recipe, load_recipe
from midalign.training.arguments import check_arguments
from tests.tiny_world import recipe_content


@pytest.fixture
def content(tmp_path):
    return recipe_content(tmp_path)


@pytest.fixture
def write(tmp_path, content):
    """Write the recipe, with lines added at its end."""

    def written(extra=""):
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(content) + extra, encoding="utf-8")
        return path

    return written


def faults(content, *overrides):
    with pytest.raises(RecipeError) as caught:
        build_recipe(content, overrides)
    return str(caught.value)


def test_floats_without_a_dot_are_floats(write):
    recipe = load_recipe(
        write(), ["training.learning_rate=5e-4", "training.weight_decay=1E3", "alignment.temperature=2e-1"]
    )
    assert recipe.training.learning_rate == 5e-4
    assert recipe.training.weight_decay == 1000.0
    assert recipe.alignment.temperature == 0.2


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 999), st.text(string.digits, max_size=4), st.integers(-30, 30), st.sampled_from("eE"))
def test_every_way_to_write_a_float_with_an_exponent_reads_as_that_float(whole, part, exponent, letter):
    for text in {f"{whole}{letter}{exponent}", f"{whole}.{part}{letter}{exponent:+d}"}:
        recipe = build_recipe(recipe_content_anywhere(), [f"training.weight_decay={text}"])
        assert math.isclose(recipe.training.weight_decay, float(text))


def recipe_content_anywhere():
    from pathlib import Path

    return recipe_content(Path("/nowhere"))


def test_words_with_an_e_stay_words(content):
    assert build_recipe(content, ["name=e5", "training.optim_args=1e"]).training.optim_args == "1e"


def test_a_key_given_twice_is_refused_at_its_line(write):
    path = write("alignment: {layer: 3}\n")
    line = path.read_text().splitlines().index("alignment: {layer: 3}") + 1
    with pytest.raises(RecipeError, match=rf"recipe\.yaml:{line}: the key 'alignment' is given twice"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[a]: 1\n", "not a word or a number"),
        ("{a: 1}: 2\n", "not a word or a number"),
        ("a: !!python/object:os.system x\n", r"bad\.yaml:1: the tag .* has no meaning"),
        ("a: !!int x\n", "not valid YAML"),
        ("a: 'x\n", "not valid YAML"),
        ("", "a mapping of sections"),
        ("- 1\n", "a mapping of sections"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_with_its_name(tmp_path, text, says):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=says) as caught:
        load_recipe(path)
    assert "bad.yaml" in str(caught.value)


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("name: grün\n".encode("latin-1"))
    with pytest.raises(RecipeError, match="not UTF-8"):
        load_recipe(tmp_path / "latin.yaml")


def test_anchors_and_merged_keys_are_yaml_too(tmp_path, content):
    path = tmp_path / "merged.yaml"
    task = content.pop("task")
    text = yaml.safe_dump(content) + f"task:\n  <<: {{data: x, format: xsid, system: ''}}\n  data: {task['data']}\n"
    path.write_text(text)
    assert load_recipe(path).task.data == task["data"]
    assert load_recipe(path).task.format == "xsid"


def test_a_missing_recipe_names_its_neighbour(write):
    path = write()
    with pytest.raises(MissingFileError, match=r"Did you mean .*recipe\.yaml"):
        load_recipe(path.with_name("recip.yaml"))


def test_the_environment_is_expanded_everywhere_with_defaults(content, monkeypatch):
    monkeypatch.setenv("MIDALIGN_TEST_FOLDER", "/here")
    content["task"]["data"] = "${MIDALIGN_TEST_FOLDER}/slots"
    content["parallel"]["data"] = "${MIDALIGN_TEST_ABSENT:-/there}/lines"
    content["languages"]["supervised"] = ["${MIDALIGN_TEST_ABSENT:-en}"]
    recipe = build_recipe(content)
    assert recipe.task.data == "/here/slots"
    assert recipe.parallel.data == "/there/lines"
    assert recipe.languages.supervised == ("eng_Latn",)
    content["probe"]["data"] = "${MIDALIGN_TEST_ABSENT}"
    assert "MIDALIGN_TEST_ABSENT is not set" in faults(content)


def test_expansion_leaves_the_given_content_alone(content, monkeypatch):
    monkeypatch.setenv("X", "y")
    content["name"] = "${X}"
    assert build_recipe(content, ["alignment.layer=3"]).name == "y"
    assert content["name"] == "${X}"
    assert "layer" not in content["alignment"]


def test_overrides_reach_old_new_and_nested_keys_and_the_last_wins(content):
    recipe = build_recipe(
        content,
        [
            "seed=7", "alignment.layer=0.5", "lora.target_modules=[q_proj, v_proj]", "languages.supervised=[en, ru]",
            "languages.unseen=[]", "languages.low_resource=[]", "merge.alignment_weights=[0.25]", "name=a=b",
            "training.max_steps=5", "training.max_steps=6", "task.limit_dev=null", "generation.max_new_tokens=9",
        ],
    )  # fmt: skip
    assert recipe.seed == 7
    assert recipe.alignment.layer == 0.5
    assert recipe.lora.target_modules == ["q_proj", "v_proj"]
    assert recipe.lora.r == 2, "the rest of the section stays"
    assert recipe.languages.supervised == ("eng_Latn", "rus_Cyrl")
    assert recipe.merge.alignment_weights == (0.25,)
    assert recipe.name == "a=b"
    assert recipe.training.max_steps == 6
    assert recipe.task.limit_dev is None


@pytest.mark.parametrize("override", ["alignment.layer", "=3", "name.x=1", "alignment.layer=[1", "seed=", "a..b=1"])
def test_an_override_that_cannot_be_read_is_refused_with_its_text(content, override):
    assert repr(override) in faults(content, override)


def test_all_faults_come_at_once_each_with_its_place_value_and_the_nearest_name(content):
    content["alignment"] |= {"temprature": 0.1, "temperature": -1, "pooling": "maen", "layer": 0}
    content["task"]["format"] = "xsdi"
    content["languages"]["aligned"] = ["german"]
    content["probe"] = {"strict": 1}
    del content["name"]
    content["generation"] = None
    message = faults(content)
    for expected in (
        "alignment.temprature: no such key. Did you mean 'temperature'?",
        "alignment.temperature = -1",
        "alignment.pooling = 'maen'",
        "Did you mean 'mean'",
        "alignment.layer = 0",
        "task.format = 'xsdi'",
        "Did you mean 'xsid'?",
        "languages.aligned.0 = 'german'",
        "probe.strict: no such key",
        "probe.data: missing; Corpus that is parallel across all probed languages",
        "name: missing; Name of the run",
        "generation = None: must be a section",
    ):
        assert expected in message, message
    assert "recipe has 10 faults" in message
    assert "literal[" not in message
    assert "function-" not in message


def test_norwegian_is_not_false(content):
    content["languages"]["aligned"] = yaml.safe_load("[no]")
    assert "put the word in quotes" in faults(content)
    content["languages"]["aligned"] = ["no"]
    assert build_recipe(content).languages.aligned == ("nob_Latn",)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("languages.aligned=deu,swh", r"languages\.aligned = 'deu,swh': write a list: \[deu,swh\]$"),
        ("languages.aligned=deu", r"write a list: \[deu\]$"),
        ("merge.alignment_weights=0.3", r"write a list: \[0\.3\]$"),
        ("languages.aligned={deu: 1}", r"write a list: \[a,b\]$"),
        ("parallel.columns=eng=0", r"write .* in braces, with a blank after the colon: \{eng: 0\}$"),
        ("parallel.columns={eng:0,deu:1}", r"in braces write a blank after the colon \(\{eng: 0\}\)"),
    ],
)
def test_the_form_of_lists_and_mappings_is_shown(content, override, says):
    assert re.search(says, faults(content, override), re.MULTILINE)


def test_a_layer_of_the_wrong_kind_is_one_fault(content):
    message = faults(content, "alignment.layer=[1, 2]")
    assert "recipe has 1 fault" in message
    assert "alignment.layer = [1, 2]: cannot be read" in message


def test_arguments_that_peft_and_trl_do_not_know_are_all_named(content):
    message = faults(content, "lora.rank=4", "training.learning_rat=1", "training.output_dir=x", "training.seed=1")
    assert "recipe has 4 faults" in message
    assert "lora.rank: no such key. Did you mean 'rank_pattern'" in message
    assert "Did you mean 'learning_rate'" in message
    assert "training.output_dir = 'x': midalign sets it itself" in message


def test_early_stopping_needs_evaluations_and_a_metric(content):
    assert "needs training" in faults(content, "early_stopping_patience=2")
    good = ["early_stopping_patience=2", "training.eval_strategy=steps", "training.metric_for_best_model=eval_loss"]
    check_arguments(build_recipe(content, good))


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["task.name=chat", "task.format=xsid"], "whose files say their format"),
        (["task.name=chat", "task.format=auto", "evaluation.completion_style=intent_slots"], "have another form"),
        (["task.name=chat", "task.format=auto", "task.metric=[]"], "task.metric"),
    ],
)
def test_settings_without_effect_are_refused(content, overrides, says):
    with pytest.raises(RecipeError) as caught:
        build_recipe(content, overrides)
    assert says in str(caught.value)
