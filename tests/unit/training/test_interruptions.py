"""What ends a training from outside or by numbers that are not finite: a clear error, and the checkpoint stays good."""

import contextlib
import errno
import multiprocessing
import os
import shutil
import subprocess
import time

import pytest
import torch

from midalign.errors import ModelError, RunError
from midalign.training.train import _save_adapter, train
from midalign.training.trainer import AlignmentTrainer
from tests.interrupted import KilledError, adapter, quiet, same


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


def test_training_that_runs_out_of_memory_says_which_settings_need_less(saving, tmp_path, monkeypatch):
    def short(*_args, **_options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("midalign.training.trainer.AlignmentTrainer.training_step", short)
    with pytest.raises(RunError, match=r"ran out of memory.*Halve training.per_device_train_batch_size"):
        train(saving, tmp_path / "out", progress=quiet)


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
    with pytest.raises(RunError, match=r"is full.*the same command continues from there"):
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

    with pytest.raises(RunError, match=r"a worker that reads its data, has ended .*the same command continues"):
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
