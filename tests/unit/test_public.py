"""The public face: names, types as a user's type checker sees them, and examples that run."""

import ast
import importlib
import inspect
import re

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
        midalign.prob


def test_a_type_checker_knows_every_name_parameter_return_and_attribute(tmp_path):
    api = pytest.importorskip("mypy.api")
    lines = ["import midalign"]
    for name in NAMES:
        lines.append(f"reveal_type(midalign.{name})")
        value = getattr(midalign, name)
        if inspect.isclass(value):
            lines.append(f"def of_{name}(it: midalign.{name}) -> None:")
            lines += [f"    reveal_type(it.{member})" for member in members(value)] or ["    pass"]
    script = tmp_path / "script.py"
    script.write_text("\n".join(lines) + "\n")
    # Without a configuration, as a user's; the cache makes the second run one of seconds.
    options = ["--config-file=", "--strict", f"--cache-dir={ROOT / '.mypy_cache' / 'public'}", str(script)]
    said, faults, status = api.run(options)
    assert (status, faults) == (0, ""), said
    # numpy's own way of writing an array of any shape
    found = [line.replace("ndarray[tuple[Any, ...]", "ndarray[shape") for line in said.splitlines()]
    revealed = [line for line in found if "Revealed type" in line]
    assert len(revealed) == sum("reveal_type" in line for line in lines)
    hidden = [
        f"{lines[int(line.split(':')[1]) - 1].strip()}: {line}" for line in revealed if re.search(r"\bAny\b", line)
    ]
    assert not hidden, "\n".join(hidden)
