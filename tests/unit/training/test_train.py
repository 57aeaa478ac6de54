"""Training one adapter from a recipe: what is trained, what is left behind, and what is refused."""

import contextlib
import json
import math

import pytest
import torch
from datasets import Dataset
from trl.trainer import utils as trl_utils

from midalign.answers.format import AnswerFormat
from midalign.data.prompt_tokens import IGNORED, InTaskPrompt, prompt_ids, training_rows
from midalign.data.prompts import render
from midalign.errors import DataError, ModelError, RecipeError
from midalign.models.loading import load_model, load_tokenizer
from midalign.recipe.alignment import AlignmentConfig
from midalign.recipe.data import TaskData, read_pair_data, read_task_data
from midalign.recipe.file import build_recipe, load_recipe
from midalign.records import TaskExample
from midalign.training.arguments import training_arguments
from midalign.training.train import build_trainer, train
from midalign.training.trainer import AlignmentTrainer
from tests.conftest import ROOT, build_model, build_tokenizer
from tests.interrupted import adapter, quiet, same
from tests.tiny_world import recipe_content, write_lines, write_slots, write_world

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


def updates(summary, loss):
    return [entry["step"] for entry in summary["log_history"] if loss in entry]


def test_the_three_objectives_train_what_they_say(recipe, tmp_path):
    found = {o: train(recipe(), tmp_path / o, objective=o, progress=quiet) for o in ("task", "joint", "align")}
    assert updates(found["task"], "task_loss") == [1, 2]
    assert updates(found["joint"], "task_loss") == [1, 3], "as many task updates as the baseline"
    assert updates(found["joint"], "alignment_loss") == [2, 4]
    assert updates(found["align"], "alignment_loss") == [1, 2]
    assert updates(found["align"], "task_loss") == updates(found["task"], "alignment_loss") == []
    assert (found["task"]["layer"], found["joint"]["layer"], found["align"]["layer"]) == (None, 2, 2)
    assert (found["task"]["pairs"], found["align"]["task_examples"]) == (0, 0)
    for objective, summary in found.items():
        out = tmp_path / objective
        written = json.loads((out / "training.json").read_text())
        assert written == json.loads(json.dumps(summary))
        assert sorted(p.name for p in out.iterdir()) == ["adapter", "training.json"], "no checkpoint is left"
        assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= {
            p.name for p in (out / "adapter").iterdir()
        }
        assert not list((out / "adapter").glob("*.bin")), "no pickle"
    blocks = {int(name.split(".layers.")[1].split(".")[0]) for name in adapter(tmp_path / "align")}
    assert blocks == {0, 1}, "only the blocks up to the aligned layer"
    assert {int(n.split(".layers.")[1].split(".")[0]) for n in adapter(tmp_path / "joint")} == {0, 1, 2, 3}


