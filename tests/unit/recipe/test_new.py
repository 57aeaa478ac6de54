"""Recipes at hand: shipped ones by name, new ones that are valid as they are written, and the schema for editors."""

import json

import jsonschema
import pytest
import yaml

from midalign.errors import MissingFileError, RecipeError
from midalign.experiment.validate import ValidateJob
from midalign.recipe.file import load_recipe, load_text, recipe_schema
from midalign.recipe.new import PAPERS_BATCH, NewRecipe
from midalign.recipe.reference import json_schema, schema_text
from midalign.recipe.shipped import SCHEMA, folder, recipe_file, shipped, summary
from midalign.recipe.text import read_yaml
from tests.tiny_world import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny model with slot filling, parallel lines and a probe."""
    path = tmp_path_factory.mktemp("world")
    write_world(path)
    return path


def plan(world, **changes):
    given = {
        "name": "mine", "model": str(world / "model"), "task": "slots", "data": str(world / "slots"),
        "supervised": ("eng_Latn",), "aligned": ("deu_Latn",), "parallel": str(world / "lines"),
    }  # fmt: skip
    return NewRecipe(**given | changes)


@pytest.mark.parametrize("changes", [{}, {"probe": "probe"}, {"gpu_memory": 24, "unseen": ("rus_Cyrl",)}])
def test_a_new_recipe_is_valid_as_it_is_written(world, changes, monkeypatch):
    monkeypatch.chdir(world)
    made = plan(world, **changes)
    found = ValidateJob(load_text(made.text(), "mine", ["generation.max_new_tokens=8", "task.system=Tag it."])).check()
    assert found["task"].startswith("12 train")
    assert found["probe"].split()[0] == ("20" if "probe" in changes else "5")
    jsonschema.validate(read_yaml(made.text(), recipe_schema(), recipe_schema())[0], json_schema())


def test_pairs_that_no_probe_can_take_need_a_corpus_of_their_own(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for code in ("deu", "swh", "fra"):
        rows = "".join(f"english {code} {number}\t{code} {number}\n" for number in range(20))
        (tmp_path / f"eng-{code}.tsv").write_text(rows)
    two = ("deu_Latn", "swh_Latn")
    with pytest.raises(RecipeError, match=r"no sentence of \. is in all of eng_Latn, deu_Latn, swh_Latn.* --probe"):
        plan(world, parallel=".", aligned=two).text()
    assert plan(world, parallel=".", aligned=two, probe="probe").recipe().probe.data == "probe"
    one = plan(world, parallel=".").recipe().probe
    assert (one.languages, one.limit) == (("eng_Latn", "deu_Latn"), 5)
    assert plan(world).recipe().probe.languages is None
    assert plan(world, parallel="absent").recipe().probe.limit == 200


def test_words_of_yaml_in_what_is_given_stay_words(world):
    made = plan(world, name="no", data="a: b # c", aligned=("nob_Latn",), parallel="~/x y", metric="m:f", task="chat")
    recipe = made.recipe()
    assert (recipe.name, recipe.task.data, recipe.languages.aligned) == ("no", "a: b # c", ("nob_Latn",))
    assert recipe.parallel.data.endswith("/x y")
    assert recipe.task.metric == ("m:f",)


def test_what_makes_no_recipe_is_refused(world):
    with pytest.raises(RecipeError, match="the new recipe has 1 fault"):
        plan(world, unseen=("eng_Latn",)).text()


@pytest.mark.parametrize(
    ("model", "memory", "four_bits"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", 80, False), ("Qwen/Qwen2.5-7B-Instruct", 16, True), ("mine", 8, False),
        ("meta-llama/Meta-Llama-3-70B", 80, True), ("Qwen/Qwen3-8B", 0, False), ("meta-llama/Llama-3.2-1B", 16, False),
    ],
)  # fmt: skip
def test_a_model_that_is_large_for_the_gpu_is_quantised(world, model, memory, four_bits):
    recipe = plan(world, model=model, gpu_memory=memory, data="absent").recipe()
    assert (recipe.model.quantization == "4bit") == four_bits
    training = recipe.training
    assert training.per_device_train_batch_size * training.gradient_accumulation_steps == PAPERS_BATCH
    assert training.bf16 == (True if memory else None)


@pytest.mark.parametrize("memory", [-1.0, float("nan")])
def test_a_memory_below_zero_is_refused(world, memory):
    with pytest.raises(RecipeError, match=r"gpu_memory is (-1|nan), .* 0 for no GPU"):
        plan(world, gpu_memory=memory)


def test_few_task_data_are_given_a_smaller_batch(world):
    training = plan(world).recipe().training
    assert training.per_device_train_batch_size * training.gradient_accumulation_steps == 4, "of 12 items"


# ---- shipped recipes


@pytest.mark.parametrize("path", shipped().values(), ids=shipped())
def test_a_shipped_recipe_fits_the_schema_that_its_first_line_names(path, monkeypatch):
    text = path.read_text(encoding="utf-8")
    assert text.partition("\n")[0] == f"# yaml-language-server: $schema={SCHEMA}"
    content, faults = read_yaml(text, recipe_schema(), recipe_schema())
    assert faults == []
    jsonschema.validate(content, json.loads((path.parent / SCHEMA).read_text()))
    assert 20 < len(summary(path)) < 200
    assert ". " not in summary(path), "one sentence"
    assert load_recipe(path.stem) == load_recipe(path)


def test_the_schema_is_up_to_date_and_refuses_what_a_recipe_may_not_hold():
    assert (folder() / SCHEMA).read_text(encoding="utf-8") == schema_text(), "run: python -m midalign.recipe.reference"
    jsonschema.Draft202012Validator.check_schema(json_schema())
    content = yaml.safe_load((folder() / "demo.yaml").read_text(encoding="utf-8"))
    for section, key, value in (
        ("training", "learning_rat", 1), ("training", "output_dir", "x"), ("lora", "use_dora", True), ("lora", "r", 0),
        ("alignment", "direction", "sideways"), ("task", "data", 5),
    ):  # fmt: skip
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(content | {section: content[section] | {key: value}}, json_schema())


def test_a_file_comes_before_a_shipped_recipe_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert recipe_file("demo") == shipped()["demo"]
    (tmp_path / "demo").write_text("name: mine")
    assert recipe_file("demo").read_text() == "name: mine"
    with pytest.raises(MissingFileError, match="Did you mean 'demo_real'"):
        load_recipe("demo_rael")


@pytest.mark.parametrize(
    "task", ["types: [PER, LOC]", "types: {PER: people}", "metric: accuracy", "metric: [accuracy, m:f]"]
)
def test_the_schema_for_editors_knows_every_form_that_a_recipe_may_have(world, task):
    name = "extraction" if "types" in task else "chat"
    text = plan(world).text().replace("task:\n", f"task:\n  {task}\n", 1).replace("name: slots", f"name: {name}")
    content, faults = read_yaml(text, recipe_schema(), recipe_schema())
    assert not faults
    jsonschema.validate(content, json_schema())
    assert load_text(text, "mine").task.name == name
