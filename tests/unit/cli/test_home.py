"""``~/`` in the arguments of any verb is the home folder, also where a shell leaves it as it is."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from midalign.cli import main as cli
from midalign.cli.options import in_home


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("~/a", "HOME/a"),
        ("--out=~/a/b", "HOME/a/b"),
        ("task=~/a", "HOME/a"),
        ("--adapter=task=~/a", "HOME/a"),
        ("model.path=~/a", "HOME/a"),
        ("training.eos_token=~", None),  # null, in YAML
        ("~", None),
        ("a/~/b", None),
        ("alignment.layer=3", None),
        ("eng~deu", None),
    ],
)
def test_only_a_path_that_begins_so_is_in_the_home_folder(monkeypatch, tmp_path, word, expected):
    monkeypatch.setenv("HOME", str(tmp_path))
    before = word.rpartition("=")[0] + "=" if "=" in word else ""
    assert in_home(word) == (word if expected is None else before + expected.replace("HOME", str(tmp_path)))


def test_every_path_of_a_verb_may_begin_so(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "en.bio").write_text("Oslo\tB-LOC\n")
    (tmp_path / "p.jsonl").write_text('{"id": "en:0", "prediction": "LOC: Oslo"}\n')
    words = ["--data", "~/en.bio", "--predictions=~/p.jsonl", "--baseline", "~/p.jsonl", "--out=~/scores"]
    result = CliRunner().invoke(cli.app, ["evaluate", *words, "--format", "bio", "--resamples", "20"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "scores" / "scores.json").is_file()
    assert not Path("~").exists()
