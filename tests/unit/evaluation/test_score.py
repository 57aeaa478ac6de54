"""Scores by task, as they are written to and found in ``scores.json``."""

import json
import statistics
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from midalign.answers.format import AnswerFormat
from midalign.answers.write import completion
from midalign.errors import DataError
from midalign.evaluation.score import compare_runs, main_metric, score, score_over_seeds, write_scores
from midalign.metrics.translation import SegmentScores
from midalign.records import SEED, Prediction, Span, TaskExample, TaskName

SLOTS = [
    TaskExample(f"{code[:2]}:{i}", "slots", code, f"a n{i} b", ("a", f"n{i}", "b"), (Span("who", 1, 2),), "call")
    for code in ("eng_Latn", "deu_Latn")
    for i in range(3)
]  # fmt: skip
TRANSLATION = [
    TaskExample(
        f"t:{i}", "translation", "eng_Latn", f"good day {i}", reference=f"guten tag {i}", target_language="deu_Latn"
    )
    for i in range(3)
]
EXTRACTION = [
    TaskExample(f"e:{i}", "extraction", "eng_Latn", f"in Rome{i}", ("in", f"Rome{i}"), (Span("LOC", 1, 2),))
    for i in range(3)
]
CHAT = [TaskExample(f"c:{i}", "chat", "eng_Latn", f"which {i}?", reference=f"the answer {i}") for i in range(3)]
DATA = {"slots": SLOTS, "translation": TRANSLATION, "extraction": EXTRACTION, "chat": CHAT}


def find_score(scores, metric, language=None, group=None):
    (found,) = [s for s in scores if (s.metric, s.language, s.group) == (metric, language, group)]
    return found


def predict(examples, **changed):
    return [Prediction(e.id, e.language, "", changed.get(e.id.replace(":", "_"), completion(e))) for e in examples]


@pytest.mark.parametrize("task", get_args(TaskName))
def test_gold_answers_score_full_marks_and_empty_ones_nothing_in_the_main_metric(task):
    examples = DATA[task]
    full = 100 if task == "translation" else 1
    found = find_score(score(examples, predict(examples), resamples=100), main_metric(task), group="all")
    assert found.value == pytest.approx(full)
    assert found.n == len(examples)
    nothing = [Prediction(e.id, e.language, "", "x") for e in examples]
    assert find_score(score(examples, nothing, resamples=100), main_metric(task), group="all").value < full / 3


def test_a_group_is_the_mean_over_its_languages():
    predictions = predict(SLOTS, en_0="None", en_1="None")
    scores = score(SLOTS, predictions, groups={"all": ["eng_Latn", "deu_Latn"], "aligned": ["deu_Latn"]}, resamples=100)
    english = find_score(scores, "slot_f1", language="eng_Latn")
    assert english.value == pytest.approx(2 * 1 * (1 / 3) / (1 + 1 / 3)), "precision 1/1, recall 1/3"
    assert find_score(scores, "slot_f1", group="aligned").value == 1
    assert find_score(scores, "slot_f1", group="all").value == pytest.approx((english.value + 1) / 2)


def test_the_intent_counts_only_where_it_was_asked_for():
    with_intent = [Prediction(e.id, e.language, "", completion(e, "intent_slots")) for e in SLOTS]
    found = score(SLOTS, with_intent, AnswerFormat("intent_slots"), resamples=100)
    assert find_score(found, "slot_f1", group="all").value == 1
    assert "intent_accuracy" in {s.metric for s in found}
    plain = score(SLOTS, predict(SLOTS), resamples=100)
    assert "intent_accuracy" not in {s.metric for s in plain}


def test_the_order_of_the_predictions_does_not_matter_and_the_seed_fixes_the_interval():
    predictions = predict(SLOTS, en_0="None", de_2="who: somebody")
    first = score(SLOTS, predictions, resamples=200, seed=1)
    assert score(SLOTS, predictions[::-1], resamples=200, seed=1) == first
    assert score(SLOTS, predictions, resamples=200, seed=2) != first
    for found in first:
        assert found.low <= found.value <= found.high


def test_missing_and_unknown_predictions_are_refused():
    with pytest.raises(DataError, match="en:0"):
        score(SLOTS, predict(SLOTS)[1:], resamples=100)
    with pytest.raises(DataError, match="other:9"):
        score(SLOTS, [*predict(SLOTS), Prediction("other:9", "eng_Latn", "", "None")], resamples=100)


