"""Alignment behind a sink token: pairs are read as by a tokenizer that adds one."""

import torch
from datasets import Dataset
from safetensors.torch import load_file

from tests.conftest import build_line_break_tokenizer, build_plain_tokenizer
from tests.unit.training.test_trainer import PAIRS, TASK, trainer


def trained(out, tokenizer, pooling):
    run = trainer(
        out, held_out=PAIRS[:4], tokenizer=tokenizer, dropout=0.0, alignment={"pooling": pooling, "schedule": "align"},
        eval_strategy="steps", eval_steps=2, eval_dataset=Dataset.from_list(TASK[:2]),
    )  # fmt: skip
    run.train()
    run.save_model(str(out / "adapter"))
    metrics = [entry["eval_retrieval"] for entry in run.state.log_history if "eval_retrieval" in entry]
    return load_file(out / "adapter" / "adapter_model.safetensors"), metrics, run.pairs.tokens


def test_it_trains_what_a_tokenizer_that_adds_the_line_break_would(tmp_path):
    """With such a tokenizer the mean without special tokens is the same thing."""
    found, metrics, tokens = trained(tmp_path / "a", build_plain_tokenizer(), "mean_after_sink")
    expected, their_metrics, their_tokens = trained(tmp_path / "b", build_line_break_tokenizer(), "mean_no_special")
    assert [row["input_ids"] for pair in tokens for row in pair] == [
        row["input_ids"] for pair in their_tokens for row in pair
    ]
    assert metrics == their_metrics
    assert len(metrics) == 2
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    other, *_ = trained(tmp_path / "c", build_plain_tokenizer(), "mean_no_special")
    assert any(not torch.equal(tensor, other[name]) for name, tensor in found.items())
