"""Tokenising for the probe: cutting at the window, counting, refusing what has no vector."""

import logging

import pytest

from midalign.errors import DataError
from midalign.models.encoding import Encoder
from midalign.models.limits import context_window
from midalign.models.tokens import tokenize
from tests.conftest import CORPUS, build_model

WORDS = [word for line in CORPUS for word in line.split()]


def test_long_sentences_are_cut_at_the_window_counted_and_logged(tokenizer, caplog):
    model = build_model("llama", max_position_embeddings=16)
    assert context_window(model.config, tokenizer) == 16
    sentences = ["wake me up", " ".join(WORDS), "turn on the light " * 9]
    with caplog.at_level(logging.WARNING):
        tokens = tokenize(tokenizer, sentences, 16, "deu_Latn")
    assert tokens.truncated == 2
    assert [len(ids) for ids in tokens.ids[1:]] == [16, 16]
    assert tokens.content[1] == len(tokenizer(sentences[1], add_special_tokens=False)["input_ids"]) > 16
    assert "deu_Latn: 2 of 3 sentences" in caplog.text
    assert tokens.ids[0] == tuple(tokenizer("wake me up")["input_ids"])
    Encoder(model).encode(tokens)


def test_a_sentence_without_a_token_is_an_error(tokenizer):
    with pytest.raises(DataError, match="eng_Latn: sentence 1 is empty"):
        tokenize(tokenizer, ["a", " \t"], name="eng_Latn")


def test_the_hash_tells_texts_and_special_tokens_apart(tokenizer):
    one = tokenize(tokenizer, ["wake me up", "wake"])
    assert one.sha256 == tokenize(tokenizer, ["wake me up", "wake"]).sha256
    assert one.sha256 != tokenize(tokenizer, ["wake", "wake me up"]).sha256
    assert [mask[0] for mask in one.special] == [1, 1]
    assert one.content == tuple(len(ids) - 1 for ids in one.ids)


def test_without_a_stated_window_nothing_is_cut(tokenizer):
    model = build_model("bloom")  # ALiBi: a real BLOOM states no window
    model.config.max_position_embeddings = None
    assert context_window(model.config, tokenizer) is None
    assert tokenize(tokenizer, ["wake " * 500], context_window(model.config, tokenizer)).truncated == 0
