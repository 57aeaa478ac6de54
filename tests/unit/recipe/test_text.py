"""What a bare word of a recipe means: as it was written where text is expected, of YAML 1.2 elsewhere."""

import os

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from midalign.errors import MissingFileError, RecipeError
from midalign.recipe.file import build_recipe, load_recipe
from midalign.recipe.text import read_yaml
from tests.tiny_world import recipe_content

# Words that YAML 1.1 takes for something else than text.
OLD_WORDS = [
    "no", "No", "NO", "off", "Off", "yes", "on", "On", "y", "n", "true", "False", "12:30", "1:2:3", "190:20:30",
    "2024-05-01", "2024-05-01 12:30:00", "2024-13-45", "010", "007", "0x1f", "0b11", "1_000", "7e10", "1e5", "12e03",
    "12345678", "+1", "-5", ".5", "1.", ".inf", ".NaN", "685_230.15", "0o17", "~x", "null_", "<<", "=",
]  # fmt: skip


@pytest.fixture
def content(tmp_path):
    return recipe_content(tmp_path)


@pytest.fixture
def load(tmp_path, content):
    """Reads the recipe with one line put in its place; of a section, or at the top."""

    def loaded(line, section=None):
        key = line.partition(":")[0]
        rest = {name: value for name, value in content.items() if name not in (key, section)}
        text = yaml.safe_dump(rest)
        if section is None:
            text += line + "\n"
        else:
            inside = {name: value for name, value in content[section].items() if name != key}
            text += f"{section}:\n  " + yaml.safe_dump(inside).replace("\n", "\n  ").rstrip() + f"\n  {line}\n"
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return load_recipe(path)

    return loaded


@pytest.mark.parametrize("word", OLD_WORDS)
def test_a_word_stays_as_it_is_written_where_text_is_expected(load, content, word):
    assert load(f"name: {word}").name == word
    assert load(f"train_split: {word}", "task").task.train_split == word
    assert load(f"revision: {word}", "model").model.revision == word
    assert build_recipe(content, [f"task.dev_split={word}", f"training.optim={word}"]).task.dev_split == word
    assert build_recipe(content, [f"lora.target_modules=[{word}, q]"]).lora.target_modules == [word, "q"]


@pytest.mark.parametrize("word", ["no", "steps"])
def test_a_strategy_of_the_trainer_may_be_no(load, content, word):
    for key in ("save_strategy", "eval_strategy", "logging_strategy"):
        assert getattr(load(f"{key}: {word}", "training").training, key) == word
        content = recipe_content_of(content)
        assert getattr(build_recipe(content, [f"training.{key}={word}"]).training, key) == word


def recipe_content_of(content):
    return content | {"training": {"max_steps": 2}}


def test_norwegian_is_a_language(load):
    assert load("aligned: [no, de]", "languages").languages.aligned == ("nob_Latn", "deu_Latn")


@pytest.mark.parametrize(
    ("word", "means"),
    [("yes", True), ("on", True), ("true", True), ("TRUE", True), ("no", False), ("off", False), ("False", False)],
)
def test_a_switch_takes_every_usual_word(load, content, word, means):
    assert load(f"gather_negatives: {word}", "alignment").alignment.gather_negatives is means
    made = build_recipe(recipe_content_of(content | {"alignment": {}}), [f"training.bf16={word}"])
    assert made.training.bf16 is means
    nested = build_recipe(
        recipe_content_of(content | {"alignment": {}}),
        [f"training.gradient_checkpointing_kwargs={{use_reentrant: {word}}}"],
    )
    assert nested.training.gradient_checkpointing_kwargs == {"use_reentrant": means}


@pytest.mark.parametrize(
    "word", ["yes", "true", "1:30", "2024-05-01", "0.5.1", "''", "[3]", "{}", "~", "1e400", ".nan"]
)
@pytest.mark.parametrize("place", ["seed", "alignment.temperature", "task.dev_share", "generation.max_new_tokens"])
def test_what_is_no_number_is_refused_where_one_is_expected(content, place, word):
    with pytest.raises(RecipeError, match=rf"recipe has 1 fault:\n  {place}"):
        build_recipe(content, [f"{place}={word}"])


