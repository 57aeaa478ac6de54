"""Checkpoints that do not fill their model: refused by the name of a tensor, or read without a wrapper's prefix."""

import json
import re

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from midalign.errors import ModelError
from midalign.models.loading import load_model
from tests.conftest import build_model


@pytest.fixture
def save(tmp_path):
    """Saves a tiny model, with its tensors changed by a function of all of them."""

    def make(change, family="llama", **options):
        build_model(family, **options).save_pretrained(tmp_path)
        file = tmp_path / "model.safetensors"
        tensors = change(load_file(file))
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, file, metadata={"format": "pt"})
        return str(tmp_path)

    return make


def renamed(change):
    return lambda tensors: {change(name): tensor for name, tensor in tensors.items()}


WRAPPERS = {
    "torch.compile": lambda name: f"_orig_mod.{name}",
    "DistributedDataParallel": lambda name: f"module.{name}",
    "both": lambda name: f"module._orig_mod.{name}",
    "one inside the other": lambda name: f"_orig_mod.module.{name}",
    "a class of one's own": lambda name: f"model.{name}",
    "that, compiled": lambda name: f"_orig_mod.model.{name}",
    "PEFT's": lambda name: f"base_model.model.{name}",
    "blocks compiled one by one": lambda name: re.sub(r"(layers|h)\.(\d+)\.", r"\1.\2._orig_mod.", name),
    "FSDP with checkpointing": lambda name: (
        "_fsdp_wrapped_module."
        + re.sub(r"(layers|h)\.(\d+)\.", r"\1.\2._fsdp_wrapped_module._checkpoint_wrapped_module.", name)
    ),
}


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapper_in_the_names_is_taken_out(save, caplog, wrapper, family):
    model = load_model(save(renamed(WRAPPERS[wrapper]), family), unwrap=True)
    original = build_model(family).state_dict()
    assert all(torch.equal(tensor, original[name]) for name, tensor in model.state_dict().items())
    # transformers itself reads a name behind the prefix of its own base model, `model` in most families.
    assert "was saved with a wrapper around it" in caplog.text or wrapper == "a class of one's own"


@pytest.mark.parametrize(
    "wrapper", ["torch.compile", "DistributedDataParallel", "PEFT's", "blocks compiled one by one"]
)
def test_it_is_named_and_taken_out_only_where_that_is_asked_for(save, wrapper):
    with pytest.raises(ModelError, match=r"look like those of a wrapper.*`midalign model FOLDER --out NEW`"):
        load_model(save(renamed(WRAPPERS[wrapper])))


def without(tensors, word):
    return {name: tensor for name, tensor in tensors.items() if word not in name}


def with_another_block(tensors):
    return tensors | {n.replace("layers.3", "layers.4"): t for n, t in tensors.items() if "layers.3." in n}


FAULTS = {
    "other names": (renamed(lambda n: n.replace("mlp", "ffn")), r"12 tensors \('model.layers.0.*start at random"),
    "one tensor missing": (lambda t: without(t, "layers.2.mlp.up"), r"1 tensors \('model.layers.2.mlp.up_proj.weight'"),
    "the norm missing": (lambda t: without(t, "model.norm"), "'model.norm.weight'"),
    "a head missing that is not tied": (lambda t: without(t, "lm_head"), "'lm_head.weight'"),
    "a block too many": (with_another_block, r"9 tensors \('model.layers.4.*have no place"),
    "a value head": (lambda t: t | {"v_head.summary.weight": torch.ones(1, 32)}, "'v_head.summary.weight'"),
    "another shape": (lambda t: t | {"model.norm.weight": torch.ones(31)}, r"shape \(31,\) in the file and \(32,\)"),
    "an empty tensor": (lambda t: t | {"model.norm.weight": torch.ones(0)}, r"shape \(0,\) in the file"),
    "a wrapper, and one tensor missing": (
        lambda t: renamed(lambda n: f"_orig_mod.{n}")(without(t, "layers.0.mlp.up_proj")), "would start at random",
    ),
    "a wrapper around some only": (
        lambda t: {("_orig_mod." if "layers.0" in n else "new_mod.") + n: v for n, v in t.items()}, "'_orig_mod.model",
    ),
    "a prefix that nobody knows": (renamed(lambda n: f"student.{n}"), "'student.lm_head.weight'"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_checkpoint_that_does_not_fill_its_model_is_refused_by_the_name_of_a_tensor(save, name):
    change, says = FAULTS[name]
    folder = save(change)
    for unwrap in (False, True):
        with pytest.raises(ModelError, match=says):
            load_model(folder, unwrap=unwrap)


def test_a_wrapper_around_some_tensors_is_taken_out_too(save):
    model = load_model(save(renamed(lambda n: f"_orig_mod.{n}" if "layers" in n else n)), unwrap=True)
    assert torch.equal(model.state_dict()["model.norm.weight"], torch.ones(32))


@pytest.mark.parametrize("head", ["lm_head", "nothing"])
def test_a_head_that_is_tied_may_be_absent_or_there_twice(save, head):
    def change(tensors):
        both = tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}
        return without(both, head)

    model = load_model(save(change, tie_word_embeddings=True))
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_what_old_checkpoints_hold_beside_the_weights_is_no_fault(save):
    load_model(save(lambda t: t | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}))


