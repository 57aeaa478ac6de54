"""What became of a gold slot, what states carry over, and that every arm of the experiments is a recipe."""

import pytest

from experiments.arms import settings
from experiments.real.run import ARMS, RECIPES, recipe_of
from experiments.real.transfer import fate
from midalign.records import Span


@pytest.mark.parametrize(
    ("answered", "expected"),
    [
        ([], "left out"),
        ([("who", 3, 4)], "left out"),  # other words altogether
        ([("who", 1, 3)], "right"),
        ([("when", 1, 3)], "right words, other label"),
        ([("who", 1, 2)], "right label, other words"),
        ([("when", 2, 4)], "both wrong"),
        ([("when", 2, 4), ("who", 1, 2)], "right label, other words"),  # the best of them
    ],
)
def test_a_gold_slot_meets_one_fate(answered, expected):
    assert fate(Span("who", 1, 3), [Span(*span) for span in answered]) == expected


@pytest.mark.parametrize("name", RECIPES)
def test_every_arm_is_a_recipe(name, monkeypatch):
    for variable in ("REAL_MODEL", "REAL_DATA", "REAL_PAIRS"):
        monkeypatch.setenv(variable, variable.lower())
    others = ["languages."] if name != "xsid" else []
    others += ["alignment.prompt=task"] if name == "translation" else []
    others += ["generation.constrained=slots"] if name in ("translation", "uner") else []
    for arm in ARMS:
        if not any(override.startswith(tuple(others)) for override in settings(ARMS, arm)):
            assert recipe_of(name, 3, arm).seed == 3
