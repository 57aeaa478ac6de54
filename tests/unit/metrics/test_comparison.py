from __future__ import annotations

import numpy as np
import pytest

from midalign.functional.statistics import holm, paired_result, resample_sums
from midalign.metrics.comparison import PairedScore, compare_strata
from midalign.metrics.scoring import score_strata
from midalign.metrics.slots import slot_strata
from midalign.records import Span, TaskExample

EXAMPLES = [
    TaskExample(f"{code}:{i}", "slots", code, "a b c", ("a", "b", "c"), (Span("x", i % 3, i % 3 + 1),))
    for code in ("deu_Latn", "eng_Latn", "tur_Latn")
    for i in range(60)
]


def outputs(wrong_every: dict[str, int]) -> dict[str, str]:
    """Right answers, except every so many of a language."""
    found = {}
    for index, example in enumerate(EXAMPLES):
        wrong = index % wrong_every[example.language] == 0
        found[example.id] = f"y: {'abc'[index % 3]}" if wrong else f"x: {'abc'[index % 3]}"
    return found


A = outputs({"deu_Latn": 2, "eng_Latn": 5, "tur_Latn": 3})
B = outputs({"deu_Latn": 10, "eng_Latn": 5, "tur_Latn": 4})


def compare(a: dict[str, str], b: dict[str, str], metric: str = "slot_f1", **options: object) -> list[PairedScore]:
    return compare_strata(slot_strata(EXAMPLES, a), slot_strata(EXAMPLES, b), metrics=[metric], **options)  # type: ignore[arg-type]


def run(**options: object) -> dict[str, PairedScore]:
    found = compare(A, B, trials=500, **options)
    return {c.language or c.group or "": c for c in found}


def test_values_are_those_of_the_scores() -> None:
    a, b = (
        {s.language or s.group: s.value for s in score_strata(slot_strata(EXAMPLES, o)) if s.metric == "slot_f1"}
        for o in (A, B)
    )
    for name, c in run().items():
        assert (c.a, c.b, c.difference) == pytest.approx((a[name], b[name], b[name] - a[name]))


def test_a_language_equals_the_paired_bootstrap_of_its_statistics() -> None:
    first, second = (slot_strata(EXAMPLES, o)[0] for o in (A, B))
    measure = first.measure("slot_f1")
    values = [side.value("slot_f1") for side in (first, second)]
    plain = paired_result(*values, *(measure.of_sums(resample_sums(side.stats)) for side in (first, second)))
    c = run()["deu_Latn"]
    assert (c.low, c.high, c.p_bootstrap) == (plain.low, plain.high, plain.p_value)


def test_clear_differences_are_significant_and_equal_systems_are_not() -> None:
    found = run()
    assert found["deu_Latn"].p_holm is not None
    assert found["deu_Latn"].p_holm < 0.01
    assert found["deu_Latn"].low > 0
    assert found["all"].p_randomization < 0.01
    assert found["all"].p_holm is None
    assert found["tur_Latn"].p_randomization > 0.05
    assert (found["eng_Latn"].difference, found["eng_Latn"].low) == (0, 0)


def test_holm_is_over_the_languages_of_a_metric() -> None:
    found = run()
    languages = {name: c.p_randomization for name, c in found.items() if c.language}
    assert {name: found[name].p_holm for name in languages} == holm(languages)


def test_swapping_the_systems_swaps_the_sign_only() -> None:
    forward, backward = (compare(*pair, resamples=200, trials=200) for pair in ((A, B), (B, A)))
    for one, other in zip(forward, backward, strict=True):
        assert one.difference == -other.difference
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
        assert one.p_bootstrap == other.p_bootstrap


def test_groups_are_compared() -> None:
    found = run(groups={"aligned": ["deu_Latn", "tur_Latn"]})
    assert found["aligned"].n == 120
    assert found["aligned"].as_dict()["group"] == "aligned"


def test_a_group_of_one_language_is_that_language() -> None:
    found = run(groups={"only": ["tur_Latn"]})
    one, group = found["tur_Latn"], found["only"]
    for name in ("a", "b", "difference", "low", "high", "p_bootstrap", "p_randomization", "n"):
        assert getattr(group, name) == pytest.approx(getattr(one, name)), name


def test_translations_that_are_right_and_wrong_together_are_no_more_certain_than_one_language() -> None:
    right = [i % 7 < 4 for i in range(60)]
    better = [i % 7 < 5 for i in range(60)]
    a, b = (
        {e.id: "x: " + "abc"[i % 3] if ok[i % 60] else "y: a" for i, e in enumerate(EXAMPLES)} for ok in (right, better)
    )
    found = {c.language or c.group: c for c in compare(a, b, "exact_match")}
    one, mean = found["deu_Latn"], found["all"]
    assert (mean.low, mean.high) == pytest.approx((one.low, one.high))
    assert mean.p_randomization == one.p_randomization


def test_a_mean_over_languages_whose_items_have_nothing_to_do_with_each_other_is_more_certain_than_one() -> None:
    at_random = np.random.default_rng(3)
    right, better = at_random.random(180) < 0.5, at_random.random(180) < 0.7
    a, b = ({e.id: "x: " + "abc"[i % 3] if ok[i] else "y: a" for i, e in enumerate(EXAMPLES)} for ok in (right, better))
    found = {c.language or c.group: c for c in compare(a, b, "exact_match")}
    widths = [found[e.language].high - found[e.language].low for e in EXAMPLES[::60]]
    assert (found["all"].high - found["all"].low) / np.mean(widths) == pytest.approx(3**-0.5, rel=0.2)


def test_items_that_some_languages_lack_are_drawn_and_swapped_together_all_the_same() -> None:
    kept = [e for e in EXAMPLES if not (e.language == "tur_Latn" and int(e.id[9:]) % 5 == 0)]
    a, b = ({e.id: answers[e.id] for e in kept} for answers in (A, B))
    found = {
        c.group or c.language: c for c in compare_strata(slot_strata(kept, a), slot_strata(kept, b), trials=500)[:4]
    }
    whole = run()["all"]
    assert found["all"].n == 168
    assert (found["all"].low, found["all"].high) == pytest.approx((whole.low, whole.high), abs=0.03)
    assert found["all"].p_randomization < 0.01
