"""Cache files of sentence vectors: round trip, damage of every kind, and what the key of a model depends on."""

import logging
import os

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

from midalign.errors import RunError
from midalign.models.vector_cache import cache_path, is_intact, read_layer, weights_key, write_vectors
from tests.conftest import build_model

LAYERS = (0, 2, 4)


@pytest.fixture
def written(tmp_path):
    vectors = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    path = cache_path(tmp_path / "cache", "deu_Latn", "mean", LAYERS, "model", "data")
    write_vectors(path, vectors, LAYERS)
    return path, vectors


def test_layers_come_back_bit_for_bit_one_at_a_time(written):
    path, vectors = written
    assert is_intact(path, LAYERS, 5)
    for place, layer in enumerate(LAYERS):
        assert torch.equal(read_layer(path, layer), vectors[place])
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_file_that_is_not_there_is_no_reason_to_warn(tmp_path, caplog):
    assert not is_intact(tmp_path / "none.safetensors", LAYERS, 5)
    assert not caplog.text


@pytest.mark.parametrize("damage", ["cut", "emptied", "flipped", "header", "foreign", "layers", "n"])
def test_a_damaged_file_is_noticed_with_a_warning(damage, written, caplog):
    path, vectors = written
    data = bytearray(path.read_bytes())
    layers, n = LAYERS, 5
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "emptied":
        path.write_bytes(b"")
    elif damage == "flipped":
        data[-3] ^= 1
        path.write_bytes(data)
    elif damage == "header":
        data[20] ^= 255
        path.write_bytes(data)
    elif damage == "foreign":
        save_file({"weights": vectors}, path)
    elif damage == "layers":
        layers = (0, 2)
    else:
        n = 6
    with caplog.at_level(logging.WARNING):
        assert not is_intact(path, layers, n)
    assert "damaged" in caplog.text


def test_what_a_killed_process_left_is_cleared_away(written):
    path, vectors = written
    left = path.with_name(f".{path.name}.4711.tmp")
    other = path.with_name(f".{path.name}.4712.tmp")
    for half in (left, other):
        half.write_bytes(b"half")
    os.utime(left, (1, 1))
    write_vectors(path, vectors, LAYERS)
    assert not left.exists()
    assert other.exists()  # may be a living process


def test_a_folder_that_cannot_be_written_to_is_an_error_that_names_it(tmp_path, written):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="another cache folder"):
        write_vectors(tmp_path / "file" / "x.safetensors", written[1], LAYERS)


def test_the_key_of_a_model_depends_on_weights_settings_adapter_scale_and_activity():
    def adapted():
        torch.manual_seed(0)
        return get_peft_model(build_model("llama"), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))

    model = build_model("llama")
    keys = [weights_key(model), weights_key(model.bfloat16())]
    assert weights_key(build_model("llama")) == keys[0]
    model = build_model("llama")
    with torch.no_grad():
        model.model.layers[3].mlp.up_proj.weight[0, 0] += 1e-6
    keys.append(weights_key(model))
    model = build_model("llama")
    model.config.rms_norm_eps *= 2
    keys.append(weights_key(model))
    model = adapted()
    assert weights_key(model) == weights_key(adapted())
    keys.append(weights_key(model))
    model.base_model.model.model.layers[0].self_attn.q_proj.set_scale("default", 0.5)
    keys.append(weights_key(model))
    with model.disable_adapter():
        keys.append(weights_key(model))
    assert len(set(keys)) == len(keys)
