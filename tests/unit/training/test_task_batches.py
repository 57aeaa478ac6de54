"""Batches of task examples: by length within an update, in the order asked for, and no streams."""

import pytest
import torch
from datasets import Dataset

from midalign.errors import DataError, RecipeError
from tests.unit.training.test_trainer import TASK, adapter_of, trainer


def test_micro_batches_by_length_train_the_same_adapter(tmp_path, monkeypatch):
    """The task loss of an update is a sum over its tokens, however they are cut into micro-batches."""
    results = []
    for by_length in (True, False):
        run = trainer(tmp_path, alignment={"schedule": "task"}, dropout=0.0, lr_scheduler_type="constant")
        assert run._window_is_one_sum()
        monkeypatch.setattr(run, "_window_is_one_sum", lambda by_length=by_length: by_length)
        widths = [batch["input_ids"].shape[1] for batch in run.get_train_dataloader()]
        results.append((sum(widths), run))
        run.train()
    assert results[0][0] < results[1][0]
    first, second = (adapter_of(run, tmp_path / str(number)) for number, (_, run) in enumerate(results))
    assert all(torch.allclose(first[name], second[name], atol=1e-5) for name in first)


def test_a_mean_of_each_micro_batch_is_not_sorted_by_length(tmp_path):
    assert not trainer(tmp_path, alignment={"schedule": "micro_batch"})._window_is_one_sum()


def test_the_sampling_strategy_of_the_arguments_takes_effect_or_is_refused(tmp_path):
    run = trainer(
        tmp_path, alignment={"schedule": "task"}, train_sampling_strategy="sequential", per_device_train_batch_size=1
    )
    ids = run.train_dataset["input_ids"]
    batches = list(run.get_train_dataloader())
    for window in range(2):
        expected = sorted(ids[4 * window : 4 * window + 4], key=len, reverse=True)
        assert [batch["input_ids"][0].tolist() for batch in batches[4 * window : 4 * window + 4]] == expected
    with pytest.raises(RecipeError, match="random, sequential, group_by_length"):
        trainer(tmp_path, train_sampling_strategy="batch_rebalance")


def test_streamed_task_data_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"IterableDataset, which is streamed.*data\.take"):
        trainer(tmp_path, task=Dataset.from_list(TASK).to_iterable_dataset())
