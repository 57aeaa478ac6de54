"""What an answer format refuses."""

import pytest

from midalign.answers.format import AnswerFormat
from midalign.errors import DataError
from midalign.records import TaskExample


@pytest.mark.parametrize("task", ["translation", "extraction", "chat"])
def test_a_style_of_slots_is_refused_for_other_tasks(task):
    AnswerFormat().check_task(task)
    with pytest.raises(DataError, match=f"the answers of {task} have another form"):
        AnswerFormat("intent_slots").check_task(task)


def test_a_style_with_intents_needs_them():
    examples = [
        TaskExample(str(n), "eng_Latn", "wake me", "slots", intent=intent) for n, intent in enumerate(("go", ""))
    ]
    AnswerFormat().check_examples(examples, "data")
    AnswerFormat("intent_slots").check_examples(examples[:1], "data")
    with pytest.raises(DataError, match=r"data: 1 of 2 items have no intent, such as 1, .* completion_style: slots"):
        AnswerFormat("intent_slots").check_examples(examples, "data")


def test_a_metric_that_is_named_twice_counts_once():
    assert AnswerFormat(metrics=("accuracy", "chrf", "accuracy")).metrics == ("accuracy", "chrf")
