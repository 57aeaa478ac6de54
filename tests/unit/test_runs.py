"""Run folders: files that are whole or absent, manifests that recognise their inputs."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from midalign.errors import RunError
from midalign.files import disk_is_full, hash_paths, read_json, write_atomically, write_json
from midalign.runs import MANIFEST, Run, fingerprint, git_commit, versions


def test_what_is_written_is_read_back_and_folders_are_made(tmp_path):
    content = {"b": [1, 2.5, None], "a": "grün 你好", "path": tmp_path}
    write_json(tmp_path / "x" / "y" / "f.json", content)
    assert read_json(tmp_path / "x" / "y" / "f.json") == content | {"path": str(tmp_path)}
    assert "grün 你好" in (tmp_path / "x" / "y" / "f.json").read_text(encoding="utf-8")


def test_bytes_are_written_as_they_are_and_line_ends_stay(tmp_path):
    write_atomically(tmp_path / "f", b"\xff\r\n")
    assert (tmp_path / "f").read_bytes() == b"\xff\r\n"
    write_atomically(tmp_path / "f", "a\nb\n")
    assert (tmp_path / "f").read_bytes() == b"a\nb\n"


@pytest.mark.parametrize("where", ["write", "flush", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, where):
    target = tmp_path / "f.json"
    write_atomically(target, "old")

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if where in ("write", "flush"):
        real = os.fdopen

        def fdopen(descriptor, mode):
            file = real(descriptor, mode)

            class Full:
                def __enter__(self):
                    return self

                def __exit__(self, *_):
                    file.close()

                def write(self, data):
                    if where == "write":
                        full()
                    return file.write(data)

                flush = full if where == "flush" else file.flush
                fileno = file.fileno

            return Full()

        monkeypatch.setattr(os, "fdopen", fdopen)
    else:
        monkeypatch.setattr(os, where, full)
    with pytest.raises(RunError, match=r"cannot write .*f\.json.*No space left"):
        write_atomically(target, "new" * 10000)
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f.json"]


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="cannot write"):
        write_atomically(tmp_path / "file" / "f.json", "x")


def test_a_killed_writer_leaves_the_old_or_the_new_file(tmp_path):
    """Kill a process that rewrites one file again and again; at no moment is it anything but whole."""
    target = tmp_path / "f.json"
    code = (
        "import sys; from pathlib import Path; from midalign.runs import write_json\n"
        "n = 0\n"
        "while True:\n    write_json(Path(sys.argv[1]), {'n': n, 'filler': 'x' * 300000, 'end': n}); n += 1\n"
    )
    for wait in (0.0, 0.013, 0.031):
        with subprocess.Popen([sys.executable, "-c", code, str(target)]) as writer:
            deadline = time.monotonic() + 30
            first = target.stat().st_mtime_ns if target.exists() else None
            while not target.exists() or target.stat().st_mtime_ns == first:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            time.sleep(wait)
            writer.send_signal(signal.SIGKILL)
        content = read_json(target)
        assert content["n"] == content["end"]


@pytest.mark.parametrize(("text", "says"), [(None, "does not exist"), ("{", "not valid JSON"), ("\udcff", "not valid")])
def test_a_missing_or_damaged_json_file_is_named(tmp_path, text, says):
    if text is not None:
        (tmp_path / "f.json").write_text(text, errors="surrogateescape")
    with pytest.raises(RunError, match=says) as caught:
        read_json(tmp_path / "f.json")
    assert "f.json" in str(caught.value)


def test_hashes_change_with_content_and_with_names_but_not_with_the_order_of_writing(tmp_path):
    for name, order in (("a", "xy"), ("b", "yx")):
        (tmp_path / name).mkdir()
        for file in order:
            (tmp_path / name / file).write_text(file)
    first, second = hash_paths([tmp_path / "a", tmp_path / "b"]).values()
    assert first == second
    (tmp_path / "b" / "x").write_text("changed")
    assert hash_paths([tmp_path / "b"]) != {str(tmp_path / "b"): first}
    (tmp_path / "b" / "x").write_text("x")
    (tmp_path / "b" / "x").rename(tmp_path / "b" / "z")
    assert hash_paths([tmp_path / "b"]) != {str(tmp_path / "b"): first}
    assert hash_paths(["owner/dataset"]) == {}
    assert list(hash_paths([tmp_path / "a" / "x"])) == [str(tmp_path / "a" / "x")]


def test_a_fingerprint_ignores_the_order_of_keys_and_nothing_else():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 1.5})
    assert fingerprint([1, 2]) != fingerprint([2, 1])


def test_a_run_goes_on_with_the_same_inputs_and_refuses_others(tmp_path):
    data = tmp_path / "data.txt"
    data.write_text("one")
    out = tmp_path / "out"
    run = Run(out, "probe", {"k": 4}, [data])
    assert not out.exists(), "nothing is written before the work begins"
    run.begin()
    assert not read_json(out / MANIFEST)["done"]
    again = Run(out, "probe", {"k": 4}, [data])
    assert not again.was_done
    again.finish(seeds=[0])
    assert Run(out, "probe", {"k": 4}, [data]).was_done
    for command, inputs in (("probe", {"k": 5}), ("train", {"k": 4})):
        with pytest.raises(RunError, match=r"holds a run of 'probe' with other inputs.*would be overwritten"):
            Run(out, command, inputs, [data])
    data.write_text("two")
    with pytest.raises(RunError, match="other inputs"):
        Run(out, "probe", {"k": 4}, [data])


def test_a_manifest_holds_what_is_needed_to_do_it_again(tmp_path):
    (tmp_path / "d").write_text("x")
    run = Run(tmp_path / "out", "train", {"recipe": {"seed": 3}, "path": Path("a")}, [tmp_path / "d"])
    run.begin()
    with run.timed("work"):
        time.sleep(0.01)
    run.finish(seeds=[3])
    manifest = read_json(tmp_path / "out" / MANIFEST)
    assert manifest["command"] == "train"
    assert manifest["inputs"] == {"recipe": {"seed": 3}, "path": "a"}
    assert manifest["data"] == hash_paths([tmp_path / "d"])
    assert manifest["seeds"] == [3]
    assert manifest["done"] is True
    assert manifest["timings"]["work"] == manifest["timings"]["total"] >= 0.01
    assert {"midalign", "python", "torch", "transformers", "peft", "trl"} <= set(manifest["versions"])
    assert manifest["versions"] == versions()
    assert manifest["git_commit"] == git_commit()
    assert manifest["started"].endswith("+00:00")


def test_timings_of_an_interrupted_run_are_kept_and_add_up(tmp_path):
    first = Run(tmp_path, "run", {})
    first.begin()
    with first.timed("a"):
        time.sleep(0.01)
    second = Run(tmp_path, "run", {})  # the first was killed here
    second.begin()
    with second.timed("b"):
        time.sleep(0.01)
    second.finish()
    timings = read_json(tmp_path / MANIFEST)["timings"]
    assert set(timings) == {"a", "b", "total"}
    assert timings["total"] == pytest.approx(timings["a"] + timings["b"], abs=2e-3)
    before = (tmp_path / MANIFEST).read_bytes()
    third = Run(tmp_path, "run", {})
    third.begin()
    third.finish()
    assert (tmp_path / MANIFEST).read_bytes() == before, "a call that does nothing changes nothing"


def test_a_stage_that_fails_is_not_timed_and_nothing_is_written_before_begin(tmp_path):
    run = Run(tmp_path / "out", "run", {})
    with pytest.raises(ValueError, match="x"), run.timed("a"):
        raise ValueError("x")
    with run.timed("b"):
        pass
    assert set(run.manifest["timings"]) == {"b"}
    assert not (tmp_path / "out").exists()


def test_out_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(RunError, match="is a file"):
        Run(tmp_path / "out", "probe", {})


def test_a_manifest_cut_short_is_refused_not_ignored(tmp_path):
    (tmp_path / MANIFEST).write_text(json.dumps({"command": "x"})[:-2])
    with pytest.raises(RunError, match="not valid JSON"):
        Run(tmp_path, "probe", {})


def test_a_full_disk_is_told_from_other_faults_whatever_library_meets_it(tmp_path):
    import torch

    assert disk_is_full(OSError(errno.ENOSPC, "x"))
    assert not disk_is_full(OSError(errno.EACCES, "x"))
    assert not disk_is_full(RuntimeError("shapes do not fit"))
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whichever class torch raises
        torch.save(torch.zeros(10**6), "/dev/full")
    assert disk_is_full(caught.value), repr(caught.value)
    assert disk_is_full(RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"))
