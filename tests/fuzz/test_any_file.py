"""Any bytes under any name: what no reader can read ends in a message, never in a traceback."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from midalign.data.examples import read_examples
from midalign.data.parallel.corpus import read_parallel
from midalign.data.tasks.chat import read_chat
from midalign.data.tasks.read import read_task
from midalign.files import read_json_lines, read_lines
from tests.fuzz.strategies import FEW_OR_MANY, damaged, outcome

PACKED = [b"\x1f\x8b\x08", b"BZh91AY&SY", b"\xfd7zXZ\x00", b"PK\x03\x04"]
MAGIC = st.sampled_from([b"", b"\xff\xfe", b"\xef\xbb\xbf", b"PAR1", b"{", b"<tmx>", *PACKED])
BYTES = st.builds(bytes.__add__, MAGIC, st.binary(max_size=60) | st.text(max_size=40).map(str.encode))
SUFFIXES = st.sampled_from(
    [".txt", ".tsv", ".jsonl", ".tmx", ".json", ".conll", ".iob2", ".bio", ".csv", ".de", ".dev", ".txt.gz", ".doc", ""]
)
NAMES = st.sampled_from(
    ["eng", "deu", "de.test", "test", "eng-deu", "x.de-en", "validate_A", "train_A_full", "newstest1-src.eng"]
)


@FEW_OR_MANY
def test_any_bytes_under_any_name_are_read_or_refused(cases: int) -> None:
    @settings(max_examples=cases, deadline=None)
    @given(st.dictionaries(st.builds(str.__add__, NAMES, SUFFIXES), BYTES, min_size=1, max_size=3), st.booleans())
    def check(files: dict[str, bytes], asked: bool) -> None:
        languages = ["en", "de"] if asked else None
        with tempfile.TemporaryDirectory() as name:
            for file, data in files.items():
                (Path(name) / file).write_bytes(data)
            for path in (Path(name), *(Path(name) / file for file in files)):
                for read in (
                    lambda path=path: read_parallel(path, languages=languages),
                    lambda path=path: read_task(path, languages=languages),
                    lambda path=path: read_chat(path, languages=languages),
                    lambda path=path: read_examples("translation", path, languages=languages),
                ):
                    found, message = outcome(read)
                    assert (found is None) == bool(message)
            assert {p.name: p.read_bytes() for p in Path(name).iterdir()} == files, "a reader writes nothing"

    check()


@FEW_OR_MANY
def test_lines_of_any_bytes_are_those_that_stand_there(cases: int) -> None:
    pack = st.sampled_from([bytes, lambda data: gzip.compress(data, mtime=0), bz2.compress, lzma.compress])

    @settings(max_examples=cases, deadline=None)
    @given(st.text(st.sampled_from("ab\n\r\x85\u2028\ufeff\0 你"), max_size=20), pack, st.data())
    @example("\r", bytes, None)
    @example("a\rb\n", bytes, None)
    def check(text: str, packed, data: st.DataObject | None) -> None:  # type: ignore[no-untyped-def]
        whole = packed(text.encode())
        content = data.draw(st.just(whole) | damaged(whole)) if data and whole else whole
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "f"
            path.write_bytes(content)
            found, message = outcome(read_lines, path)
            rows, of_json = outcome(lambda: list(read_json_lines(path)))
        assert (found is None) == bool(message)
        assert rows is not None or "f" in of_json
        if found is None:
            assert message.split(":")[0].endswith("f") or "/f" in message
        elif content == whole:
            assert "\0" not in text
            if "\r" not in text:
                lines = [line.removeprefix("\ufeff") for line in text.split("\n")]
                assert found == (lines if lines[-1] else lines[:-1])
            # Nothing but ends of lines and byte order marks is taken away.
            taken = str.maketrans("", "", "\n\r\ufeff")
            assert "".join(found).translate(taken) == text.translate(taken)

    check()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", b"[" * 200_000),
        ("a.jsonl", b'{"a":' * 100_000),
        ("a.jsonl", b'{"a": ' + b"9" * 100_000 + b"}"),
        ("a.tmx", b"<tmx>" + b"<tu>" * 100_000),
        ("a.tsv", b"\t" * 200_000 + b"\n"),
        ("a.tsv", b"en\tde\n" + b"x" * 2_000_000 + b"\n"),
        ("de.test.conll", b"1\ta\tb\t" + b"B-" * 200_000 + b"\n"),
        ("de.bio", b"#" * 500_000),
        ("de.bio", b"-DOCSTART- O\n" * 1000),
        ("eng.txt", b"\n" * 300_000),
        ("validate_A.json", b'{"A": ' + b"[" * 100_000),
        ("validate_A.json", b""),
        ("de.test.csv", b'"' * 100_001),
        ("de.test.csv", b'prompt,completion\n"' + b"x" * 200_000 + b'",y\n'),
    ],
)
def test_deep_and_huge_files_are_read_or_refused(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    for read in (read_parallel, read_task, read_chat):
        found, message = outcome(lambda read=read: read(tmp_path / name))
        assert (found is None) == bool(message)


@FEW_OR_MANY
def test_damaged_parquet_is_read_or_refused(cases: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    datasets = pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        table = datasets.Dataset.from_dict({"a": ["one", "two"], "b": ["eins", "zwei"]})
        table.to_parquet(str(folder / "whole.parquet"))
        whole = (folder / "whole.parquet").read_bytes()

        @settings(max_examples=max(cases // 5, 8), deadline=None)
        @given(damaged(whole))
        def check(hurt: bytes) -> None:
            with tempfile.TemporaryDirectory() as name:
                path = Path(name) / "pairs.parquet"
                path.write_bytes(hurt)
                found, message = outcome(lambda: read_parallel(path, columns={"en": "a", "de": "b"}))
                assert (found is None) == bool(message)
                chat, message = outcome(lambda: read_chat(path, languages=["de"]))
                assert (chat is None) == bool(message)

        check()
