"""The benchmarks of training run on a tiny model, and their figures hang together."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--checkpointing"]])
def test_the_training_benchmark_runs_tiny(tmp_path, options):
    command = [sys.executable, str(BENCHMARKS / "gpu_train.py"), "--tiny", "--peak-tflops", "0.1", *options]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "found.json")],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert [found[name]["updates"] for name in ("sft", "task", "align")] == [3, 3, 3]
    for name in ("sft", "task", "align"):
        assert found[name]["utilisation"] == pytest.approx(found[name]["tflop_per_second"] / 0.1)
        assert 0 < found[name]["seconds"] < 10
    # 16 rows of 90 to 171 tokens; 16 pairs of 12 tokens a side in the mean
    tokens = {name: found[name]["tokens_per_second"] * found[name]["seconds"] for name in ("sft", "align")}
    assert 16 * 90 < tokens["sft"] < 16 * 171
    assert 32 * 8 < tokens["align"] < 32 * 18
    total = found["task"]["seconds"] + found["align"]["seconds"]
    assert found["overhead"] == pytest.approx(total / found["sft"]["seconds"])
    assert "joint against SFT alone" in done.stdout


def test_flop_of_a_small_model_is_what_torch_counts(monkeypatch):
    """Task update without attention's share: torch counts every matrix product of forward and backward."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import torch
    from alignment_cost import flop
    from gpu_probe import random_model
    from peft import LoraConfig, get_peft_model
    from torch.utils.flop_counter import FlopCounterMode

    lora = LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(random_model("tiny", torch.device("cpu")), lora)
    ids = torch.randint(0, 300, (2, 16))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    assert flop(model, 4, 32, 2 * 16**2, scored=32) == pytest.approx(counter.get_total_flops(), rel=0.1)


@pytest.mark.slow
def test_the_benchmark_of_alignment_runs_and_ends_in_a_line_for_scripts():
    command = [sys.executable, str(BENCHMARKS / "alignment_cost.py"), "--shape", "tiny", "--quick"]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    last = done.stdout.strip().splitlines()[-1]
    assert re.fullmatch(r"joint/sft \d+\.\d+ memory \d+\.\d+ padded/ours \d+\.\d+", last), last
