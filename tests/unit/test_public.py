"""The public face: names, types as a user's type checker sees them, and examples that run."""

import ast
import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

import midalign
from tests.conftest import ROOT, build_model, build_tokenizer
from tests.tiny_world import write_world

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


@pytest.mark.parametrize("name", NAMES)
def test_no_annotation_of_a_public_name_says_any(name):
    """What the slow test below finds out with mypy, as far as it can be read off the annotations themselves."""
    value = getattr(midalign, name)
    parts = [value]
    if inspect.isclass(value):
        static = [inspect.getattr_static(value, member, None) for member in [*members(value), "__init__"]]
        parts += [getattr(part, "fget", None) or getattr(part, "__func__", None) or part for part in static]
    for part in parts:
        if part is value or (inspect.isfunction(part) and part.__module__.startswith("midalign")):
            written = {key: str(note) for key, note in part.__annotations__.items() if not key.startswith("_")}
            assert not [key for key, note in written.items() if re.search(r"\bAny\b", note)]


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'prob'"):
        _ = midalign.prob


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A folder to run examples in (tests/tiny_world.py, and two adapters), and the names that they use."""
    import datasets
    import peft
    import torch
    import transformers
    import trl

    write_world(tmp_path)
    for name in ("task", "alignment"):
        config = peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
        peft.get_peft_model(build_model("llama"), config).save_pretrained(tmp_path / "adapters" / name)
    monkeypatch.chdir(tmp_path)
    names = {"Path": Path, "torch": torch, "Dataset": datasets.Dataset, "LoraConfig": peft.LoraConfig}
    names |= {"SFTConfig": trl.SFTConfig, "Trainer": transformers.Trainer}
    names |= {"TrainingArguments": transformers.TrainingArguments, "midalign": midalign}
    return names | {"model": build_model("llama", max_position_embeddings=256), "tokenizer": build_tokenizer()}


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_every_public_name_runs(name, world):
    examples = doctest.DocTestParser().get_doctest(getattr(midalign, name).__doc__, world, name, None, None)
    assert examples.examples, f"{name} has no example"
    said = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert not runner.run(examples, out=said.append).failed, "".join(said)


@pytest.mark.slow
def test_a_type_checker_knows_every_name_parameter_return_and_attribute(tmp_path):
    api = pytest.importorskip("mypy.api")
    lines = ["import midalign", "midalign.AlignmentConfig(layer=16, temperature=0.5)"]
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
    # numpy's own ways of writing an array of any shape, and of any type (within a result of transformers)
    found = [re.sub(r"tuple\[Any, \.\.\.\]|dtype\[Any\]", "", line) for line in said.splitlines()]
    revealed = [line for line in found if "Revealed type" in line]
    assert len(revealed) == sum("reveal_type" in line for line in lines)
    hidden = [
        f"{lines[int(line.split(':')[1]) - 1].strip()}: {line}" for line in revealed if re.search(r"\bAny\b", line)
    ]
    assert not hidden, "\n".join(hidden)
