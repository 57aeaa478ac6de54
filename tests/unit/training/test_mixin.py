"""What the mixin refuses, whatever trainer it stands before."""

import pytest
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from midalign.errors import RecipeError
from midalign.recipe.alignment import AlignmentConfig
from midalign.training.mixin import AlternatingMixin
from tests.conftest import build_model, build_tokenizer


def test_cached_gradients_are_refused_where_each_piece_would_be_an_update():
    class Sharded:
        def __init__(self):
            self.args = TrainingArguments("out", use_cpu=True, report_to="none")
            self.train_dataset = Dataset.from_list([{"input_ids": [1]}])
            self.is_deepspeed_enabled = True

    class Both(AlternatingMixin, Sharded):
        pass

    with pytest.raises(RecipeError, match="mini_batch_size = 2 with DeepSpeed"):
        Both(alignment=AlignmentConfig(mini_batch_size=2))


def test_several_gpus_in_one_process_are_refused_with_what_to_do(tmp_path, monkeypatch):
    class Both(AlternatingMixin, Trainer):
        pass

    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", max_steps=1)
    monkeypatch.setattr(type(arguments), "n_gpu", 2)
    with pytest.raises(RecipeError, match=r"sees 2 GPUs.*CUDA_VISIBLE_DEVICES=0"):
        Both(build_model("llama"), arguments, processing_class=build_tokenizer())
