"""Loading models and tokenizers: what is refused, and with which words."""

import json
import re
import shutil

import pytest
import torch

from midalign.errors import MissingExtraError, MissingFileError, ModelError
from midalign.models.loading import check_model_path, load_config, load_model, load_tokenizer
from midalign.models.source import ModelSource
from tests.conftest import build_model


@pytest.fixture
def folder(model_folder, tmp_path):
    """A copy of the model to break."""
    return shutil.copytree(model_folder, tmp_path / "model")


def test_a_saved_model_comes_back_with_its_weights_in_evaluation_mode(folder):
    model = load_model(str(folder))
    assert not model.training
    original = build_model("llama").state_dict()
    assert all(torch.equal(tensor, original[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("attention", [None, "sdpa", "eager"])
def test_the_attention_kernel_is_the_one_that_was_asked_for(folder, attention):
    model = ModelSource(str(folder), attn_implementation=attention).load()
    assert model.config._attn_implementation == (attention or "sdpa")


def test_an_attention_kernel_that_is_not_installed_is_named(folder):
    with pytest.raises(ModelError, match="FlashAttention2"):
        ModelSource(str(folder), attn_implementation="flash_attention_2").load()


def test_a_tokenizer_pads_right_and_has_something_to_pad_with(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"padding_side": "left"}))
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer.padding_side == "right"
    assert tokenizer.pad_token == tokenizer.eos_token == "</s>"


def test_a_tokenizer_without_an_end_is_refused(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        load_tokenizer(str(folder))


@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "~/no_such_model_here", "a/b/c"])
def test_a_path_that_is_not_there_never_becomes_a_hub_name(name):
    for load in (load_config, load_tokenizer, load_model):
        with pytest.raises(MissingFileError, match="does not exist"):
            load(name)


def test_a_hub_name_is_not_looked_for_on_disk():
    check_model_path("owner/model")


def test_an_adapter_given_as_the_model_says_so(folder):
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="It holds an adapter"):
        load_model(str(folder))


def cut(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


FAULTS = {
    "weights cut short": (lambda f: cut(f / "model.safetensors"), load_model, "model"),
    "weights missing": (lambda f: (f / "model.safetensors").unlink(), load_model, "safetensors"),
    "weights as a pickle only": (
        lambda f: ((f / "model.safetensors").unlink(), torch.save({}, f / "pytorch_model.bin")),
        load_model, "safetensors",
    ),
    "configuration cut short": (lambda f: cut(f / "config.json"), load_config, "configuration"),
    "unknown architecture": (lambda f: (f / "config.json").write_text('{"model_type": "lama"}'), load_config, "lama"),
    "not a causal model": (
        lambda f: (f / "config.json").write_text('{"model_type": "vit"}'), load_model, "causal language models",
    ),
    "tokenizer cut short": (lambda f: cut(f / "tokenizer.json"), load_tokenizer, "tokenizer"),
    "tokenizer missing": (
        lambda f: [(f / n).unlink() for n in ("tokenizer.json", "tokenizer_config.json")], load_tokenizer, "tokenizer",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_damaged_model_folder_is_a_clear_error(folder, name):
    spoil, load, says = FAULTS[name]
    spoil(folder)
    with pytest.raises(ModelError, match=says) as caught:
        load(str(folder))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value).strip()


def test_four_bit_needs_its_extra_and_other_quantizations_are_refused(folder):
    pytest.importorskip("torch")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match=r"midalign\[qlora\]"):
            load_model(str(folder), quantization="4bit")
    with pytest.raises(ModelError, match="unknown quantization '3bit'"):
        load_model(str(folder), quantization="3bit")


def four_bit(folder, family, **changes):
    """A tiny model of a family, saved and loaded in four bits."""
    pytest.importorskip("bitsandbytes", reason="four bits need bitsandbytes, which is not installed here")
    build_model(family, **changes).save_pretrained(folder)
    return load_model(str(folder), quantization="4bit")


def packable(folder, saved_in_four_bits):
    """A tiny four-bit model of a size that bitsandbytes packs: whole blocks of 64 along a row."""
    model = four_bit(folder / "m", "llama", hidden_size=64, intermediate_size=128, head_dim=16)
    if not saved_in_four_bits:
        return model
    model.save_pretrained(folder / "small")
    return load_model(str(folder / "small"))


def test_a_family_whose_layers_are_not_quantised_is_refused_and_mostly_unquantised_experts_are_said(tmp_path, caplog):
    with pytest.raises(ModelError, match=r"quantises no layer .*FalconForCausalLM"):
        four_bit(tmp_path / "falcon", "falcon")
    four_bit(tmp_path / "llama", "llama")
    assert "in four bits" not in caplog.text
    four_bit(tmp_path / "mixtral", "mixtral")
    assert re.search(r"only \d+ % of the weights in the blocks of '.*mixtral' are in four bits", caplog.text)


@pytest.mark.parametrize("saved_in_four_bits", [False, True])
def test_an_evaluation_before_training_changes_no_gradient_of_four_bit_weights(saved_in_four_bits, tmp_path):
    """On a CPU with AVX512-BF16 bitsandbytes would pack the weights in the evaluation (seen in 0.50.2)."""
    gradients = []
    for evaluated in (False, True):
        model = packable(tmp_path, saved_in_four_bits)
        ids = torch.arange(10, device=model.device).reshape(1, 10) + 5
        if evaluated:
            with torch.no_grad():
                model(ids)
        embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
        model.train()(inputs_embeds=embedded, labels=ids).loss.backward()
        gradients.append(embedded.grad)
    assert gradients[0].abs().max() > 0
    assert torch.equal(*gradients)
