"""Model folders: whatever stands in their files, they are loaded whole, or refused with a reason.

A damaged configuration may describe a model of any size. Memory is limited here, so that a machine with little of it
does not suffer; blocks are limited too, since each takes time to make.
"""

from __future__ import annotations

import json
import logging
import resource
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from midalign.models.loading import load_config, load_model, load_tokenizer
from tests.conftest import build_model, build_tokenizer
from tests.fuzz.strategies import FEW_OR_MANY, damaged, outcome, values

SLOW_IO = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much]
ROOM = 4 << 30  # bytes beyond what the process has
MOST_BLOCKS = 50
IDS = torch.arange(5, 17).reshape(2, 6)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "model"
    build_model("llama").save_pretrained(folder)
    build_tokenizer(chat=True).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def little_memory():
    """Limits what this process may have, as far as the system lets it."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else None
    if pages is not None:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, before[1]))
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def load(sound, tmp_path):
    """Loads a copy of the folder with one file changed, and runs the model if it was loaded."""

    def call(name, content):
        folder = tmp_path / "copy"
        shutil.copytree(sound, folder, dirs_exist_ok=True)
        (folder / name).write_bytes(content)
        outcome(load_config, str(folder))
        outcome(load_tokenizer, str(folder))
        model, _ = outcome(load_model, str(folder))
        if model is None:
            return None
        with torch.no_grad():
            return model(IDS).logits

    return call


def reasonable(text):
    """Whether a configuration does not ask for so many blocks that making them takes minutes."""
    try:
        content = json.loads(text)
        return not isinstance(content, dict) or not content.get("num_hidden_layers", 0) > MOST_BLOCKS
    except (ValueError, TypeError, RecursionError):
        return True


@FEW_OR_MANY
def test_a_damaged_configuration(sound, load, cases):
    whole = (sound / "config.json").read_bytes()

    @given(damaged(whole))
    @settings(max_examples=cases, deadline=None, suppress_health_check=SLOW_IO, database=None)
    def prop(data):
        assume(reasonable(data))
        load("config.json", data)

    prop()
    assert load("config.json", whole) is not None


@FEW_OR_MANY
def test_settings_of_any_type_and_size(sound, load, cases):
    whole = json.loads((sound / "config.json").read_text())

    @given(st.sampled_from(sorted(whole)), values() | st.integers(-3, 300).map(str))
    @settings(max_examples=cases, deadline=None, suppress_health_check=SLOW_IO, database=None)
    def prop(name, value):
        rest = {key: item for key, item in whole.items() if key != name}
        text = json.dumps(rest)[:-1] + f", {json.dumps(name)}: {value}}}"
        assume(reasonable(text))
        load("config.json", text.encode("utf-8", errors="surrogatepass"))

    prop()


@FEW_OR_MANY
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_tokenizer(sound, load, name, cases):
    whole = (sound / name).read_bytes()

    @given(damaged(whole))
    @settings(max_examples=cases, deadline=None, suppress_health_check=SLOW_IO, database=None)
    def prop(data):
        load(name, data)

    prop()


@FEW_OR_MANY
def test_damaged_weights(sound, load, cases):
    """Below the header a flipped bit is a number like any other."""
    whole = (sound / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")

    @given(damaged(whole[:header]), st.booleans())
    @settings(max_examples=cases, deadline=None, suppress_health_check=SLOW_IO, database=None)
    def prop(head, cut):
        load("model.safetensors", head if cut else head + whole[header:])

    prop()


CHANGES = {
    "empty": lambda t: torch.zeros(0),
    "one row less": lambda t: t[1:],
    "one number": lambda t: torch.tensor(1.0),
    "one dimension more": lambda t: t[None],
    "whole numbers": lambda t: t.to(torch.int8),
    "eight bits": lambda t: t.to(torch.float8_e4m3fn),
    "gone": lambda t: None,
}
NAMES = {
    "compiled": lambda n: f"_orig_mod.{n}",
    "a block too many": lambda n: n.replace("layers.0", "layers.9"),
    "another word": lambda n: n.replace("mlp", "ffn"),
}


@FEW_OR_MANY
def test_tensors_of_other_shapes_types_and_names(sound, load, cases):
    whole = load_file(sound / "model.safetensors")
    expected = load("model.safetensors", (sound / "model.safetensors").read_bytes())

    @given(st.sampled_from(sorted(whole)) | st.none(), st.sampled_from(sorted(CHANGES) + sorted(NAMES)))
    @settings(max_examples=cases, deadline=None, suppress_health_check=SLOW_IO, database=None)
    def prop(chosen, change):
        tensors = {}
        for name, tensor in whole.items():
            here = chosen is None or name == chosen
            new = NAMES[change](name) if here and change in NAMES else name
            changed = CHANGES[change](tensor) if here and change in CHANGES else tensor
            if changed is not None:
                tensors[new] = changed.contiguous().clone()
        file = sound.parent / "changed.safetensors"
        save_file(tensors, file, metadata={"format": "pt"})
        found = load("model.safetensors", file.read_bytes())
        same_names = tensors.keys() == whole.keys()
        same_shapes = same_names and all(tensors[name].shape == whole[name].shape for name in whole)
        if found is not None:
            assert same_shapes, "a model was loaded that is not what the checkpoint holds"
        elif same_shapes and change not in ("whole numbers", "eight bits"):
            raise AssertionError("a sound model was refused")
        if found is not None and change in NAMES:
            torch.testing.assert_close(found, expected)

    prop()
