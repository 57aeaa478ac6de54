"""Recipes that are damaged, or hold what they should not: every fault in one message, and no change of meaning."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from midalign.errors import UserError
from midalign.recipe.file import build_recipe, load_recipe, recipe_schema
from midalign.recipe.lora import LoraArguments
from midalign.recipe.sections import Recipe
from midalign.recipe.text import alternatives, at_key
from midalign.recipe.training import SftArguments
from midalign.training.arguments import check_arguments
from tests.fuzz.strategies import FEW_OR_MANY, damaged
from tests.tiny_world import recipe_content

CONTENT = recipe_content(Path("/nowhere"))
SECTIONS = [name for name, field in Recipe.model_fields.items() if hasattr(field.annotation, "model_fields")]
PLACES = [(name,) for name in Recipe.model_fields] + [
    (section, key) for section in SECTIONS for key in Recipe.model_fields[section].annotation.model_fields
]
WORDS = st.sampled_from([
    "no", "off", "yes", "true", "~", "null", "010", "1_000", "1:30", "2024-05-01", "7e10", "0x1f", ".inf", ".nan",
    "<<", "=", "1e400", "-1", "0", "1", "2", "0.5", "auto", "middle",
    "task:3,align:1", "task:99999,align:1", "deu", "${HOME}", "${ABSENT_VARIABLE}", "${A:-b}", "~/x", "~nobody/x",
    "[", "{", "*a", "'", '"', "|", ">", "(", "*", "\\",
    "!!int!x", "!!python/name:os.system", "!x", "%", "@", "`", "#", "x" * 3000, "9" * 5000, "\ud800", "a\0b",
    "&a [*a]", "!!int x",
    '"\\ud800"', '"\\UFFFFFFFF"', "a: b", "- a", "? a", "", "\t", "\ufeff", "\u2028",
])  # fmt: skip
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**30, -(10**30), 10**4000, 2**31, 2**63])
    | st.floats()
    | st.text(max_size=20)
    | WORDS
    | st.dates()
    | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.none() | st.booleans(), inner, max_size=3)
    ),
    max_leaves=6,
)


def checked(build, *arguments) -> tuple[Recipe | None, str]:
    """The recipe, or the message; any other exception fails the test."""
    try:
        return build(*arguments), ""
    except UserError as fault:
        message = str(fault)
        message.encode()  # it can be printed
        assert message
        assert len(message) < 100_000
        return None, message


def put(content: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A copy of a recipe with another value at a place."""
    if len(place) == 1:
        return content | {place[0]: value}
    inside = content.get(place[0]) or {}
    return content | {place[0]: inside | {place[1]: value}}


