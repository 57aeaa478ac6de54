"""Every option of every verb, changed alone, is another run; nothing that a verb is given can be forgotten."""

import inspect
import json

import pytest
import typer
from typer.testing import CliRunner

from midalign.cli import comet, evaluate, generate, merge, probe, train, validate
from midalign.cli.main import app
from tests.tiny_world import recipe_content, write_lines, write_slots

RUNNER = CliRunner()


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A folder with two recipes, two of every kind of file, and the jobs that are started instead of being run."""
    monkeypatch.chdir(tmp_path)
    write_slots(tmp_path / "slots")
    write_lines(tmp_path / "lines")
    write_lines(tmp_path / "probe", "again")
    for name, seed in (("a.yaml", 0), ("b.yaml", 1)):
        (tmp_path / name).write_text(json.dumps(recipe_content(tmp_path) | {"seed": seed}))
    for name in ("a.jsonl", "b.jsonl", "c.jsonl"):
        (tmp_path / name).write_text(json.dumps({"id": name, "prediction": "None"}) + "\n")
    started = []
    for module in (comet, evaluate, generate, merge, probe, train, validate):
        monkeypatch.setattr(module, "do", lambda job, out: started.append(job.start(out)))
    monkeypatch.setattr("midalign.experiment.named.model_folder", lambda name: name)
    return started


SCORED = ["--data", "lines", "--predictions", "a.jsonl"]
CALLS = {
    "probe": (
        ["--model", "m", "--data", "lines"],
        {
            "model": "n", "data": "probe", "languages": "eng,deu", "format": "tsv", "split": "dev", "adapter": "a",
            "columns": "eng=0,deu=1", "on_empty": "skip",
            "gguf_file": "g.gguf", "revision": "r", "pooling": "last", "margin": "cosine", "k": "3",
            "candidates": "nearest", "limit": "5", "dtype": "float32", "compare": "p.json", "transfer": "s.json",
            "cache": "c", "trust_remote_code": None,
        },
    ),
    "train": (["a.yaml"], {"recipe": "b.yaml", "overrides": "seed=7", "objective": "task"}),
    "merge": (
        ["--base", "m", "--adapter", "task=a", "--adapter", "alignment=b", "--method", "svd",
         "--weights", "task=1.0,alignment=0.5"],
        {
            "base": "n", "adapter": "third=c", "weights": "task=1.0,alignment=0.4", "tune": "a.yaml",
            "method": "ties", "rank": "2", "gguf_file": "g.gguf", "revision": "r", "dtype": "float32",
            "export": "base", "trust_remote_code": None,
        },
    ),
    "generate": (
        ["--model", "m", "--data", "lines"],
        {
            "model": "n", "data": "probe", "task": "extraction", "adapter": "a", "gguf_file": "g.gguf",
            "revision": "r", "languages": "eng", "format": "bio", "split": "dev", "limit": "3",
            "columns": "word=1,tag=2", "labels": "PER", "directions": "both",
            "max_new_tokens": "5", "batch_tokens": "9", "types": "DRUG=drugs",
            "system": "", "completion_style": "intent_slots",
            "constrained": "slots", "backend": "vllm", "dtype": "float32", "trust_remote_code": None,
            "chat_template_kwargs": '{"enable_thinking": false}',
        },
    ),
    "evaluate": (
        SCORED,
        {
            "data": "probe", "predictions": "b.jsonl", "task": "extraction", "languages": "eng", "format": "bio",
            "split": "dev", "limit": "3", "columns": "word=1,tag=2", "labels": "PER",
            "directions": "both", "baseline": "b.jsonl",
            "comet": "c.jsonl", "baseline_comet": None,
            "completion_style": "intent_slots", "metric": "accuracy", "resamples": "100", "seed": "4",
        },
    ),
    "comet score": (
        SCORED,
        {
            "data": "probe", "predictions": "b.jsonl", "model": "n", "env": "e", "languages": "eng", "format": "tsv",
            "split": "dev", "columns": "eng=0,deu=1", "directions": "both", "limit": "3", "resamples": "100",
            "seed": "4",
        },
    ),
    "validate": (["a.yaml"], {"recipe": "b.yaml", "overrides": "seed=7"}),
}  # fmt: skip
OF_A_TASK = {("generate", "types"): "extraction", ("evaluate", "metric"): "chat"}
FUNCTIONS = {
    "probe": probe.probe, "train": train.train, "merge": merge.merge, "generate": generate.generate,
    "evaluate": evaluate.evaluate, "comet score": comet.score, "validate": validate.validate,
}  # fmt: skip


def with_option(arguments, verb, name, value):
    """The arguments of a call with one of its options given another value, in the place of the former one."""
    parameter = inspect.signature(FUNCTIONS[verb], eval_str=True).parameters[name]
    if any(isinstance(kind, typer.models.ArgumentInfo) for kind in parameter.annotation.__metadata__):
        return [value, *arguments[1:]] if name == "recipe" else [*arguments, value]
    flag = f"--{name.replace('_', '-')}"
    if value is None:
        return [*arguments, flag]
    if flag in arguments and name != "adapter":
        place = arguments.index(flag)
        return [*arguments[: place + 1], value, *arguments[place + 2 :]]
    if name == "tune":  # in place of the weights
        return [*arguments[: arguments.index("--weights")], flag, value]
    return [*arguments, flag, value]


def fingerprint(started, verb, arguments, out):
    found = RUNNER.invoke(app, [*verb.split(), *arguments, "--out", str(out)])
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return started[-1].manifest["fingerprint"]


@pytest.mark.parametrize("verb", CALLS)
def test_the_table_names_every_option(verb):
    assert set(CALLS[verb][1]) == set(inspect.signature(FUNCTIONS[verb]).parameters) - {"out"}


@pytest.mark.parametrize(("verb", "name"), [(verb, name) for verb, (_, options) in CALLS.items() for name in options])
def test_an_option_changed_alone_is_another_run(world, tmp_path, verb, name):
    arguments, options = CALLS[verb]
    if (verb, name) in OF_A_TASK:
        arguments = [*arguments, "--task", OF_A_TASK[verb, name]]
    if name == "baseline_comet":  # goes with two others
        arguments = [*arguments, "--baseline", "b.jsonl", "--comet", "c.jsonl", "--baseline-comet", "a.jsonl"]
        changed = [*arguments[:-1], "c.jsonl"]
    else:
        changed = with_option(arguments, verb, name, options[name])
    before = fingerprint(world, verb, arguments, tmp_path / "one")
    assert fingerprint(world, verb, arguments, tmp_path / "same") == before
    assert fingerprint(world, verb, changed, tmp_path / "other") != before


@pytest.mark.parametrize("verb", ["generate", "evaluate", "comet score"])
def test_another_text_in_a_file_of_a_moses_prefix_is_another_run(world, tmp_path, verb):
    for code in ("en", "de"):
        (tmp_path / f"moses.{code}").write_text("hello\n")
    arguments = with_option(CALLS[verb][0], verb, "data", "moses")
    before = fingerprint(world, verb, arguments, tmp_path / "one")
    (tmp_path / "moses.de").write_text("hallo\n")
    assert fingerprint(world, verb, arguments, tmp_path / "other") != before
