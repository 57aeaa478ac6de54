"""Schedules: which objective each update trains, and how many updates hold the planned task updates."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midalign.recipe.schedule import Schedule


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("update", ["task", "align"] * 4),
        ("task:3,align:1", ["task"] * 3 + ["align"] + ["task"] * 3 + ["align"]),
        ("task", ["task"] * 8),
        ("align", ["align"] * 8),
    ],
)
def test_patterns(text, expected):
    assert [Schedule.parse(text).objective(i) for i in range(8)] == expected


@pytest.mark.parametrize("text", ["update", "task:2,align:3", "align:1,task:1", "micro_batch"])
def test_after_the_most_alignment_updates_all_is_the_task(text):
    plain, capped = Schedule.parse(text), Schedule.parse(text, max_updates=4)
    expected, aligned = [], 0
    for update in range(40):
        objective = plain.objective(update)
        aligned += objective == "align"
        expected.append(objective if aligned <= 4 else "task")
    assert [capped.objective(update) for update in range(40)] == expected
    assert expected.count("align") == 4
    assert sum(capped.objective(update) == "task" for update in range(capped.updates_for(20))) == 20


@pytest.mark.parametrize("accumulation", [1, 2, 8])
def test_by_micro_batch_the_bound_counts_updates_and_leaves_the_planned_task_updates(accumulation):
    schedule = Schedule.parse("micro_batch", max_updates=3)
    found = [
        schedule.objective(update, micro, accumulation)
        for update in range(schedule.updates_for(10))
        for micro in range(accumulation)
    ]
    assert found.count("align") == 3 * accumulation
    assert found.count("task") == 10 * accumulation


@pytest.mark.parametrize("text", ["", "both", "task:0", "task:1;align:1", "align"[:3]])
def test_an_unknown_schedule_says_what_to_write(text):
    with pytest.raises(ValueError, match="task:3,align:1"):
        Schedule.parse(text)


@settings(deadline=None)
@given(
    text=st.sampled_from(["update", "task", "task:3,align:1", "align:2,task:2"]),
    wanted=st.integers(1, 40),
)
def test_updates_for_holds_exactly_the_task_updates_and_ends_before_the_next(text, wanted):
    schedule = Schedule.parse(text)
    total = schedule.updates_for(wanted)
    objectives = [schedule.objective(i) for i in range(total + 1)]
    assert objectives[:-1].count("task") == wanted
    assert objectives[-1] == "task"
