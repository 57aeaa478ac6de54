"""Whatever a system writes: it is read without an error, nothing of it is dropped, and gold reads back as gold."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from midalign.answers.format import AnswerFormat
from midalign.answers.matching import FoldedSentence, match_items, span_phrases
from midalign.answers.parse import parse_entities, parse_slots
from midalign.answers.write import completion
from midalign.evaluation.score import score
from midalign.records import Span, TaskExample
from tests.fuzz.strategies import FEW_OR_MANY, damaged, values

LABELS = ("time", "place", "a:b", "reminder/todo", "Zeit 2")
# Letters of many scripts, and what could be taken for the format or for the end of a line.
SIGNS = ';:|,"\\{}[]N\n\r\f\x85\u2028\u00a0\u200b\u0301'
CHARACTERS = st.characters(exclude_categories=["Cs"]) | st.sampled_from(SIGNS)

WORDS = st.text(CHARACTERS, min_size=1, max_size=6).filter(str.strip)


@st.composite
def examples(draw, task="slots"):
    words = draw(st.lists(WORDS, min_size=1, max_size=6))
    spans, at = [], 0
    while at < len(words):
        width = draw(st.integers(0, 2))
        if width and at + width <= len(words):
            spans.append(Span(draw(st.sampled_from(LABELS)), at, at + width))
        at += max(1, width)
    text = draw(st.sampled_from(["", " ", "  ", "\u2028"])).join(words)
    return TaskExample("x:0", task, "eng_Latn", text, tuple(words), tuple(spans), draw(st.sampled_from(["go", "a b"])))


@st.composite
def written(draw, task):
    """An example, and an answer: the gold one damaged, or any text."""
    example = draw(examples(task))
    gold = completion(example, "intent_slots")
    damage = damaged(gold.encode()).map(lambda data: data.decode("utf-8", "replace"))
    return example, draw(damage | st.text(CHARACTERS, max_size=40) | values())


def letters(text):
    """What is neither a blank nor a sign of the format."""
    return "".join(character for character in text if character not in ":;|" and not character.isspace())


@FEW_OR_MANY
def test_nothing_of_an_answer_in_slots_is_dropped(cases):
    @settings(max_examples=cases, deadline=None)
    @given(written("slots"), st.booleans())
    def check(case, with_intent):
        example, output = case
        style = "intent_slots" if with_intent else "slots"
        read = parse_slots(output, example.words, labels=LABELS, style=style)
        line = next((part for part in output.split("\n") if part.strip()), "")
        parts = [read.intent, *(f"{label}: {phrase}" for label, phrase in read.items)]
        if not read.items and read.parsed:
            parts.append("None")
        assert letters("".join(parts)).casefold() == letters(line).casefold()
        assert len(match_items(example.words, read.items)) == len(read.items)

    check()


@FEW_OR_MANY
def test_an_answer_in_json_is_read_only_if_it_is_json_of_the_schema(cases):
    @settings(max_examples=cases, deadline=None)
    @given(written("extraction"))
    def check(case):
        example, output = case
        read = parse_entities(output)
        assert len(match_items(example.words, read.items)) == len(read.items)
        if read.failure is None:
            again = {"Results": [{"TypeName": label, "Text": text} for label, text in read.items]}
            assert json.loads(output) == again
        else:
            assert not read.items

    check()


@FEW_OR_MANY
def test_gold_reads_back_as_gold_whatever_the_words(cases):
    @settings(max_examples=cases, deadline=None)
    @given(examples() | examples("extraction"))
    def check(example):
        sentence = FoldedSentence(example.words)
        assume(all(len(sentence.occurrences(phrase)) == 1 for phrase in span_phrases(example)))
        gold = completion(example)
        if example.task == "extraction":
            assert parse_entities(gold).failure is None
            items = parse_entities(gold).items
        else:
            read = parse_slots(gold, example.words, labels=LABELS)
            assert read.parsed
            items = read.items
        assert tuple(match_items(example.words, items)) == example.spans

    check()


@FEW_OR_MANY
def test_scores_of_any_answers_are_shares(cases):
    @settings(max_examples=cases, deadline=None)
    @given(st.lists(written("slots") | written("extraction"), min_size=1, max_size=3), st.booleans())
    def check(found, with_intent):
        task = found[0][0].task
        kept = [(example, output) for example, output in found if example.task == task]
        gold = [TaskExample(f"x:{i}", *fields(example)) for i, (example, _) in enumerate(kept)]
        outputs = {f"x:{i}": output for i, (_, output) in enumerate(kept)}
        style = AnswerFormat("intent_slots" if with_intent else "slots")
        for one in score(gold, outputs, style, resamples=10):
            assert 0 <= one.low <= one.high <= 1
            assert 0 <= one.value <= 1

    check()


def fields(example):
    return example.task, example.language, example.text, example.words, example.spans, example.intent


CHAT_METRICS = ("exact_match", "token_f1", "chrf", "bleu", "json_match", "accuracy", "macro_f1")


@pytest.mark.parametrize("cases", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_every_metric_of_chat_scores_any_answer(cases):
    references = ['{"a": [1, {"b": null}]}', '"日本"', "[]"]
    gold = [
        TaskExample(f"x:{i}", "chat", "jpn_Jpan", "?", reference=reference) for i, reference in enumerate(references)
    ]

    @settings(max_examples=cases, deadline=None)
    @given(st.lists(values() | st.text(CHARACTERS, max_size=30), min_size=3, max_size=3))
    def check(answers):
        outputs = {f"x:{i}": answer for i, answer in enumerate(answers)}
        for one in score(gold, outputs, AnswerFormat(metrics=CHAT_METRICS), resamples=5):
            assert 0 <= one.value <= (100 if one.metric in ("bleu", "chrf") else 1)

    check()
