"""Sentence vectors of corpora against one sentence at a time, out of memory, truncation, caching and processes."""

import logging
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from midalign.errors import ModelError, OptionError
from midalign.functional.pooling import POOLINGS
from midalign.models import encoding
from midalign.models.encoding import Encoder, encode_corpus
from midalign.models.tokens import Tokens, tokenize
from tests.conftest import CORPUS, build_model

WORDS = [word for line in CORPUS for word in line.split()]


def some_sentences(n, seed=0, longest=12):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, longest))) for _ in range(n)]


def states_before_the_final_norm(model, ids):
    """Every layer's states of one unpadded sentence, from `output_hidden_states` and a hook on the final norm."""
    caught = []
    norm = model.transformer.ln_f if hasattr(model, "transformer") else model.model.norm
    handle = norm.register_forward_pre_hook(lambda _m, args: caught.append(args[0]))
    with torch.no_grad():
        states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    handle.remove()
    return torch.stack([*states[:-1], caught[0]])[:, 0]


def plain_pooling(states, special, name):
    """One sentence's vectors ``(layers, hidden)``, written down from the table in `midalign.functional.pooling`."""
    keep = list(range(len(special)))
    if name in ("mean_no_special", "mean_after_sink"):
        keep = [i for i, mark in enumerate(special) if not mark]
    if name == "mean_no_first" and len(keep) > 1:
        keep = keep[1:]
    if name == "last":
        return states[:, -1]
    if name == "weighted":
        return sum((i + 1) * states[:, i] for i in keep) / sum(i + 1 for i in keep)
    if name == "mean_unit":
        states = states / states.norm(dim=-1, keepdim=True)
    return sum(states[:, i] for i in keep) / len(keep)


@pytest.mark.parametrize("batch_tokens", [1, 40, 100_000])
def test_vectors_equal_those_of_one_sentence_at_a_time_for_every_pooling(batch_tokens, tokenizer):
    model = build_model("llama")
    tokens = tokenize(tokenizer, some_sentences(17))
    found = Encoder(model, poolings=POOLINGS, batch_tokens=batch_tokens).encode(tokens)
    assert list(found) == list(POOLINGS)
    for row, (ids, special) in enumerate(zip(tokens.ids, tokens.special, strict=True)):
        states = states_before_the_final_norm(model, ids)
        for name in POOLINGS:
            assert torch.allclose(found[name][:, row], plain_pooling(states, special, name), atol=1e-5), (row, name)


@pytest.mark.parametrize(
    "family", ["qwen2", "qwen3", "gemma2", "gemma3", "mistral", "phi3", "gpt_neox", "gpt2", "olmo2", "mixtral", "opt"]
)
def test_padding_and_sorting_change_nothing_in_any_family(family, tokenizer):
    model, tokens = build_model(family), tokenize(tokenizer, some_sentences(7))
    found = Encoder(model).encode(tokens)["mean"]
    for row, ids in enumerate(tokens.ids):
        with torch.no_grad():
            states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        expected = torch.stack([layer[0].mean(dim=0) for layer in states[:-1]])  # the last is after the final norm
        assert torch.allclose(found[:-1, row], expected, atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=12), budget=st.integers(1, 200))
def test_no_batch_exceeds_the_budget_unless_it_is_one_sentence(lengths, budget):
    tokens = Tokens(tuple((7,) * n for n in lengths), tuple((0,) * n for n in lengths), tuple(lengths), 0)
    encoder = Encoder(build_model("llama"), layers=[0], batch_tokens=budget)
    sizes = []
    forward = encoder._forward

    def watched(tokens, rows, longest):
        assert longest == max(len(tokens.ids[row]) for row in rows)
        sizes.append((len(rows), len(rows) * longest))
        return forward(tokens, rows, longest)

    encoder._forward = watched
    assert encoder.encode(tokens)["mean"].shape == (1, len(lengths), 32)
    assert sum(rows for rows, _ in sizes) == len(lengths)
    assert all(size <= budget or rows == 1 for rows, size in sizes)


@pytest.mark.parametrize(
    "fault",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        MemoryError(),
    ],
)
def test_out_of_memory_shrinks_the_batches_and_goes_on(fault, tokenizer, monkeypatch, caplog):
    model, tokens = build_model("llama"), tokenize(tokenizer, some_sentences(20))
    expected = Encoder(model).encode(tokens)["mean"]
    pooled_states, longest = encoding.pooled_states, max(map(len, tokens.ids))

    def short_of_memory(model, ids, mask, **options):
        if ids.numel() > 2 * longest:
            raise fault
        return pooled_states(model, ids, mask, **options)

    monkeypatch.setattr(encoding, "pooled_states", short_of_memory)
    encoder = Encoder(model)
    with caplog.at_level(logging.WARNING):
        found = encoder.encode(tokens)["mean"]
    assert torch.allclose(found, expected, atol=1e-5)
    assert longest / 2 <= encoder.batch_tokens <= 2 * longest
    assert "out of memory" in caplog.text


