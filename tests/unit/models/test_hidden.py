"""The stopped forward and the pooling hooks against plain hooks and ``output_hidden_states``, over families."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from midalign.errors import ModelError
from midalign.models.hidden import find_decoder, pooled_states, states_up_to, verify_stopping
from tests.conftest import build_model

FAMILIES = [
    "llama", "qwen2", "qwen3", "gemma2", "gemma3", "mistral", "phi3", "gpt_neox", "gpt2", "olmo2", "mixtral",
    "bloom", "falcon", "opt", "qwen3_moe",
]  # fmt: skip


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(3, 380, (3, 9), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 5:] = 0
    attention_mask[2, 2:] = 0
    return input_ids.masked_fill(attention_mask == 0, 0), attention_mask


def raw_states(model, input_ids, attention_mask):
    """States of every layer before the final norm, by plain hooks: the oracle."""
    decoder, states = find_decoder(model), []
    handles = [decoder.blocks[0].register_forward_pre_hook(
        lambda _m, args, kwargs: states.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )]  # fmt: skip
    handles += [
        block.register_forward_hook(lambda _m, _i, out: states.append(out[0] if isinstance(out, tuple) else out))
        for block in decoder.blocks
    ]
    full = model(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True, use_cache=False)
    for handle in handles:
        handle.remove()
    for ours, theirs in zip(states[:-1], full.hidden_states[:-1], strict=True):  # theirs is normed at the end
        assert torch.equal(ours, theirs)
    return states


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stopped_forward_pass_equals_a_hook_on_the_full_model(family, batch):
    model = build_model(family)
    with torch.no_grad():
        states = raw_states(model, *batch)
        for layer in (1, 2, 4):
            assert torch.equal(states_up_to(model, *batch, layer)[-1], states[layer])
    assert find_decoder(model).depth == 4
    verify_stopping(model, 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_pooled_states_equal_a_masked_mean_of_every_layer(family, batch):
    model = build_model(family)
    with torch.no_grad():
        states = raw_states(model, *batch)
    pooled = pooled_states(model, *batch)["mean"]
    assert pooled.shape == (5, 3, 32)
    for layer, state in enumerate(states):
        for row, length in enumerate([9, 5, 2]):
            assert torch.allclose(pooled[layer, row], state[row, :length].mean(0), atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2", "opt"])
def test_gradients_stop_at_the_layer_and_equal_those_of_a_hook(family, batch):
    model = get_peft_model(
        build_model(family), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, lora_dropout=0.0)
    )

    def gradients(states):
        model.zero_grad()
        states.float().pow(2).sum().backward()
        return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    stopped = gradients(states_up_to(model, *batch, 2)[-1])
    hooked = gradients(raw_states(model, *batch)[2])
    assert stopped.keys() == hooked.keys()
    assert stopped
    assert not any(f".{block}." in name for name in stopped for block in ("2", "3"))
    for name, gradient in stopped.items():
        assert torch.allclose(gradient, hooked[name], atol=1e-6), name


def test_a_stopped_first_call_leaves_all_hidden_states_to_later_calls(batch):
    model = build_model("llama")
    states_up_to(model, *batch, 1)
    full = model(input_ids=batch[0], attention_mask=batch[1], output_hidden_states=True)
    assert len(full.hidden_states) == 5


def test_the_model_is_whole_again_after_a_failure(batch):
    model = build_model("llama")
    with pytest.raises(RuntimeError):
        states_up_to(model, batch[0].float() @ torch.ones(2, 2), batch[1], 2)
    assert find_decoder(model).depth == 4
    assert type(model.model.norm).__name__ == "LlamaRMSNorm"


@pytest.mark.parametrize("layer", [0, 5, -1])
def test_a_layer_beyond_the_depth_is_refused_with_the_depth(layer, batch):
    with pytest.raises(ModelError, match="4 blocks"):
        states_up_to(build_model("llama"), *batch, layer)


def test_a_model_without_a_list_of_blocks_is_refused():
    with pytest.raises(ModelError, match="decoder-only"):
        find_decoder(torch.nn.Linear(2, 2))
