from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import f1_score, precision_score, recall_score

from midalign.answers.format import Style
from midalign.answers.write import completion
from midalign.errors import DataError
from midalign.metrics.scoring import score_strata
from midalign.metrics.slots import slot_strata
from midalign.records import Prediction, Score, Span, TaskExample

LABELS = ("time", "place", "reminder/todo")


def example(
    index: int, words: list[str], spans: list[Span], language: str = "eng_Latn", intent: str = ""
) -> TaskExample:
    return TaskExample(f"x:{index}", "slots", language, " ".join(words), tuple(words), tuple(spans), intent)


def score_slots(examples: list[TaskExample], outputs: Any, style: Style = "slots", resamples: int = 2) -> list[Score]:
    return score_strata(slot_strata(examples, outputs, style), resamples=resamples)


def random_spans(rng: random.Random, length: int) -> list[Span]:
    spans, at = [], 0
    while at < length:
        width = rng.randint(1, 3)
        if rng.random() < 0.45 and at + width <= length:
            spans.append(Span(rng.choice(LABELS), at, at + width))
            at += width
        else:
            at += 1
    return spans


def bio(length: int, spans: list[Span]) -> list[str]:
    tags = ["O"] * length
    for span in spans:
        tags[span.start : span.end] = ["B-" + span.label] + ["I-" + span.label] * (span.end - span.start - 1)
    return tags


def random_cases(n: int, seed: int) -> tuple[list[TaskExample], dict[str, str], list[list[str]], list[list[str]]]:
    """Gold and predicted spans over distinct words, as examples and outputs and as BIO tags for seqeval."""
    rng = random.Random(seed)
    examples, outputs, gold_tags, predicted_tags = [], {}, [], []
    for index in range(n):
        words = [f"w{position}" for position in range(rng.randint(1, 12))]
        gold = random_spans(rng, len(words))
        predicted = gold if rng.random() < 0.3 else random_spans(rng, len(words))
        examples.append(example(index, words, gold))
        outputs[f"x:{index}"] = completion(example(index, words, predicted))
        gold_tags.append(bio(len(words), gold))
        predicted_tags.append(bio(len(words), predicted))
    return examples, outputs, gold_tags, predicted_tags


def values(scores: list[Score], name: str | None = None) -> dict[str, float]:
    """Metric to value, of one language or group."""
    return {s.metric: s.value for s in scores if name in (s.language, s.group)}


@pytest.mark.parametrize(("n", "seed"), [(200, 1), (200, 2), (1000, 3), (1, 4)])
def test_span_scores_equal_seqeval_on_the_same_tags(n: int, seed: int) -> None:
    examples, outputs, gold, predicted = random_cases(n, seed)
    got = values(score_slots(examples, outputs), "eng_Latn")
    assert got["slot_f1"] == pytest.approx(f1_score(gold, predicted, zero_division=0), abs=1e-12)
    assert got["slot_precision"] == pytest.approx(precision_score(gold, predicted, zero_division=0), abs=1e-12)
    assert got["slot_recall"] == pytest.approx(recall_score(gold, predicted, zero_division=0), abs=1e-12)
    assert got["exact_match"] == sum(g == p for g, p in zip(gold, predicted, strict=True)) / n
    assert got["unparsed"] == 0


def test_each_of_a_thousand_sentences_alone_equals_seqeval() -> None:
    examples, outputs, gold, predicted = random_cases(1000, 5)
    for one, gold_tags, tags in zip(examples, gold, predicted, strict=True):
        if set(gold_tags) | set(tags) == {"O"}:
            continue
        (stratum,) = slot_strata([one], {one.id: outputs[one.id]})
        expected = f1_score([gold_tags], [tags], zero_division=0)
        assert stratum.value("slot_f1") == pytest.approx(expected, abs=1e-12)


SENTENCE = ["wake", "me", "at", "nine", "am", "in", "berlin"]
GOLD = [Span("time", 3, 5), Span("place", 6, 7)]


@pytest.mark.parametrize(
    ("output", "slot", "label", "value", "exact", "unparsed"),
    [
        ("time: nine am; place: berlin", 1, 1, 1, 1, 0),
        ("place: berlin; time: nine am", 1, 1, 1, 1, 0),
        ("time: nine; place: berlin", 1 / 2, 1, 1 / 2, 0, 0),  # labels right, one value wrong
        ("place: nine am; time: berlin", 0, 1, 1, 0, 0),  # swapped: both parts right, no slot
        ("date: nine am; city: berlin", 0, 0, 1, 0, 0),
        ("time: ten; place: paris", 0, 1, 0, 0, 0),  # phrases that the sentence does not have
        ("time: nine am", 2 / 3, 2 / 3, 2 / 3, 0, 0),
        ("time: nine am; place: berlin; x: me", 4 / 5, 4 / 5, 4 / 5, 0, 0),
        ("time: nine am; place: berlin; place: berlin", 4 / 5, 4 / 5, 4 / 5, 0, 0),  # a duplicate stays counted
        ("time: nine am; place: berlin; etc", 4 / 5, 4 / 5, 4 / 5, 0, 1),
        ("None", 0, 0, 0, 0, 0),
        ("", 0, 0, 0, 0, 1),
        ("nonsense", 0, 0, 0, 0, 1),
    ],
)
def test_scores_of_one_item_as_written_down(
    output: str, slot: float, label: float, value: float, exact: float, unparsed: float
) -> None:
    got = values(score_slots([example(0, SENTENCE, GOLD)], {"x:0": output}), "eng_Latn")
    names = ("slot_f1", "label_f1", "value_f1", "exact_match", "unparsed")
    assert [got[name] for name in names] == pytest.approx([slot, label, value, exact, unparsed])


