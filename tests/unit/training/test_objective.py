"""The alignment objective: cached gradients equal plain ones, several layers, the automatic layer."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from midalign.errors import ModelError
from midalign.functional.info_nce import info_nce
from midalign.recipe.alignment import AlignmentConfig
from midalign.records import ParallelPair
from midalign.training.layer_choice import accuracies, choose_layer
from midalign.training.objective import AlignmentObjective, held_out_metrics
from midalign.training.pair_batches import PairCollator, PairDataset
from tests.conftest import build_line_break_tokenizer, build_model, build_plain_tokenizer, build_tokenizer

PAIRS = [ParallelPair(f"say {w * 3}", f"скажи {w} {i}", "eng_Latn", "rus_Cyrl", w) for i, w in enumerate("abcdefgh")]


def lora_model(dropout=0.0):
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, lora_dropout=dropout)
    return get_peft_model(build_model("llama"), config).train()


def objective(**options):
    return AlignmentObjective.for_depth(AlignmentConfig(**{"batch_size": 8, "temperature": 0.5, **options}), depth=4)


@pytest.fixture
def batch():
    data = PairDataset(PAIRS, build_tokenizer())
    return PairCollator(0)([data[i] for i in range(len(PAIRS))])


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("direction", ["symmetric", "forward"])
@pytest.mark.parametrize("mini_batch_size", [1, 3, 8])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_cached_gradients_equal_plain_ones(batch, direction, mini_batch_size, dropout):
    """With dropout, the plain loss is computed from the same pieces, so that the same units are dropped."""
    goal = objective(direction=direction, mini_batch_size=mini_batch_size)
    model = lora_model(dropout)
    torch.manual_seed(7)
    names = ("input_ids", "attention_mask", "special_tokens_mask", "pooled_mask")
    pieces = goal._pieces(batch)
    assert all(len(rows) <= 2 * mini_batch_size for rows in pieces)
    parts = [goal.vectors(model, {name: batch[name][rows] for name in names})[2] for rows in pieces]
    plain = goal.loss_of({2: torch.cat(parts)[torch.cat(pieces).argsort()]}, batch["pair_keys"])
    (plain * 0.25).backward()
    expected = gradients(model)
    model.zero_grad()
    torch.manual_seed(7)
    cached = goal.cached_backward(model, batch, torch.Tensor.backward, scale=0.25)
    got = gradients(model)
    assert cached.item() == pytest.approx(plain.item(), abs=1e-6)
    assert got.keys() == expected.keys()
    assert got
    for name, gradient in got.items():
        assert torch.allclose(gradient, expected[name], atol=1e-6), name


def test_cached_encoding_leaves_the_random_numbers_after_it_as_they_would_be(batch):
    model = lora_model(0.3)
    torch.manual_seed(7)
    objective(mini_batch_size=2).cached_backward(model, batch, torch.Tensor.backward)
    after = torch.rand(1)
    torch.manual_seed(7)
    objective(mini_batch_size=2).cached_backward(model, batch, torch.Tensor.backward)
    assert torch.equal(after, torch.rand(1))


@pytest.mark.parametrize("mini_batch_size", [None, 3])
def test_frozen_sources_are_those_of_the_base_model_and_only_targets_get_gradients(batch, mini_batch_size):
    goal, model = objective(frozen_source=True, mini_batch_size=mini_batch_size), lora_model(0.3)
    with torch.no_grad(), model.disable_adapter():
        sources = objective().vectors(model.eval(), batch)[2].chunk(2)[0]
    targets = objective().vectors(model, batch)[2].chunk(2)[1]
    expected = goal.loss_of({2: torch.cat([sources, targets])}, batch["pair_keys"])
    expected.backward()
    wanted = gradients(model)
    model.zero_grad()
    if mini_batch_size is None:
        found = goal.loss(model, batch)
        found.backward()
    else:
        found = goal.cached_backward(model, batch, torch.Tensor.backward)
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    assert gradients(model).keys() == wanted.keys()
    for name, gradient in gradients(model).items():
        assert torch.allclose(gradient, wanted[name], atol=1e-6), name


def test_before_the_first_update_frozen_sources_are_those_of_the_model_without_their_gradient(batch):
    torch.manual_seed(0)
    model = get_peft_model(build_model("llama"), LoraConfig(r=2, target_modules="all-linear"))
    goal = objective(frozen_source=True)
    loss = goal.loss(model, batch)
    loss.backward()
    found = gradients(model)
    model.zero_grad()
    source, target = goal.vectors(model, batch)[2].chunk(2)
    wanted = goal.loss_of({2: torch.cat([source.detach(), target])}, batch["pair_keys"])
    wanted.backward()
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-6)
    assert all(torch.allclose(found[name], other, atol=1e-6) for name, other in gradients(model).items())


def test_only_the_tokens_that_are_pooled_make_the_vector(batch):
    model = lora_model(0.0).eval()
    late = batch["attention_mask"].clone()
    late[:, 0] = 0
    vectors = objective().vectors(model, batch | {"pooled_mask": late})[2]
    without_first = objective(pooling="mean_no_first").vectors(model, batch)[2]
    assert torch.allclose(vectors, without_first, atol=1e-6), "the first token is read, and not counted"


def test_several_layers_give_the_weighted_mean_of_their_losses(batch):
    model = lora_model()
    both = objective(layer={1: 3.0, 3: 1.0}).loss(model, batch)
    apart = [objective(layer=layer).loss(model, batch) for layer in (1, 3)]
    assert torch.allclose(both, 0.75 * apart[0] + 0.25 * apart[1], atol=1e-6)


def test_loss_is_infonce_of_the_masked_means_of_the_layer(batch):
    model = lora_model().eval()
    full = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True)
    mask = batch["attention_mask"].unsqueeze(-1)
    means = (full.hidden_states[2] * mask).sum(1) / mask.sum(1)
    assert torch.allclose(objective().loss(model, batch), info_nce(*means.chunk(2), temperature=0.5), atol=1e-5)


def test_held_out_metrics_do_not_depend_on_the_batch_size_in_retrieval():
    data, model = PairDataset(PAIRS, build_tokenizer()), lora_model().eval()
    found = [
        held_out_metrics(objective(batch_size=size), model, data, PairCollator(0), torch.device("cpu"))["retrieval"]
        for size in (2, 3, 8)
    ]
    assert found[0] == found[1] == found[2]


def test_held_out_retrieval_of_a_language_is_that_of_its_pairs_alone():
    model, tokenizer = lora_model().eval(), build_tokenizer()

    def measured(pairs):
        data = PairDataset(pairs, tokenizer)
        return held_out_metrics(objective(), model, data, PairCollator(0), torch.device("cpu"))

    german = [
        ParallelPair(f"say {w * 3}", f"sag {w * (i + 1)}", "eng_Latn", "deu_Latn", w) for i, w in enumerate("abc")
    ]
    both, first, second = measured(PAIRS + german), measured(PAIRS), measured(german)
    assert first["retrieval"] != second["retrieval"]
    assert (both["retrieval_rus_Cyrl"], both["retrieval_deu_Latn"]) == (first["retrieval"], second["retrieval"])
    assert both["retrieval"] == both["retrieval_eng_Latn"] == (first["retrieval"] + second["retrieval"]) / 2


def test_automatic_layer_is_the_one_where_retrieval_is_best():
    model, tokenizer = build_model("llama"), build_tokenizer()
    found = accuracies(model, tokenizer, PAIRS, AlignmentConfig())
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert found[choose_layer(model, tokenizer, PAIRS, AlignmentConfig())] == max(found[n] for n in (1, 2, 3, 4))


def test_behind_a_sink_the_automatic_layer_is_that_of_a_tokenizer_which_adds_one():
    model = build_model("llama")
    found = accuracies(model, build_plain_tokenizer(), PAIRS, AlignmentConfig(pooling="mean_after_sink"))
    oracle = build_line_break_tokenizer()
    assert found == accuracies(model, oracle, PAIRS, AlignmentConfig(pooling="mean_no_special"))
    assert found != accuracies(model, build_plain_tokenizer(), PAIRS, AlignmentConfig(pooling="mean_no_special"))


def test_the_automatic_layer_is_found_without_the_pairs_that_the_models_window_does_not_hold(caplog):
    """GPT-2 has learned positions: a longer pair would be an index error."""
    model, long = (
        build_model("gpt2", n_positions=32, max_position_embeddings=32),
        ParallelPair("say " * 60, "скажи", "eng_Latn", "rus_Cyrl", "x"),
    )
    expected = accuracies(model, build_tokenizer(), PAIRS, AlignmentConfig())
    assert accuracies(model, build_tokenizer(), [*PAIRS, long], AlignmentConfig()) == expected
    assert "left out 1 of 9 pairs" in caplog.text


@pytest.mark.parametrize("layer", [5, {2: 1.0, 9: 1.0}])
def test_layers_beyond_the_depth_are_refused(layer):
    with pytest.raises(ModelError, match="4 blocks"):
        objective(layer=layer)


@pytest.mark.parametrize(
    ("layer", "depth", "expected"), [("middle", 32, 16), ("middle", 28, 14), (0.5, 9, 4), (7, 9, 7)]
)
def test_layer_names_resolve_to_numbers(layer, depth, expected):
    assert AlignmentConfig(layer=layer).resolve_layers(depth) == {expected: 1.0}
