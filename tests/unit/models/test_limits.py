"""What a model has room for: one window for every verb, and no token that has no embedding."""

import copy

import pytest

from midalign.data.tasks.read import read_task
from midalign.errors import DataError, ModelError
from midalign.generation.generate import generate
from midalign.models.limits import check_ids, check_vocabulary, context_window
from midalign.models.loading import load_model, load_tokenizer
from midalign.probing.probe import probe
from tests.conftest import build_model, build_tokenizer
from tests.tiny_world import write_slots


@pytest.mark.parametrize(
    ("of_model", "of_tokenizer", "expected"),
    [(128, 10**30, 128), (128, 64, 64), (None, 64, 64), (None, 10**30, None), (128, None, 128), (-1, 64, 64)],
)
def test_the_window_is_the_lower_of_the_two_limits(of_model, of_tokenizer, expected):
    config, tokenizer = build_model("bloom").config, build_tokenizer()  # the type of whose limit nobody checks
    config.max_position_embeddings, tokenizer.model_max_length = of_model, of_tokenizer
    assert context_window(config, tokenizer) == expected


def test_a_model_whose_text_part_states_the_window_has_it(tokenizer):
    from transformers import Gemma3Config

    config = Gemma3Config(text_config=dict(max_position_embeddings=77))
    assert context_window(config) == context_window(config, tokenizer) == 77


def saved(folder, tokenizer, **changes):
    build_model("llama", **changes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_tokenizer_of_a_larger_vocabulary_is_refused_with_a_token(tmp_path, tokenizer):
    load_tokenizer(saved(tmp_path / "fits", tokenizer))
    with pytest.raises(ModelError, match=r"gives 84 tokens that the model has no embedding for, such as .* \(300\)"):
        load_tokenizer(saved(tmp_path / "small", tokenizer, vocab_size=300))


def test_a_token_of_the_chat_template_that_the_model_lacks_is_refused(tmp_path):
    tokenizer = build_tokenizer(chat=True)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    load_tokenizer(saved(tmp_path / "unused", tokenizer))  # no text brings it forth
    tokenizer.chat_template = tokenizer.chat_template.replace("<s>", "<|turn|>")
    with pytest.raises(ModelError, match=r"'<\|turn\|>' \(384\).*resize_token_embeddings"):
        load_tokenizer(saved(tmp_path / "used", tokenizer))


def test_a_padding_token_that_the_model_lacks_gives_way_to_the_end_of_sequence(tmp_path, tokenizer):
    """So published are models to which a padding token was added for training, and none to their embeddings."""
    changed = copy.deepcopy(tokenizer)
    changed.add_special_tokens({"pad_token": "[PAD]"})
    folder = saved(tmp_path, changed)
    loaded = load_tokenizer(folder)
    assert loaded.pad_token == loaded.eos_token
    sentences = {"eng": ["wake me up", "turn on the light in the kitchen"], "deu": ["weck mich", "mach das licht an"]}
    probe(load_model(folder), loaded, sentences, k=1)


def test_the_end_of_sequence_has_to_have_an_embedding(tokenizer):
    changed = copy.deepcopy(tokenizer)
    changed.add_special_tokens({"eos_token": "<|end|>"})
    with pytest.raises(ModelError, match=r"'<\|end\|>' \(384\)"):
        check_vocabulary(changed, 384, "m")


def test_a_text_that_holds_such_a_token_is_named_before_the_model_fails_at_it(tokenizer):
    changed = copy.deepcopy(tokenizer)
    changed.add_tokens(["<|image|>"])  # names of special ones are text
    check_vocabulary(changed, 384, "m")
    model = build_model("llama")
    check_ids([changed("wake me up")["input_ids"], []], changed, model.config, "x")
    corpus = {"eng": ["wake me up", "look: <|image|>"], "deu": ["weck mich", "schau"]}
    with pytest.raises(DataError, match=r"eng_Latn: text 1 holds the token '<\|image\|>' \(384\)"):
        probe(model, changed, corpus, k=1)


def test_a_prompt_that_holds_such_a_token_is_named(tokenizer, tmp_path):
    changed = copy.deepcopy(tokenizer)
    changed.add_tokens(["test2"])
    write_slots(tmp_path)
    examples = read_task(tmp_path, task="slots", format="xsid", languages=["eng_Latn"], split="test")
    with pytest.raises(DataError, match=r"the prompts: text 2 holds the token 'test2'"):
        generate(build_model("llama", max_position_embeddings=512), changed, examples, max_new_tokens=1)