def same(one: Any, other: Any) -> bool:
    """Whether two values mean the same: a number is a number, whatever its type; text is text."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {str(k): v for k, v in one.items()}.keys() == {str(k): v for k, v in other.items()}.keys()
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other)
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other or str(one).lower() in (
            "yes",
            "on",
            "true",
            "1",
            "y",
            "t",
            "no",
            "off",
            "false",
            "0",
            "n",
            "f",
        )
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other)
    if isinstance(one, str) and isinstance(other, int | float):
        return math.isclose(float(one.replace("_", "")), other)
    return one == other


@FEW_OR_MANY
def test_another_value_at_any_key_is_refused_there_or_means_what_it_says(cases):
    @settings(max_examples=cases, deadline=None)
    @given(st.sampled_from(PLACES), ANYTHING)
    def check(place, value):
        recipe, message = checked(build_recipe, put(CONTENT, place, value))
        if recipe is None:
            assert (
                ".".join(place) in message
                or place[0] in message
                or "environment variable" in message
                or "no text" in message
            )
            return
        again, _ = checked(build_recipe, recipe.as_dict())
        assert again == recipe, "it survives the way through plain data"
        if len(place) == 1 or place[0] == "languages" or (isinstance(value, str) and ("$" in value or "~" in value)):
            return
        found = getattr(getattr(recipe, place[0]), place[1])
        assert same(value, found) or (place[1] in ("path", "data", "metric", "layer")), (value, found)

    check()


@FEW_OR_MANY
def test_faults_at_several_keys_are_all_reported(cases):
    @settings(max_examples=cases, deadline=None)
    @given(st.lists(st.sampled_from(PLACES), min_size=1, max_size=6, unique=True))
    def check(places):
        content = CONTENT
        inner = [place for place in places if len(place) == 2 and (place[0],) not in places]
        places = [*(place for place in places if len(place) == 1), *inner]
        for place in places:
            content = put(content, place, [["no such thing"]])
        recipe, message = checked(build_recipe, content)
        assert recipe is None
        for place in places:
            assert f"  {'.'.join(place)}" in message, (place, message)

    check()


@FEW_OR_MANY
def test_a_damaged_file_is_refused_or_read(cases, tmp_path):
    whole = yaml.safe_dump(CONTENT, allow_unicode=True).encode()
    path = tmp_path / "recipe.yaml"

    @settings(max_examples=cases, deadline=None)
    @given(damaged(whole), st.integers(0, len(whole)), WORDS | st.just(""))
    def check(data, at, word):
        path.write_bytes(data[:at] + word.encode("utf-8", "surrogatepass") + data[at:])
        recipe, message = checked(load_recipe, path)
        if recipe is None:
            assert "recipe.yaml" in message
        else:
            assert checked(build_recipe, recipe.as_dict())[0] == recipe

    check()


@FEW_OR_MANY
def test_any_bytes_are_refused_with_the_files_name(cases, tmp_path):
    path = tmp_path / "recipe.yaml"

    @settings(max_examples=cases, deadline=None)
    @given(
        st.binary(max_size=200)
        | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass"))
        | st.integers(1, 1500).map(lambda depth: b"[" * depth)
        | st.integers(1, 1500).map(lambda depth: b"{a: " * depth)
        | st.integers(1, 200).map(lambda depth: b"".join(b" " * n + b"a:\n" for n in range(depth)))
        | st.integers(1, 60).map(lambda n: b"a: &a [x]\n" + b"b: [" + b"*a, " * n + b"]")
    )
    def check(data):
        path.write_bytes(data)
        recipe, message = checked(load_recipe, path)
        assert recipe is None
        assert "recipe.yaml" in message

    check()


@FEW_OR_MANY
def test_any_override_is_refused_or_applied(cases):
    places = st.sampled_from(PLACES).map(".".join) | st.text(max_size=10) | WORDS

    @settings(max_examples=cases, deadline=None)
    @given(st.lists(st.tuples(places, WORDS | st.text(max_size=10)).map("=".join) | WORDS, min_size=1, max_size=3))
    def check(overrides):
        recipe, message = checked(build_recipe, CONTENT, overrides)
        if recipe is not None:
            assert checked(build_recipe, recipe.as_dict())[0] == recipe
        else:
            assert "fault" in message

    check()


LIKELY = {
    "integer": st.sampled_from([-1, 0, 1, 2, 7, 64]),
    "number": st.sampled_from([0, 1e-9, 0.1, 0.5, 1, 1.5, 3, 1000]),
    "boolean": st.booleans(),
    "null": st.none(),
    "string": st.sampled_from([
        "sgd", "adafactor", "adamw_bnb_8bit", "galore_adamw", "lomo", "muon", "adamw_torch", "a=b", "momentum=0.9",
        "momentum=x", "a,b", "=",
        "linear", "constant", "cosine", "greedy", "warmup_stable_decay", "reduce_lr_on_plateau", "polynomial", "all",
        "none", "wandb", "x",
        *["tensorboard", "(", ".*", "q_proj", "all-linear", "gaussian", "underflow_overflow"], "",
    ]),
    "object": st.sampled_from([{}, {"num_cycles": 2}, {"num_cycles": "x"}, {"min_lr": 0}, {"lr_end": 1}, {"q": 3}]),
    "array": st.lists(st.sampled_from(["q_proj", "tensorboard", "underflow_overflow", "x", 0, 1]), max_size=2),
}  # fmt: skip


def likely(place):
    """A place in `training` or `lora` with a value of a type that it takes."""
    schema = recipe_schema()
    expected = alternatives(at_key(at_key(schema, place[0], schema), place[1], schema), schema)
    values = [st.sampled_from(one["enum"]) if one.get("enum") else LIKELY[one.get("type", "null")] for one in expected]
    return st.tuples(st.just(place), st.one_of(values))


@FEW_OR_MANY
def test_what_is_well_formed_is_taken_or_refused_by_trl_and_peft_without_a_traceback(cases):
    places = [
        (section, key)
        for section, keys in (("training", SftArguments), ("lora", LoraArguments))
        for key in keys.model_fields
    ]
    reached = []

    @settings(max_examples=cases, deadline=None)
    @given(st.lists(st.sampled_from(places).flatmap(likely), min_size=1, max_size=3))
    def check(chosen):
        content = CONTENT | {"training": {}, "lora": {}}
        for place, value in chosen:
            content = put(content, place, value)
        recipe, _ = checked(build_recipe, content)
        if recipe is not None:
            reached.append(checked(check_arguments, recipe)[1])

    check()
    assert len(reached) > cases // 5, "most values are of the right type"
