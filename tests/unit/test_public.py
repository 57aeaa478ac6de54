"""The public face: names, types as a user's type checker sees them, and examples that run."""

import ast
import doctest
import importlib
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
