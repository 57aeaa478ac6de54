"""An adapter merged for speed: the same logits, the same answers; live where they would not be the same."""

import logging

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from midalign.errors import ModelError
from midalign.models import inference
from midalign.models.inference import with_adapter

IDS = torch.tensor([[1, 7, 30, 200, 5, 9], [1, 99, 3, 17, 250, 4]])


def save_adapter(build, folder, scale=0.2, family="llama", **options):
    model = get_peft_model(build(family), LoraConfig(task_type="CAUSAL_LM", **{"r": 4, "lora_alpha": 8, **options}))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


@torch.no_grad()
def logits(model):
    return model(IDS).logits


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_a_merged_adapter_gives_the_logits_of_pefts_live_one(family, tiny_model, tmp_path, caplog):
    caplog.set_level(logging.INFO, "midalign")
    target = ["c_attn"] if family == "gpt2" else "all-linear"
    path = save_adapter(tiny_model, tmp_path / "a", 0.05, family, target_modules=target)
    live = logits(PeftModel.from_pretrained(tiny_model(family), str(path)).eval())
    model = with_adapter(tiny_model(family), path, logits)
    assert not isinstance(model, PeftModel)
    assert "is merged into the base weights: logits of the first batch differ by" in caplog.text
    torch.testing.assert_close(logits(model), live, rtol=0, atol=1e-5)
    assert (logits(tiny_model(family)) - live).abs().max() > 1e-2, "the adapter does something"


def test_an_adapter_that_changes_nothing_merges_to_nothing(tiny_model, tmp_path):
    path = save_adapter(tiny_model, tmp_path / "a", 0.0, target_modules=["q_proj"])
    model = with_adapter(tiny_model("llama"), path, logits)
    assert torch.equal(logits(model), logits(tiny_model("llama")))


def test_an_update_that_bfloat16_would_round_away_stays_live(tiny_model, tmp_path, caplog):
    """The logits are within the type's tolerance, and yet the adapter would be gone."""
    path = save_adapter(tiny_model, tmp_path / "a", 0.008, target_modules="all-linear")
    base = tiny_model("llama").to(torch.bfloat16)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    model = with_adapter(base, path, logits)
    assert isinstance(model, PeftModel)
    assert "stays separate, which is slower" in caplog.text
    model.unload()
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items()), "put back bit by bit"


def test_a_clear_update_is_merged_in_bfloat16_too(tiny_model, tmp_path):
    path = save_adapter(tiny_model, tmp_path / "a", 0.1, target_modules="all-linear")
    assert not isinstance(with_adapter(tiny_model("llama").to(torch.bfloat16), path, logits), PeftModel)


def test_a_wrong_merge_is_found_and_undone(tiny_model, tmp_path, monkeypatch, caplog):
    path = save_adapter(tiny_model, tmp_path / "a", target_modules=["q_proj"])
    expected = logits(PeftModel.from_pretrained(tiny_model("llama"), str(path)).eval())
    right = inference.merge_into_base

    def wrong(model, folder):
        undo = right(model, folder)
        model.model.layers[2].mlp.up_proj.weight.data.mul_(1.001)
        return lambda: (undo(), model.model.layers[2].mlp.up_proj.weight.data.div_(1.001))

    monkeypatch.setattr(inference, "merge_into_base", wrong)
    model = with_adapter(tiny_model("llama"), path, logits)
    assert isinstance(model, PeftModel)
    assert "stays separate" in caplog.text
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-5)


def test_what_cannot_be_merged_stays_live_and_says_why(tiny_model, tmp_path, caplog):
    caplog.set_level(logging.INFO, "midalign")

    def tied(family):
        return tiny_model(family, tie_word_embeddings=True)

    path = save_adapter(tied, tmp_path / "a", target_modules=["lm_head"])
    model = with_adapter(tied("llama"), path, logits)
    assert isinstance(model, PeftModel)
    assert "is tied to that of another module" in caplog.text


def test_an_adapter_of_another_shape_is_refused(tiny_model, tmp_path):
    path = save_adapter(lambda f: tiny_model(f, hidden_size=64), tmp_path / "a", target_modules=["q_proj"])
    with pytest.raises(ModelError):
        with_adapter(tiny_model("llama"), path, logits)
