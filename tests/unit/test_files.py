"""Files: lines and JSON as they stand, results that are whole or absent, hashes."""

import bz2
import errno
import gzip
import io
import json
import lzma
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midalign.data.file_names import data_files
from midalign.errors import DataError, MissingFileError, RunError
from midalign.files import (
    disk_is_full,
    hash_paths,
    is_blank,
    local_path,
    missing_file,
    parse_json,
    read_json,
    read_json_lines,
    read_lines,
    read_parquet,
    whole,
    write_atomically,
    write_json,
)

# Lines


def lines_of(folder, data):
    (folder / "f").write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_lines(folder / "f")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("", []),
        ("\n", [""]),
        ("a\nb", ["a", "b"]),
        ("a\n\nb\n", ["a", "", "b"]),
        ("a\r\nb\r\n", ["a", "b"]),
        ("a\r\r\nb\r\r\n", ["a", "b"]),  # text mode on Windows, twice
        ("a\rb\rc", ["a", "b", "c"]),  # old Macs
        ("a\rb\r\rc\r", ["a", "b", "", "c"]),
        ("a\u2028b\x0cc\x85d\x1ee\r\nf", ["a\u2028b\x0cc\x85d\x1ee", "f"]),
        ("a\rb\nc\n", ["a\rb", "c"]),
        ("\ufeffa\nb", ["a", "b"]),
        ("\ufeff", []),
        ("\ufeffa\n\ufeffb\r\n\ufeff\nc\ufeffd\n", ["a", "b", "", "c\ufeffd"]),  # files put together
    ],
)
def test_a_line_ends_at_a_line_feed_or_at_the_returns_of_an_old_mac(tmp_path, data, expected):
    assert lines_of(tmp_path, data) == expected


