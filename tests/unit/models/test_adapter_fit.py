"""Adapters and the models that they are of: bases by name or by weights, modules by name and shape, older names."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from midalign.errors import ModelError
from midalign.models.adapter_files import read_adapter, read_adapters
from midalign.models.adapter_fit import fitted
from midalign.models.adapters import attach_adapter, merge_into_base
from midalign.models.base_names import same_base
from tests.tiny_adapter import edit_config, edit_tensors, rename, save_adapter


def model_folder_with(folder, value):
    folder.mkdir(parents=True)
    save_file({"weight": torch.full((2, 2), value)}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("meta-llama/Meta-Llama-3-8B", "meta-llama/Meta-Llama-3-8B", True),
        ("meta-llama/Meta-Llama-3-8B", "meta-llama/meta-llama-3-8b/", True),
        ("meta-llama/Meta-Llama-3-8B", "/models/Meta-Llama-3-8B", True),
        ("/c/models--meta-llama--Meta-Llama-3-8B/snapshots/5f0b", "meta-llama/Meta-Llama-3-8B", True),
        ("meta-llama/Meta-Llama-3-8B", "", True),
        ("meta-llama/Meta-Llama-3-8B", "meta-llama/Meta-Llama-3-8B-Instruct", False),
        ("meta-llama/Meta-Llama-3-8B", "somebody/Meta-Llama-3-8B", False),
        ("meta-llama/Meta-Llama-3-8B", "/models/Meta-Llama-3-8B-Instruct", False),
        ("/old/run1/model", "/old/run2/model", False),
        ("ONE", "COPY", True),
        ("ONE", "ONE/../one", True),
        ("ONE", "OTHER", False),
        ("ONE", "NO WEIGHTS", False),
        ("NO WEIGHTS", "NO WEIGHTS EITHER", False),
    ],
)
def test_adapters_of_different_bases_are_refused_and_copies_are_not(first, second, same, save, tmp_path):
    folders = {
        "ONE": model_folder_with(tmp_path / "one", 1.0),
        "COPY": model_folder_with(tmp_path / "copy", 1.0),
        "OTHER": model_folder_with(tmp_path / "other", 2.0),
        "NO WEIGHTS": tmp_path / "bare",
        "NO WEIGHTS EITHER": tmp_path / "bare2",
        "ONE/../one": tmp_path / "one" / ".." / "one",
    }
    folders["NO WEIGHTS"].mkdir()
    folders["NO WEIGHTS EITHER"].mkdir()
    paths = {
        "x": save("x", base=folders.get(first, first)),
        "y": save("y", base=folders.get(second, second)),
    }
    if same:
        assert list(read_adapters(paths)) == ["x", "y"]
        return
    with pytest.raises(ModelError, match="do not add up to anything meaningful"):
        read_adapters(paths)


@pytest.mark.parametrize("here", [".", "./", "../Meta-Llama-3-8B"])
def test_the_folder_that_one_is_in_has_its_own_name(here, tmp_path, monkeypatch):
    (tmp_path / "Meta-Llama-3-8B").mkdir()
    monkeypatch.chdir(tmp_path / "Meta-Llama-3-8B")
    assert same_base(here, "meta-llama/Meta-Llama-3-8B") is same_base("meta-llama/Meta-Llama-3-8B", here) is True
    assert same_base(here, "meta-llama/Meta-Llama-3-8B-Instruct") is None


def test_adapters_of_different_revisions_are_refused(save):
    paths = {name: save(name, base="org/model") for name in "xy"}
    edit_config(paths["x"], revision="main")
    assert len(read_adapters(paths)) == 2
    edit_config(paths["y"], revision="v2")
    with pytest.raises(ModelError, match="different revisions"):
        read_adapters(paths)


def test_an_adapter_fits_a_model_on_the_meta_device(save, tiny_model):
    adapter = read_adapter(save())
    with torch.device("meta"):
        fitted(adapter, tiny_model("llama"))
        with pytest.raises(ModelError, match="which the model does not have"):
            fitted(adapter, tiny_model("llama", num_hidden_layers=3))


def test_a_model_of_other_weights_is_refused_and_one_that_cannot_be_compared_is_warned_of(
    save, tiny_model, tmp_path, caplog
):
    one, other = model_folder_with(tmp_path / "one", 1.0), model_folder_with(tmp_path / "other", 2.0)
    copy = model_folder_with(tmp_path / "copy", 1.0)
    adapter = read_adapter(save(base=one))
    model = tiny_model("llama")
    for same in (one, copy, ""):
        model.name_or_path = str(same)
        fitted(adapter, model)
    assert not caplog.records
    model.name_or_path = str(other)
    with pytest.raises(ModelError, match="whose weights differ"):
        fitted(adapter, model)
    model.name_or_path = "/moved/away"
    fitted(adapter, model)
    assert "cannot be compared" in caplog.text


def test_a_lora_on_something_that_is_no_linear_layer_does_not_fit(save, tiny_model):
    adapter = read_adapter(save())
    factors = {"model.embed_tokens": next(iter(adapter.factors.values()))}
    with pytest.raises(ModelError, match="a layer of type Embedding; only LoRA on linear"):
        fitted(type(adapter)("a", adapter.path, adapter.config, factors, "", ""), tiny_model("llama"))


@pytest.fixture
def gemma3():
    """A factory of one tiny Gemma 3 with its vision tower, whose modules transformers renamed in 4.52."""
    from transformers import AutoModelForCausalLM, Gemma3Config

    text = dict(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, sliding_window=16, max_position_embeddings=64,
    )  # fmt: skip
    vision = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28)
    options = dict(mm_tokens_per_image=4, image_token_index=63, boi_token_index=62, eoi_token_index=61)

    def make():
        torch.manual_seed(0)
        config = Gemma3Config(text_config=text, vision_config=vision | {"patch_size": 14}, **options)
        return AutoModelForCausalLM.from_config(config).eval()

    return make


def logits(model):
    with torch.no_grad():
        return model(torch.arange(12).reshape(2, 6)).logits


def test_an_adapter_with_the_older_names_of_gemma3_is_the_same_adapter(gemma3, tmp_path):
    """Live as PEFT maps its names itself, merged as we do."""
    targets = r".*language_model.*\.(q_proj|v_proj)"
    folder = save_adapter(tmp_path / "a", gemma3(), target_modules=targets)
    today = read_adapter(folder).factors
    expected = logits(attach_adapter(gemma3(), folder))
    assert not torch.allclose(expected, logits(gemma3()))
    edit_tensors(folder, rename(".model.language_model.layers.", ".language_model.model.layers."))
    older = read_adapter(folder)
    assert not older.factors.keys() & today.keys()
    assert fitted(older, gemma3()).factors.keys() == today.keys()
    assert torch.equal(logits(attach_adapter(gemma3(), folder)), expected)
    merged = gemma3()
    merge_into_base(merged, folder)
    torch.testing.assert_close(logits(merged), expected)


def test_a_scale_under_an_older_name_that_peft_would_not_find_is_refused(gemma3, tmp_path):
    folder = save_adapter(tmp_path / "a", gemma3(), target_modules=r".*language_model.*\.(q_proj|v_proj)")
    edit_tensors(folder, rename(".model.language_model.layers.", ".language_model.model.layers."))
    edit_config(folder, alpha_pattern={"^language_model.model.layers.0.self_attn.q_proj": 64})
    with pytest.raises(ModelError, match=r"the scale 4.0, but by adapter_config.json it is 16.0.*Write today's names"):
        attach_adapter(gemma3(), folder)


def test_names_of_another_model_are_not_taken_for_older_ones(save, gemma3):
    adapter = read_adapter(save())
    with pytest.raises(ModelError, match=r"'model.layers.0.mlp.up_proj', which the model does not have"):
        fitted(adapter, gemma3())