@pytest.mark.parametrize("schedule", ["update", "task:1,align:1", "align:1,task:1", "micro_batch", "task:2,align:1"])
def test_joint_training_and_the_baseline_have_the_same_task_updates(recipe, world, schedule):
    made = recipe(f"alignment.schedule={schedule}", "training.max_steps=4", "training.gradient_accumulation_steps=2")
    args = (read_task_data(made), read_pair_data(made))
    tokenizer = load_tokenizer(made.model.path)
    counts = {}
    for objective in ("task", "joint"):
        trainer = build_trainer(made, world / "unused", objective, load_model(made.model.path), tokenizer, *args)
        windows = trainer.args.max_steps * 2
        kinds = [trainer.schedule.objective(n // 2, n % 2, 2) for n in range(windows)]
        counts[objective] = kinds.count("task")
    assert counts["joint"] == counts["task"] == 8


def test_the_trainer_masks_the_prompt_and_sees_whole_examples(recipe, world):
    made = recipe("training.per_device_train_batch_size=12")
    task = read_task_data(made)
    tokenizer = load_tokenizer(made.model.path)
    trainer = build_trainer(
        made, world / "unused", "task", load_model(made.model.path), tokenizer, task, read_pair_data(made)
    )
    batch = next(iter(trainer.get_train_dataloader()))
    answers = set()
    for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        taught = labels[labels != IGNORED]
        assert taught[-1] == tokenizer.eos_token_id
        assert torch.equal(ids[labels != IGNORED], taught)
        answers.add(tokenizer.decode(taught[:-1]))
    assert answers == {f"datetime: train{i}" for i in range(12)}


def test_pairs_are_aligned_in_the_prompt_of_the_task_where_that_is_asked(recipe, world):
    made = recipe("alignment.prompt=task")
    task, pairs = read_task_data(made), read_pair_data(made)
    tokenizer = load_tokenizer(made.model.path)
    trainer = build_trainer(made, world / "unused", "joint", load_model(made.model.path), tokenizer, task, pairs)
    asked, example = trainer.pairs[0]["tokens"], trainer.pairs.pairs[0]
    for side, text in zip(asked, (example.source, example.target), strict=True):
        prompt = render(TaskExample("x:0", "slots", "eng_Latn", text), tokenizer, AnswerFormat(system=""))
        assert side["input_ids"] == prompt_ids(prompt, tokenizer), "what generation would ask about the sentence"
        assert 0 < sum(side["pooled_mask"]) < len(side["input_ids"])
    assert trainer.held_out is not None
    assert sum(trainer.held_out[0]["tokens"][0]["pooled_mask"]) < len(trainer.held_out[0]["tokens"][0]["input_ids"])
    summary = train(made, world / "asked", progress=quiet)
    assert all(math.isfinite(entry["alignment_loss"]) for entry in summary["log_history"] if "alignment_loss" in entry)


def test_translation_is_trained_whose_prompt_names_the_languages(recipe, world, tmp_path):
    made = recipe("task.name=translation", f"task.data={world / 'lines'}", "task.format=auto", "task.system=null")
    pairs = read_pair_data(made)
    item = TaskExample("x:0", "translation", "eng_Latn", "wake up", reference="auf", target_language="deu_Latn")
    task = TaskData([item], [item], [])
    tokenizer = load_tokenizer(made.model.path)
    for objective in ("task", "joint"):
        build_trainer(made, tmp_path, objective, load_model(made.model.path), tokenizer, task, pairs)


def test_a_prompt_and_what_tokenizes_the_pairs_must_agree(recipe, world, tmp_path):
    made = recipe()
    tokenizer, pairs = load_tokenizer(made.model.path), read_pair_data(made).train
    rows = Dataset.from_list(training_rows(read_task_data(made).train, tokenizer, AnswerFormat(system="")))
    for prompt, given in (("task", None), ("none", InTaskPrompt(tokenizer, "slots", AnswerFormat(system="")))):
        with pytest.raises(RecipeError, match=f"alignment.prompt is '{prompt}'.*tokenize_pair_side"):
            AlignmentTrainer(
                load_model(made.model.path), args=training_arguments(made, tmp_path), train_dataset=rows,
                processing_class=tokenizer, pairs=pairs, alignment=AlignmentConfig(prompt=prompt),
                tokenize_pair_side=given,
            )  # fmt: skip


def test_a_head_that_scores_completions_only_trains_to_the_same_losses(recipe, tmp_path, monkeypatch):
    rows = []
    score = trl_utils._ChunkedLogProbFunction.apply
    spy = lambda hidden, *rest: (rows.append(len(hidden)), score(hidden, *rest))[1]  # noqa: E731
    monkeypatch.setattr(trl_utils._ChunkedLogProbFunction, "apply", spy)
    fast = train(recipe(), tmp_path / "fast", objective="task", progress=quiet)
    few = sum(rows)
    rows.clear()
    monkeypatch.setattr("midalign.training.train.head_on_completions_only", contextlib.nullcontext)
    slow = train(recipe(), tmp_path / "slow", objective="task", progress=quiet)
    assert few < sum(rows)
    losses = [[entry["task_loss"] for entry in done["log_history"] if "task_loss" in entry] for done in (fast, slow)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_same_recipe_trains_the_same_adapter_and_another_seed_another(recipe, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train(recipe(f"seed={seed}"), tmp_path / name, progress=quiet)
    assert same(adapter(tmp_path / "a"), adapter(tmp_path / "b"))
    assert not same(adapter(tmp_path / "a"), adapter(tmp_path / "c"))


REFUSED = {
    "layer beyond depth": (["alignment.layer=9"], ModelError, "9"),
    "no pairs": (["languages.aligned=[]", "languages.unseen=[de, ru]"], DataError, "needs parallel pairs"),
    "trl's scheduler": (["training.lr_scheduler_type=inverse"], RecipeError, "inverse_sqrt"),
    "trl's option": (["training.assistant_only_loss=true"], RecipeError, "assistant_only_loss"),
    "peft's rank": (["lora.r=0"], RecipeError, "lora.r = 0"),
    "peft's modules": (["lora.target_modules=[nope]"], RecipeError, "nope"),
    "an example longer than allowed": (["training.max_length=8"], DataError, r"item en\.train:0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_recipe_leaves_nothing_behind(recipe, tmp_path, name):
    overrides, kind, says = REFUSED[name]
    begun = []
    with pytest.raises(kind, match=says):
        train(recipe(*overrides), tmp_path / "out", progress=quiet, begin=lambda: begun.append(1))
    assert not (tmp_path / "out").exists()
    assert not begun


def test_a_pair_or_an_example_longer_than_the_models_window_is_not_fed_to_it(tmp_path, caplog):
    """GPT-2 has learned positions: beyond its window an index error would end the training."""
    write_slots(tmp_path / "slots")
    write_lines(tmp_path / "lines")
    write_lines(tmp_path / "probe", "again")
    lines = (tmp_path / "lines" / "eng.txt").read_text(encoding="utf-8").splitlines()
    lines[5] = "light " * 40
    (tmp_path / "lines" / "eng.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    build_model("gpt2", n_positions=64, max_position_embeddings=64).save_pretrained(tmp_path / "model")
    build_tokenizer().save_pretrained(tmp_path / "model")
    made = build_recipe(recipe_content(tmp_path), ["parallel.held_out=0"])
    summary = train(made, tmp_path / "out", progress=quiet)
    assert summary["updates"] == 4
    assert "left out 1 of 20 pairs with a side of more than 64 tokens" in caplog.text
    build_model("gpt2", n_positions=16, max_position_embeddings=16).save_pretrained(tmp_path / "model")
    with pytest.raises(DataError, match=r"model's window allows \(16\)"):
        train(made, tmp_path / "short", progress=quiet)


def test_weights_that_were_saved_in_four_bits_train_as_those_that_are_loaded_so(tmp_path):
    pytest.importorskip("bitsandbytes", reason="four bits need bitsandbytes, which is not installed here")
    write_world(tmp_path)
    load_model(str(tmp_path / "model"), quantization="4bit").save_pretrained(tmp_path / "small")
    build_tokenizer().save_pretrained(tmp_path / "small")
    adapters = []
    for override in ("model.quantization=4bit", f"model.path={tmp_path / 'small'}"):
        out = tmp_path / f"out{len(adapters)}"
        train(build_recipe(recipe_content(tmp_path), [override]), out, progress=quiet)
        adapters.append(adapter(out))
    assert {tensor.dtype for tensor in adapters[1].values()} == {torch.float32}
    assert same(*adapters)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_builds_a_trainer_with_a_tiny_model(path, world, tmp_path):
    """Its own lora, training and alignment sections; data, model, end token and layer are the tiny world's."""
    shipped, tiny = load_recipe(path), build_recipe(recipe_content(world))
    layer = shipped.alignment.layer if not isinstance(shipped.alignment.layer, int) else 2
    made = shipped.model_copy(
        update={
            "model": tiny.model, "task": tiny.task, "parallel": tiny.parallel, "languages": tiny.languages,
            "alignment": shipped.alignment.model_copy(update={"layer": layer}),
            "training": shipped.training.model_copy(update={"eos_token": None}),
        }
    )  # fmt: skip
    tokenizer, model = load_tokenizer(made.model.path), load_model(made.model.path)
    data = (read_task_data(made), read_pair_data(made))
    trainer = build_trainer(made, tmp_path, "joint", model, tokenizer, *data)
    assert trainer.args.learning_rate == shipped.training.learning_rate
    assert trainer.alignment.temperature == shipped.alignment.temperature
    assert any(p.requires_grad for p in trainer.model.parameters())