def test_the_file_holds_what_the_contract_says(tmp_path):
    scores = score(SLOTS, predict(SLOTS), resamples=100)
    write_scores(scores, tmp_path / "scores.json")
    written = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert len(written) == len(scores)
    for row in written:
        assert set(row) in (
            {"metric", "language", "value", "low", "high", "n", "signature"},
            {"metric", "group", "value", "low", "high", "n", "signature"},
        )


SEEDS = [
    predict(SLOTS),
    predict(SLOTS, en_0="None", en_1="None"),
    predict(SLOTS, en_0="None", de_2="who: somebody"),
]


def test_over_seeds_a_value_is_the_mean_and_the_deviation_that_of_the_seeds_alone():
    groups = {"aligned": ["deu_Latn"]}
    over = score_over_seeds(SLOTS, SEEDS, groups=groups, resamples=300)
    alone = [score(SLOTS, predictions, groups=groups, resamples=300) for predictions in SEEDS]
    assert {(s.metric, s.language, s.group) for s in over} == {(s.metric, s.language, s.group) for s in alone[0]}
    for found in over:
        values = [find_score(s, found.metric, language=found.language, group=found.group).value for s in alone]
        assert found.values == pytest.approx(values)
        assert found.value == pytest.approx(statistics.mean(values))
        assert found.sd == pytest.approx(statistics.stdev(values))
        assert found.low <= found.value <= found.high
        assert "|seeds:3|" in found.signature
        assert found.n == len(SLOTS) or found.language or found.group == "aligned"
    written = find_score(over, "slot_f1", group="all").as_dict()
    assert {"values", "sd", "value", "low", "high", "group"} <= set(written)


def test_the_interval_over_seeds_is_that_of_a_plain_loop_over_drawn_seeds_and_items():
    """Exact match, a share of items: the score of a resample is a mean of rows, with nothing of ours in between."""
    right = np.array([[p.prediction == completion(e) for p, e in zip(ps, SLOTS, strict=True)] for ps in SEEDS])[:, :3]
    items = np.random.default_rng(0).choice(3, (500, 3))
    seeds = np.random.default_rng([0, 1]).integers(3, size=(3, 500))
    drawn = [np.mean([right[s][items[i]].mean() for s in seeds[:, i]]) for i in range(500)]
    found = score_over_seeds(SLOTS, SEEDS, resamples=500, seed=0)
    english = find_score(found, "exact_match", language="eng_Latn")
    assert (english.low, english.high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])))


def test_equal_seeds_have_no_deviation_and_the_interval_of_one():
    one = score(SLOTS, SEEDS[1], resamples=300)
    for found in score_over_seeds(SLOTS, [SEEDS[1]] * 3, resamples=300):
        alone = find_score(one, found.metric, language=found.language, group=found.group)
        assert (found.value, found.low, found.high, found.sd) == pytest.approx((alone.value, alone.low, alone.high, 0))


def test_one_seed_is_no_mean_over_seeds():
    with pytest.raises(DataError, match="at least two seeds, got 1"):
        score_over_seeds(SLOTS, SEEDS[:1], resamples=100)


def segments_of(values, model="m"):
    return SegmentScores("comet", {e.id: v for e, v in zip(TRANSLATION, values, strict=True)}, f"comet|model:{model}")


def test_segment_scores_are_one_metric_more_with_interval_and_paired_test():
    before, after = segments_of([0.1, 0.4, 0.7]), segments_of([0.3, 0.9, 0.6])
    predictions = predict(TRANSLATION)
    plain = score(TRANSLATION, predictions, resamples=200)
    scores = score(TRANSLATION, predictions, segments=after, groups={"latin": ["deu_Latn"]}, resamples=200)
    assert [s for s in scores if s.metric != "comet" and s.group != "latin"] == plain
    for where in ({"language": "deu_Latn"}, {"group": "all"}, {"group": "latin"}):
        assert find_score(scores, "comet", **where).value == pytest.approx(0.6)
    german = find_score(scores, "comet", language="deu_Latn")
    drawn = np.random.default_rng(SEED).choice([0.3, 0.9, 0.6], (200, 3)).mean(axis=1)
    assert (german.low, german.high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])))
    found = compare_runs(TRANSLATION, predictions, predictions, segments=(before, after), resamples=200, trials=50)
    comet = [c for c in found if c.metric == "comet"]
    assert [c.language or c.group for c in comet] == ["deu_Latn", "all"]
    assert comet[0].difference == pytest.approx(0.2)
    assert comet[0].p_holm == comet[0].p_randomization
    assert {c.metric for c in found} == {"comet", "bleu", "chrf", "chrf++", "ter"}
    over = score_over_seeds(TRANSLATION, [predictions] * 2, segments=[before, after], resamples=200)
    assert find_score(over, "comet", group="all").values == pytest.approx((0.4, 0.6))


