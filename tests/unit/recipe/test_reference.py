"""docs/recipe.md is what the sections say, and the groups in a docstring are the section's keys in their order."""

import itertools

import pytest

from midalign.recipe.alignment import AlignmentConfig
from midalign.recipe.reference import groups, reference
from midalign.recipe.sections import Recipe
from midalign.recipe.training import SftArguments
from tests.conftest import ROOT


def test_the_page_is_up_to_date():
    found = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    assert found == reference(), "run: python -m midalign.recipe.reference docs/recipe.md"


@pytest.mark.parametrize("section", [AlignmentConfig, SftArguments])
def test_the_groups_of_a_docstring_name_every_key_in_its_order(section):
    assert list(itertools.chain.from_iterable(groups(section).values())) == list(section.model_fields)
    assert len(groups(section)) > 3


def test_every_key_of_every_section_has_a_line_with_type_default_and_meaning():
    lines = [line.split(" | ") for line in reference().splitlines() if line.startswith("| `")]
    keys = [cells[0].removeprefix("| ") for cells in lines if len(cells) == 5]
    sections = [f.annotation for f in Recipe.model_fields.values() if hasattr(f.annotation, "model_fields")]
    wanted = [
        name
        for section in sections
        for name, field in section.model_fields.items()
        if "Refused" not in field.description
    ]
    assert len(keys) == len(wanted) + 3
    assert {f"`{name}`" for name in wanted} <= set(keys)
    assert all(cell.strip() for cells in lines if len(cells) == 5 for cell in cells[:4])
