from __future__ import annotations

import dataclasses
import logging
from typing import Any

import numpy as np
import pytest

from midalign.errors import DataError
from midalign.metrics.scoring import align_outputs, item_names, natural_key, score_strata
from midalign.metrics.slots import slot_strata
from midalign.records import Prediction, Score, Span, TaskExample


def item(stem: str, index: int, language: str) -> TaskExample:
    return TaskExample(f"{stem}:{index}", "slots", language, "a b", ("a", "b"), (Span("x", 0, 1),))


EXAMPLES = [item("de", i, "deu_Latn") for i in range(30)] + [item("en", i, "eng_Latn") for i in range(10)]
OUTPUTS = {e.id: "x: a" if int(e.id[3:]) % 3 else "x: b" for e in EXAMPLES}


def score_slots(examples: list[TaskExample], outputs: dict[str, str], **options: Any) -> list[Score]:
    return score_strata(slot_strata(examples, outputs), **options)


def test_a_group_is_the_mean_over_its_languages_and_not_over_items() -> None:
    outputs = {e.id: "x: a" if e.language == "eng_Latn" else "x: b" for e in EXAMPLES}
    scores = [s for s in score_slots(EXAMPLES, outputs, resamples=50) if s.metric == "slot_f1"]
    assert {s.language or s.group: (s.value, s.n) for s in scores} == {
        "deu_Latn": (0.0, 30),
        "eng_Latn": (1.0, 10),
        "all": (0.5, 40),
    }


def test_groups_hold_their_members_only() -> None:
    groups = {"supervised": ["eng_Latn"], "aligned": ["deu_Latn", "fra_Latn"]}
    scores = {s.group: s for s in score_slots(EXAMPLES, OUTPUTS, groups=groups, resamples=50) if s.metric == "slot_f1"}
    assert set(scores) == {None, "all", "supervised", "aligned"}
    assert scores["supervised"].n == 10
    assert "mean over languages:1" in scores["aligned"].signature


def test_a_group_without_any_language_of_the_data_is_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        scores = score_slots(EXAMPLES, OUTPUTS, groups={"unseen": ["fra_Latn"]}, resamples=5)
    assert not [s for s in scores if s.group == "unseen"]
    assert "'unseen'" in caplog.text


def test_a_languages_interval_does_not_depend_on_the_other_languages() -> None:
    german = [e for e in EXAMPLES if e.language == "deu_Latn"]
    alone = score_slots(german, {e.id: OUTPUTS[e.id] for e in german}, resamples=100)
    together = score_slots(EXAMPLES, OUTPUTS, resamples=100)
    assert [s for s in alone if s.language] == [s for s in together if s.language == "deu_Latn"]


def test_the_interval_holds_the_value_and_narrows_with_more_items() -> None:
    scores = {s.language: s for s in score_slots(EXAMPLES, OUTPUTS) if s.metric == "slot_f1" and s.language}
    for score in scores.values():
        assert score.low <= score.value <= score.high
    small, large = scores["eng_Latn"], scores["deu_Latn"]
    assert large.high - large.low < small.high - small.low


def nine_languages(right: np.ndarray) -> tuple[Score, list[Score]]:
    """Exact match of all languages, and of each; `right` says which of 40 items are, by language ``(9, 40)``."""
    examples = [item(f"l{k}", i, f"l{k:02d}_Latn") for k in range(9) for i in range(40)]
    outputs = {e.id: "x: a" if ok else "x: b" for e, ok in zip(examples, right.flatten(), strict=True)}
    scores = [s for s in score_slots(examples, outputs) if s.metric == "exact_match"]
    return next(s for s in scores if s.group == "all"), [s for s in scores if s.language]


def test_nine_translations_of_the_same_items_are_no_more_certain_than_one() -> None:
    right = np.random.default_rng(0).random(40) < 0.5
    group, languages = nine_languages(np.tile(right, (9, 1)))
    assert (group.low, group.high) == pytest.approx((languages[0].low, languages[0].high))


def test_the_groups_interval_is_about_that_of_the_mean_of_independent_languages_where_they_are() -> None:
    group, languages = nine_languages(np.random.default_rng(0).random((9, 40)) < 0.5)
    widths = np.mean([s.high - s.low for s in languages])
    assert (group.high - group.low) / widths == pytest.approx(1 / 3, rel=0.25)  # 1 / sqrt(9)


def test_items_are_named_alike_in_all_languages_by_the_number_of_their_id() -> None:
    ids = ["de.test:0", "de.test:2", "more.de:0", "de.test:3", "odd"]
    examples = [dataclasses.replace(EXAMPLES[0], id=name) for name in ids]
    assert item_names(examples) == ((0, 0), (2, 0), (0, 1), (3, 0), ("odd", 0))


def test_the_signature_names_resamples_seed_and_version() -> None:
    score = score_slots(EXAMPLES, OUTPUTS, resamples=7, seed=3)[0]
    assert "bs:7|seed:3|midalign:" in score.signature


def test_ids_sort_by_number() -> None:
    assert sorted(["b:10", "b:9", "a:11", "odd"], key=natural_key) == ["a:11", "b:9", "b:10", "odd"]


@pytest.mark.parametrize(
    ("examples", "predictions", "message"),
    [
        ([], {}, "no examples"),
        (EXAMPLES, {}, "40 of 40 examples have no prediction.*de:0, de:1, de:2, de:3, de:4, ..."),
        (EXAMPLES, {**OUTPUTS, "fr:0": ""}, "1 predictions are of ids that the examples do not have.*fr:0"),
        ([EXAMPLES[0], EXAMPLES[0]], OUTPUTS, "1 example ids occur twice.*de:0"),
        (EXAMPLES[:1], [Prediction("de:0", "deu_Latn", "", "x")] * 2, "1 predictions repeat an id"),
    ],
)
def test_ids_that_do_not_fit_are_an_error(examples: list[TaskExample], predictions: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        align_outputs(examples, predictions)  # type: ignore[arg-type]


def test_outputs_follow_ids_and_not_positions() -> None:
    assert align_outputs(EXAMPLES[:2], {"de:1": "one", "de:0": "zero"}) == ["zero", "one"]


def test_a_group_of_one_language_has_that_languages_interval() -> None:
    scores = score_slots(EXAMPLES, OUTPUTS, groups={"only": ["eng_Latn"]}, resamples=200)
    by_name = {(s.metric, s.language or s.group): s for s in scores}
    for metric in ("slot_f1", "label_f1", "unparsed"):
        one, group = by_name[metric, "eng_Latn"], by_name[metric, "only"]
        assert (one.value, one.low, one.high) == pytest.approx((group.value, group.low, group.high))