@pytest.mark.parametrize("data", ["a\rb\rc\n", "a\rb\nc\rd\n", "a\rb\n"])
def test_line_ends_of_two_kinds_are_refused(tmp_path, data):
    with pytest.raises(DataError, match="some lines end in a carriage return alone"):
        lines_of(tmp_path, data)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_packed_files_are_read_whatever_they_are_called(tmp_path, pack):
    data = b"eins\nzwei\n" * 50
    assert lines_of(tmp_path, pack(data)) == ["eins", "zwei"] * 50
    for broken in (pack(data)[:-6], pack(data)[: len(pack(data)) // 2]):
        with pytest.raises(DataError, match="damaged or cut off"):
            lines_of(tmp_path, broken)
    assert lines_of(tmp_path, "BZh is a name\n") == ["BZh is a name"]
    assert lines_of(tmp_path, gzip.compress(pack(data))) == ["eins", "zwei"] * 50  # by a program that packs each upload


def tar(data):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("f")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("data", "tool"),
    [
        (b"PK\x03\x04\x14\x00", "unzip f"),
        (gzip.compress(b"PK\x03\x04\x14\x00", mtime=0), "unzip f"),
        (tar(b"hello\n"), "tar xf f"),
        (gzip.compress(tar(b"hello\n" * 900), mtime=0), "tar xf f"),
        (b"7z\xbc\xaf\x27\x1c\x00", "7z x f"),
    ],
    ids=["zip", "zip.gz", "tar", "tar.gz", "7z"],
)
def test_an_archive_is_named_as_one(tmp_path, data, tool):
    with pytest.raises(DataError, match=f"Unpack it first: {tool}"):
        lines_of(tmp_path, data)


def test_a_file_that_is_no_text_is_not_called_utf_16(tmp_path):
    with pytest.raises(
        DataError, match=r"f:2: this is not UTF-8 text: it has a zero byte, as .* files that are not text"
    ):
        lines_of(tmp_path, b"PAR1 some bytes\nand\x00more of them\n")


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_is_named_as_such(tmp_path, coding):
    with pytest.raises(DataError, match=r"f:1: this is not UTF-8 text.*iconv -f UTF-16"):
        lines_of(tmp_path, "hello\nyou\n".encode(coding))


def test_a_byte_that_is_not_utf8_is_named_by_line_and_column(tmp_path):
    with pytest.raises(DataError, match=r"f:2: byte 0xfc at column 2 is not UTF-8"):
        lines_of(tmp_path, "eins\nfünf\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"f:1: byte 0xff at column 1 is"):
        lines_of(tmp_path, b"\xff\n")


def test_a_folder_is_no_file_of_lines(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_lines(tmp_path)


@given(st.lists(st.text(st.characters(exclude_characters="\n\r\0\ufeff", exclude_categories=["Cs"])), min_size=2))
def test_what_is_written_is_what_is_read(tmp_path_factory, lines):
    path = tmp_path_factory.getbasetemp() / "lines"
    for end in ("\n", "\r\n", "\r"):
        path.write_bytes("".join(line + end for line in lines).encode())
        assert read_lines(path) == lines


@pytest.mark.parametrize(
    "text", ["", " ", "\t", "\u3000", "\u200b", "\xad\u2060", "\ufeff", "\u3164", "\u2800", "\x07"]
)
def test_text_of_which_nothing_can_be_seen_is_blank(text):
    assert is_blank(text)


@pytest.mark.parametrize("text", ["a", ".", "\u200ba", "\ufffd", "नि", "が", "👍🏽", "\u0301", "\ufffc"])
def test_text_that_shows_anything_is_not_blank(text):
    assert not is_blank(text)


# Paths


def test_the_name_that_is_nearest_to_the_first_missing_part_is_named(tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experience").write_text("")
    (tmp_path / "pair").mkdir()
    assert "Did you mean experiments in" in str(missing_file(tmp_path / "experimets" / "no" / "pair"))
    far = missing_file(tmp_path / "nothing" / "like" / "pair")
    assert isinstance(far, FileNotFoundError)
    assert "Did you mean" not in str(far)
    assert f"there is no nothing in {tmp_path}" in str(far)


def test_home_folders_are_meant_by_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert local_path("~/data") == tmp_path / "data"
    assert local_path("~nobody-of-that-name/data") == Path("~nobody-of-that-name/data")
    (tmp_path / "~").mkdir()
    assert local_path("~") == Path("~"), "a folder that really has this name"


def test_what_the_system_does_not_let_read_is_the_users_mistake(tmp_path, monkeypatch):
    for read in (read_lines, local_path, lambda path: hash_paths([path])):
        with pytest.raises(DataError, match=r"xxx cannot be read: File name too long\. Give"):
            read(tmp_path / ("x" * 300))

    def refuse(path, *args, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    (tmp_path / "private").mkdir()
    (tmp_path / "notes").write_text("secret")
    monkeypatch.setattr(Path, "iterdir", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    for name in ("private", "notes"):
        with pytest.raises(DataError, match=f"{name} cannot be read: Permission denied"):
            hash_paths([tmp_path / name])
    with pytest.raises(DataError, match="private cannot be read: Permission denied"):
        data_files(tmp_path / "private")


# JSON


def objects(folder, *lines):
    (folder / "f.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return list(read_json_lines(folder / "f.jsonl"))


def test_json_lines_are_numbered_and_blank_ones_skipped(tmp_path):
    assert objects(tmp_path, "", '{"a": 1}', "  ", '{"b": "\u2028"}', "") == [(2, {"a": 1}), (4, {"b": "\u2028"})]
    assert objects(tmp_path) == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        ("[1]", "list where a JSON object was expected"),
        ("null", "NoneType where"),
        ('{"a": 1} {"a": 2}', "not JSON"),
        ('{"a": ' + "1" * 5000 + "}", r"not JSON .*has 5000 digits\)\. Write"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"a": 1, "b": 0, "a": 2}', "the key 'a' comes twice"),
        ('{"a": {"b": ["\\ud83d"]}}', "half a surrogate pair"),
        ('{"\\uDE00": 1}', "half a surrogate pair"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path, line, says):
    with pytest.raises(DataError, match=rf"f\.jsonl:2: .*{says}"):
        objects(tmp_path, "{}", line)


def test_a_whole_surrogate_pair_is_a_character():
    assert parse_json('{"a": "\\ud83d\\ude00"}', "f") == {"a": "\U0001f600"}


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers(-9, 9) | st.text("ab\x85\u2028")))
def test_any_object_is_read_back(tmp_path_factory, value):
    folder = tmp_path_factory.getbasetemp()
    for ascii_only in (True, False):
        assert objects(folder, json.dumps(value, ensure_ascii=ascii_only)) == [(1, value)]


# Parquet


def test_parquet_is_read_and_damage_is_named(tmp_path):
    from datasets import Dataset

    Dataset.from_dict({"a": ["eins", None], "b": [1, 2]}).to_parquet(tmp_path / "t.parquet")
    assert read_parquet(tmp_path / "t.parquet").to_pydict() == {"a": ["eins", None], "b": [1, 2]}
    (tmp_path / "t.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-9])
    with pytest.raises(DataError, match=r"t\.parquet: not Parquet that can be read"):
        read_parquet(tmp_path / "t.parquet")


# What is written


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
        real = Path.open

        def opened(path, mode):
            file = real(path, mode)

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

        monkeypatch.setattr(Path, "open", opened)
    else:
        monkeypatch.setattr(os, where, full)
    with pytest.raises(RunError, match=r"cannot write .*f\.json.*No space left"):
        write_atomically(target, "new" * 10000)
    monkeypatch.undo()
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


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_block_that_fails_leaves_what_was_there(tmp_path, kind):
    target = tmp_path / "t[1]"
    if kind == "folder":
        target.mkdir()
        (target / "old").write_text("old")
    else:
        target.write_text("old")

    def write(fresh):
        if kind == "folder":
            fresh.mkdir()
            fresh = fresh / "new"
        fresh.write_text("new")
        return fresh

    with pytest.raises(ZeroDivisionError), whole(target) as fresh:
        write(fresh).stat().st_size / 0
    assert (target / "old" if kind == "folder" else target).read_text() == "old"
    with whole(target) as fresh:
        write(fresh)
    assert (target / "new" if kind == "folder" else target).read_text() == "new"
    assert list(tmp_path.rglob("*old")) == []
    assert [path.name for path in tmp_path.iterdir()] == ["t[1]"]


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(tmp_path, monkeypatch):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "old").write_text("old")
    real = os.replace

    def fails_at_the_second(source, target):
        if str(source).endswith(".tmp"):
            raise OSError(errno.EACCES, "no")
        real(source, target)

    monkeypatch.setattr(os, "replace", fails_at_the_second)
    with pytest.raises(RunError, match="cannot write"), whole(tmp_path / "t") as fresh:
        fresh.mkdir()
    assert (tmp_path / "t" / "old").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_users_mistake_and_a_fault_of_ours_keep_their_own_words(tmp_path):
    with pytest.raises(MissingFileError, match="mine"), whole(tmp_path / "f"):
        raise MissingFileError("mine")
    with pytest.raises(KeyError), whole(tmp_path / "f"):
        raise KeyError("ours")


def test_what_a_killed_writer_left_is_removed_after_an_hour(tmp_path):
    left, living = tmp_path / ".f.47.aa.tmp", tmp_path / ".f.48.bb.tmp"
    for half in (left, living):
        half.write_bytes(b"half")
    os.utime(left, (1, 1))
    write_atomically(tmp_path / "f", "x")
    assert not left.exists()
    assert living.exists()


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
