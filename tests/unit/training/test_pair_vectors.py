"""Packed pairs, whose common beginning is computed once, equal one padded batch in value and gradient."""

import logging

import pytest
import torch
from peft import LoraConfig, get_peft_model

from midalign.answers.format import AnswerFormat
from midalign.data.prompt_tokens import InTaskPrompt
from midalign.functional.pooling import POOLINGS, pool
from midalign.models.hidden import find_decoder, states_up_to
from midalign.recipe.alignment import AlignmentConfig
from midalign.records import ParallelPair
from midalign.training.arguments import linear_names
from midalign.training.objective import AlignmentObjective
from midalign.training.pair_batches import PAIR_KEYS, PairCollator, PairDataset
from midalign.training.pair_vectors import find_packing, pair_vectors
from tests.conftest import build_model, build_tokenizer

# Sides of 3 to 60 tokens.
PAIRS = [
    ParallelPair(f"say {w * 2 * i}", f"скажи {w * 3} {i}", "eng_Latn", "rus_Cyrl", w)
    for i, w in enumerate("abcdefghijk", start=1)
]
PACKED = ["llama", "qwen2", "qwen3", "gemma2", "gemma3", "mistral", "phi3", "gpt_neox", "gpt2", "olmo2", "mixtral",
          "falcon", "opt", "qwen3_moe"]  # fmt: skip
PADDED = ["bloom"]
HALF_OR_SINGLE = ["mixtral", "qwen3_moe"]  # their kernels of experts take no float64
OPTIONS = [{"pooling": pooling} for pooling in POOLINGS if pooling != "mean_after_sink"] + [
    {"layer": {1: 1.0, 3: 0.5}}, {"layer": 4}, {"subspace": 5}, {"direction": "forward"},
]  # fmt: skip


@pytest.fixture(params=["none", "task"])
def batch(request):
    tokenizer = build_tokenizer()
    asked = InTaskPrompt(tokenizer, "slots", AnswerFormat(system="tell what is asked for here"))
    data = PairDataset(PAIRS, asked if request.param == "task" else tokenizer)
    return PairCollator(0)([data[i] for i in range(len(PAIRS))])


def lora_model(family="llama", **changes):
    """In float64 where the model can be, so that what differs is no rounding."""
    torch.manual_seed(0)
    base = build_model(family, **changes)
    config = LoraConfig(r=2, target_modules=linear_names(base), init_lora_weights=False, lora_dropout=0.0)
    model = get_peft_model(base, config).train()
    return model if family in HALF_OR_SINGLE else model.double()


def one_padded_batch(objective, model, batch):
    """The plain way: one forward of the padded batch, pooled, and the loss."""
    states = states_up_to(model, batch["input_ids"], batch["attention_mask"], objective.top)
    pooled = {
        layer: pool(states[layer], batch["pooled_mask"], objective.config.pooling, batch["special_tokens_mask"])
        for layer in objective.layers
    }
    if objective.config.subspace:
        from midalign.training.objective import subspace

        pooled = {
            layer: found @ subspace(32, objective.config.subspace, found.device) for layer, found in pooled.items()
        }
    return objective.loss_of(pooled, batch[PAIR_KEYS])


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(found, expected, tolerance=1e-6):
    assert found.keys() == expected.keys()
    largest = max(gradient.abs().max().item() for gradient in expected.values())
    assert largest > 1e-3
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, rtol=0, atol=tolerance * max(1, largest)), name


def goal(**options):
    return AlignmentObjective.for_depth(AlignmentConfig(**{"temperature": 0.5, **options}), depth=4)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_loss_and_gradient_are_those_of_one_padded_batch(batch, options):
    model, objective = lora_model(), goal(**options)
    found, expected = objective.loss(model, batch), one_padded_batch(objective, model, batch)
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    assert_same(gradients(model, found), gradients(model, expected))


@pytest.mark.parametrize("family", PACKED + PADDED)
def test_every_family_gives_the_gradient_of_one_padded_batch(batch, family, caplog):
    caplog.set_level(logging.INFO)
    model = lora_model(family).eval()  # some have dropout of their own
    packing = find_packing(model, 2)
    assert packing == ("mask" if family in PACKED else "none")
    assert ("batches of pairs are padded" in caplog.text) == (family in PADDED)
    objective = AlignmentObjective.for_depth(AlignmentConfig(temperature=0.5), 4, packing=packing)
    found, expected = objective.loss(model, batch), one_padded_batch(objective, model, batch)
    tolerance = 1e-5 if family in HALF_OR_SINGLE else 1e-6
    assert_same(gradients(model, found), gradients(model, expected), tolerance)


def test_a_model_that_an_earlier_trainer_wrapped_in_autocast_is_still_packed():
    model = lora_model().to(torch.float32)
    model._original_forward = model.forward  # as accelerate does it
    model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
    assert find_packing(model, 2) == "mask"


@pytest.mark.parametrize("packing", ["mask", "positions", "none"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_each_packing_gives_the_gradient_of_one_padded_batch(batch, attention, packing):
    model = lora_model(attn_implementation=attention)
    objective = AlignmentObjective.for_depth(AlignmentConfig(temperature=0.5), 4, packing=packing)
    found, expected = objective.loss(model, batch), one_padded_batch(objective, model, batch)
    assert_same(gradients(model, found), gradients(model, expected))


@pytest.mark.parametrize("mini_batch_size", [1, 2, 20])
def test_cached_gradients_are_those_of_one_padded_batch(batch, mini_batch_size):
    model, objective = lora_model(), goal(mini_batch_size=mini_batch_size)
    expected = one_padded_batch(objective, model, batch)
    wanted = gradients(model, expected)
    model.zero_grad()
    loss = objective.cached_backward(model, batch, torch.Tensor.backward)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert_same({name: p.grad for name, p in model.named_parameters() if p.grad is not None}, wanted)


def test_with_gradient_checkpointing_the_gradient_is_the_same(batch):
    model, objective = lora_model(), goal()
    expected = gradients(model, one_padded_batch(objective, model, batch))
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert_same(gradients(model, objective.loss(model, batch)), expected)


def test_hardly_any_padding_is_computed_and_a_common_beginning_once_a_bin(batch):
    model, seen = lora_model(), []
    find_decoder(model).blocks[0].register_forward_pre_hook(lambda _m, args: seen.append(args[0].shape[:2]))
    pair_vectors(model, batch, [2], "mean")
    ((bins, width),) = seen
    beginning = int((batch["pooled_mask"][0] == 0).long().cumprod(0).sum())
    own = int(batch["attention_mask"].sum()) - len(batch["input_ids"]) * beginning
    assert bins < len(batch["input_ids"]) / 2
    assert bins * width <= 1.2 * own + bins * beginning


def test_a_row_longer_than_a_sliding_window_is_still_seen_as_the_model_sees_it(batch):
    """The batch is padded: a mask of ours would let every layer see the whole row."""
    model, objective = lora_model("gemma3", sliding_window=8), goal()
    assert int(batch["attention_mask"].sum(1).max()) > 8
    assert_same(
        gradients(model, objective.loss(model, batch)), gradients(model, one_padded_batch(objective, model, batch))
    )
