"""Gold answers as text: as written down, and read back as what they were made of."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midalign.answers.matching import FoldedSentence, match_items, span_phrases
from midalign.answers.parse import parse_entities, parse_slots
from midalign.answers.write import completion
from midalign.data.tasks.read import read_task
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


def test_completions_as_written_down() -> None:
    assert completion(SLOTS) == "time: nine am; who: me"
    assert completion(SLOTS, "intent_slots") == "alarm_set | time: nine am; who: me"
    assert completion(EMPTY) == "None"
    assert completion(EMPTY, "intent_slots") == "alarm_stop | None"
    assert completion(ENTITIES) == '{"Results": [{"TypeName": "ORG", "Text": "\\"Öko\\"-Laden"}]}'
    assert completion(TRANSLATION) == "Hallo"


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
