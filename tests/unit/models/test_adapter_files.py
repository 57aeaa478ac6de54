"""Adapter folders: what is read from a sound one, and that every unsound one is refused by name."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from midalign.errors import MissingFileError, ModelError
from midalign.functional.lora import LoraFactors
from midalign.models.adapter_files import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    read_adapter,
    write_adapter,
)
from tests.tiny_adapter import edit_config, edit_tensors, rename


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
    "a rank of text": (dict(r="4"), "r = '4' is not a whole number of at least 1"),
    "a rank of nothing": (dict(r=0), "r = 0 is not a whole number"),
    "a rank of truth": (dict(r=True), "r = True is not a whole number"),
    "an alpha that is no number": (dict(lora_alpha=math.nan), "lora_alpha = nan is not a finite number"),
    "no names": (dict(target_modules=[]), r"target_modules = \[\] is not a pattern or a list"),
    "names that are numbers": (dict(target_modules=[1]), r"target_modules = \[1\]"),
    "a pattern that is none": (dict(target_modules="q_proj("), r"target_modules = 'q_proj\(' is not a pattern"),
    "ranks in a list": (dict(rank_pattern=[1]), "rank_pattern = "),
    "an alpha of text by pattern": (dict(alpha_pattern={"q_proj": "1"}), "alpha_pattern = "),
    "no table of ranks": (dict(rank_pattern=None), "rank_pattern = None is not ranks by pattern"),
    "a flag of text": (dict(use_rslora="false"), "use_rslora = 'false' is not true or false"),
    "layers of text": (dict(layers_to_transform="1"), "layers_to_transform = '1'"),
    "a base that is a number": (dict(base_model_name_or_path=1), "base_model_name_or_path = 1 is not text"),
    "something of tomorrow turned on": (
        dict(use_tomorrow=True),
        "does not know use_tomorrow = True and would leave it",
    ),
    "something of tomorrow with settings": (dict(tomorrow={"a": 1}, peft_version="9.1"), "saved by PEFT 9.1: upgrade"),
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


def test_configurations_of_older_and_newer_peft_are_read_and_what_is_left_out_is_said(save, caplog):
    folder = save()
    expected = read_adapter(folder).factors
    raw = json.loads((folder / CONFIG_FILE).read_text())
    old = {key: raw[key] for key in ("peft_type", "task_type", "r", "lora_alpha", "target_modules")}
    off = {"an_option": None, "a_flag": False, "a_list": [], "a_table": {}, "a_text": ""}
    for config in (old, raw | off, raw | {"a_size_of_tomorrow": 16}):
        (folder / CONFIG_FILE).write_text(json.dumps(config))
        factors = read_adapter(folder).factors
        assert {name: f.scale for name, f in factors.items()} == {name: f.scale for name, f in expected.items()}
    assert [record.args[2:4] for record in caplog.records] == [("a_size_of_tomorrow", 16)]


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
    "no factor": (lambda t: t.update({"layers.0.lora_C.weight": torch.zeros(3, 3)}), "is no factor of a LoRA"),
    "no prefix": (rename("base_model.model.", ""), "is without the prefix 'base_model.model.'"),
    "an adapter's name": (rename(".weight", ".default.weight"), "with the name of the adapter in it"),
    "torch.compile": (rename("base_model.model.", "base_model.model._orig_mod."), "the name of a wrapper"),
    "torch.compile around it all": (rename("base_model.model.", "_orig_mod.base_model.model."), "name of a wrapper"),
    "DistributedDataParallel": (rename("base_model.model.", "module.base_model.model."), "named with 'module', the"),
    "FSDP in the middle": (rename("layers.0.", "layers.0._fsdp_wrapped_module."), "named with '_fsdp_wrapped_module'"),
    "ZeRO-3": (cut_tensor(FIRST, lambda t: torch.zeros(0)), r"is empty, of shape \(0,\). DeepSpeed's ZeRO-3"),
    "ZeRO-3, of two dimensions": (cut_tensor(FIRST, lambda t: torch.zeros(0, 32)), "is empty"),
    "whole numbers": (cut_tensor(FIRST, lambda t: t.to(torch.int8)), "holds torch.int8, not floating point"),
    "one number": (cut_tensor(FIRST, lambda t: torch.tensor(1.0)), r"has shape \(\)"),
}


@pytest.mark.parametrize("fault", TENSOR_FAULTS)
def test_tensors_that_are_no_sound_factor_pairs_are_refused_by_name(fault, save):
    edit, message = TENSOR_FAULTS[fault]
    folder = save()
    edit_tensors(folder, edit)
    with pytest.raises(ModelError, match=message):
        read_adapter(folder)


@pytest.mark.parametrize("factor", ["A", "B"])
def test_an_adapter_that_changes_nothing_is_warned_of(save, factor, caplog):
    folder = save()
    read_adapter(folder)
    assert not caplog.records
    edit_tensors(folder, lambda t: [tensor.zero_() for name, tensor in t.items() if f"lora_{factor}" in name])
    read_adapter(folder)
    assert "changes nothing" in caplog.text


def test_factors_of_unequal_types_have_a_product(save):
    folder = save()
    expected = {name: f.update() for name, f in read_adapter(folder).factors.items()}
    edit_tensors(
        folder,
        lambda t: t.update({name: x.double() for name, x in t.items() if "layers.0.mlp" in name and "lora_A" in name}),
    )
    for name, factors in read_adapter(folder).factors.items():
        torch.testing.assert_close(factors.update().float(), expected[name])


def test_an_adapter_that_changes_some_modules_is_not(save, caplog):
    folder = save()
    edit_tensors(folder, lambda t: [tensor.zero_() for name, tensor in t.items() if "layers.0.mlp" not in name])
    read_adapter(folder)
    assert not caplog.records


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
