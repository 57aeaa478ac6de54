"""Training one adapter from a recipe: what is trained, what is left behind, and going on after an interruption."""

import contextlib
import errno
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from trl.trainer import utils as trl_utils

from midalign.answers.format import AnswerFormat
from midalign.data.prompt_tokens import IGNORED, InTaskPrompt, prompt_ids, training_rows
from midalign.data.prompts import render
from midalign.errors import DataError, ModelError, RecipeError, RunError
from midalign.models.loading import load_model, load_tokenizer
from midalign.recipe.alignment import AlignmentConfig
from midalign.recipe.data import TaskData, read_pair_data, read_task_data
from midalign.recipe.file import build_recipe, load_recipe
from midalign.records import TaskExample
from midalign.training.arguments import training_arguments
from midalign.training.checkpoints import last_whole_checkpoint
from midalign.training.train import _save_adapter, build_trainer, train
from midalign.training.trainer import AlignmentTrainer
from tests.conftest import ROOT, build_model, build_tokenizer
from tests.tiny_world import recipe_content, write_lines, write_slots, write_world

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


@pytest.fixture
def recipe(world):
    """A factory of recipes on the tiny world."""

    def made(*overrides):
        return build_recipe(recipe_content(world), overrides)

    return made


def quiet(*_):
    pass


def updates(summary, loss):
    return [entry["step"] for entry in summary["log_history"] if loss in entry]


def adapter(out):
    return load_file(out / "adapter" / "adapter_model.safetensors")


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


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


class KilledError(Exception):
    pass


def interrupted(recipe, out, after, **options):
    """Train and be interrupted after so many updates."""

    def progress(_description, done, _total):
        if done >= after:
            raise KilledError

    with pytest.raises(KilledError):
        train(recipe, out, progress=progress, **options)


@pytest.fixture
def saving(recipe):
    """A recipe that saves after every update, with dropout."""
    return recipe("training.max_steps=3", "training.save_steps=1", "lora.lora_dropout=0.2")


@pytest.mark.parametrize("after", [1, 4])
def test_an_interrupted_training_goes_on_to_the_same_adapter(saving, tmp_path, after):
    train(saving, tmp_path / "whole", progress=quiet)
    interrupted(saving, tmp_path / "cut", after)
    assert not (tmp_path / "cut" / "adapter").exists()
    summary = train(saving, tmp_path / "cut", progress=quiet)
    assert (summary["resumed_from"] is None) == (after == 1)
    assert summary["updates"] == 6
    assert same(adapter(tmp_path / "cut"), adapter(tmp_path / "whole"))


def test_training_interrupted_at_the_very_end_adds_no_update(saving, tmp_path, monkeypatch):
    train(saving, tmp_path / "whole", progress=quiet)
    monkeypatch.setattr("midalign.training.train._save_adapter", lambda *_: (_ for _ in ()).throw(KilledError))
    with pytest.raises(KilledError):
        train(saving, tmp_path / "cut", progress=quiet)
    monkeypatch.undo()
    assert train(saving, tmp_path / "cut", progress=quiet)["updates"] == 6
    assert same(adapter(tmp_path / "cut"), adapter(tmp_path / "whole"))


def poison(path):
    """One step with gradients that are not finite, saved before the loss shows it."""
    tensors = load_file(path)
    next(iter(tensors.values()))[0] = float("nan")
    save_file(tensors, path)


SPOILED = {
    "weights not finite": lambda c: poison(c / "adapter_model.safetensors"),
    "state missing": lambda c: (c / "trainer_state.json").unlink(),
    "state cut short": lambda c: (c / "trainer_state.json").write_text('{"global_step": 4, '),
    "weights missing": lambda c: (c / "adapter_model.safetensors").unlink(),
    "weights cut short": lambda c: cut(c / "adapter_model.safetensors"),
    "optimizer missing": lambda c: (c / "optimizer.pt").unlink(),
    "optimizer cut short": lambda c: cut(c / "optimizer.pt"),
    "random state missing": lambda c: (c / "rng_state.pth").unlink(),
    "random state cut short": lambda c: cut(c / "rng_state.pth"),
}


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.fixture(scope="module")
def checkpoints(world, tmp_path_factory):
    """A training that was interrupted with two checkpoints, and the adapter of the uninterrupted one."""
    folder = tmp_path_factory.mktemp("checkpoints")
    overrides = ["training.max_steps=3", "training.save_steps=1", "lora.lora_dropout=0.2"]
    made = build_recipe(recipe_content(world), overrides)
    train(made, folder / "whole", progress=quiet)
    interrupted(made, folder / "cut", 5)
    return made, folder