@pytest.mark.parametrize("word", ["010", "-007", "00"])
def test_a_number_with_a_leading_zero_is_refused_since_yaml_1_1_reads_it_as_octal(load, content, word):
    with pytest.raises(RecipeError, match=rf":\d+: '{word}' begins with a zero"):
        load(f"seed: {word}")
    with pytest.raises(RecipeError, match="begins with a zero"):
        build_recipe(content, [f"alignment.batch_size={word}"])
    assert build_recipe(recipe_content_of(content | {"seed": 1}), ["seed=0o17"]).seed == 15


@pytest.mark.parametrize("place", ["alignment.batch_size", "alignment.weight", "merge.task_weights", "alignment.layer"])
def test_true_is_no_number(content, place):
    section, key = place.split(".")
    content.setdefault(section, {})[key] = [True] if key == "task_weights" else True
    with pytest.raises(RecipeError, match=f"{place} = .*true and false are neither words nor numbers"):
        build_recipe(content)


def test_an_empty_override_is_empty_text_or_nothing_at_all(content):
    assert build_recipe(content, ["task.system="]).task.system == ""
    assert build_recipe(content, ["task.system=null"]).task.system is None
    assert build_recipe(content, ["task.system='null'"]).task.system == "null"
    with pytest.raises(RecipeError, match=r"'alignment.max_updates=' has no value; write alignment.max_updates=null"):
        build_recipe(content, ["alignment.max_updates="])


def test_an_override_takes_back_a_key_that_may_not_be_null(content):
    content["training"] = {"logging_steps": 5, "eval_strategy": "steps", "eval_steps": 5}
    recipe = build_recipe(content, ["training.logging_steps=null", "training.logging_strategy=epoch"])
    assert "logging_steps" not in recipe.training.given()
    assert build_recipe(content, ["training.eval_strategy=epoch", "training.eval_steps=null"])
    assert build_recipe(content, ["training=null"]).training == build_recipe(content | {"training": {}}).training
    with pytest.raises(RecipeError, match="no such key"):
        build_recipe(content, ["training.loging_steps=null"])


