from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nervaluate import Evaluator

from midalign.metrics.extraction import extraction_strata
from midalign.metrics.scoring import score_strata
from midalign.records import Score, Span, TaskExample

WORDS = ["Angela", "Merkel", "visited", "Paris", "and", "Paris", "Hilton"]
GOLD = (Span("PER", 0, 2), Span("LOC", 3, 4), Span("PER", 5, 7))


def example(index: int = 0, spans: tuple[Span, ...] = GOLD, language: str = "eng_Latn") -> TaskExample:
    return TaskExample(f"x:{index}", "extraction", language, " ".join(WORDS), tuple(WORDS), spans)


def answer(*items: tuple[str, str]) -> str:
    return json.dumps({"Results": [{"TypeName": t, "Text": x} for t, x in items]})


RIGHT = (("PER", "Angela Merkel"), ("LOC", "Paris"), ("PER", "Paris Hilton"))


def score_extraction(examples: list[TaskExample], outputs: dict[str, str], resamples: int = 2) -> list[Score]:
    return score_strata(extraction_strata(examples, outputs), resamples=resamples)


def values(scores: list[Score], name: str = "eng_Latn") -> dict[str, float]:
    return {s.metric: s.value for s in scores if name in (s.language, s.group)}


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (answer(*RIGHT), {"entity_f1": 1, "parse_rate": 1}),
        (answer(*RIGHT[:2]), {"entity_f1": 4 / 5, "parse_rate": 1}),
        (answer(*RIGHT, ("LOC", "Rome")), {"entity_f1": 6 / 7, "not_in_text": 1}),
        (answer(*RIGHT, ("FOOD", "visited")), {"entity_f1": 6 / 7, "unknown_type": 1, "not_in_text": 0}),
        (answer(*RIGHT, RIGHT[0]), {"entity_f1": 6 / 7, "not_in_text": 1}),
        (answer(*RIGHT)[:-3], {"entity_f1": 0, "parse_rate": 0, "truncated": 1}),
        ("PER: Angela Merkel", {"entity_f1": 0, "parse_rate": 0, "not_json": 1}),
        ("[]", {"entity_f1": 0, "parse_rate": 0, "wrong_schema": 1}),
        (answer(), {"entity_f1": 0, "parse_rate": 1}),
    ],
)
def test_scores_and_failures_of_one_item_as_written_down(output: str, expected: dict[str, float]) -> None:
    got = values(score_extraction([example()], {"x:0": output}))
    failures = ("truncated", "not_json", "wrong_schema", "unknown_type", "not_in_text")
    wanted = {**dict.fromkeys(failures, 0.0), **expected}
    assert {name: got[name] for name in wanted} == pytest.approx(wanted)


def test_failures_and_parsed_outputs_add_up_to_all() -> None:
    outputs = {"x:0": answer(), "x:1": "{", "x:2": "no", "x:3": "{}"}
    got = values(score_extraction([example(i) for i in range(4)], outputs))
    assert [got[name] for name in ("parse_rate", "truncated", "not_json", "wrong_schema")] == [0.25] * 4


items = st.lists(
    st.sampled_from([*RIGHT, ("LOC", "Merkel"), ("ORG", "visited"), ("LOC", "and Paris")]), max_size=4, unique=True
)


@settings(deadline=None, max_examples=60)
@given(st.lists(items, min_size=1, max_size=4))
def test_entity_f1_equals_nervaluates_strict_f1(predicted: list[list[tuple[str, str]]]) -> None:
    from midalign.answers.matching import match_items

    examples = [example(i) for i in range(len(predicted))]
    outputs = {f"x:{i}": answer(*found) for i, found in enumerate(predicted)}
    spans = [[span for span in match_items(WORDS, found) if span] for found in predicted]
    dropped = sum(len(found) - len(kept) for found, kept in zip(predicted, spans, strict=True))

    def as_dicts(found: list[Span]) -> list[dict[str, object]]:
        return [{"label": s.label, "start": s.start, "end": s.end - 1} for s in found]

    evaluator = Evaluator(
        [as_dicts(list(GOLD))] * len(spans), [as_dicts(s) for s in spans], tags=["PER", "LOC", "ORG"], loader="dict"
    )
    strict = evaluator.evaluate()["overall"]["strict"]
    tp, actual, possible = strict.correct, strict.actual + dropped, strict.possible
    got = values(score_extraction(examples, outputs))
    assert got["entity_f1"] == pytest.approx(2 * tp / (actual + possible) if actual + possible else 0)


@settings(deadline=None, max_examples=100)
@given(st.lists(items.map(lambda found: answer(*found)) | st.text(max_size=30), min_size=1, max_size=4))
def test_scores_are_shares_and_the_order_of_items_changes_nothing(texts: list[str]) -> None:
    examples = [example(i) for i in range(len(texts))]
    outputs = {f"x:{i}": text for i, text in enumerate(texts)}
    scores = score_extraction(examples, outputs, resamples=5)
    assert all(0 <= s.low <= s.high <= 1 and 0 <= s.value <= 1 for s in scores)
    assert score_extraction(examples[::-1], dict(reversed(outputs.items())), resamples=5) == scores


@settings(deadline=None)
@given(items, st.sampled_from([("LOC", "Rome"), ("FOOD", "visited"), ("PER", "")]))
def test_adding_a_wrong_entity_never_raises_the_score(found: list[tuple[str, str]], wrong: tuple[str, str]) -> None:
    before, after = (
        values(score_extraction([example()], {"x:0": answer(*i)}))["entity_f1"] for i in (found, [*found, wrong])
    )
    assert after <= before
