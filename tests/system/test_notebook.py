"""The notebook of the examples, its cells run in order: every cell works, and it shows what it promises."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

NOTEBOOK = ROOT / "examples" / "probe_and_train.ipynb"


def cells():
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == "code"]


def test_it_is_kept_without_outputs():
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells())
    assert NOTEBOOK.stat().st_size < 20_000


@pytest.mark.slow
def test_it_probes_trains_and_shows_the_answers_that_changed(tmp_path):
    """A line that begins with `!` is the shell's, as in Jupyter."""
    pytest.importorskip("home_assistant_intents")
    lines = [line for cell in cells() for line in [*"".join(cell["source"]).splitlines(), ""]]
    script = [re.sub(r"^!(.*)$", r"import subprocess; subprocess.run(r'\1', shell=True, check=True)", x) for x in lines]
    (tmp_path / "cells.py").write_text("\n".join(script), encoding="utf-8")
    paths = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "cells.py"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"MPLBACKEND": "Agg", "PATH": paths, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"best layer: \d+", done.stdout)
    assert re.search(r"layer \d+: [+-]\d+\.\d points \[", done.stdout)
    assert re.search(r"spa_Latn slot_f1: ", done.stdout)
    assert int(re.search(r"(\d+) of 120 answers changed", done.stdout)[1]) > 0
    assert "with alignment  " in done.stdout
