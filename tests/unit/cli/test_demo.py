"""``midalign demo``: runs of one seed and of several do not overwrite each other's report."""

import sys

import pytest

from midalign.cli.main import main


@pytest.mark.parametrize(
    ("there", "seeds", "words"),
    [
        ("manifest.json", "2", "holds a run of one seed, whose report would be overwritten; give another --out"),
        ("seed-0", "1", "holds runs of several seeds, whose report would be overwritten; give another --out, or"),
    ],
)
def test_a_demo_of_another_kind_in_the_same_folder_is_refused(tmp_path, monkeypatch, capsys, there, seeds, words):
    monkeypatch.setattr("midalign.cli.run._run_recipe", lambda *_: pytest.fail("nothing is to be run"))
    out = tmp_path / "out"
    (out / there).mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["midalign", "demo", "--out", str(out), "--seeds", seeds])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in out.iterdir()] == [there]