def test_an_adapter_beside_a_model_is_not_put_on_it_unasked(tmp_path):
    model = build_model("llama")
    model.save_pretrained(tmp_path)
    get_peft_model(model, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"holds an adapter \(adapter_config.json\)"):
        load_model(str(tmp_path))


@pytest.fixture
def shards(tmp_path):
    """A model in several files, with the file that says which tensor lies where."""
    build_model("llama").save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    return tmp_path


def test_a_file_of_several_that_is_missing_is_named(shards):
    load_model(str(shards))
    missing = min(shards.glob("model-*.safetensors"))
    missing.unlink()
    with pytest.raises(ModelError, match=re.escape(missing.name)):
        load_model(str(shards))


def test_a_tensor_that_no_file_of_several_holds_is_named(shards):
    file = min(shards.glob("model-*.safetensors"))
    tensors = load_file(file)
    lost = min(tensors)
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=re.escape(lost)):
        load_model(str(shards))


def test_a_wrapper_is_taken_out_of_several_files(shards):
    index = shards / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"] = {f"_orig_mod.{name}": file for name, file in content["weight_map"].items()}
    index.write_text(json.dumps(content))
    for file in shards.glob("model-*.safetensors"):
        save_file({f"_orig_mod.{n}": t for n, t in load_file(file).items()}, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="look like those of a wrapper"):
        load_model(str(shards))
    original = build_model("llama").state_dict()
    loaded = load_model(str(shards), unwrap=True).state_dict()
    assert all(torch.equal(tensor, original[name]) for name, tensor in loaded.items())


def changed(key, change):
    return lambda tensors: tensors | {key: change(tensors[key].clone())}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused_by_the_name_of_a_tensor(save, number):
    key = "model.layers.2.mlp.up_proj.weight"
    with pytest.raises(ModelError, match=f"no numbers: {key!r} holds NaN or infinite"):
        load_model(save(changed(key, lambda tensor: tensor.index_fill_(0, torch.tensor([3]), number))))


@pytest.mark.parametrize("format", [torch.int8, torch.uint8, torch.float8_e4m3fn, torch.int32])
def test_quantised_weights_without_their_configuration_are_refused(save, format):  # noqa: A002
    key = "model.layers.2.mlp.up_proj.weight"
    with pytest.raises(ModelError, match=rf"are quantised \({key!r} is [IUF]\w+\), but its config.json has no quant"):
        load_model(save(changed(key, lambda tensor: (tensor * 100).to(format))))


@pytest.mark.parametrize("format", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_several_precisions_are_read(save, format):  # noqa: A002
    key = "model.layers.2.mlp.up_proj.weight"
    found = load_model(save(changed(key, lambda tensor: tensor.to(format))), dtype="float32").get_parameter(key)
    assert torch.allclose(found, build_model("llama").get_parameter(key), rtol=1e-2, atol=1e-3)


def test_matrices_of_zeros_are_warned_of(save, caplog):
    load_model(save(changed("model.layers.2.mlp.up_proj.weight", torch.zero_)))
    assert "the weights model.layers.2.mlp.up_proj.weight are all zeros" in caplog.text
    caplog.clear()
    load_model(save(changed("model.norm.weight", torch.zero_)))  # norms that add 1 start so
    assert "zeros" not in caplog.text