def test_segment_scores_of_different_models_or_other_tasks_are_refused():
    pair = segments_of([0, 0, 0]), segments_of([0, 0, 0], "other")
    with pytest.raises(DataError, match="score all with one model"):
        compare_runs(TRANSLATION, predict(TRANSLATION), predict(TRANSLATION), segments=pair, resamples=100)
    with pytest.raises(DataError, match="score all with one model"):
        score_over_seeds(TRANSLATION, [predict(TRANSLATION)] * 2, segments=pair, resamples=100)
    with pytest.raises(DataError, match="the task is 'slots'"):
        score(SLOTS, predict(SLOTS), segments=pair[0], resamples=100)


def with_losses(examples, seed=0):
    drawn = np.random.default_rng(seed)
    return [
        replace(prediction, gold_loss=float(drawn.random() * 5), gold_tokens=int(drawn.integers(1, 9)))
        for prediction in predict(examples)
    ]


@pytest.mark.parametrize("task", get_args(TaskName))
def test_the_loss_is_the_mean_over_tokens_and_changes_no_other_score(task):
    examples, predictions = DATA[task], with_losses(DATA[task])
    scores = score(examples, iter(predictions[::-1]), resamples=100)
    by_id = {prediction.id: prediction for prediction in predictions}
    for language in {found.language for found in scores if found.metric == "loss" and found.language}:
        of_it = [by_id[e.id] for e in examples if language in (e.language, e.target_language)]
        wanted = sum(p.gold_loss for p in of_it) / sum(p.gold_tokens for p in of_it)
        assert find_score(scores, "loss", language=language).value == pytest.approx(wanted)
    others = [found for found in scores if found.metric != "loss"]
    assert others == score(examples, predict(examples), resamples=100)
    assert len(scores) > len(others)


def test_a_loss_that_not_every_prediction_has_is_left_out_with_a_warning(caplog):
    some = [*with_losses(SLOTS)[:-1], predict(SLOTS)[-1]]
    assert score(SLOTS, predict(SLOTS), resamples=10) == score(SLOTS, some, resamples=10)
    (said,) = caplog.messages
    assert said.startswith(f"1 of {len(SLOTS)} predictions have no gold_loss ({some[-1].id} is the first), so")
    for before, after in ((some, with_losses(SLOTS)), (with_losses(SLOTS), some)):
        found = compare_runs(SLOTS, before, after, resamples=10, trials=10)
        assert found == compare_runs(SLOTS, predict(SLOTS), predict(SLOTS), resamples=10, trials=10)
    seeds = score_over_seeds(SLOTS, [some, with_losses(SLOTS)], resamples=10)
    assert "loss" not in {one.metric for one in seeds}


def test_losses_over_different_tokens_are_left_out_with_a_warning(caplog):
    one = with_losses(SLOTS)
    other = [*one[:-1], replace(one[-1], gold_tokens=one[-1].gold_tokens + 1)]
    compared = compare_runs(SLOTS, one, other, resamples=10, trials=10)
    assert compared == compare_runs(SLOTS, predict(SLOTS), predict(SLOTS), resamples=10, trials=10)
    (said,) = caplog.messages
    assert said.startswith(
        f"the gold answer of {one[-1].id} has {one[-1].gold_tokens} tokens in one file of predictions"
    )
    seeds = score_over_seeds(SLOTS, [one, one, other], resamples=10)
    assert "loss" not in {found.metric for found in seeds}
    assert "loss" in {found.metric for found in score(SLOTS, other, resamples=10)}


def test_losses_of_two_runs_and_of_several_seeds_are_compared_item_by_item():
    one, other = with_losses(SLOTS), with_losses(SLOTS)
    other = [replace(p, gold_loss=p.gold_loss + 0.5 * p.gold_tokens) for p in other]
    (found,) = [
        f for f in compare_runs(SLOTS, one, other, resamples=50, trials=50) if (f.metric, f.group) == ("loss", "all")
    ]
    assert (found.difference, found.low, found.high) == (pytest.approx(0.5), pytest.approx(0.5), pytest.approx(0.5))
    seeds = find_score(score_over_seeds(SLOTS, [one, other], resamples=50), "loss", group="all")
    assert seeds.values[1] - seeds.values[0] == pytest.approx(0.5)
