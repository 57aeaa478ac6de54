"""The public face: names, types as a user's type checker sees them, and examples that run."""

import ast
import importlib

import pytest

import midalign
from tests.conftest import ROOT

NAMES = [name for name in midalign.__all__ if name != "__version__"]


def members(cls):
    """Public attributes, properties and methods that midalign itself defines on a class."""
    found = {}
    for owner in cls.__mro__:
        if owner.__module__.startswith("midalign"):
            found |= dict.fromkeys(
                [*vars(owner), *owner.__annotations__] if "__annotations__" in vars(owner) else vars(owner)
            )
    return [name for name in found if not name.startswith("_") and name != "model_config"]


def test_the_lazy_table_the_typed_imports_and_all_name_the_same_things():
    tree = ast.parse((ROOT / "src/midalign/__init__.py").read_text(encoding="utf-8"))
    typed = {
        alias.asname: (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("midalign.")
        for alias in node.names
    }
    assert typed == {name: (f"midalign.{module}", name) for name, module in midalign._MODULE_OF.items()}
    assert NAMES == sorted(NAMES) == sorted(typed)
    for name in NAMES:
        assert getattr(midalign, name) is getattr(importlib.import_module(typed[name][0]), name)
    assert set(dir(midalign)) == set(midalign.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'prob'"):
        _ = midalign.prob
