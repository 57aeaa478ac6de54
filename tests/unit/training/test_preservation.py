"""The loss that keeps repeating: rows by hand, a plain divergence, and what stays as it was."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from midalign.errors import ModelError
from midalign.training.preservation import doubled_sentences, preservation_loss, without_adapters
from tests.conftest import build_model

IDS = torch.tensor([[1, 7, 8, 9, 2], [1, 5, 6, 0, 0]])
MASK = (IDS != 0).long()
SPECIAL = ((IDS == 1) | (IDS == 2)).long()


def lora_model(dropout=0.0):
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, lora_dropout=dropout)
    return get_peft_model(build_model("llama"), config).train()


def test_a_sentence_follows_itself_and_only_its_second_copy_is_asked_for():
    doubled, mask, asked = doubled_sentences(IDS, MASK, SPECIAL, 0)
    assert doubled.tolist() == [[1, 7, 8, 9, 7, 8, 9], [1, 5, 6, 5, 6, 0, 0]]
    assert mask.tolist() == [[1] * 7, [1] * 5 + [0] * 2]
    nexts = [doubled[row, torch.nonzero(asked[row]).flatten() + 1].tolist() for row in (0, 1)]
    assert nexts == [[7, 8, 9], [5, 6]]


def test_the_loss_is_the_divergence_of_plain_softmaxes_one_position_at_a_time():
    model = lora_model()
    doubled, mask, asked = doubled_sentences(IDS, MASK, SPECIAL, 0)
    found = preservation_loss(model, doubled, mask, asked)
    total, count = 0.0, 0
    for row in range(2):
        length = int(mask[row].sum())
        adapted = model(input_ids=doubled[row : row + 1, :length]).logits[0].double().softmax(-1)
        with model.disable_adapter():
            base = model(input_ids=doubled[row : row + 1, :length]).logits[0].double().softmax(-1)
        for place in torch.nonzero(asked[row]).flatten():
            total += (base[place] * (base[place] / adapted[place]).log()).sum()
            count += 1
    assert found.item() == pytest.approx(float(total) / count, rel=1e-4)
    assert found.item() > 0


def test_an_adapter_that_does_nothing_has_no_loss():
    torch.manual_seed(0)
    model = get_peft_model(build_model("llama"), LoraConfig(r=2, target_modules="all-linear"))  # B is zero
    assert preservation_loss(model, *doubled_sentences(IDS, MASK, SPECIAL, 0)).item() == pytest.approx(0, abs=1e-6)


def test_switching_adapters_off_leaves_dropout_and_what_is_trained_as_they_were():
    model = lora_model(0.5)
    frozen = next(p for n, p in model.named_parameters() if "lora" in n)
    frozen.requires_grad_(False)
    before = [p.requires_grad for p in model.parameters()]
    with without_adapters(model):
        assert not model.training
    assert [p.requires_grad for p in model.parameters()] == before
    assert model.training


def test_a_model_without_adapter_is_refused():
    with pytest.raises(ModelError, match="has none"):
        preservation_loss(build_model("llama"), *doubled_sentences(IDS, MASK, SPECIAL, 0))