def test_intent_accuracy_is_there_for_the_intent_style_only() -> None:
    examples = [example(0, ["go"], [], intent="move"), example(1, ["go"], [], intent="move")]
    outputs = {"x:0": "move | None", "x:1": "stay | None"}
    got = values(score_slots(examples, outputs, style="intent_slots"), "eng_Latn")
    assert got["intent_accuracy"] == 0.5
    assert got["exact_match"] == 1.0
    assert "intent_accuracy" not in values(score_slots(examples, outputs), "eng_Latn")


def test_prediction_records_and_a_mapping_score_the_same() -> None:
    examples, outputs, *_ = random_cases(20, 7)
    records = [Prediction(key, "eng_Latn", "", text) for key, text in outputs.items()]
    assert score_slots(examples, records, resamples=10) == score_slots(examples, outputs, resamples=10)


def test_missing_predictions_are_an_error_with_their_number() -> None:
    examples, outputs, *_ = random_cases(20, 8)
    with pytest.raises(DataError, match=r"19 of 20 examples have no prediction.*x:1, x:2, x:3, x:4, x:5, \.\.\."):
        score_slots(examples, {"x:0": outputs["x:0"]})


item = st.tuples(st.sampled_from([*LABELS, "other", ""]), st.sampled_from(["w0", "w1", "w0 w1", "w2", "zz", "", "W1"]))
outputs_strategy = st.lists(item, max_size=5).map(lambda items: "; ".join(f"{a}: {b}" for a, b in items)) | st.text(
    max_size=20
)


@st.composite
def data_sets(draw: st.DrawFn) -> tuple[list[TaskExample], dict[str, str]]:
    examples, outputs = [], {}
    for index in range(draw(st.integers(1, 5))):
        words = ["w0", "w1", "w0", "w2"][: draw(st.integers(1, 4))]
        gold = random_spans(random.Random(draw(st.integers(0, 99))), len(words))
        language = draw(st.sampled_from(["eng_Latn", "deu_Latn"]))
        examples.append(example(index, words, gold, language))
        outputs[f"x:{index}"] = draw(outputs_strategy)
    return examples, outputs


@settings(deadline=None, max_examples=150)
@given(data_sets())
def test_scores_are_between_0_and_1_and_inside_their_intervals_support(
    case: tuple[list[TaskExample], dict[str, str]],
) -> None:
    for score in score_slots(*case, resamples=5):
        assert 0 <= score.low <= score.high <= 1
        assert 0 <= score.value <= 1


@settings(deadline=None, max_examples=100)
@given(data_sets(), st.randoms(use_true_random=False))
def test_the_order_of_items_changes_nothing(case: tuple[list[TaskExample], dict[str, str]], rng: random.Random) -> None:
    examples, outputs = case
    shuffled = rng.sample(examples, len(examples))
    reordered = dict(rng.sample(sorted(outputs.items()), len(outputs)))
    assert score_slots(shuffled, reordered, resamples=5) == score_slots(examples, outputs, resamples=5)


@settings(deadline=None, max_examples=150)
@given(data_sets(), st.sampled_from(["other: w1", "other: zz", "time: zz", "place:", "zz"]), st.data())
def test_adding_a_wrong_prediction_never_raises_a_span_score(
    case: tuple[list[TaskExample], dict[str, str]], wrong: str, data: st.DataObject
) -> None:
    examples, outputs = case
    outputs = {key: text.splitlines()[0] if text.splitlines() else "" for key, text in outputs.items()}
    key = data.draw(st.sampled_from(sorted(outputs)))
    text = outputs[key].strip()
    worse = outputs | {key: f"{text}; {wrong}" if text and text.casefold() != "none" else wrong}
    named = example(99, list(LABELS), [Span(label, i, i + 1) for i, label in enumerate(LABELS)])  # so all are known
    sides = ({**answers, named.id: completion(named)} for answers in (outputs, worse))
    before, after = (values(score_slots([*examples, named], answers), "all") for answers in sides)
    for name in ("slot_f1", "slot_precision", "slot_recall", "exact_match"):
        assert after[name] <= before[name] + 1e-12
