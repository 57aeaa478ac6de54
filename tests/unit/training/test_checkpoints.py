"""Resuming after an interruption: whole, half-written and broken checkpoints, and a training that had stopped early."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file, save_file

from midalign.errors import RecipeError, RunError
from midalign.recipe.file import build_recipe
from midalign.training.checkpoints import last_whole_checkpoint
from midalign.training.train import _check_gathering, train
from tests.interrupted import KilledError, adapter, interrupted, quiet, same
from tests.tiny_world import recipe_content, write_world


@pytest.mark.parametrize(("after", "bf16"), [(1, False), (4, False), (4, True)])
def test_an_interrupted_training_goes_on_to_the_same_adapter(saving, tmp_path, after, bf16):
    saving = saving.model_copy(update={"training": saving.training.model_copy(update={"bf16": bf16})})
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
    assert "checkpoint-4 is incomplete or damaged" in caplog.text


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


def test_a_training_is_continued_by_as_many_processes_only(checkpoints, tmp_path):
    made, folder = checkpoints
    out = shutil.copytree(folder / "cut", tmp_path / "cut")
    for checkpoint in (out / "checkpoints").glob("checkpoint-*"):
        shutil.copy(checkpoint / "rng_state.pth", checkpoint / "rng_state_1.pth")
        (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_0.pth")
    with pytest.raises(RunError, match="in 2 processes, and now there are 1"):
        train(made, out, progress=quiet)
    assert len(list((out / "checkpoints").iterdir())) == len(list((folder / "cut" / "checkpoints").iterdir()))


def sharded(fsdp=None, zero=None):
    state = SimpleNamespace(
        fsdp_plugin=SimpleNamespace(state_dict_type=fsdp),
        deepspeed_plugin=SimpleNamespace(deepspeed_config={"zero_optimization": zero}),
    )
    return SimpleNamespace(
        accelerator=SimpleNamespace(state=state), is_fsdp_enabled=bool(fsdp), is_deepspeed_enabled=bool(zero)
    )


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"fsdp": "StateDictType.SHARDED_STATE_DICT"}, "Write FULL_STATE_DICT"),
        ({"zero": {"stage": 3}}, "zero3_save_16bit_model is false"),
    ],
)
def test_an_adapter_that_would_not_be_gathered_is_refused_before_the_first_update(given, says):
    with pytest.raises(RecipeError, match=says):
        _check_gathering(sharded(**given))
    _check_gathering(sharded(fsdp="StateDictType.FULL_STATE_DICT"))
    _check_gathering(sharded(zero={"stage": 3, "stage3_gather_16bit_weights_on_model_save": True}))
    _check_gathering(sharded(zero={"stage": 2}))
    _check_gathering(sharded())


def test_after_a_half_written_checkpoint_the_adapter_is_still_the_same(checkpoints, tmp_path, caplog):
    made, folder = checkpoints
    out = shutil.copytree(folder / "cut", tmp_path / "cut")
    cut(out / "checkpoints" / "checkpoint-4" / "adapter_model.safetensors")
    summary = train(made, out, progress=quiet)
    assert summary["resumed_from"].endswith("checkpoint-3")
    assert "incomplete or damaged" in caplog.text
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


def test_a_training_that_had_stopped_early_and_was_killed_before_its_adapter_was_saved_adds_no_update(
    recipe, tmp_path, monkeypatch
):
    made = recipe(
        "training.save_steps=1", "training.eval_strategy=steps", "training.eval_steps=1", "task.limit_dev=2",
        "training.max_steps=20", "training.learning_rate=3.0", "training.metric_for_best_model=eval_loss",
        "training.greater_is_better=false", "training.load_best_model_at_end=true", "early_stopping_patience=4",
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
    assert same(adapter(tmp_path / "cut"), adapter(tmp_path / "whole"))


@pytest.mark.slow
def test_kill_minus_nine_at_twenty_random_moments_changes_nothing(tmp_path):
    """The same command again and again, killed while a checkpoint is written or soon after; everything is learned."""
    write_world(
        tmp_path,
        training={"max_steps": 40, "save_steps": 1, "per_device_train_batch_size": 2, "learning_rate": 1e-2,
                  "gradient_accumulation_steps": 1},
        lora={"r": 2, "lora_dropout": 0.2},
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
    losses = [[entry["alignment_loss"] for entry in log if "alignment_loss" in entry] for log in logs]
    assert losses[0] == losses[1]
    assert len(set(losses[0])) > 10


def newest(checkpoints):
    return max((int(p.name.rpartition("-")[2]) for p in checkpoints.glob("checkpoint-*")), default=0)
