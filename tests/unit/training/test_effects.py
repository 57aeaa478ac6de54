"""Arguments of trl whose effect does not show in its configuration: on prompts, on answers, on losses, on batches."""

import json

import pytest
import torch
from transformers import AutoTokenizer

from midalign.answers.format import AnswerFormat
from midalign.data.examples import TaskSource
from midalign.generation.job import GenerateJob
from midalign.merging.job import MergeJob
from midalign.models.loading import load_tokenizer
from midalign.models.source import ModelSource
from midalign.recipe.data import read_pair_data, read_task_data
from midalign.recipe.file import build_recipe
from midalign.training.train import build_trainer, train
from tests.conftest import build_model, build_tokenizer
from tests.tiny_world import recipe_content, write_world
from tests.unit.models.test_chat import CHATML


def quiet(*_):
    pass


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny world whose tokenizer knows ChatML's tokens, and has no template and another end token."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    build_model("llama", vocab_size=400, max_position_embeddings=256).save_pretrained(folder / "model")
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.save_pretrained(folder / "model")
    (folder / "chat.jinja").write_text(CHATML)
    return folder


@pytest.fixture
def trainer_of(world, tmp_path):
    """A factory of trainers on the tiny world."""

    def made(*overrides, objective="joint"):
        recipe = build_recipe(recipe_content(world), overrides)
        source = ModelSource.of(recipe.model)
        torch.manual_seed(0)
        tokenizer, data = load_tokenizer(recipe.model.path), (read_task_data(recipe), read_pair_data(recipe))
        return build_trainer(recipe, tmp_path, objective, source.load(device="cpu"), tokenizer, *data)

    return made


def test_answers_end_in_the_token_and_follow_the_template_that_the_recipe_names(world, tmp_path):
    overrides = ["training.eos_token=<|im_end|>", f"training.chat_template_path={world / 'chat.jinja'}"]
    recipe = build_recipe(recipe_content(world), overrides)
    for objective in ("task", "align"):
        train(recipe, tmp_path / objective, objective=objective, progress=quiet)
    saved = AutoTokenizer.from_pretrained(tmp_path / "task" / "adapter")
    assert (saved.eos_token, saved.chat_template) == ("<|im_end|>", CHATML)

    model = ModelSource(recipe.model.path)
    adapters = {"task": str(tmp_path / "task" / "adapter"), "alignment": str(tmp_path / "align" / "adapter")}
    merge = MergeJob(model, adapters, {"task": 1.0, "alignment": 0.5}, export="base")
    merge.finish(merge.start(tmp_path / "merged"))
    settings = json.loads((tmp_path / "merged" / "model" / "generation_config.json").read_text())
    assert saved.eos_token_id in settings["eos_token_id"], "what else serves the merged model stops there too"

    items = TaskSource("slots", recipe.task.data, "xsid", ("eng_Latn",), limit=1)
    for adapter in (adapters["task"], str(tmp_path / "merged" / "adapter")):
        job = GenerateJob(model, items, adapter=adapter, max_new_tokens=2, answer_format=AnswerFormat(system=""))
        (answer,) = job.finish(job.start(tmp_path / f"answers-{len(adapter)}"))
        assert answer.prompt.endswith("call at test0<|im_end|>\n<|im_start|>assistant\n")


def test_training_rows_end_in_the_named_token(trainer_of):
    trainer = trainer_of("training.eos_token=<|im_end|>")
    end = trainer.processing_class.convert_tokens_to_ids("<|im_end|>")
    assert {row["input_ids"][-1] for row in trainer.train_dataset} == {end}
    assert {row["labels"][-1] for row in trainer.train_dataset} == {end}
    assert trainer.model.config.eos_token_id == end


def first_losses(trainer, n=1):
    """Task losses of the first batches, with gradients, as the training computes them."""
    torch.manual_seed(0)
    trainer.model.train()
    losses = []
    for batch in trainer.get_train_dataloader():
        if "pair_keys" not in batch and len(losses) < n:
            losses.append(trainer.compute_loss(trainer.model, batch).item())
    return losses


@pytest.mark.parametrize("override", ["loss_type=dft", "label_smoothing_factor=0.3", "neftune_noise_alpha=50"])
def test_an_argument_of_the_loss_changes_what_is_learned(world, tmp_path, override):
    content = recipe_content(world) | {"lora": {"r": 2, "lora_dropout": 0.0}}
    logs = []
    for name, overrides in (("plain", []), ("changed", [f"training.{override}"])):
        summary = train(build_recipe(content, overrides), tmp_path / name, objective="task", progress=quiet)
        logs.append([entry["task_loss"] for entry in summary["log_history"] if "task_loss" in entry])
    assert logs[0][-1] != pytest.approx(logs[1][-1], rel=1e-6)


