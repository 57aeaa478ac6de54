"""One process of a training on two is killed: the other ends with a clear message, and the training can go on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny_world import write_world

# Two processes as a launcher starts them, but without one, which would end the other process itself. Both are forked
# from one that has imported everything already.
TWO_PROCESSES = """
import faulthandler, os, signal, sys, time
from pathlib import Path
import midalign.experiment.experiment
from midalign.cli.main import main

def start(out, port):
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            faulthandler.dump_traceback_later(400, exit=True)
            log = os.open(f"{out}.{rank}.log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(log, 1), os.dup2(log, 2)
            os.environ |= {
                "WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            }
            sys.argv = ["midalign", "train", "recipe.yaml", "--out", out]
            try:
                main()
                code = 0
            except SystemExit as end:
                code = int(end.code or 0)
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
        children.append(child)
    return children

def code_of(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

port = 20000 + os.getpid() % 20000
assert [code_of(child) for child in start("whole", port)] == [0, 0], "whole"
first, second = start("cut", port + 1)
while not Path("cut/checkpoints/checkpoint-3").exists():
    time.sleep(0.01)
os.kill(second, signal.SIGKILL)
assert (code_of(first), code_of(second)) == (2, -signal.SIGKILL), "the other"
os.rename("cut.0.log", "survivor.log")
assert [code_of(child) for child in start("cut", port + 2)] == [0, 0], "resumed"
"""


@pytest.mark.slow
def test_when_one_process_is_killed_the_other_says_so_and_the_same_command_goes_on(tmp_path):
    write_world(
        tmp_path,
        training={"max_steps": 6, "save_steps": 1, "ddp_backend": "gloo"},
        lora={"r": 2, "lora_dropout": 0.2},
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        [sys.executable, "-c", TWO_PROCESSES], cwd=tmp_path, env=environment, timeout=1500, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    logs = {path.name: path.read_text() for path in tmp_path.glob("*.log")}
    assert done.returncode == 0, (done.stderr, logs)
    output = " ".join(logs["survivor.log"].split())
    assert "another process of this training" in output
    assert "the same command continues from there" in output
    assert "Traceback" not in output
    whole, cut = (load_file(tmp_path / out / "adapter" / "adapter_model.safetensors") for out in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