def test_the_newest_checkpoint_is_taken(checkpoints):
    _, folder = checkpoints
    assert Path(last_whole_checkpoint(folder / "cut" / "checkpoints")).name == "checkpoint-4"
    assert last_whole_checkpoint(folder / "nothing") is None


@pytest.mark.parametrize("name", SPOILED)
def test_a_half_written_checkpoint_is_skipped_with_a_warning(checkpoints, tmp_path, name, caplog):
    _, folder = checkpoints
    copied = shutil.copytree(folder / "cut" / "checkpoints", tmp_path / "checkpoints")
    SPOILED[name](copied / "checkpoint-4")
    assert Path(last_whole_checkpoint(copied)).name == "checkpoint-3"
    assert "checkpoint-4 is half-written or broken" in caplog.text


def test_a_checkpoint_without_the_random_state_of_a_killed_process_is_skipped(checkpoints, tmp_path, caplog):
    """As two processes write them, the second of which was killed before it wrote its own."""
    _, folder = checkpoints
    copied = shutil.copytree(folder / "cut" / "checkpoints", tmp_path / "checkpoints")
    for number in (3, 4):
        checkpoint = copied / f"checkpoint-{number}"
        shutil.copy(checkpoint / "rng_state.pth", checkpoint / "rng_state_1.pth")
        (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_0.pth")
    assert Path(last_whole_checkpoint(copied)).name == "checkpoint-4"
    (copied / "checkpoint-4" / "rng_state_1.pth").unlink()
    assert Path(last_whole_checkpoint(copied)).name == "checkpoint-3"
    assert "(rng_state_1.pth)" in caplog.text


def test_after_a_half_written_checkpoint_the_adapter_is_still_the_same(checkpoints, tmp_path, caplog):
    made, folder = checkpoints
    out = shutil.copytree(folder / "cut", tmp_path / "cut")
    cut(out / "checkpoints" / "checkpoint-4" / "adapter_model.safetensors")
    summary = train(made, out, progress=quiet)
    assert summary["resumed_from"].endswith("checkpoint-3")
    assert "half-written" in caplog.text
    assert same(adapter(out), adapter(folder / "whole"))


def test_early_stopping_comes_at_the_same_update_after_an_interruption(recipe, tmp_path):
    made = recipe(
        "training.max_steps=20", "training.learning_rate=3.0", "training.save_steps=1", "training.eval_strategy=steps",
        "training.eval_steps=1", "training.metric_for_best_model=eval_loss", "training.greater_is_better=false",
        "training.load_best_model_at_end=true", "early_stopping_patience=4", "task.limit_dev=2",
    )  # fmt: skip
    whole = train(made, tmp_path / "whole", progress=quiet)
    assert 4 < whole["updates"] < 40, "it stops early here"
    interrupted(made, tmp_path / "cut", whole["updates"] - 1)
    resumed = train(made, tmp_path / "cut", progress=quiet)
    assert resumed["resumed_from"]
    assert resumed["updates"] == whole["updates"]
    assert same(adapter(tmp_path / "cut"), adapter(tmp_path / "whole"))


STOPPED = {
    "early stopping": [
        "training.max_steps=20", "training.learning_rate=3.0", "training.metric_for_best_model=eval_loss",
        "training.greater_is_better=false", "training.load_best_model_at_end=true", "early_stopping_patience=4",
    ],
    "no longer aligning": ["training.max_steps=6", "alignment.patience=1"],
}  # fmt: skip


@pytest.mark.parametrize("name", STOPPED)
def test_a_training_that_had_stopped_early_and_was_killed_before_its_adapter_was_saved_adds_no_update(
    recipe, tmp_path, monkeypatch, name
):
    made = recipe(
        "training.save_steps=1", "training.eval_strategy=steps", "training.eval_steps=1", "task.limit_dev=2",
        *STOPPED[name],
    )  # fmt: skip
    whole = train(made, tmp_path / "whole", progress=quiet)
    assert whole["updates"] < 2 * made.training.max_steps, "it stops early here"
    monkeypatch.setattr("midalign.training.train._save_adapter", lambda *_: (_ for _ in ()).throw(KilledError))
    with pytest.raises(KilledError):
        train(made, tmp_path / "cut", progress=quiet)
    monkeypatch.undo()
    resumed = train(made, tmp_path / "cut", progress=quiet)
    assert resumed["resumed_from"].endswith(f"checkpoint-{whole['updates']}")
    assert resumed["updates"] == whole["updates"]
    assert resumed["stopped_aligning_at"] == whole["stopped_aligning_at"]
    assert same(adapter(tmp_path / "cut"), adapter(tmp_path / "whole"))


@pytest.mark.parametrize("objective", ["joint", "align"])
def test_nan_ends_in_a_clear_error_and_no_adapter(recipe, tmp_path, objective):
    made = recipe("training.learning_rate=1e30", "training.max_grad_norm=0", "training.max_steps=6")
    with pytest.raises(ModelError, match=r"Lower training\.learning_rate"):
        train(made, tmp_path / "out", objective=objective, progress=quiet)
    assert not (tmp_path / "out" / "adapter").exists()
    assert not (tmp_path / "out" / "training.json").exists()


@pytest.mark.parametrize("library", ["os", "torch"])
def test_a_full_disk_is_a_clear_error_and_the_checkpoint_before_it_stays_good(saving, tmp_path, monkeypatch, library):
    train(saving, tmp_path / "whole", progress=quiet)
    real, count = torch.save, 0

    def full(*args, **kwargs):
        nonlocal count
        count += 1
        if count > 5:
            if library == "os":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")
        return real(*args, **kwargs)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RunError, match="is full, so a checkpoint or the adapter could not be saved"):
        train(saving, tmp_path / "cut", progress=quiet)
    monkeypatch.undo()
    assert train(saving, tmp_path / "cut", progress=quiet)["resumed_from"] is not None
    assert same(adapter(tmp_path / "cut"), adapter(tmp_path / "whole"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here (it needs root)")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(("while_saving", "left"), [("a checkpoint", "checkpoint-2"), ("the adapter", "checkpoint-6")])
def test_on_a_disk_that_is_really_full_the_checkpoint_before_stays_good(
    saving, tmp_path, small_disk, monkeypatch, while_saving, left
):
    train(saving, tmp_path / "whole", progress=quiet)
    filler, out = small_disk / "filler", small_disk / "cut"

    def fill():
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)

    def save_adapter(*args):
        fill()
        _save_adapter(*args)

    def progress(_description, done, _total):
        if while_saving == "a checkpoint" and done == 3:
            fill()

    monkeypatch.setattr("midalign.training.train._save_adapter", save_adapter)
    with pytest.raises(RunError, match=r"is full.*the same command goes on from there"):
        train(saving, out, progress=progress)
    monkeypatch.undo()
    assert not [path for path in out.iterdir() if "adapter" in path.name], "no half of an adapter"
    filler.unlink()
    assert train(saving, out, progress=quiet)["resumed_from"].endswith(left)
    assert same(adapter(out), adapter(tmp_path / "whole"))


def test_a_killed_data_worker_is_a_clear_error_and_the_checkpoint_before_it_stays_good(recipe, tmp_path):
    made = recipe("training.max_steps=3", "training.save_steps=1", "training.dataloader_num_workers=1")
    train(made, tmp_path / "whole", progress=quiet)

    def progress(_description, done, _total):
        if done == 3:
            for worker in multiprocessing.active_children():
                worker.kill()
                worker.join()

    with pytest.raises(RunError, match=r"a worker that reads its data, has ended .*the same command goes on"):
        train(made, tmp_path / "cut", progress=progress)
    assert train(made, tmp_path / "cut", progress=quiet)["resumed_from"]
    assert same(adapter(tmp_path / "cut"), adapter(tmp_path / "whole"))


def test_a_loss_that_was_not_finite_once_leaves_the_checkpoint_before_it_good(saving, tmp_path, monkeypatch):
    train(saving, tmp_path / "whole", progress=quiet)
    compute, calls = AlignmentTrainer.compute_loss, []

    def flaky(*args, **kwargs):
        calls.append(1)
        return compute(*args, **kwargs) * (float("nan") if len(calls) == 4 else 1.0)

    monkeypatch.setattr(AlignmentTrainer, "compute_loss", flaky)
    with pytest.raises(ModelError, match="loss is nan at update 4"):
        train(saving, tmp_path / "cut", progress=quiet)
    monkeypatch.undo()
    assert train(saving, tmp_path / "cut", progress=quiet)["resumed_from"].endswith("checkpoint-3")
    assert same(adapter(tmp_path / "cut"), adapter(tmp_path / "whole"))


def test_the_seconds_of_a_resumed_training_include_those_before_its_checkpoint(saving, tmp_path):
    def slow(_description, done, _total):
        time.sleep(0.5 if done <= 3 else 0)
        if done == 4:
            raise KilledError

    with pytest.raises(KilledError):
        train(saving, tmp_path / "cut", progress=slow)
    start = time.monotonic()
    summary = train(saving, tmp_path / "cut", progress=quiet)
    assert summary["resumed_from"].endswith("checkpoint-3")
    assert 1.5 < summary["seconds"] < 1.5 + 5 + time.monotonic() - start


def test_another_fault_of_the_trainer_is_not_called_a_full_disk(saving, tmp_path, monkeypatch):
    def broken(*_args, **_kwargs):
        raise RuntimeError("something else")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(RuntimeError, match="something else"):
        train(saving, tmp_path / "cut", progress=quiet)


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


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_builds_a_trainer_with_a_tiny_model(path, world, tmp_path):
    """Its own lora, training and alignment sections; data, model and layer are the tiny world's."""
    shipped, tiny = load_recipe(path), build_recipe(recipe_content(world))
    layer = shipped.alignment.layer if not isinstance(shipped.alignment.layer, int) else 2
    made = shipped.model_copy(
        update={
            "model": tiny.model, "task": tiny.task, "parallel": tiny.parallel, "languages": tiny.languages,
            "alignment": shipped.alignment.model_copy(update={"layer": layer}),
        }
    )  # fmt: skip
    tokenizer, model = load_tokenizer(made.model.path), load_model(made.model.path)
    data = (read_task_data(made), read_pair_data(made))
    trainer = build_trainer(made, tmp_path, "joint", model, tokenizer, *data)
    assert trainer.args.learning_rate == shipped.training.learning_rate
    assert trainer.alignment.temperature == shipped.alignment.temperature
    assert any(p.requires_grad for p in trainer.model.parameters())


@pytest.mark.slow
def test_kill_minus_nine_at_twenty_random_moments_changes_nothing(tmp_path):
    """The same command again and again, killed while a checkpoint is written or soon after; everything is learned."""
    write_world(
        tmp_path,
        training={"max_steps": 40, "save_steps": 1, "per_device_train_batch_size": 2, "learning_rate": 1e-2,
                  "gradient_accumulation_steps": 1},
        lora={"r": 2, "lora_dropout": 0.2},
        alignment={"learn_temperature": [0.05, 0.5]},
    )  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def start(out):
        command = [sys.executable, "-m", "midalign", "train", "recipe.yaml", "--out", out]
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)

    with start("whole") as process:
        assert process.wait() == 0, process.stderr.read()
    rng, in_saving, checkpoints = random.Random(0), 0, tmp_path / "cut" / "checkpoints"
    for moment in range(20):
        with start("cut") as process:
            before = newest(checkpoints)
            while process.poll() is None and newest(checkpoints) <= before:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.02 if moment % 2 else 0.1))  # into the saving, or into the update after it
            assert process.poll() is None, process.stderr.read()
            process.send_signal(signal.SIGKILL)
        in_saving += not (checkpoints / f"checkpoint-{newest(checkpoints)}" / "trainer_state.json").exists()
    assert in_saving >= 3
    with start("cut") as process:
        assert process.wait() == 0, process.stderr.read()
    assert same(adapter(tmp_path / "cut"), adapter(tmp_path / "whole"))
    logs = [json.loads((tmp_path / out / "training.json").read_text())["log_history"] for out in ("cut", "whole")]
    temperatures = [[entry["temperature"] for entry in log if "temperature" in entry] for log in logs]
    assert temperatures[0] == temperatures[1]
    assert len(set(temperatures[0])) > 10


def newest(checkpoints):
    return max((int(p.name.rpartition("-")[2]) for p in checkpoints.glob("checkpoint-*")), default=0)
