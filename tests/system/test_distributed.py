"""Two processes (gloo) equal one process with accumulation 2, for DDP and FSDP2, and with gathered negatives."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("distributed_script.py")
RESULT = {"ddp": "adapter/adapter_model.safetensors", "fsdp2": "gradients.safetensors"}


def result(processes, mode, out, *options):
    launcher = [] if processes == 1 else ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [sys.executable, *launcher, str(SCRIPT), mode, str(out), *options]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(out / RESULT[mode])


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("checkpointing",), ("gather",), ("cached", "gather"), ("asked",)])
@pytest.mark.parametrize("mode", ["ddp", "fsdp2"])
def test_two_processes_equal_one(tmp_path, mode, options):
    one = result(1, mode, tmp_path / "one", *options)
    two = result(2, mode, tmp_path / "two", *options)
    assert one.keys() == two.keys()
    assert one
    assert any(tensor.abs().max() > 0 for tensor in one.values())
    for name in one:
        assert torch.allclose(one[name], two[name], atol=2e-5), name
