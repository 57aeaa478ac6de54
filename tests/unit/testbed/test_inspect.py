"""Looking at a base: the layer curve against a plain loop, and copying against a model that cannot."""

from __future__ import annotations

import pytest

pytest.importorskip("hassil")
pytest.importorskip("home_assistant_intents")

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from midalign.functional.margin import retrieval_accuracy
from midalign.testbed.base import Profile, build_base
from midalign.testbed.chance import chance
from midalign.testbed.inspect import inspect_base
from midalign.testbed.tasks import known_anchor_free, parallel_rows
from midalign.testbed.world import World

TINY = Profile(
    languages=("eng_Latn", "deu_Latn", "ell_Grek"),
    vocabulary=600,
    hidden=32,
    layers=2,
    intermediate=48,
    heads=2,
    steps=3,
    rows=2,
    length=48,
    tokenizer_documents=60,
)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="a base is built with PyTorch 2.9 or newer")
def test_the_layer_curve_is_that_of_a_plain_loop_and_an_untrained_model_copies_nothing(tmp_path):
    build_base(tmp_path, seed=0, profile=TINY, threads=1)
    found = inspect_base(tmp_path, languages=TINY.languages, sentences=24)
    assert found.sentences == 24
    assert len(found.retrieval) == len(found.retrieval_centred) == len(found.retrieval_low) == 3
    assert found.copying == dict.fromkeys(TINY.languages, 0.0)

    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    model = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    world = World(0, TINY.languages)
    rows = parallel_rows(world, TINY.languages, 24, chance("0 parallel_anchor_free"), known_anchor_free(world))
    with torch.no_grad():
        states = [
            torch.stack(
                [
                    model(**tokenizer(row[i].text, return_tensors="pt"), output_hidden_states=True)
                    .hidden_states[1][0]
                    .mean(0)
                    for row in rows
                ]
            )
            for i in range(3)
        ]
    pairs = [(a, b) for a in range(3) for b in range(3) if a != b]
    plain = {(a, b): retrieval_accuracy(states[a], states[b])[0] for a, b in pairs}
    assert found.retrieval[1] == pytest.approx(sum(plain.values()) / 6, abs=1e-6)
    touching_greek = [value for pair, value in plain.items() if 2 in pair]
    assert found.retrieval_low[1] == pytest.approx(sum(touching_greek) / 4, abs=1e-6)
