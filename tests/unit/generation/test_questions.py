"""Questions: batches keep to their size, and what cannot be asked or answered is found before a model is loaded."""

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midalign.answers.format import AnswerFormat
from midalign.errors import DataError, MissingExtraError, ModelError
from midalign.generation.generate import generate
from midalign.generation.questions import Question, batches_by_length, check_questions
from midalign.records import Span, TaskExample
from tests.conftest import build_model, build_tokenizer
from tests.slot_sentences import SENTENCES, slots_of

NO_SYSTEM = AnswerFormat(system="")
EXAMPLES = [TaskExample(f"x:{i}", "slots", "eng_Latn", text) for i, text in enumerate(["licht", "turn on", "9"])]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 20), st.integers(1, 300))
def test_batches_hold_every_row_once_and_keep_to_their_size(lengths, new_tokens, batch_tokens):
    asked = [Question(EXAMPLES[0], str(number), [0] * length) for number, length in enumerate(lengths)]
    batches = list(batches_by_length(asked, new_tokens, batch_tokens))
    assert sorted(int(question.prompt) for batch in batches for question in batch) == list(range(len(lengths)))
    longest = [max(len(question.ids) for question in batch) for batch in batches]
    for batch, width in zip(batches, longest, strict=True):
        assert len(batch) * (width + new_tokens) <= batch_tokens or len(batch) == 1
    assert longest == sorted(longest, reverse=True)


def test_a_prompt_that_leaves_no_room_is_refused_before_anything_is_generated():
    tokenizer, model = build_tokenizer(), build_model("llama")
    long = TaskExample("x:9", "slots", "eng_Latn", "light " * 120)
    with pytest.raises(DataError, match=r"item x:9: .*does not fit into the model's window of 128"):
        check_questions(model.config, tokenizer, [*EXAMPLES, long], NO_SYSTEM, 10)
    with pytest.raises(DataError, match=r"item x:9: .*does not fit into the model's window of 128"):
        generate(model, tokenizer, [*EXAMPLES, long], NO_SYSTEM, max_new_tokens=10)


def test_a_template_that_drops_the_text_is_refused_before_anything_is_generated():
    tokenizer, model = build_tokenizer(), build_model("llama")
    tokenizer.chat_template = "{% for m in messages %}<s>{{ m['role'] }}</s>{% endfor %}"
    with pytest.raises(ModelError, match="leaves out the instruction or the user's text"):
        check_questions(model.config, tokenizer, EXAMPLES, NO_SYSTEM, 4)
    with pytest.raises(ModelError, match="leaves out the instruction or the user's text"):
        generate(model, tokenizer, EXAMPLES, NO_SYSTEM, max_new_tokens=4)


def test_without_the_extra_a_constraint_is_refused_before_a_model_is_loaded(monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    held = AnswerFormat(system="", constrained="slots")
    with pytest.raises(MissingExtraError, match=r"generation.constrained.*pip install 'midalign\[constrained\]'"):
        check_questions(build_model("llama").config, build_tokenizer(), SENTENCES, held, 4)


def test_gold_answers_that_could_not_be_written_are_counted_before_anything_is_generated(caplog):
    held, config = AnswerFormat("intent_slots", "", "slots"), build_model("llama").config
    odd = slots_of("a b", ["a", "b"], [Span("x;y", 0, 1)])
    check_questions(config, build_tokenizer(), SENTENCES, held, 8)
    assert not caplog.text
    check_questions(config, build_tokenizer(), [*SENTENCES, odd], held, 8)
    assert "1 of 8 gold answers could not be written, such as that of item x:a b" in caplog.text
    with pytest.raises(DataError, match=r"1 of 1 gold answers could not be written.*leave it out"):
        check_questions(config, build_tokenizer(), [odd], held, 8)