def test_a_sentence_that_never_fits_is_an_error_and_other_faults_pass_through(tokenizer, monkeypatch):
    tokens = tokenize(tokenizer, some_sentences(3))

    def fail(fault):
        def raising(*_args, **_options):
            raise fault

        monkeypatch.setattr(encoding, "pooled_states", raising)
        Encoder(build_model("llama")).encode(tokens)

    with pytest.raises(ModelError, match="one sentence of"):
        fail(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(RuntimeError, match="sizes of tensors"):
        fail(RuntimeError("sizes of tensors must match"))


@pytest.mark.parametrize("layers", [[5], [-1], []])
def test_layers_that_the_model_has_not_are_refused(layers):
    with pytest.raises(ModelError, match="4 blocks"):
        Encoder(build_model("llama"), layers=layers)


def test_an_unknown_pooling_is_refused_before_any_forward():
    with pytest.raises(OptionError, match="mean_unit"):
        Encoder(build_model("llama"), poolings=["mean_units"])


def test_chosen_layers_equal_those_of_all_and_blocks_above_are_not_run(tokenizer):
    model, tokens = build_model("gpt2"), tokenize(tokenizer, some_sentences(5))
    everything = Encoder(model).encode(tokens)["mean"]
    ran = []
    model.transformer.h[3].register_forward_hook(lambda *_: ran.append(1))
    assert torch.equal(Encoder(model, layers=[3, 0]).encode(tokens)["mean"], everything[[3, 0]])
    assert not ran


def test_every_module_keeps_its_own_mode(tokenizer):
    model = build_model("llama").train()
    model.model.layers[1].eval()
    before = [module.training for module in model.modules()]
    Encoder(model).encode(tokenize(tokenizer, ["wake me up"]))
    assert [module.training for module in model.modules()] == before


def some_corpus(tokenizer, n=6):
    return {
        language: tokenize(tokenizer, some_sentences(n, seed)) for seed, language in enumerate(["eng", "deu", "rus"])
    }


def test_a_second_pass_reads_the_cache_and_runs_no_forward(tokenizer, tmp_path, monkeypatch):
    model, corpus = build_model("llama"), some_corpus(tokenizer)
    in_memory = encode_corpus(Encoder(model), corpus)
    first = encode_corpus(Encoder(model), corpus, cache=tmp_path, model_key="m")
    monkeypatch.setattr(encoding, "pooled_states", None)
    seen = []
    second = encode_corpus(
        Encoder(model), corpus, cache=tmp_path, model_key="m", progress=lambda _stage, *at: seen.append(at)
    )
    for layer in range(5):
        for vectors in (first, second):
            assert list(vectors.layer(layer)) == ["eng", "deu", "rus"]
            for language, values in in_memory.layer(layer).items():
                assert torch.equal(vectors.layer(layer)[language], values)
    assert seen == [(6, 18), (12, 18), (18, 18)]


def test_an_interrupted_pass_goes_on_at_the_language_where_it_stopped(tokenizer, tmp_path, monkeypatch):
    model, corpus = build_model("llama"), some_corpus(tokenizer)
    expected = encode_corpus(Encoder(model), corpus)
    encoded = []
    encode = Encoder.encode

    def stopping(self, tokens, progress=None):
        if len(encoded) == 2:
            raise KeyboardInterrupt
        encoded.append(tokens)
        return encode(self, tokens, progress)

    monkeypatch.setattr(Encoder, "encode", stopping)
    with pytest.raises(KeyboardInterrupt):
        encode_corpus(Encoder(model), corpus, cache=tmp_path)
    encoded.clear()
    found = encode_corpus(Encoder(model), corpus, cache=tmp_path)
    assert encoded == [corpus["rus"]]
    assert torch.equal(found.layer(4)["rus"], expected.layer(4)["rus"])


@pytest.mark.parametrize("change", ["model", "text", "layers", "pooling"])
def test_whatever_decides_the_vectors_names_another_file(change, tokenizer, tmp_path, monkeypatch):
    model, corpus = build_model("llama"), some_corpus(tokenizer)
    encode_corpus(Encoder(model), corpus, cache=tmp_path, model_key="m")
    assert len(list(tmp_path.iterdir())) == 3
    options, key = {}, "m"
    if change == "model":
        key = "other"
    elif change == "text":
        corpus["rus"] = tokenize(tokenizer, some_sentences(6, 9))
    elif change == "layers":
        options = {"layers": [0, 1]}
    else:
        options = {"poolings": ["last"]}
    encode_corpus(Encoder(model, **options), corpus, cache=tmp_path, model_key=key)
    assert len(list(tmp_path.iterdir())) == (4 if change == "text" else 6)


SCRIPT = """
import os, sys
import torch
from tests.conftest import build_model, build_tokenizer
from tests.unit.models.test_encoding import some_corpus, some_sentences
from midalign.models.encoding import Encoder, encode_corpus
from midalign.models.tokens import tokenize
tokenizer, model = build_tokenizer(), build_model("llama")
corpus = some_corpus(tokenizer, 7) | {"one": tokenize(tokenizer, some_sentences(7, 5))}
encoder = Encoder(model, poolings=("mean", "last"), batch_tokens=40)
assert encoder.world == 2
for _ in range(2):  # the second time from the cache of the first process
    vectors = encode_corpus(encoder, corpus, cache=__import__("pathlib").Path(sys.argv[1]) / "cache")
if encoder.rank == 0:
    torch.save({p: [vectors.layer(k, p) for k in range(5)] for p in ("mean", "last")}, sys.argv[1] + "/out.pt")
single = tokenize(tokenizer, ["wake me up"])  # fewer sentences than processes
assert len(encoder.encode(single)) == (2 if encoder.rank == 0 else 0)
torch.distributed.destroy_process_group()
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
@pytest.mark.enable_socket
def test_two_processes_share_the_sentences_and_give_the_vectors_of_one(tokenizer, tmp_path):
    common = os.environ | {
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
        "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd()),
    }  # fmt: skip
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path)], env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=240) for process in running] == [0, 0]
    found = torch.load(tmp_path / "out.pt")
    corpus = some_corpus(tokenizer, 7) | {"one": tokenize(tokenizer, some_sentences(7, 5))}
    expected = encode_corpus(Encoder(build_model("llama"), poolings=("mean", "last")), corpus)
    for pooling in ("mean", "last"):
        for layer in range(5):
            for language, values in expected.layer(layer, pooling).items():
                assert torch.allclose(found[pooling][layer][language], values, atol=1e-5)