def test_the_home_folder_in_every_path(content, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    paths = ["model.path", "task.data", "parallel.data", "probe.data", "training.chat_template_path"]
    recipe = build_recipe(content, [f"{path}=~/x" for path in paths])
    for path in paths:
        section, key = path.split(".")
        assert getattr(getattr(recipe, section), key) == "/home/me/x"
    assert build_recipe(content, ["task.data='~'"]).task.data == "/home/me"
    with pytest.raises(RecipeError, match=r"task.data = None: null is not text.*write ~/"):
        build_recipe(content, ["task.data=~"])
    monkeypatch.setenv("DATA", "~/y")
    assert build_recipe(content, ["task.data=${DATA}/z"]).task.data == "/home/me/y/z"


# ---- YAML itself


@settings(deadline=None, max_examples=60)
@given(
    st.recursive(
        st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none() | st.text(st.characters(codec="utf-8")),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
        max_leaves=8,
    )
)
def test_what_another_program_writes_is_read_back(value):
    """PyYAML quotes what it would not read back as text, so that both versions of YAML agree on it."""
    try:
        text = yaml.safe_dump({"x": value}, allow_unicode=True)
        assert yaml.safe_load(text) == {"x": value}
    except (yaml.YAMLError, AssertionError):  # a character that PyYAML itself cannot write
        return
    assert read_yaml(text, {}, {}) == ({"x": value}, [])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &x [*x]", "does an anchor"),
        ("a: &x {b: *x}", "does an anchor"),
        (
            "\n".join(["a0: &a0 [1, 1]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]),
            "100000",
        ),
        ("[" * 60 + "]" * 60, "levels"),
        ("[" * 5000 + "]" * 5000, "levels|nested too deeply"),
        ("{a: " * 5000, "not valid YAML|nested too deeply"),
        ("a:\n\t- b", "not valid YAML: found character"),
        ("a: *b", "undefined alias"),
        ("a: 1\n---\nb: 2", "another document"),
        ("a: \x07", "not valid YAML"),
        ("a: '\ud800'", "not valid YAML"),
        ('a: "\\UFFFFFFFF"', "not valid YAML"),
        ("%YAML 3.0\n---\na: 1", "not valid YAML"),
        ("a: {<<: 3}", "expected a mapping"),
    ],
)
def test_what_is_no_recipe_is_refused_with_its_line(text, says):
    with pytest.raises(RecipeError, match=rf"^\d+: .*({says})"):
        read_yaml(text, {}, {})


@pytest.mark.parametrize(
    ("text", "value", "fault"),
    [
        ("a: 1\na: 2", {"a": 2}, "2: the key 'a' is given twice"),
        ("a: {b: 1, b: 2}", {"a": {"b": 2}}, "1: the key 'b' is given twice"),
        ("x: &x {a: 1}\ny: {<<: *x, a: 2}\nz: {<<: *x}", {"x": {"a": 1}, "y": {"a": 2}, "z": {"a": 1}}, None),
        ("x: &x {a: 1}\ny: &y {<<: *x, a: 2}\nz: *y", {"x": {"a": 1}, "y": {"a": 2}, "z": {"a": 2}}, None),
        ("x: [&a 1, *a]", {"x": [1, 1]}, None),
        ("a: !!binary aGk=", {"a": "aGk="}, "1: the tag 'tag:yaml.org,2002:binary' has no meaning"),
        ("a: !!set {b}", {"a": {"b": None}}, "1: the tag 'tag:yaml.org,2002:set' has no meaning"),
        ("a: !thing b", {"a": "b"}, "1: the tag '!thing' has no meaning"),
        ("a: !!bool yes", {"a": "yes"}, "1: the tag 'tag:yaml.org,2002:bool' has no meaning"),
        ("a: !!str 5", {"a": "5"}, None),
        (f"a: {'9' * 5000}", {"a": 0}, "1: a number of 5000 digits is too large"),
        ("on: 1", {"on": 1}, None),
        ("8: 1.0", {8: 1.0}, None),
    ],
)
def test_what_has_no_clear_meaning_is_a_fault_among_the_others(text, value, fault):
    found, faults = read_yaml(text, {}, {})
    assert found == value
    assert [each[: len(fault or "")] for each in faults] == ([fault] if fault else [])


# ---- files


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "a mapping of sections"),
        (b"# nothing\n", "a mapping of sections"),
        (b"- name: x\n", "a mapping of sections"),
        (b"just text", "a mapping of sections"),
        (bytes(range(256)), "not UTF-8"),
        ("name: x\n".encode("utf-16"), "not UTF-8"),
        (b"\x00" * 100, "not valid YAML"),
        (b"x" * 1_000_001, "1000001 bytes"),
    ],
    ids=["empty", "comment", "list", "text", "binary", "utf-16", "zeros", "large"],
)
def test_a_file_that_is_no_recipe_is_named(tmp_path, data, says):
    path = tmp_path / "bad.yaml"
    path.write_bytes(data)
    with pytest.raises(RecipeError, match=says) as caught:
        load_recipe(path)
    assert "bad.yaml" in str(caught.value)


def test_a_byte_order_mark_and_line_ends_of_windows_are_no_fault(tmp_path, content):
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + yaml.safe_dump(content).replace("\n", "\r\n").encode())
    assert load_recipe(path) == build_recipe(content)


def test_a_folder_and_an_impossible_name_are_no_recipe(tmp_path):
    with pytest.raises(RecipeError, match="is a folder"):
        load_recipe(tmp_path)
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path / ("x" * 5000))
    with pytest.raises(MissingFileError, match="does not exist"):
        load_recipe("a\0b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path):
    path = tmp_path / "secret.yaml"
    path.write_text("name: x")
    path.chmod(0)
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(path)


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_text_that_no_file_or_tokenizer_takes_is_refused(content, text):
    content["task"]["system"] = text
    with pytest.raises(RecipeError, match="has a character that is not text"):
        build_recipe(content)


def test_an_impossible_path_is_refused(content):
    content["task"]["data"] = "x" * 5000
    with pytest.raises(RecipeError, match=r"task.data = .*cannot be a path"):
        build_recipe(content)


def test_long_values_are_cut_in_messages(content):
    content["task"]["format"] = "x" * 10_000
    content["seed"] = 10**5000
    with pytest.raises(RecipeError) as caught:
        build_recipe(content)
    assert len(str(caught.value)) < 2000
