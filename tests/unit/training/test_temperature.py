"""The learned temperature: within its bounds, stepped by Adam, exact under resume, equal in one process and in two."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError

from midalign.errors import RecipeError
from midalign.recipe.alignment import AlignmentConfig
from midalign.training.objective import AlignmentObjective
from midalign.training.pair_batches import PairCollator, PairDataset
from midalign.training.temperature import LearnedTemperature
from tests.conftest import build_tokenizer
from tests.unit.training.test_objective import PAIRS, lora_model
from tests.unit.training.test_trainer import adapter_of, trainer

BOUNDS = {"temperature": 0.1, "learn_temperature": (0.05, 0.4)}
STEP = (SimpleNamespace(device="cpu"), None, None)


def step(learned, rate=0.1):
    learned.on_pre_optimizer_step(*STEP, optimizer=SimpleNamespace(param_groups=[{"lr": rate}]))


@pytest.mark.parametrize("sign", [1, -1])
def test_it_starts_where_it_is_told_and_stays_between_its_bounds_whatever_the_gradient(sign):
    learned = LearnedTemperature(0.1, 0.05, 0.4)
    assert learned().item() == pytest.approx(0.1)
    for _ in range(300):
        (sign * 100 * learned()).backward()
        step(learned)
        assert 0.05 <= learned().item() <= 0.4
    assert learned().item() == pytest.approx(0.05 if sign > 0 else 0.4, rel=0.05)
    for _ in range(300):  # and comes back
        (-sign * 100 * learned()).backward()
        step(learned)
    assert learned().item() == pytest.approx(0.4 if sign > 0 else 0.05, rel=0.05)


def test_an_update_of_the_task_leaves_it_alone():
    learned = LearnedTemperature(0.1, 0.05, 0.4)
    (learned() * 2).backward()
    step(learned)
    after = learned.moments
    step(learned)
    assert learned.moments == after
    assert learned.raw.grad is None


def test_its_state_goes_through_json_to_the_bit():
    first = LearnedTemperature(0.1, 0.05, 0.4)
    for number in range(5):
        (first() ** 2 * (number + 1)).backward()
        step(first, 0.03)
    state = json.loads(json.dumps(first.state()))
    second = LearnedTemperature.from_state(state)
    for learned in (first, second):
        (learned() * 3).backward()
        step(learned, 0.02)
    assert first.moments == second.moments
    assert first().item() == second().item() != 0.1


@pytest.mark.parametrize("mini_batch_size", [1, 3, 8])
def test_cached_gradient_of_the_temperature_is_the_plain_one(mini_batch_size):
    data = PairDataset(PAIRS, build_tokenizer())
    batch = PairCollator(0)([data[i] for i in range(len(PAIRS))])
    model, found = lora_model(), []
    for size in (None, mini_batch_size):
        learned = LearnedTemperature(0.1, 0.05, 0.4)
        config = AlignmentConfig(batch_size=8, mini_batch_size=size, **BOUNDS)
        objective = AlignmentObjective.for_depth(config, 4, learned)
        if size is None:
            (objective.loss(model, batch) * 0.25).backward()
        else:
            objective.cached_backward(model, batch, torch.Tensor.backward, scale=0.25)
        found.append(learned.raw.grad.item())
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    assert found[0] != 0


@pytest.mark.parametrize("restore", [False, True])
@pytest.mark.parametrize("mini_batch_size", [None, 2])
def test_a_resumed_run_has_the_same_adapter_and_the_same_temperatures_to_the_bit(tmp_path, restore, mini_batch_size):
    def made(out):
        return trainer(
            out, save_strategy="steps", save_steps=3, restore_callback_states_from_checkpoint=restore,
            gradient_accumulation_steps=2, alignment={**BOUNDS, "mini_batch_size": mini_batch_size},
        )  # fmt: skip

    whole = made(tmp_path / "whole")
    whole.train()
    expected = adapter_of(whole, tmp_path / "a")
    temperatures = [entry["temperature"] for entry in whole.state.log_history if "temperature" in entry]
    assert len(temperatures) == 8
    assert len(set(temperatures)) == 5, "the start, and one after each alignment update"
    assert "raw" not in "".join(expected)
    assert not any("temperature" in path.name for path in (tmp_path / "a").iterdir())
    shutil.copytree(tmp_path / "whole" / "checkpoint-3", tmp_path / "cut" / "checkpoint-3")
    resumed = made(tmp_path / "cut")
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-3"))
    got = adapter_of(resumed, tmp_path / "b")
    assert [e["temperature"] for e in resumed.state.log_history if "temperature" in e] == temperatures
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    assert resumed.temperature().item() == whole.temperature().item()


def test_half_precision_with_scaled_updates_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="bf16"):
        trainer(tmp_path, alignment=BOUNDS, fp16=True)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (0.2, 1.0), (0.01, 0.1), (0.4, 0.05), (0.01, float("inf"))])
def test_bounds_that_do_not_hold_the_temperature_are_refused(bounds):
    with pytest.raises(ValidationError, match=r"between the bounds|finite number"):
        AlignmentConfig(temperature=0.1, learn_temperature=bounds)


AVERAGE = """
import json, os, sys, torch, torch.distributed as dist
from types import SimpleNamespace
from midalign.training.temperature import LearnedTemperature
world = int(os.environ.get("WORLD_SIZE", "1"))
if world > 1:
    dist.init_process_group("gloo")
learned = LearnedTemperature(0.1, 0.05, 0.4)
for number in range(3):
    for part in ([int(os.environ["RANK"])] if world > 1 else (0, 1)):
        ((number + 1) * (3 * part - 1) * learned() / (1 if world > 1 else 2)).backward()
    learned.on_pre_optimizer_step(
        SimpleNamespace(device="cpu"), None, None, optimizer=SimpleNamespace(param_groups=[{"lr": 0.1}])
    )
with open(f"{sys.argv[1]}.{os.environ.get('RANK', '0')}", "w") as file:
    json.dump(learned.moments, file)
if world > 1:
    dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_average_the_gradient_and_stay_equal(tmp_path):
    (tmp_path / "script.py").write_text(AVERAGE)
    for name, launcher in (("one", []), ("two", ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"])):
        command = [sys.executable, *launcher, str(tmp_path / "script.py"), str(tmp_path / name)]
        done = subprocess.run(
            command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
    one, first, second = (json.loads((tmp_path / name).read_text()) for name in ("one.0", "two.0", "two.1"))
    assert first == second
    assert first == pytest.approx(one, rel=1e-6)
