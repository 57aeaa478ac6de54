"""The mean after a sink: that of a tokenizer which adds a token by itself, whichever tokenizer there is."""

from __future__ import annotations

import numpy as np
import pytest

from midalign.probing import probe as probing
from midalign.probing.probe import probe, probe_poolings
from tests.conftest import build_line_break_tokenizer, build_model, build_plain_tokenizer
from tests.unit.probing.test_probe import some_parallel


def layers(result):
    return result.as_dict()["layers"]


def test_without_a_begin_of_sequence_it_is_the_mean_of_the_words_behind_a_line_break():
    """The oracle is the same tokenizer adding a line break by itself, which the mean leaves out as special."""
    model, plain, corpus = build_model("llama"), build_plain_tokenizer(), some_parallel()
    found = probe(model, plain, corpus, pooling="mean_after_sink")
    assert layers(found) == layers(probe(model, build_line_break_tokenizer(), corpus, pooling="mean_no_special"))
    assert layers(found) != layers(probe(model, plain, corpus, pooling="mean_no_special"))
    assert found.as_dict()["fertility"] == probe(model, plain, corpus).as_dict()["fertility"]


def test_with_a_begin_of_sequence_it_is_the_mean_without_special_tokens(tokenizer):
    both = probe_poolings(
        build_model("llama"), tokenizer, some_parallel(), poolings=("mean_after_sink", "mean_no_special")
    )
    assert list(both) == ["mean_after_sink", "mean_no_special"]
    assert layers(both["mean_after_sink"]) == layers(both["mean_no_special"])


@pytest.mark.parametrize("plain", [True, False])
def test_beside_other_poolings_it_costs_a_pass_of_its_own_where_a_sink_has_to_be_put(plain, tokenizer):
    model, chosen = build_model("llama"), build_plain_tokenizer() if plain else tokenizer
    corpus, poolings = some_parallel(), ("mean", "mean_after_sink", "last")
    passes = []
    handle = model.model.embed_tokens.register_forward_hook(lambda *_: passes.append(1))
    alone = {pooling: probe(model, chosen, corpus, pooling=pooling) for pooling in poolings}
    one, passes[:] = len(passes) // 3, []
    together = probe_poolings(model, chosen, corpus, poolings=poolings)
    handle.remove()
    assert len(passes) == (2 if plain else 1) * one
    assert list(together) == list(poolings)
    for pooling in poolings:
        assert layers(together[pooling]) == layers(alone[pooling])


def test_its_vectors_lie_apart_in_a_cache(tmp_path, monkeypatch):
    model, tokenizer, corpus = build_model("llama"), build_plain_tokenizer(), some_parallel()
    expected = {pooling: probe(model, tokenizer, corpus, pooling=pooling) for pooling in ("mean", "mean_after_sink")}
    for _ in range(2):
        for pooling, result in expected.items():
            found = probe(model, tokenizer, corpus, pooling=pooling, cache=tmp_path)
            assert np.array_equal(found.hits, result.hits)
        monkeypatch.setattr(probing.Encoder, "encode", None)  # the second time everything is in the cache
