from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from midalign.answers.format import AnswerFormat
from midalign.answers.write import completion
from midalign.data.prompts import render, turns
from midalign.errors import ModelError
from midalign.records import Span, TaskExample

SLOTS = TaskExample(
    "x:0", "slots", "eng_Latn", "wake me at nine  am.", ("wake", "me", "at", "nine", "am", "."),
    (Span("time", 3, 5), Span("who", 1, 2)), "alarm_set",
)  # fmt: skip
EMPTY = TaskExample("x:1", "slots", "eng_Latn", "stop", ("stop",), (), "alarm_stop")
ENTITIES = TaskExample(
    "x:2", "extraction", "deu_Latn", 'Der "Öko"-Laden', ("Der", '"', "Öko", '"', "-", "Laden"), (Span("ORG", 1, 6),)
)
TRANSLATION = TaskExample("x:3", "translation", "eng_Latn", "Hello", reference="Hallo", target_language="deu_Latn")
EXAMPLES = [SLOTS, EMPTY, ENTITIES, TRANSLATION]

# The answers' turns of well-known templates, shortened; the second knows no system turn, the third refuses one.
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DROPPING = (
    "{% for m in messages if m.role == 'user' %}<user>{{ m.content }}</user>{% endfor %}"
    "{% if add_generation_prompt %}<answer>{% endif %}"
)
REFUSING = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + DROPPING


def bpe(split: str, template: str | None = None) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that cuts text as GPT-2 or as Llama 3 does, trained on text with many merges."""
    inner = Tokenizer(models.BPE())
    if split == "gpt2":
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        from tokenizers import Regex

        pattern = Regex(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
            r"|\s+(?!\S)|\s+"
        )
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(pattern, "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<s>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([completion(e) + "\nAnswer:\n" + e.text for e in EXAMPLES] * 20, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>")
    tokenizer.chat_template = template
    return tokenizer


TOKENIZERS = [bpe("gpt2"), bpe("llama3"), bpe("gpt2", CHATML), bpe("llama3", CHATML)]


def instruction(example: TaskExample) -> str:
    return turns(example)[0]["content"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.task)
def test_a_plain_prompt_has_system_text_blank_line_input_and_answer(example: TaskExample) -> None:
    assert render(example, TOKENIZERS[0]).text == f"{instruction(example)}\n\n{example.text}\nAnswer:\n"


def test_a_chat_prompt_is_the_templates_and_ends_where_the_answer_begins() -> None:
    assert render(SLOTS, TOKENIZERS[2]).text == (
        f"<|im_start|>system\n{instruction(SLOTS)}<|im_end|>\n<|im_start|>user\n{SLOTS.text}<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("template", [DROPPING, REFUSING], ids=["dropping", "refusing"])
def test_a_template_without_a_system_turn_gets_the_text_before_the_users(template: str) -> None:
    prompt = render(SLOTS, bpe("gpt2", template)).text
    assert prompt == f"<user>{instruction(SLOTS)}\n\n{SLOTS.text}</user><answer>"


def test_translation_prompts_name_the_languages_in_english() -> None:
    assert "from English to German" in instruction(TRANSLATION)


def test_a_system_text_given_replaces_ours() -> None:
    prompt = render(SLOTS, TOKENIZERS[0], AnswerFormat(system="Find slots.")).text
    assert prompt == f"Find slots.\n\n{SLOTS.text}\nAnswer:\n"


def test_prompts_tell_nothing_of_the_gold() -> None:
    for style in ("slots", "intent_slots"):
        text = turns(SLOTS, AnswerFormat(style))[0]["content"]  # type: ignore[arg-type]
        assert not any(secret in text for secret in ("nine", "time", "who", "alarm_set"))


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["gpt2", "llama3", "gpt2-chat", "llama3-chat"])
@settings(deadline=None, max_examples=60)
@given(st.sampled_from(EXAMPLES), st.text(min_size=1, max_size=6).filter(lambda t: not t[0].isspace()))
def test_prompt_tokens_are_the_beginning_of_the_whole_texts_tokens(
    tokenizer: PreTrainedTokenizerFast, example: TaskExample, other: str
) -> None:
    prompt, answer = render(example, tokenizer).text, completion(example)
    for text in (answer, other):
        alone = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        whole = tokenizer(prompt + text, add_special_tokens=False)["input_ids"]
        assert whole[: len(alone)] == alone


TOOLS = ({"type": "function", "function": {"name": "set_alarm", "parameters": {}}},)
TURNS = (
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "when?"},
    {"role": "user", "content": "nine"},
)
ROW = TaskExample("x:4", "chat", "eng_Latn", "hi\nwhen?\nnine", reference="done", messages=TURNS)
USING_TOOLS = "{% if tools %}{{ tools | tojson }}{% endif %}" + CHATML


def test_a_row_of_chat_is_asked_with_its_own_turns() -> None:
    own = [dict(turn) for turn in ROW.messages]
    wanted = TOKENIZERS[2].apply_chat_template(own, tokenize=False, add_generation_prompt=True)
    assert render(ROW, TOKENIZERS[2]).text == wanted
    plain = render(ROW, TOKENIZERS[0], AnswerFormat(system="Be short.")).text
    assert plain == "Be short.\n\nhi\n\nwhen?\n\nnine\nAnswer:\n"


@pytest.mark.parametrize(
    ("roles", "says"),
    [
        (("user", "user"), r"refuses its turns \(user, user\): roles must alternate\. .* Write turns"),
        (("system",), r"refuses its turns \(system\): it takes no system turn, and there is no other turn"),
        (("system", "assistant", "user"), "roles must alternate"),
    ],
)
def test_turns_that_the_template_refuses_are_named_with_its_reason(roles, says) -> None:
    alternating = (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}"
    )
    messages = tuple({"role": role, "content": f"{role} {number}"} for number, role in enumerate(roles))
    with pytest.raises(ModelError, match=f"^item x:7: .*{says}"):
        render(replace(ROW, id="x:7", messages=messages), bpe("gpt2", alternating + REFUSING))


def test_a_system_text_goes_before_the_turns_of_a_row_that_has_none() -> None:
    formatted = AnswerFormat(system="Be short.")
    assert "<|im_start|>system\nBe short.<|im_end|>" in render(ROW, TOKENIZERS[2], formatted).text
    with_own = replace(ROW, messages=({"role": "system", "content": "Be long."}, *ROW.messages))
    assert turns(with_own, formatted) == with_own.messages
    dropping = render(with_own, bpe("gpt2", DROPPING)).text
    assert dropping == "<user>Be long.\n\nhi</user><user>nine</user><answer>"


def test_a_row_of_plain_text_is_the_prompt_as_it_is() -> None:
    row = TaskExample("x:5", "chat", "eng_Latn", "<|im_start|>user\nQ: one?<|im_end|>\nA:", reference="two")
    for tokenizer in TOKENIZERS:
        prompt = render(row, tokenizer)
        assert prompt.pieces == (row.text,), "control tokens that a row brings along are what it says"
        assert not prompt.from_template, "so that the tokenizer's own first token is added"


def test_tools_are_given_to_the_template_and_refused_where_it_drops_them() -> None:
    row = replace(ROW, tools=TOOLS)
    assert "set_alarm" in render(row, bpe("gpt2", USING_TOOLS)).text
    with pytest.raises(ModelError, match="item x:4: its tool text 'set_alarm' is not in the prompt"):
        render(row, TOKENIZERS[2])
