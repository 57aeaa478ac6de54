"""Every name of a choice is one that its function knows, and what recipe, command line and help say."""

import inspect

import pytest

from midalign.cli.probe import probe
from midalign.functional.merge_methods import METHODS
from midalign.functional.names import CANDIDATES, MARGINS, MERGE_METHODS, POOLINGS, Candidates, Margin, Pooling
from midalign.recipe.alignment import AlignmentConfig
from midalign.recipe.sections import ProbeSection


def test_the_names_of_merge_methods_are_those_that_have_a_formula():
    assert tuple(METHODS) == MERGE_METHODS


@pytest.mark.parametrize(
    ("field", "choice", "names"),
    [("pooling", Pooling, POOLINGS), ("margin", Margin, MARGINS), ("candidates", Candidates, CANDIDATES)],
)
def test_recipe_and_help_say_the_same_names(field, choice, names):
    assert ProbeSection.model_fields[field].annotation == choice
    option = inspect.get_annotations(probe, eval_str=True)[field].__metadata__[0]
    assert [name for name in names if name not in option.help] == []


def test_the_objective_pools_as_the_probe_does():
    assert AlignmentConfig.model_fields["pooling"].annotation == Pooling
