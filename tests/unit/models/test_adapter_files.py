"""Adapter folders: what is read from a sound one, and that every unsound one is refused by name."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file

from midalign.errors import MissingFileError, ModelError
from midalign.functional.lora import LoraFactors
from midalign.models.adapter_files import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    check_fits,
    read_adapter,
    read_adapters,
    write_adapter,
)

LORA = dict(r=4, lora_alpha=16, target_modules=["q_proj", "up_proj"])


@pytest.fixture
def save(tiny_model, tmp_path):
    """A factory of adapters saved by PEFT, with all factors random."""

    def save(name="adapter", family="llama", save_embedding_layers=False, base=None, **options):
        config = LoraConfig(task_type="CAUSAL_LM", **{**LORA, **options})
        model = get_peft_model(tiny_model(family), config)
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                torch.nn.init.normal_(parameter, std=0.2)
        folder = tmp_path / name
        model.save_pretrained(folder, save_embedding_layers=save_embedding_layers)
        if base is not None:
            edit_config(folder, base_model_name_or_path=str(base))
        return folder

    return save


def edit_config(folder, **changes):
    path = folder / CONFIG_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_tensors(folder, edit):
    tensors = load_file(folder / WEIGHTS_FILE)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS_FILE)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"up_proj": 2}},
        {"alpha_pattern": {r"layers\.[01]\..*q_proj": 3, "up_proj": 5}},
        {"rank_pattern": {"^model.layers.1.mlp.up_proj": 7}, "alpha_pattern": {"up_proj": 5}, "use_rslora": True},
        {"layers_to_transform": [1], "target_modules": ["o_proj"]},
    ],
)
@pytest.mark.filterwarnings("ignore:.*rslora")
def test_every_update_read_is_the_one_that_peft_computes(options, save, tiny_model):
    folder = save(**options)
    factors = read_adapter(folder).factors
    model = PeftModel.from_pretrained(tiny_model("llama"), str(folder))
    layers = {n: m for n, m in model.get_base_model().named_modules() if isinstance(m, LoraLayer)}
    assert factors.keys() == layers.keys()
    for name, layer in layers.items():
        torch.testing.assert_close(factors[name].update(), layer.get_delta_weight("default"))


def test_the_hash_tells_weights_and_configuration_apart_and_copies_not(save, tmp_path):
    folder = save()
    first = read_adapter(folder)
    shutil.copytree(folder, tmp_path / "copy")
    assert read_adapter(tmp_path / "copy").sha256 == first.sha256
    edit_config(folder, lora_alpha=17)
    second = read_adapter(folder)
    edit_tensors(folder, lambda t: next(iter(t.values())).add_(1e-3))
    assert len({first.sha256, second.sha256, read_adapter(folder).sha256}) == 3
    assert (first.name, read_adapter(folder, "mine").name) == ("adapter", "mine")


CONFIG_FAULTS = {
    "another method": (dict(peft_type="IA3"), "peft_type is 'IA3', not 'LORA'"),
    "no method": (dict(peft_type=None), "peft_type is None"),
    "no rank": (dict(r=None), "r is missing"),
    "no alpha": (dict(lora_alpha=None), "lora_alpha is missing"),
    "no modules": (dict(target_modules=None), "target_modules is missing"),
    "dora": (dict(use_dora=True), "use_dora = True is not supported"),
    "lora bias": (dict(lora_bias=True), "lora_bias = True is not supported"),
    "biases": (dict(bias="all"), "bias = 'all'"),
    "whole modules": (dict(modules_to_save=["lm_head"]), r"modules_to_save = \['lm_head'\] is not supported"),
    "tokens": (dict(trainable_token_indices=[1, 2]), "trainable_token_indices"),
    "experts": (dict(target_parameters=["experts.up_proj"]), "target_parameters"),
    "activated": (dict(alora_invocation_tokens=[1]), "alora_invocation_tokens"),
    "more layers": (dict(layer_replication=[[0, 2], [1, 3]]), "layer_replication"),
    "pissa": (dict(init_lora_weights="pissa_niter_4"), "changes the base weights too"),
    "olora": (dict(init_lora_weights="olora"), "changes the base weights too"),
    "another rank": (dict(r=5), "has rank 4, but adapter_config.json says 5"),
    "another rank by pattern": (dict(rank_pattern={"up_proj": 2}), "'model.layers.0.mlp.up_proj' has rank 4"),
    "refused by peft": (dict(target_modules="q_proj", layers_to_transform=[1]), "not a configuration that PEFT"),
}


@pytest.mark.parametrize("fault", CONFIG_FAULTS)
def test_a_configuration_that_is_no_plain_lora_is_refused_by_name(fault, save):
    changes, message = CONFIG_FAULTS[fault]
    folder = save()
    edit_config(folder, **changes)
    with pytest.raises(ModelError, match=message):
        read_adapter(folder)


@pytest.mark.parametrize("text", ["{", "[1, 2]", "\ufeff{}", '"LORA"'])
def test_a_configuration_that_is_no_json_object_is_refused(text, save):
    folder = save()
    (folder / CONFIG_FILE).write_text(text)
    with pytest.raises(ModelError, match="is not a JSON object"):
        read_adapter(folder)


@pytest.mark.filterwarnings("ignore:Unexpected keyword arguments")
def test_configurations_of_older_and_newer_peft_are_read(save):
    folder = save()
    expected = read_adapter(folder).factors
    raw = json.loads((folder / CONFIG_FILE).read_text())
    old = {key: raw[key] for key in ("peft_type", "task_type", "r", "lora_alpha", "target_modules")}
    for config in (old, {**raw, "an_option_of_tomorrow": None}):
        (folder / CONFIG_FILE).write_text(json.dumps(config))
        factors = read_adapter(folder).factors
        assert {name: f.scale for name, f in factors.items()} == {name: f.scale for name, f in expected.items()}


def cut_tensor(key, change):
    return lambda tensors: tensors.update({key: change(tensors[key])})


FIRST = "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"
TENSOR_FAULTS = {
    "nan": (cut_tensor(FIRST, lambda t: t * math.nan), "up_proj.lora_A.weight' holds values that are not finite"),
    "infinite": (cut_tensor(FIRST, lambda t: t / 0), "not finite"),
    "convolution": (cut_tensor(FIRST, lambda t: t[..., None, None].clone()), "LoRA on a convolution"),
    "half a pair": (lambda t: t.pop(FIRST), "'model.layers.0.mlp.up_proj' has only factor B"),
    "no tensors": (lambda t: t.clear(), "holds no tensors"),
    "embedding": (
        lambda t: t.update({"base_model.model.model.embed_tokens.weight": torch.zeros(3, 3)}),
        "embed_tokens.weight' is a whole weight of the base model",
    ),
    "lora on the embedding": (
        lambda t: t.update({"base_model.model.model.embed_tokens.lora_embedding_A": torch.zeros(3, 3)}),
        "a LoRA on an embedding",
    ),
    "magnitude": (
        lambda t: t.update({"base_model.model.model.layers.0.mlp.up_proj.lora_magnitude_vector": torch.zeros(3)}),
        "lora_magnitude_vector' is no factor",
    ),
    "no prefix": (lambda t: t.update({"layers.0.lora_A.weight": torch.zeros(3, 3)}), "is no factor of a LoRA"),
}


@pytest.mark.parametrize("fault", TENSOR_FAULTS)
def test_tensors_that_are_no_sound_factor_pairs_are_refused_by_name(fault, save):
    edit, message = TENSOR_FAULTS[fault]
    folder = save()
    edit_tensors(folder, edit)
    with pytest.raises(ModelError, match=message):
        read_adapter(folder)


def test_the_base_weights_that_peft_stores_with_an_adapter_of_the_head_are_refused(save):
    folder = save(target_modules=["lm_head"], save_embedding_layers=True)
    with pytest.raises(ModelError, match="save_embedding_layers=False"):
        read_adapter(folder)
    assert list(read_adapter(save("clean", target_modules=["lm_head"])).factors) == ["lm_head"]


def test_missing_and_damaged_files_are_refused_by_name(save, tmp_path):
    with pytest.raises(MissingFileError, match="nowhere does not exist"):
        read_adapter(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFileError, match=r"holds no adapter_config\.json"):
        read_adapter(tmp_path / "empty")
    folder = save()
    whole = (folder / WEIGHTS_FILE).read_bytes()
    for size in (0, 5, 40, len(whole) // 2, len(whole) - 1):
        (folder / WEIGHTS_FILE).write_bytes(whole[:size])
        with pytest.raises(ModelError, match="cut short"):
            read_adapter(folder)
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(MissingFileError, match=r"holds no adapter_model\.safetensors\. Save"):
        read_adapter(folder)
    torch.save({}, folder / "adapter_model.bin")
    with pytest.raises(MissingFileError, match="only safetensors are read, as a pickle can run any code"):
        read_adapter(folder)


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
        check_fits(adapter, tiny_model("llama"))
        with pytest.raises(ModelError, match="which the model does not have"):
            check_fits(adapter, tiny_model("llama", num_hidden_layers=3))


def test_a_model_of_other_weights_is_refused_and_one_that_cannot_be_compared_is_warned_of(
    save, tiny_model, tmp_path, caplog
):
    one, other = model_folder_with(tmp_path / "one", 1.0), model_folder_with(tmp_path / "other", 2.0)
    copy = model_folder_with(tmp_path / "copy", 1.0)
    adapter = read_adapter(save(base=one))
    model = tiny_model("llama")
    for same in (one, copy, ""):
        model.name_or_path = str(same)
        check_fits(adapter, model)
    assert not caplog.records
    model.name_or_path = str(other)
    with pytest.raises(ModelError, match="whose weights differ"):
        check_fits(adapter, model)
    model.name_or_path = "/moved/away"
    check_fits(adapter, model)
    assert "cannot be compared" in caplog.text


def test_a_lora_on_something_that_is_no_linear_layer_does_not_fit(save, tiny_model):
    adapter = read_adapter(save())
    factors = {"model.embed_tokens": next(iter(adapter.factors.values()))}
    with pytest.raises(ModelError, match="a layer of type Embedding; only LoRA on linear"):
        check_fits(type(adapter)("a", adapter.path, adapter.config, factors, "", ""), tiny_model("llama"))


def test_what_is_written_is_read_back_with_a_rank_for_every_module(tmp_path):
    ranks = {f"model.layers.{i}.mlp.up_proj": rank for i, rank in enumerate([3, 1, 3, 7, 3, 3, 3, 3, 3, 3, 2, 3])}
    factors = {name: LoraFactors(torch.randn(r, 6), torch.randn(5, r)) for name, r in ranks.items()}
    tmp_path.joinpath("out").mkdir()
    write_adapter(tmp_path / "out", factors, "org/model", fan_in_fan_out=False)
    back = read_adapter(tmp_path / "out")
    assert {name: f.rank for name, f in back.factors.items()} == ranks
    assert all(f.scale == 1.0 for f in back.factors.values())
    assert all(torch.equal(f.a, factors[n].a) and torch.equal(f.b, factors[n].b) for n, f in back.factors.items())
    assert back.base_model == "org/model"
    assert len(back.config.rank_pattern) == 3
