"""Adapter folders: whatever stands in their two files, an adapter is read for what it is, or refused with a reason."""

from __future__ import annotations

import json
import shutil
import warnings

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from midalign.models.adapter_files import CONFIG_FILE, WEIGHTS_FILE, read_adapter
from midalign.models.adapters import attach_adapter, lora_layers
from tests.conftest import build_model
from tests.fuzz.strategies import FEW_OR_MANY, damaged, outcome, values
from tests.tiny_adapter import save_adapter

SLOW_IO = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A sound adapter with a pattern of ranks."""
    folder = tmp_path_factory.mktemp("fuzz") / "adapter"
    return save_adapter(folder, build_model("llama"), rank_pattern={"up_proj": 2}, alpha_pattern={"q_proj": 3})


@pytest.fixture
def check(sound, tmp_path):
    """Reads a copy of the adapter with other files, and puts it on its model if it is read."""
    model = build_model("llama")

    def call(config=None, weights=None):
        folder = tmp_path / "copy"
        shutil.copytree(sound, folder, dirs_exist_ok=True)
        if config is not None:
            (folder / CONFIG_FILE).write_bytes(config)
        if weights is not None:
            (folder / WEIGHTS_FILE).write_bytes(weights)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adapter, _ = outcome(read_adapter, folder)
            if adapter is None:
                return False
            live, _ = outcome(attach_adapter, model, folder)
            if live is not None:
                try:
                    check_update(live, adapter)
                finally:
                    live.unload()
        return True

    return call


def check_update(live, adapter):
    """PEFT's update of every module is the one that was read: else a merge would be another adapter."""
    layers = dict(lora_layers(live))
    assert layers.keys() == adapter.factors.keys()
    for name, factors in adapter.factors.items():
        found = layers[name].get_delta_weight("default").float()
        torch.testing.assert_close(found, factors.update().float(), equal_nan=True)


@FEW_OR_MANY
def test_a_damaged_configuration(sound, check, cases):
    whole = (sound / CONFIG_FILE).read_bytes()

    @given(damaged(whole))
    @settings(max_examples=cases, deadline=None, suppress_health_check=SLOW_IO, database=None)
    def prop(data):
        check(config=data)

    prop()
    assert check(config=whole)


@FEW_OR_MANY
def test_settings_of_any_type_and_size(sound, check, cases):
    whole = json.loads((sound / CONFIG_FILE).read_text())

    @given(st.sampled_from([*whole, "use_something_new", "a_size"]), values())
    @settings(max_examples=cases, deadline=None, suppress_health_check=SLOW_IO, database=None)
    def prop(name, value):
        rest = {key: item for key, item in whole.items() if key != name}
        text = json.dumps(rest)[:-1] + f", {json.dumps(name)}: {value}}}"
        check(config=text.encode("utf-8", errors="surrogatepass"))

    prop()


@FEW_OR_MANY
def test_damaged_weights(sound, check, cases):
    whole = (sound / WEIGHTS_FILE).read_bytes()

    @given(damaged(whole[:4000]), st.booleans())
    @settings(max_examples=cases, deadline=None, suppress_health_check=SLOW_IO, database=None)
    def prop(head, cut):
        check(weights=head if cut else head + whole[4000:])

    prop()


TYPES = (torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int8, torch.int64, torch.bool)
CHANGES = {
    "empty": lambda t: torch.zeros(0),
    "no rows": lambda t: t[:0],
    "one row less": lambda t: t[1:],
    "one column more": lambda t: torch.cat([t, t[:, :1]], dim=1),
    "a vector": lambda t: t.flatten(),
    "a convolution": lambda t: t[..., None, None],
    "one number": lambda t: torch.tensor(1.0),
    "turned": lambda t: t.mT,
    "zeros": torch.zeros_like,
    "not a number": lambda t: t * torch.nan,
    "huge": lambda t: t * 1e38,
    **{str(dtype): lambda t, dtype=dtype: t.to(dtype) for dtype in TYPES},
}
NAMES = {
    "compiled": lambda n: n.replace("base_model.model.", "base_model.model._orig_mod."),
    "named": lambda n: n.replace(".weight", ".default.weight"),
    "no prefix": lambda n: n.removeprefix("base_model."),
    "another block": lambda n: n.replace("layers.0", "layers.9"),
    "another module": lambda n: n.replace("up_proj", "o_proj"),
    "an embedding": lambda n: n.replace("lora_A", "lora_embedding_A"),
    "gone": lambda n: None,
}


@FEW_OR_MANY
def test_tensors_of_other_shapes_types_and_names(sound, check, cases):
    whole = load_file(sound / WEIGHTS_FILE)
    which = st.sampled_from(sorted(whole)) | st.none()
    change = st.sampled_from(sorted(CHANGES)) | st.none()
    name = st.sampled_from(sorted(NAMES)) | st.none()

    @given(st.lists(st.tuples(which, change, name), min_size=1, max_size=3))
    @settings(max_examples=cases, deadline=None, suppress_health_check=SLOW_IO, database=None)
    def prop(edits):
        tensors = dict(whole)
        for chosen, changed, renamed in edits:
            for key in list(tensors) if chosen is None else [chosen]:
                if key not in tensors:
                    continue
                tensor = tensors.pop(key)
                new = key if renamed is None else NAMES[renamed](key)
                if new is not None:
                    try:
                        tensors[new] = tensor if changed is None else CHANGES[changed](tensor)
                    except (RuntimeError, IndexError):  # this change does not go with the one before
                        tensors[new] = tensor
        file = sound.parent / "changed.safetensors"
        save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, file)
        check(weights=file.read_bytes())

    prop()
