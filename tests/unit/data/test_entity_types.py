"""Entity types of the user's own: what the prompt names, and what is refused."""

import pytest

from midalign.answers.format import AnswerFormat
from midalign.data.prompts import turns
from midalign.errors import DataError, RecipeError
from midalign.recipe.data import read_task_data
from midalign.recipe.file import build_recipe
from midalign.records import TaskExample
from tests.tiny_world import recipe_content

ITEM = TaskExample("a:0", "extraction", "eng_Latn", "two grams of salt")


def instruction(*types):
    return turns(ITEM, AnswerFormat(types=types) if types else AnswerFormat())[0]["content"]


def test_the_prompt_names_the_types_with_what_they_mean():
    own = instruction(("DOSE", "amounts of a drug"), ("DRUG", "drugs"), ("DATE", ""))
    assert own.startswith(
        "Find the named entities in the user's sentence: amounts of a drug (DOSE), drugs (DRUG) and DATE."
    )
    assert '"TypeName": "DATE"' in own
    assert "sentence: DRUG.\n" in instruction(("DRUG", ""))


def test_without_types_the_prompt_is_that_of_universal_ner():
    assert instruction() == (
        "Find the named entities in the user's sentence: people (PER), organisations (ORG) and places (LOC).\n"
        'Answer with JSON only, in the form {"Results": [{"TypeName": "LOC", "Text": "..."}]}, with one entry for each '
        "entity, copied from the sentence in its order; the list is empty if there are no entities."
    )


@pytest.fixture
def content(tmp_path):
    (tmp_path / "bio").mkdir()
    for code in ("en", "de", "ru"):
        for split in ("train", "dev", "test"):
            lines = "".join(f"give O\n{code}{split}{i} B-DRUG\n\n" for i in range(4))
            (tmp_path / "bio" / f"{code}.{split}.bio").write_text(lines)
    made = recipe_content(tmp_path)
    made["task"] = {"name": "extraction", "data": str(tmp_path / "bio"), "format": "bio"}
    return made


@pytest.mark.parametrize("types", [{"DRUG": "drugs"}, ["DRUG"], ["PER", "DRUG"]])
def test_types_are_written_with_or_without_meanings(content, types):
    content["task"]["types"] = types
    recipe = build_recipe(content)
    assert ("DRUG", "drugs" if isinstance(types, dict) else "") in recipe.answer_format.types
    assert len(read_task_data(recipe).test) == 12
    assert build_recipe(recipe.as_dict()).task.types == recipe.task.types


def test_a_type_that_the_prompt_does_not_name_is_refused(content):
    with pytest.raises(DataError, match="entities of type DRUG, which the prompt does not name"):
        read_task_data(build_recipe(content))


@pytest.mark.parametrize("types", [[], {}, "DRUG", [3], {"DRUG": 3}])
def test_types_of_another_form_are_refused(content, types):
    content["task"]["types"] = types
    with pytest.raises(RecipeError, match=r"task\.types"):
        build_recipe(content)


def test_types_of_another_task_are_refused(tmp_path):
    made = recipe_content(tmp_path)
    made["task"]["types"] = ["DRUG"]
    with pytest.raises(RecipeError, match="types are for name: extraction"):
        build_recipe(made)
