from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from midalign.answers.format import AnswerFormat
from midalign.answers.matching import FoldedSentence, match_items, span_phrases
from midalign.answers.parse import parse_entities, parse_slots
from midalign.answers.write import completion
from midalign.data.prompts import render, turns
from midalign.data.tasks.read import read_task
from midalign.errors import ModelError
from midalign.metrics.extraction import extraction_strata
from midalign.metrics.scoring import score_strata
from midalign.metrics.slots import slot_strata
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


def test_completions_as_written_down() -> None:
    assert completion(SLOTS) == "time: nine am; who: me"
    assert completion(SLOTS, "intent_slots") == "alarm_set | time: nine am; who: me"
    assert completion(EMPTY) == "None"
    assert completion(EMPTY, "intent_slots") == "alarm_stop | None"
    assert completion(ENTITIES) == '{"Results": [{"TypeName": "ORG", "Text": "\\"Öko\\"-Laden"}]}'
    assert completion(TRANSLATION) == "Hallo"


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


WORD = st.text(alphabet="abc:;,äé中", min_size=1, max_size=3)


@st.composite
def marked_sentences(draw: st.DrawFn) -> TaskExample:
    """Sentences whose words are distinct, with any spans and any blanks between words."""
    words = draw(st.lists(WORD, min_size=1, max_size=6, unique=True))
    words = [f"{index}{word}" for index, word in enumerate(words)]
    spans, at = [], 0
    while at < len(words):
        width = draw(st.integers(0, 2))
        if width and at + width <= len(words):
            spans.append(Span(draw(st.sampled_from(["time", "a/b", "x_y"])), at, at + width))
        at += max(1, width)
    task = draw(st.sampled_from(["slots", "extraction"]))
    return TaskExample(
        "x:0", task, "eng_Latn", draw(st.sampled_from(["", " "])).join(words), tuple(words), tuple(spans)
    )


@settings(deadline=None, max_examples=200)
@given(marked_sentences())
def test_a_completion_reads_back_as_the_gold(example: TaskExample) -> None:
    if example.task == "slots":
        output = parse_slots(completion(example), example.words, labels=["time", "a/b", "x_y"])
        assert output.parsed
    else:
        output = parse_entities(completion(example))  # type: ignore[assignment]
    assert tuple(match_items(example.words, output.items)) == example.spans


def test_a_json_completion_is_json_on_one_line() -> None:
    text = completion(ENTITIES)
    assert json.loads(text)["Results"][0]["Text"] == '"Öko"-Laden'
    assert "\n" not in text


COUNTS = {"train": 32244, "dev": 4741, "test": 10528}


def ambiguous(example: TaskExample) -> bool:
    """Whether a gold phrase stands in the sentence more than once, so that the rule may find another place of it."""
    sentence = FoldedSentence(example.words)
    return any(len(sentence.occurrences(phrase)) > 1 for phrase in span_phrases(example))


@functools.cache
def real(folder: Path, split: str, task: str) -> list[TaskExample]:
    return read_task(folder, split=split, task=task)  # type: ignore[arg-type]


@pytest.mark.data
@pytest.mark.parametrize("style", ["slots", "intent_slots"])
def test_every_xsid_gold_reads_back_and_scores_one(data_folder: Path, style: str) -> None:
    for split in ("test", "dev"):
        examples = real(data_folder / "xsid", split, "slots")
        examples = [e for e in examples if not ambiguous(e)]
        outputs = {e.id: completion(e, style) for e in examples}  # type: ignore[arg-type]
        scores = score_strata(slot_strata(examples, outputs, style), resamples=2)  # type: ignore[arg-type]
        wanted = {"slot_f1": 1.0, "label_f1": 1.0, "value_f1": 1.0, "exact_match": 1.0, "unparsed": 0.0}
        wanted |= {"intent_accuracy": 1.0} if style == "intent_slots" else {}
        assert len({s.language for s in scores if s.language}) == 12
        for score in scores:
            assert score.value == wanted.get(score.metric, 1.0), score


@pytest.mark.data
def test_every_uner_gold_reads_back_and_scores_one(data_folder: Path) -> None:
    for split in ("test", "dev", "train"):
        examples = real(data_folder / "uner", split, "extraction")
        assert len(examples) == COUNTS[split]
        examples = [e for e in examples if not ambiguous(e)]
        scores = score_strata(extraction_strata(examples, {e.id: completion(e) for e in examples}), resamples=2)
        for score in scores:
            failure = score.metric not in ("entity_f1", "entity_precision", "entity_recall", "parse_rate")
            assert score.value == (0.0 if failure else 1.0), score


@pytest.mark.data
def test_only_a_gold_phrase_that_stands_there_twice_may_be_read_back_elsewhere(data_folder: Path) -> None:
    missed = total = 0
    for folder, task in (("xsid", "slots"), ("uner", "extraction")):
        for split in ("test", "dev"):
            for example in real(data_folder / folder, split, task):
                parse = (lambda text, e=example: parse_slots(text, e.words)) if task == "slots" else parse_entities
                if tuple(match_items(example.words, parse(completion(example)).items)) != example.spans:
                    missed += 1
                    assert ambiguous(example), example.id
                total += 1
    assert 0 < missed < total / 1000


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
