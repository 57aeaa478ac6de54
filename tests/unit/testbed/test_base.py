"""The base model: a tokenizer that loses nothing, batches that are pure, runs that go on where they stopped."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter

import pytest

pytest.importorskip("hassil")
pytest.importorskip("home_assistant_intents")

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from midalign.errors import DataError, RunError
from midalign.testbed.base import PROFILES, Packer, Profile, build_base, learning_rate
from midalign.testbed.chance import chance
from midalign.testbed.corpus import Corpus
from midalign.testbed.tokenizer import train_tokenizer
from midalign.testbed.workspace import SHIPPED_SEED, demo_workspace, shipped_base
from midalign.testbed.world import World

TINY = Profile(
    languages=("eng_Latn", "deu_Latn", "tha_Thai", "npi_Deva"),
    vocabulary=600,
    hidden=32,
    layers=3,
    intermediate=48,
    heads=2,
    steps=20,
    rows=2,
    length=48,
    tokenizer_documents=60,
)
CORPUS = Corpus(World(0, TINY.languages))


needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="a base is built with PyTorch 2.9 or newer")


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(CORPUS, vocabulary=TINY.vocabulary, documents=TINY.tokenizer_documents, seed=0)


def test_a_text_comes_back_from_the_tokenizer_unchanged(tokenizer):
    rng = chance("round trip")
    texts = [CORPUS.draw(rng).text for _ in range(200)]
    texts += ["Ünknown ჯ漢 \n\n tabs\tand  spaces ", "", "emoji 🏠!"]
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer.decode(ids[1:]) == text
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_the_tokenizer_is_the_same_for_the_same_seed_and_has_the_size_asked_for(tokenizer):
    again = train_tokenizer(CORPUS, vocabulary=TINY.vocabulary, documents=TINY.tokenizer_documents, seed=0)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    assert len(tokenizer) == TINY.vocabulary
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}) == 3


def test_vowel_signs_stay_with_their_word(tokenizer):
    pieces = [
        tokenizer.backend_tokenizer.decoder.decode([piece])
        for piece, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("भान्सा बत्ती ห้องน้ำ")
    ]
    assert pieces == ["भान्सा", " बत्ती", " ห้องน้ำ"]


def test_a_batch_is_a_pure_function_of_seed_and_step_and_counts_every_token(tokenizer):
    packer = Packer(CORPUS, tokenizer, rows=4, length=64, seed=3)
    count: Counter[tuple[str, str]] = Counter()
    batch = packer.batch(7, count)
    packer.batch(8)
    assert batch.shape == (4, 64)
    assert torch.equal(batch, packer.batch(7))
    assert not torch.equal(batch, packer.batch(8))
    assert not torch.equal(batch, Packer(CORPUS, tokenizer, rows=4, length=64, seed=4).batch(7))
    assert count.total() == batch.numel()
    assert (batch[:, 0] == tokenizer.bos_token_id).all()


def test_the_learning_rate_rises_to_its_peak_and_falls_to_a_tenth():
    profile = dataclasses.replace(TINY, steps=1000, learning_rate=1.0)
    rates = [learning_rate(step, profile) for step in range(1000)]
    assert max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) in (29, 30)
    assert all(a >= b for a, b in itertools.pairwise(rates[30:]))
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)


def test_the_shipped_profiles_keep_to_their_limits():
    base = PROFILES["base"]
    embeddings = base.vocabulary * base.hidden
    blocks = base.layers * (4 * base.hidden**2 + 3 * base.hidden * base.intermediate)
    assert embeddings + blocks < 8_000_000
    assert 2 * (embeddings + blocks) < 16 * 2**20
    assert len(base.languages) >= 16
    assert len(PROFILES["demo"].languages) >= 8


@needs_muon
def test_a_run_that_was_stopped_and_resumed_ends_at_the_same_weights(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    seen = []
    build_base(whole, seed=5, profile=TINY, threads=1, progress=lambda _, *told: seen.append(told))
    build_base(parts, seed=5, profile=TINY, threads=1, stop_after=7)
    assert not (parts / "model.safetensors").exists()
    build_base(parts, seed=5, profile=TINY, threads=1)
    a, b = load_file(whole / "model.safetensors"), load_file(parts / "model.safetensors")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert json.loads((whole / "pretraining.json").read_text()) == json.loads((parts / "pretraining.json").read_text())
    assert seen == [(10, 20), (20, 20)]


@needs_muon
def test_the_saved_folder_is_an_ordinary_model_in_bfloat16_with_a_card(tmp_path):
    build_base(tmp_path, seed=0, profile=TINY, threads=1, snapshot_steps=10)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert model.dtype == torch.bfloat16
    assert model.config.tie_word_embeddings
    assert tokenizer("turn on")["input_ids"][0] == tokenizer.bos_token_id
    assert model.generate(**tokenizer("turn on", return_tensors="pt"), max_new_tokens=3).shape[1] > 3
    card = json.loads((tmp_path / "pretraining.json").read_text())
    assert card["tokens"] == TINY.steps * TINY.rows * TINY.length
    assert card["recipe"]["seed"] == 0
    assert sum(n for kinds in card["tokens_by_language"].values() for n in kinds.values()) == card["tokens"]
    assert 0 <= card["bilingual_share"] < 0.2
    assert len(card["first_losses"]) == TINY.steps
    readme = (tmp_path / "README.md").read_text()
    assert all(f"| {code} |" in readme for code in TINY.languages)
    assert f"{card['tokens']:,} tokens" in readme
    assert {path.name for path in (tmp_path / "snapshots").iterdir()} == {"step-000010", "step-000020"}


@needs_muon
def test_a_rebuilt_base_repeats_the_first_losses(tmp_path):
    longer = dataclasses.replace(TINY, steps=6)
    for name in ("a", "b"):
        build_base(tmp_path / name, seed=2, profile=longer, threads=1)
    first, second = (json.loads((tmp_path / n / "pretraining.json").read_text())["first_losses"] for n in "ab")
    assert first == second
    assert len(set(first)) > 1


@needs_muon
@pytest.mark.slow
def test_the_shipped_base_is_built_again_by_the_script(tmp_path):
    """The tokenizer exactly, and the first 200 losses: on another kind of processor they differ in the last digits."""
    shipped = shipped_base()
    if shipped is None:
        pytest.skip("the shipped weights were left out of this checkout")
    build_base(tmp_path, seed=SHIPPED_SEED, profile=PROFILES["base"], threads=1, stop_after=200)
    card = json.loads((shipped / "pretraining.json").read_text())
    losses = json.loads((tmp_path / "checkpoint" / "state.json").read_text())["losses"]
    assert len(losses) == len(card["first_losses"]) == 200
    assert losses == pytest.approx(card["first_losses"], rel=0.02)
    corpus = Corpus(World(SHIPPED_SEED, PROFILES["base"].languages), bilingual=PROFILES["base"].bilingual)
    made = train_tokenizer(corpus, vocabulary=PROFILES["base"].vocabulary, documents=1500, seed=SHIPPED_SEED)
    made.save_pretrained(tmp_path / "tokenizer")
    assert (tmp_path / "tokenizer" / "tokenizer.json").read_bytes() == (shipped / "tokenizer.json").read_bytes()


@needs_muon
def test_the_loss_falls(tmp_path):
    profile = dataclasses.replace(TINY, steps=60, learning_rate=5e-3)
    build_base(tmp_path, seed=0, profile=profile, threads=1)
    losses = json.loads((tmp_path / "pretraining.json").read_text())["losses"]
    assert losses[-1] < losses[0] - 0.5


@needs_muon
def test_a_checkpoint_of_another_base_is_refused_and_ignored_on_request(tmp_path):
    build_base(tmp_path, seed=0, profile=TINY, threads=1, stop_after=2)
    with pytest.raises(RunError, match="seed"):
        build_base(tmp_path, seed=1, profile=TINY, threads=1, stop_after=3)
    build_base(tmp_path, seed=1, profile=TINY, threads=1, stop_after=3, resume=False)
    assert json.loads((tmp_path / "checkpoint" / "state.json").read_text())["step"] == 3


def test_an_unknown_profile_is_named_with_the_nearest(tmp_path):
    with pytest.raises(DataError, match="'demo'"):
        demo_workspace(tmp_path, profile="dem")
    assert not list(tmp_path.iterdir())
