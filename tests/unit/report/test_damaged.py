"""Run files that were damaged or edited by hand: an error that names the file, never a traceback."""

import contextlib
import json
import random
import re

import pytest

from midalign.errors import RunError
from midalign.report.page import render_report
from tests.synthetic_run import write_run


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", n=6, depth=3)


@pytest.mark.parametrize(
    ("name", "keys", "value"),
    [
        ("summary.json", ["comparisons", 0, "low"], ...),
        ("summary.json", ["comparisons", 0, "high"], float("nan")),
        ("summary.json", ["comparisons", 0, "language"], ...),
        ("summary.json", ["comparisons"], None),
        ("summary.json", ["training"], [1]),
        ("summary.json", ["training", "sft", "seconds"], "long"),
        ("summary.json", ["merge", "table", 1, "score"], ...),
        ("summary.json", ["merge", "table", 1, "score"], None),
        ("summary.json", ["merge", "table", 1, "weights", "alignment"], "much"),
        ("summary.json", ["merge", "chosen"], [0.5]),
        ("summary.json", ["examples", 0, "text"], ...),
        ("summary.json", ["examples", 0], "text"),
        ("summary.json", ["systems"], [["sft"]]),
        ("summary.json", ["seeds"], 5),
        ("summary.json", ["aligned_layer"], float("inf")),
        ("summary.json", ["timings"], [1.0]),
        ("evaluation/joint/scores.json", ["scores", 3, "low"], None),
        ("evaluation/joint/scores.json", ["scores", 3, "high"], float("nan")),
        ("evaluation/joint/scores.json", ["scores", 3, "n"], None),
        ("manifest.json", ["timings"], [1.0]),
        ("manifest.json", ["timings", "total"], {}),
        ("manifest.json", ["versions"], ["0.1"]),
        ("manifest.json", ["data", "/data/synthetic"], None),
        ("manifest.json", ["inputs", "recipe", "seed"], [1]),
        ("train/sft/training.json", ["log_history", 0], 1),
        ("train/sft/training.json", ["log_history", 0, "task_loss"], "low"),
        ("train/sft/training.json", ["seconds"], [1]),
        ("probe/sft/probe.json", ["projection", "points"], {}),
        ("probe/sft/probe.json", ["projection", "points", "deu_Latn", 0], [1.0]),
        ("probe/sft/probe.json", ["fertility", "xyz_Latn"], {}),
        ("probe/sft/probe.json", ["fertility", "deu_Latn", "tokens_per_word"], {}),
    ],
)
def test_a_damaged_file_is_named(run, name, keys, value):
    content = json.loads((run / name).read_text(encoding="utf-8"))
    place = content
    for key in keys[:-1]:
        place = place[key]
    if value is ...:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    (run / name).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(RunError, match=re.escape(f"{name}' does not have the form that midalign writes")):
        render_report([run])


@pytest.mark.parametrize("name", ["probe/base/probe.json", "probe/joint/probe.json"])
def test_a_correlation_without_its_probe_is_left_out(run, name):
    (run / name).unlink()
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8")) | {"aligned_layer": None}
    (run / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    assert "Where the numbers come from" in render_report([run])


@pytest.mark.parametrize("seed", range(40))
def test_any_value_of_any_file_may_be_another_one(run, seed):
    """A page or an error for the user, whatever one value is replaced by."""
    rng = random.Random(seed)
    path = rng.choice(sorted(run.rglob("*.json")))
    content = place = json.loads(path.read_text(encoding="utf-8"))
    while True:
        key = rng.choice(sorted(place) if isinstance(place, dict) else range(len(place)))
        if not place[key] or not isinstance(place[key], dict | list) or rng.random() < 0.3:
            break
        place = place[key]
    other = rng.choice([None, [], {}, "text", -1, 0.5, True, float("nan"), [None], {"a": None}, ...])
    if other is ...:
        del place[key]
    else:
        place[key] = other
    path.write_text(json.dumps(content), encoding="utf-8")
    with contextlib.suppress(RunError):
        render_report([run, run])