def test_packed_examples_give_the_loss_of_the_same_examples_apart(trainer_of):
    """No example sees another of its row: the mean over all tokens is the same, whatever the model attends to."""
    alone = trainer_of("training.per_device_train_batch_size=12", "lora.lora_dropout=0.0", objective="task")
    packed = trainer_of(
        "training.packing=true", "training.max_length=128", "training.per_device_train_batch_size=12",
        "lora.lora_dropout=0.0", objective="task",
    )  # fmt: skip
    assert len(packed.train_dataset) < len(alone.train_dataset) == 12
    assert sum(map(len, packed.train_dataset["input_ids"])) == sum(map(len, alone.train_dataset["input_ids"]))
    (one,), (other,) = first_losses(alone), first_losses(packed)
    assert one == pytest.approx(other, rel=1e-5)


def test_arguments_of_the_data_loader_reach_the_one_that_trains(trainer_of):
    trainer = trainer_of(
        "training.dataloader_num_workers=1", "training.dataloader_prefetch_factor=3",
        "training.dataloader_multiprocessing_context=forkserver", "training.dataloader_persistent_workers=true",
    )  # fmt: skip
    loader = trainer.get_train_dataloader()
    assert (loader.num_workers, loader.prefetch_factor, loader.persistent_workers) == (1, 3, True)
    assert loader.multiprocessing_context.get_start_method() == "forkserver"


def test_task_batches_are_padded_to_a_multiple(trainer_of):
    trainer = trainer_of("training.pad_to_multiple_of=16", objective="task")
    assert next(iter(trainer.get_train_dataloader()))["input_ids"].shape[1] % 16 == 0


@pytest.mark.parametrize(
    "overrides",
    [
        ["debug=underflow_overflow"], ["skip_memory_metrics=false"],
        ["include_num_input_tokens_seen=all"], ["torch_empty_cache_steps=1"], ["full_determinism=true"],
        ["gradient_checkpointing=true"], ["optim=sgd", "optim_args='momentum=0.9'"], ["save_strategy=no"],
        ["lr_scheduler_type=cosine_with_restarts", "lr_scheduler_kwargs={num_cycles: 2}"],
        ["eval_on_start=true", "per_device_eval_batch_size=2"], ["log_level=error"], ["bf16=true"],
        ["dataloader_num_workers=1", "dataloader_multiprocessing_context=spawn", "dataloader_persistent_workers=true"],
        ["lr_scheduler_type=reduce_lr_on_plateau", "eval_strategy=steps", "eval_steps=1"],
    ],
    ids=lambda overrides: overrides[0],
)  # fmt: skip
def test_a_training_runs_with_it_in_both_objectives(world, tmp_path, overrides):
    recipe = build_recipe(recipe_content(world), [f"training.{override}" for override in overrides])
    before = torch.are_deterministic_algorithms_enabled()
    try:
        summary = train(recipe, tmp_path, progress=quiet)
    finally:
        torch.use_deterministic_algorithms(before)
    logged = {name for entry in summary["log_history"] for name in entry}
    assert {"task_loss", "alignment_loss"} <= logged
    shown = {
        "skip_memory_metrics=false": "train_mem_cpu_peaked_delta",
        "include_num_input_tokens_seen=all": "num_input_tokens_seen",
        "eval_on_start=true": "eval_retrieval",
    }
    if overrides[0] in shown:
        assert shown[overrides[0]] in logged


@pytest.mark.parametrize(("objective", "steps"), [("joint", [6, 12, 18]), ("task", [3, 6, 9]), ("align", [4, 8, 12])])
def test_an_epoch_is_one_pass_over_the_data_though_the_batches_are_one_stream(world, tmp_path, objective, steps):
    """12 commands in batches of 4 are 3 updates, and as many of alignment; 17 pairs in batches of 4 about 4 updates."""
    content = recipe_content(world)
    del content["training"]["logging_steps"]
    recipe = build_recipe(
        content,
        [
            "training.max_steps=-1", "training.num_train_epochs=3", "training.per_device_train_batch_size=4",
            "training.eval_strategy=epoch", "training.save_strategy=epoch", "training.logging_strategy=epoch",
            "training.eval_delay=2", "training.load_best_model_at_end=true",
        ],
    )  # fmt: skip
    log = train(recipe, tmp_path, objective=objective, progress=quiet)["log_history"]
    assert [entry["step"] for entry in log if "learning_rate" in entry] == steps
    evaluated = [entry["step"] for entry in log if "eval_loss" in entry]
    assert evaluated == steps[1:] + ([13] if objective == "align" else []), "and after the last update"
