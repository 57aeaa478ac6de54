"""Tokenising for the probe: cutting at the window, counting, refusing what has no vector."""

import logging
from functools import partial

import pytest

from midalign.errors import DataError, ModelError
from midalign.models.encoding import Encoder
from midalign.models.limits import context_window
from midalign.models.tokens import BehindSink, sentence_tokenizer, tokenize
from tests.conftest import CORPUS, build_model, build_plain_tokenizer

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


def test_a_sink_is_put_before_a_sentence_of_a_tokenizer_that_adds_nothing():
    tokenizer = build_plain_tokenizer()
    plain = tokenize(tokenizer, ["wake me up", "wake"])
    assert plain.special == tuple((0,) * len(ids) for ids in plain.ids)
    behind = tokenize(tokenizer, ["wake me up", "wake"], sink=BehindSink(tokenizer).sink)
    (line_break,) = tokenizer("\n")["input_ids"]
    assert behind.ids == tuple((line_break, *ids) for ids in plain.ids)
    assert behind.special == tuple((1, *mask) for mask in plain.special)
    assert behind.content == plain.content
    assert behind.sha256 != plain.sha256


def test_a_tokenizer_that_adds_its_own_is_left_as_it_is(tokenizer):
    assert BehindSink(tokenizer).sink == ()
    own, ours = tokenizer("wake me up", return_special_tokens_mask=True), BehindSink(tokenizer)("wake me up")
    assert ours == {"input_ids": own["input_ids"], "special_tokens_mask": own["special_tokens_mask"]}


def test_without_a_line_break_the_sink_is_the_begin_or_the_end_of_sequence_and_without_all_there_is_none():
    from tokenizers import normalizers

    tokenizer = build_plain_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\n", "")
    assert BehindSink(tokenizer).sink == (tokenizer.bos_token_id,)
    tokenizer.bos_token = None
    assert BehindSink(tokenizer).sink == (tokenizer.eos_token_id,)
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match=r"none for a line break, and neither .* Write pooling: mean_no_first"):
        BehindSink(tokenizer)


def test_a_sentence_behind_a_sink_is_cut_so_that_both_fit_the_window():
    tokenizer = build_plain_tokenizer()
    tokens = tokenize(tokenizer, ["wake me up", " ".join(WORDS)], 16, sink=BehindSink(tokenizer).sink)
    assert tokens.truncated == 1
    assert len(tokens.ids[1]) == 16
    assert tokens.ids[1][1:] == tuple(tokenizer(" ".join(WORDS))["input_ids"][:15])


@pytest.mark.parametrize(("pooling", "kind"), [("mean_after_sink", BehindSink), ("mean", partial)])
def test_only_poolings_behind_a_sink_get_one(pooling, kind):
    assert isinstance(sentence_tokenizer(build_plain_tokenizer(), pooling), kind)


def test_without_a_stated_window_nothing_is_cut(tokenizer):
    model = build_model("bloom")  # ALiBi: a real BLOOM states no window
    model.config.max_position_embeddings = None
    assert context_window(model.config, tokenizer) is None
    assert tokenize(tokenizer, ["wake " * 500], context_window(model.config, tokenizer)).truncated == 0


@pytest.mark.parametrize("pooling", ["mean", "mean_after_sink"])
def test_the_name_of_a_control_token_in_a_sentence_is_text(tokenizer, pooling):
    sentence = "wake </s> me <pad> up <s>"
    asked = sentence_tokenizer(tokenizer, pooling)(sentence, return_special_tokens_mask=True)
    probed = tokenize(tokenizer, [sentence])
    for given, special in ((asked["input_ids"], asked["special_tokens_mask"]), (probed.ids[0], probed.special[0])):
        first, *ids = given
        assert first == 1
        assert not {0, 1, 2} & set(ids)
        assert list(special) == [1] + [0] * len(ids)
        assert tokenizer.decode(ids) == sentence
    assert tokenizer("</s>")["input_ids"] == [1, 2], "for this call only"
