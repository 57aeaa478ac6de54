"""Prompt ids at training and at generation are the same, the prompt is masked, the answer ends."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midalign.answers.format import AnswerFormat
from midalign.answers.write import completion
from midalign.data.prompt_tokens import IGNORED, InTaskPrompt, prompt_ids, training_rows
from midalign.data.prompts import render
from midalign.errors import DataError
from midalign.records import Span, TaskExample
from tests.conftest import build_tokenizer

PLAIN, CHAT = build_tokenizer(), build_tokenizer(chat=True)
EXAMPLE = TaskExample(
    "x:0", "slots", "eng_Latn", "call anna now", ("call", "anna", "now"), (Span("who", 1, 2),), "call"
)


@pytest.mark.parametrize("tokenizer", [PLAIN, CHAT], ids=["plain", "chat"])
@pytest.mark.parametrize("style", ["slots", "intent_slots"])
def test_the_loss_is_on_the_answer_and_its_end_only(tokenizer, style):
    (row,) = training_rows([EXAMPLE], tokenizer, AnswerFormat(style, ""))
    prompt, answer = render(EXAMPLE, tokenizer, AnswerFormat(style, "")), completion(EXAMPLE, style)
    asked = prompt_ids(prompt, tokenizer)
    assert row["input_ids"][: len(asked)] == asked, "what generation will see"
    assert row["labels"][: len(asked)] == [IGNORED] * len(asked)
    assert row["labels"][len(asked) :] == row["input_ids"][len(asked) :]
    taught = [label for label in row["labels"] if label != IGNORED]
    assert taught[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(taught[:-1]) == answer
    assert len(row["labels"]) == len(row["input_ids"])


def test_one_token_begins_the_sequence_with_and_without_a_template():
    for tokenizer in (PLAIN, CHAT):
        ids = prompt_ids(render(EXAMPLE, tokenizer, AnswerFormat(system="")), tokenizer)
        assert ids[0] == tokenizer.bos_token_id
        assert ids[1] != tokenizer.bos_token_id, "not twice"


@settings(deadline=None, max_examples=60)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]), min_size=1, max_size=30))
def test_any_text_keeps_prompt_and_answer_apart(word):
    example = TaskExample("x:0", "translation", "eng_Latn", word, reference=word, target_language="deu_Latn")
    (row,) = training_rows([example], PLAIN)
    asked = prompt_ids(render(example, PLAIN), PLAIN)
    assert row["input_ids"][: len(asked)] == asked
    assert row["labels"].count(IGNORED) == len(asked)


def test_an_example_that_would_be_cut_off_is_refused_by_its_id():
    (row,) = training_rows([EXAMPLE], PLAIN, AnswerFormat(system=""))
    length = len(row["input_ids"])
    assert training_rows([EXAMPLE], PLAIN, AnswerFormat(system=""), max_length=length) == [row]
    with pytest.raises(DataError, match=rf"item x:0: prompt and answer are {length} tokens, more than .*{length - 1}"):
        training_rows([EXAMPLE], PLAIN, AnswerFormat(system=""), max_length=length - 1)


@pytest.mark.parametrize("tokenizer", [PLAIN, CHAT], ids=["plain", "chat"])
@pytest.mark.parametrize("system", [None, "", "find things"])
def test_a_sentence_in_the_task_prompt_is_what_generation_sees_and_counts_from_its_first_token(tokenizer, system):
    asked = InTaskPrompt(tokenizer, "slots", AnswerFormat("intent_slots", system))(EXAMPLE.text)
    prompt = render(EXAMPLE, tokenizer, AnswerFormat("intent_slots", system))
    assert asked["input_ids"] == prompt_ids(prompt, tokenizer)
    counted = [token for token, mask in zip(asked["input_ids"], asked["pooled_mask"], strict=True) if mask]
    start, after = prompt.text.split(EXAMPLE.text)
    assert tokenizer.decode(counted) == EXAMPLE.text + after
    assert asked["pooled_mask"] == sorted(asked["pooled_mask"]), "what follows the sentence counts too"
    assert asked["special_tokens_mask"][0] == 1, "begin of sequence"
    assert start or not tokenizer.chat_template


@settings(deadline=None, max_examples=60)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]), min_size=1, max_size=30).filter(str.strip))
def test_whatever_the_sentence_its_tokens_count(text):
    for tokenizer in (PLAIN, CHAT):
        asked = InTaskPrompt(tokenizer, "extraction", AnswerFormat(system=""))(text)
        counted = [token for token, mask in zip(asked["input_ids"], asked["pooled_mask"], strict=True) if mask]
        assert text.strip() in tokenizer.decode(counted), "byte-level tokens give every text back"
