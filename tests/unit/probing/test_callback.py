"""The callback in a real Trainer: what it logs, when, and that training is not disturbed."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

from midalign.probing.callback import ProbeCallback
from midalign.probing.probe import probe
from tests.conftest import build_model, build_tokenizer
from tests.unit.probing.test_probe import some_parallel


def train(tmp_path, callback=True, every=None, steps=4, **arguments):
    torch.manual_seed(0)
    model, tokenizer = build_model("llama", attention_dropout=0.1), build_tokenizer()
    rows = [{"input_ids": list(range(3, 11)), "labels": list(range(3, 11))}] * 16
    options = TrainingArguments(
        tmp_path, max_steps=steps, per_device_train_batch_size=2, report_to=[], use_cpu=True, save_strategy="no",
        learning_rate=1e-2, disable_tqdm=True, **arguments,
    )  # fmt: skip
    trainer = Trainer(model, options, train_dataset=rows, eval_dataset=rows[:2], processing_class=tokenizer)
    if callback:
        trainer.add_callback(ProbeCallback(trainer, some_parallel(12), layers=[2, 4], every=every))
    trainer.train()
    return trainer


def logged(trainer):
    return [(row["step"], row["retrieval_layer_2"]) for row in trainer.state.log_history if "retrieval_layer_2" in row]


def test_it_logs_the_probe_of_the_model_at_the_start_and_every_so_many_updates(tmp_path):
    trainer = train(tmp_path, every=2)
    values = logged(trainer)
    assert [step for step, _ in values] == [0, 2, 4]
    start = probe(build_model("llama"), build_tokenizer(), some_parallel(12), layers=[2, 4])
    end = probe(trainer.model, build_tokenizer(), some_parallel(12), layers=[2, 4])
    assert (values[0][1], values[-1][1]) == (start.accuracy[0], end.accuracy[0])


def test_at_an_evaluation_it_is_among_the_metrics(tmp_path):
    trainer = train(tmp_path, eval_strategy="steps", eval_steps=2)
    assert [step for step, _ in logged(trainer)] == [0, 2, 4]
    metrics = trainer.evaluate()
    assert metrics["eval_retrieval_layer_4"] == trainer.state.log_history[-1]["retrieval_layer_4"]


def test_training_goes_as_without_it(tmp_path):
    watched, plain = train(tmp_path, every=1), train(tmp_path, callback=False)
    for ours, theirs in zip(watched.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_an_interval_below_one_is_refused(tmp_path):
    with pytest.raises(ValueError, match="every is 0"):
        ProbeCallback(None, {}, layers=[1], every=0)


def test_a_trainer_without_a_tokenizer_needs_one_given(tmp_path):
    trainer = Trainer(build_model("llama"), TrainingArguments(tmp_path, report_to=[], use_cpu=True))
    with pytest.raises(ValueError, match="give ProbeCallback the tokenizer"):
        ProbeCallback(trainer, some_parallel(), layers=[1])
    tokenizer = build_tokenizer()
    assert ProbeCallback(trainer, some_parallel(), layers=[1], tokenizer=tokenizer).tokenizer is tokenizer
