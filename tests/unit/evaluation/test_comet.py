"""COMET through its environment: a stub stands in for its Python; the worker is run beside a made-up ``comet``."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from midalign.errors import DataError, MissingFileError, ModelError, RunError
from midalign.evaluation import comet
from midalign.metrics.translation import SegmentScores
from midalign.records import Prediction, Span, TaskExample

# What an environment's packages look like to the worker: the score of a segment is its number of equal words.
FAKE_COMET = """
import types
def download_model(name):
    if name != "Hub/known":
        raise KeyError(f"Model '{name}' not supported by COMET.")
    return "/cache/" + name
def load_from_checkpoint(path):
    class Model:
        def predict(self, data, batch_size, gpus, progress_bar):
            assert (batch_size, gpus, progress_bar) == (16, 0, False)
            scores = [len(set(d["mt"].split()) & set(d["ref"].split())) / len(d["ref"].split()) for d in data]
            return types.SimpleNamespace(scores=scores)
    return Model()
"""
FAKE_TORCH = "class cuda:\n    is_available = staticmethod(lambda: False)\n"


def environment(folder, packages):
    """An environment whose Python is ours, with other packages before everything else."""
    site = folder / "site"
    for name, text in packages.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    python = comet.interpreter(folder)
    python.parent.mkdir(parents=True)
    python.write_text(
        f"#!{sys.executable} -I\n"
        "import runpy, sys\n"
        "arguments = sys.argv[1:]\n"
        "assert arguments[0] == '-I'\n"
        f"sys.path.insert(0, {str(site)!r})\n"
        "sys.argv = arguments[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return folder


@pytest.fixture
def env(tmp_path):
    return environment(
        tmp_path / "env",
        {
            "comet.py": FAKE_COMET,
            "torch.py": FAKE_TORCH,
            "unbabel_comet-2.2.7.dist-info/METADATA": "Name: unbabel-comet\nVersion: 2.2.7\n",
        },
    )


EXAMPLES = [
    TaskExample(
        f"{code}:{i}", "translation", "eng_Latn", f"day {i}", reference=f"w{i} x y z", target_language=f"{code}_Latn"
    )
    for code in ("deu", "fra")
    for i in range(12)
]
OUTPUTS = [Prediction(e.id, "", "", "\n".join(e.reference.split()[: 1 + i % 4])) for i, e in enumerate(EXAMPLES)]
EXPECTED = {e.id: (1 + i % 4) / 4 for i, e in enumerate(EXAMPLES)}


def test_scores_are_the_means_of_what_the_environment_says_of_each_segment(env):
    scores, segments = comet.score_comet(
        EXAMPLES, OUTPUTS[::-1], model="Hub/known", env=env, groups={"supervised": ["deu_Latn"]}, resamples=200, seed=0
    )
    assert segments.scores == EXPECTED
    found = {(s.language, s.group): s for s in scores}
    assert set(found) == {("deu_Latn", None), ("fra_Latn", None), (None, "all"), (None, "supervised")}
    german = [value for name, value in EXPECTED.items() if name.startswith("deu")]
    assert found["deu_Latn", None].value == pytest.approx(np.mean(german))
    drawn = np.random.default_rng(0).choice(german, (200, 12)).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert (found["deu_Latn", None].low, found["deu_Latn", None].high) == pytest.approx((low, high))
    assert found[None, "all"].value == pytest.approx(np.mean(list(EXPECTED.values())))
    assert found[None, "all"].n == 24
    assert {s.metric for s in scores} == {"comet"}
    assert "comet|model:Hub/known|torch:" in found["deu_Latn", None].signature
    assert "|unbabel-comet:2.2.7|" in found["deu_Latn", None].signature


def test_a_model_is_a_file_a_folder_or_a_name(env, tmp_path):
    (tmp_path / "model" / "checkpoints").mkdir(parents=True)
    file = tmp_path / "model" / "checkpoints" / "model.ckpt"
    file.write_bytes(b"")
    for model in (file, tmp_path / "model"):
        assert comet.score_comet(EXAMPLES, OUTPUTS, model=str(model), env=env, resamples=100)[1].scores == EXPECTED


@pytest.mark.parametrize("model", ["Hub/unknown", "empty"])
def test_a_model_that_cannot_be_had_is_said_with_the_reason(env, tmp_path, model):
    (tmp_path / "empty").mkdir()
    name = str(tmp_path / "empty") if model == "empty" else model
    with pytest.raises(ModelError, match=r"cannot be loaded:\n.*(not supported|holds no \.ckpt)[\s\S]*Give --model"):
        comet.score_comet(EXAMPLES, OUTPUTS, model=name, env=env)


def test_without_an_environment_the_message_says_how_to_make_one(tmp_path):
    with pytest.raises(MissingFileError, match="midalign comet setup --env"):
        comet.score_comet(EXAMPLES, OUTPUTS, model="m", env=tmp_path / "none")


@pytest.mark.parametrize("fault", ["raise MemoryError('out of memory')", "return types.SimpleNamespace(scores=[])"])
def test_a_failure_inside_is_shown_and_nothing_is_made_up(tmp_path, fault):
    broken = FAKE_COMET.replace("assert (batch_size", f"{fault}\n            assert (batch_size")
    packages = {
        "comet.py": broken,
        "torch.py": FAKE_TORCH,
        "unbabel_comet-2.2.7.dist-info/METADATA": "Name: unbabel-comet\nVersion: 2.2.7\n",
    }
    with pytest.raises(RunError, match=r"COMET failed \(exit code 1\):[\s\S]*(out of memory|zip\(\))"):
        comet.score_comet(EXAMPLES, OUTPUTS, model="Hub/known", env=environment(tmp_path / "env", packages))


def test_only_translations_are_scored(env):
    slots = TaskExample("a:0", "slots", "eng_Latn", "a b", ("a", "b"), (Span("x", 0, 1),))
    with pytest.raises(DataError, match="task 'slots', but COMET scores translations"):
        comet.score_comet([slots], {"a:0": "x"}, env=env)


def test_setup_makes_an_environment_and_installs_the_pinned_release(tmp_path, monkeypatch):
    asked = []

    def run(command, **_):
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, "2.2.7\n", "")

    monkeypatch.setattr(comet.subprocess, "run", run)
    assert comet.set_up(tmp_path / "env") == "2.2.7"
    python = str(comet.interpreter(tmp_path / "env"))
    assert asked[0] == [sys.executable, "-m", "venv", str(tmp_path / "env")]
    assert asked[1] == [python, "-I", "-m", "pip", "install", "--quiet", "unbabel-comet==2.2.7", "setuptools<82"]
    assert asked[2][0] == python


def test_setup_without_a_network_says_so_and_refuses_folders_of_others(tmp_path, monkeypatch):
    monkeypatch.setattr(
        comet.subprocess,
        "run",
        lambda command, **_: subprocess.CompletedProcess(command, int("pip" in command), "", "No route to host"),
    )
    with pytest.raises(RunError, match=r"No route to host\nThis needs the network \(PyPI\)"):
        comet.set_up(tmp_path / "env")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="not a virtual environment"):
        comet.set_up(tmp_path / "mine")


def test_setup_whose_packages_do_not_work_together_does_not_blame_the_network(tmp_path, monkeypatch):
    def run(command, **_):
        broken = command[2] == "-c"
        return subprocess.CompletedProcess(command, int(broken), "", "No module named 'pkg_resources'" * broken)

    monkeypatch.setattr(comet.subprocess, "run", run)
    with pytest.raises(
        RunError, match=r"could not import comet[\s\S]*pkg_resources'\nWhat was installed does not work"
    ):
        comet.set_up(tmp_path / "env")


def test_the_first_cause_is_shown_of_a_model_that_cannot_be_downloaded(tmp_path):
    """COMET turns whatever the hub raised into "not supported"."""
    hidden = FAKE_COMET.replace(
        "    if name",
        "    try:\n        open('/no/hub')\n    except OSError:\n        raise KeyError('not supported')\n    if name",
    )
    env = environment(tmp_path / "env", {"comet.py": hidden, "torch.py": FAKE_TORCH})
    with pytest.raises(
        ModelError, match=r"cannot be loaded:\nFileNotFoundError: .*/no/hub'\nKeyError: 'not supported'"
    ):
        comet.score_comet(EXAMPLES, OUTPUTS, model="Hub/known", env=env)


def test_the_worker_imports_nothing_of_midalign():
    from midalign.evaluation import comet_worker

    assert "midalign" not in Path(comet_worker.__file__).read_text(encoding="utf-8")


def test_the_command_scores_and_a_missing_model_exits_with_2(env, tmp_path):
    (tmp_path / "data" / "test").mkdir(parents=True)
    for code, texts in {"eng_Latn": ["a b", "c d", "e f"], "deu_Latn": ["u v", "w x", "y z"]}.items():
        (tmp_path / "data" / "test" / f"{code}.txt").write_text("\n".join(texts) + "\n")
    from midalign.data.examples import read_examples

    examples = read_examples("translation", str(tmp_path / "data"))
    lines = [json.dumps({"id": e.id, "prediction": e.reference}) for e in examples]
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    command = [
        sys.executable, "-m", "midalign", "comet", "score", "--data", str(tmp_path / "data"), "--env", str(env),
        "--predictions", str(tmp_path / "p.jsonl"), "--resamples", "100",
    ]  # fmt: skip
    quiet = os.environ | {"COLUMNS": "200"}
    done = subprocess.run([*command, "--model", "Hub/known", "--out", str(tmp_path / "out")], env=quiet, check=False)
    assert done.returncode == 0
    (first, *_) = json.loads((tmp_path / "out" / "scores.json").read_text())["scores"]
    assert (first["metric"], first["value"], first["language"], first["n"]) == ("comet", 1.0, "deu_Latn", 3)
    assert len((tmp_path / "out" / "segments.jsonl").read_text().splitlines()) == 3
    done = subprocess.run(
        [*command, "--model", "Hub/x", "--out", str(tmp_path / "no")], env=quiet, check=False, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "cannot be loaded" in done.stderr
    assert not (tmp_path / "no").exists()


def test_segment_scores_are_read_back_and_anybodys_need_only_id_and_score(tmp_path):
    segments = SegmentScores("comet", EXPECTED, "comet|model:m")
    comet.write_segments(segments, OUTPUTS, tmp_path / "s.jsonl")
    assert comet.read_segments(tmp_path / "s.jsonl", OUTPUTS) == segments
    lines = [json.dumps({"id": p.id, "score": 1}) for p in OUTPUTS]
    (tmp_path / "theirs.jsonl").write_text("\n".join(lines))
    theirs = comet.read_segments(tmp_path / "theirs.jsonl", OUTPUTS)
    assert set(theirs.scores.values()) == {1.0}
    assert theirs.signature == "comet|segments:of another program"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{\n", r"s\.jsonl:25: not JSON .*\"score\": 0\.85"),
        ('{"id": "deu:0"}\n', r"s\.jsonl:25: not a segment score: 'id' must be a string and 'score' a number"),
        ('{"id": ["deu:0"], "score": 1}\n', "'id' must be a string"),
        ('{"id": {}, "score": 1}\n', "'id' must be a string"),
        ('{"id": "deu:0", "score": true}\n', "'score' a number"),
        ('{"id": "deu:0", "score": [1]}\n', "'score' a number"),
        ('{"id": "deu:0", "score": NaN}\n', "is not a finite number"),
        ('{"id": "deu:0", "score": 1' + "0" * 400 + "}\n", "is not a finite number"),
        ('{"id": "deu:0", "score": ' + "[" * 100_000 + "\n", "nested too deeply"),
        ('{"id": "deu:0", "score": 1}\n', "'deu:0' comes twice"),
        ('{"id": "xxx:0", "score": 1}\n', "'xxx:0' is of no prediction"),
    ],
)
def test_a_line_that_is_no_segment_score_is_named(tmp_path, change, message):
    comet.write_segments(SegmentScores("comet", EXPECTED, "s"), OUTPUTS, tmp_path / "s.jsonl")
    with (tmp_path / "s.jsonl").open("a") as file:
        file.write(change)
    with pytest.raises(DataError, match=message):
        comet.read_segments(tmp_path / "s.jsonl", OUTPUTS)


def test_segment_scores_of_other_translations_too_few_or_not_finite_are_refused(tmp_path):
    comet.write_segments(SegmentScores("comet", EXPECTED, "s"), OUTPUTS, tmp_path / "s.jsonl")
    changed = [*OUTPUTS[:-1], Prediction(OUTPUTS[-1].id, "", "", "other words")]
    with pytest.raises(DataError, match=r"s\.jsonl:24: .*is of another translation"):
        comet.read_segments(tmp_path / "s.jsonl", changed)
    with pytest.raises(DataError, match="1 predictions have no score, such as 'new:0'"):
        comet.read_segments(tmp_path / "s.jsonl", [*OUTPUTS, Prediction("new:0", "", "", "a")])
    (tmp_path / "nan.jsonl").write_text('{"id": "deu:0", "score": NaN}\n')
    with pytest.raises(DataError, match="is not a finite number"):
        comet.read_segments(tmp_path / "nan.jsonl", OUTPUTS)
    lines = [json.dumps({"id": p.id, "score": 1, "signature": p.id[:3]}) for p in OUTPUTS]
    (tmp_path / "mixed.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match="different models cannot be averaged: deu, fra"):
        comet.read_segments(tmp_path / "mixed.jsonl", OUTPUTS)
    with pytest.raises(MissingFileError, match="comet score"):
        comet.read_segments(tmp_path / "none.jsonl", OUTPUTS)
