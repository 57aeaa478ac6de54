from __future__ import annotations

import pytest

from midalign.functional.statistics import holm, paired_bootstrap
from midalign.metrics.comparison import Comparison, compare
from midalign.metrics.slots import score_slots, slot_strata
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


def run(**options: object) -> dict[str, Comparison]:
    found = compare(EXAMPLES, A, B, "slots", metrics=["slot_f1"], trials=500, **options)  # type: ignore[arg-type]
    return {c.language or c.group or "": c for c in found}


def test_values_are_those_of_the_scores() -> None:
    a, b = (
        {s.language or s.group: s.value for s in score_slots(EXAMPLES, o, resamples=5) if s.metric == "slot_f1"}
        for o in (A, B)
    )
    for name, c in run().items():
        assert (c.a, c.b, c.difference) == pytest.approx((a[name], b[name], b[name] - a[name]))


def test_a_language_equals_the_paired_bootstrap_of_its_statistics() -> None:
    first, second = (slot_strata(EXAMPLES, o)[0] for o in (A, B))
    measure = first.measure("slot_f1")
    plain = paired_bootstrap(first.stats[:, measure.columns], second.stats[:, measure.columns], measure.formula)
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
    forward, backward = (
        compare(EXAMPLES, *pair, "slots", metrics=["slot_f1"], resamples=200, trials=200) for pair in ((A, B), (B, A))
    )
    for one, other in zip(forward, backward, strict=True):
        assert one.difference == -other.difference
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
        assert one.p_bootstrap == other.p_bootstrap


def test_groups_are_compared_and_options_reach_the_task() -> None:
    found = run(groups={"aligned": ["deu_Latn", "tur_Latn"]}, style="intent_slots")
    assert found["aligned"].n == 120
    assert found["aligned"].as_dict()["group"] == "aligned"


def test_an_unknown_metric_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"no metric \['bleu'\]; it has slot_f1"):
        compare(EXAMPLES, A, B, "slots", metrics=["bleu"])


def test_a_group_of_one_language_is_that_language() -> None:
    found = run(groups={"only": ["tur_Latn"]})
    one, group = found["tur_Latn"], found["only"]
    for name in ("a", "b", "difference", "low", "high", "p_bootstrap", "p_randomization", "n"):
        assert getattr(group, name) == pytest.approx(getattr(one, name)), name


def test_a_mean_over_languages_is_tested_as_a_mean_of_independent_languages() -> None:
    right = [i % 7 < 4 for i in range(60)]  # the same items in every language: languages drawn alike would show
    better = [i % 7 < 5 for i in range(60)]
    a, b = (
        {e.id: "x: " + "abc"[i % 3] if ok[i % 60] else "y: a" for i, e in enumerate(EXAMPLES)} for ok in (right, better)
    )
    found = {c.language or c.group: c for c in compare(EXAMPLES, a, b, "slots", metrics=["exact_match"])}
    one, mean = found["deu_Latn"], found["all"]
    assert (mean.high - mean.low) / (one.high - one.low) == pytest.approx(3**-0.5, rel=0.15)
    assert mean.p_randomization < one.p_randomization
