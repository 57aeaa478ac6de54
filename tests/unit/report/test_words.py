"""Verdicts and numbers in words, against the plain definition."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midalign.report.words import differences, lower_is_better, points, seconds, signed, verdict

REAL = st.floats(-1, 1, allow_nan=False)


def comparison(metric="slot_f1", low=0.01, high=0.03, difference=0.02, **more):
    entry = {"baseline": "sft", "system": "joint", "metric": metric, "group": "aligned"}
    return differences([entry | {"low": low, "high": high, "difference": difference} | more])[0]


@given(st.sampled_from(["slot_f1", "bleu", "ter", "unparsed"]), REAL, REAL)
def test_only_an_interval_without_0_is_a_verdict(metric, one, other):
    low, high = sorted((one, other))
    outcome = comparison(metric, low, high, (low + high) / 2).outcome
    gain = (low, high) if metric in ("slot_f1", "bleu") else (-high, -low)
    wanted = "better" if gain[0] > 0 else "worse" if gain[1] < 0 else "unclear"
    assert outcome == wanted


def test_verdict_names_sizes_in_points_and_both_scores():
    assert (
        verdict(comparison(), 0.517, 0.555)
        == "Joint training is better by 2.0 points of slot F1, 51.7 → 55.5 (+1.0 to +3.0)."
    )


def test_verdict_on_a_metric_where_less_is_better_turns_round():
    assert "is worse by 2.0 points of TER" in verdict(comparison("ter", 1.0, 3.0, 2.0), None, None)


def test_verdict_that_does_not_survive_the_correction_says_so():
    assert "but not once all comparisons are counted (Holm p = 0.2)" in verdict(comparison(p_holm=0.2), None, None)
    assert "counted" not in verdict(comparison(p_holm=0.01), None, None)


def test_bleu_stays_on_its_own_scale_and_fractions_become_points():
    assert points("bleu", 31.84) == "31.8"
    assert points("chrf++", 51.0) == "51.0"
    assert points("comet", 0.8071) == "80.7"
    assert signed("slot_f1", -0.0213) == "−2.1"
    assert signed("slot_f1", -0.0001) == "0.0"


def test_a_loss_is_in_nats_and_better_where_it_falls():
    assert points("loss", 0.5316) == "0.532"
    assert signed("loss", -0.0213) == "−0.021"
    assert signed("loss", -0.0001) == "0.000"
    found = verdict(comparison("loss", -0.03, -0.01, -0.02), 0.5, 0.48)
    assert "is better by 0.020 of loss of the gold answers (nats), 0.500 → 0.480 (−0.030 to −0.010)." in found


def test_lower_is_better_for_error_rates_and_losses_only():
    metrics = ("slot_f1", "ter", "unparsed", "bleu", "comet", "loss")
    assert [m for m in metrics if lower_is_better(m)] == ["ter", "unparsed", "loss"]


@pytest.mark.parametrize("metric", ["terminology:accuracy", "lossless:f1", "bleurt:score"])
def test_a_metric_of_ones_own_is_a_fraction_whatever_its_name_begins_with(metric):
    assert not lower_is_better(metric)
    assert points(metric, 0.5) == "50.0"


def test_fewer_failures_of_extraction_are_better():
    from midalign.answers.parse import FAILURES

    assert all(lower_is_better(name) for name in (*FAILURES, "unknown_type", "not_in_text"))
    assert not lower_is_better("parse_rate")
    assert not lower_is_better("entity_f1")


@pytest.mark.parametrize(
    ("value", "text"), [(8.24, "8.2 s"), (59.99, "1 min 00 s"), (185, "3 min 05 s"), (7440, "2 h 04 min")]
)
def test_durations_read_as_people_say_them(value, text):
    assert seconds(value) == text
