"""Files: UTF-8 lines, JSON and JSONL; files and folders that are written whole or not at all; hashes.

Every text file of a user is read by `read_lines` (compressed or not), every JSONL file by `read_json_lines`, and every
result is written through `whole`.
"""

from __future__ import annotations

import bz2
import errno
import glob
import gzip
import hashlib
import json
import lzma
import os
import re
import shutil
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from midalign.errors import DataError, MissingFileError, RunError, UserError, nearest

MANIFEST = "manifest.json"

_ABANDONED = 3600.0  # seconds
# No text in UTF-8 begins with these bytes, so a packed file is known without a look at its name.
_PACKED: tuple[tuple[re.Pattern[bytes], Callable[[bytes], bytes]], ...] = (
    (re.compile(rb"\x1f\x8b"), gzip.decompress),
    (re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), bz2.decompress),
    (re.compile(rb"\xfd7zXZ\x00"), lzma.decompress),
)
# The program that unpacks an archive, by the bytes that tell it and where they stand.
_ARCHIVES: dict[tuple[int, bytes], str] = {
    (0, b"PK\x03\x04"): "unzip",
    (0, b"\x28\xb5\x2f\xfd"): "unzstd",
    (0, b"7z\xbc\xaf\x27\x1c"): "7z x",
    (0, b"Rar!\x1a\x07"): "unrar x",
    (257, b"ustar"): "tar xf",
}
_LONE_RETURN = re.compile(r"\r(?!\r*\n)")
# Whitespace, control characters, and what Unicode calls Default_Ignorable_Code_Point, with the blank Braille pattern.
_INVISIBLE = re.compile(
    r"[\s\x00-\x1f\x7f-\xa0\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    r"\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]*"
)


def read_lines(path: Path) -> list[str]:
    r"""The lines of a UTF-8 file, plain or compressed by gzip, bzip2 or xz, without line ends and byte order mark.

    A line ends at ``\n`` or ``\r\n``; only in a file without any ``\n`` (from an old Mac) at ``\r``. `str.splitlines`
    would also cut at U+2028, U+0085 and others, which stand inside real sentences and would shift every later line. A
    byte order mark at the beginning of a line is one of several files that were put together, and no text either.

    Raises:
        MissingFileError: There is no such file.
        DataError: Bytes that are not UTF-8 (with line and column), a file that is damaged, or line ends of two kinds.
    """
    data = unpacked(path)
    _check_text(data, path)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = data.count(b"\n", 0, error.start) + 1, error.start - data.rfind(b"\n", 0, error.start)
        raise DataError(
            f"{path}:{line}: byte {data[error.start]:#04x} at column {column} is not UTF-8. In any other encoding the "
            "text would turn into other characters. Convert the file first: iconv -f <its encoding> -t UTF-8."
        ) from None
    lone, breaks = len(_LONE_RETURN.findall(text)) if "\r" in text else 0, text.count("\n")
    if lone and not breaks:
        text = text.replace("\r", "\n")
    elif lone and lone >= breaks:
        raise DataError(
            f"{path}: some lines end in a carriage return alone ({lone}) and some in a line feed ({breaks}), so it is "
            "unclear where a line ends. Convert the file first: tr '\\r' '\\n'."
        )
    lines = text.split("\n")
    if lines[-1] in ("", "\ufeff"):
        lines.pop()
    return [line.rstrip("\r").removeprefix("\ufeff") for line in lines]


def _check_text(data: bytes, path: Path) -> None:
    """Refuse UTF-16 and UTF-32, and files that are no text, all of which have zero bytes.

    Raises:
        DataError: With the line of the first zero byte.
    """
    marked = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    if not marked and b"\0" not in data:
        return
    line = data.count(b"\n", 0, max(0, data.find(b"\0"))) + 1
    if (
        marked or data.count(b"\0") >= len(data) // 4
    ):  # of scripts with two bytes a letter, line ends and blanks have one
        raise DataError(
            f"{path}:{line}: this is not UTF-8 text: it has the mark or the zero bytes of UTF-16, and would be read as "
            "other characters. Convert the file first, for example: iconv -f UTF-16 -t UTF-8."
        )
    raise DataError(
        f"{path}:{line}: this is not UTF-8 text: it has a zero byte, as UTF-16 and files that are not text have "
        "(spreadsheets, Parquet, archives). Save it as text in UTF-8; of UTF-16 text: iconv -f UTF-16 -t UTF-8."
    )


def unpacked(path: Path) -> bytes:
    """The content of a file, decompressed if gzip, bzip2 or xz compressed it, once or several times.

    Raises:
        MissingFileError: There is no such file.
        DataError: It cannot be read, is an archive of files, or is damaged.
    """
    with readable(path):
        if not path.exists():
            raise missing_file(path)
        data = path.read_bytes()
    while (unpack := next((unpack for begins, unpack in _PACKED if begins.match(data)), None)) is not None:
        try:
            data = unpack(data)
        except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as fault:
            raise DataError(
                f"{path} is packed, and damaged or cut off ({fault}), so that lines would be lost. Get it again."
            ) from None
    for (begin, magic), tool in _ARCHIVES.items():
        if data.startswith(magic, begin):
            raise DataError(f"{path} is an archive, not text. Unpack it first: {tool} {path.name}.")
    return data


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Context in which what the system says against a path is an error of the user's.

    Raises:
        DataError: The path cannot be read, such as for lack of permission, or a name that is too long.
    """
    try:
        yield
    except OSError as fault:
        if isinstance(fault, UserError):
            raise
        raise DataError(
            f"{fault.filename or path} cannot be read: {fault.strerror}. Give a file or folder that you may read."
        ) from None


def is_blank(text: str) -> bool:
    """Whether a text is empty or has only whitespace, control and invisible characters."""
    return _INVISIBLE.fullmatch(text) is not None


def local_path(path: str | Path) -> Path:
    """A path as a user writes it: ``~`` and ``~name`` at the beginning are home folders, unless such a file exists.

    Raises:
        DataError: The system refuses to say whether it exists.
    """
    plain = Path(path)
    with readable(plain):
        if plain.exists():
            return plain
    try:
        return plain.expanduser()
    except RuntimeError:  # no user of that name
        return plain


def missing_file(path: Path) -> MissingFileError:
    """The error for a path that does not exist; it suggests names similar to the first missing part."""
    full = path.absolute()
    folder = next(parent for parent in full.parents if parent.is_dir())
    lacking = full.relative_to(folder).parts[0]
    with suppress(OSError):  # a folder that may not be listed
        if close := nearest(lacking, (entry.name for entry in folder.iterdir()), cutoff=0.75):
            return MissingFileError(f"{path} does not exist. Did you mean {' or '.join(close)} in {folder}?")
    return MissingFileError(f"{path} does not exist: there is no {lacking} in {folder}. Give the path of a file there.")


def parse_json(text: str, place: object, form: str = "one JSON object a line") -> Any:
    """A JSON value; ``place`` (file, or file and line) and ``form`` (what to write) are named in the message.

    Raises:
        DataError: It is not JSON, an object has a key twice, or a string is not Unicode text.
    """
    try:
        value = _JSON.decode(text)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{place}: an escape \\ud... is half a surrogate pair, which is not a character. Write the character "
            "itself."
        ) from None
    except RecursionError:
        raise DataError(f"{place}: not JSON that can be read: it is nested too deeply. Write {form}.") from None
    except ValueError as error:
        reason = str(error).partition("; use sys")[0]  # Python's own advice, for numbers of thousands of digits
        raise DataError(f"{place}: not JSON ({reason}). Write {form}.") from None
    return value


def _json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} comes twice in one object, and one value would be lost")
    return found


_JSON = json.JSONDecoder(object_pairs_hook=_json_object)


def read_json_lines(path: Path, form: str = "one JSON object a line") -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file, each with its line from 1; blank lines are skipped.

    Args:
        path: The file.
        form: What a line should look like, for messages.

    Raises:
        MissingFileError: There is no such file.
        DataError: As `read_lines` and `parse_json`, or a line is not an object; with file and line.
    """
    for number, line in enumerate(read_lines(path), start=1):
        if is_blank(line):
            continue
        record = parse_json(line, f"{path}:{number}", form)
        if not isinstance(record, dict):
            raise DataError(f"{path}:{number}: {type(record).__name__} where a JSON object was expected. Write {form}.")
        yield number, record


def read_parquet(path: Path) -> Any:
    """The ``pyarrow.Table`` of a Parquet file.

    Raises:
        DataError: It is damaged, or is none.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        table.validate(full=True)  # that text is UTF-8, among others
    except (pyarrow.ArrowException, OSError, ValueError) as fault:
        raise DataError(f"{path}: not Parquet that can be read ({fault}). Write it again.") from fault
    return table.replace_schema_metadata(None)  # what `datasets` notes there may be damaged, and is not needed


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """Context with a path beside the target to write to. It then replaces the target, or is removed after an error.

    Half-written files of killed processes for this target are removed after an hour.

    Yields:
        The path to write to. Nothing is there yet.

    Raises:
        RunError: If the disk is full or the folder cannot be written to. The target stays unchanged.
    """
    fresh = target.with_name(f".{target.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    old = fresh.with_suffix(".old")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for half in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
            if half.is_file() and time.time() - half.stat().st_mtime > _ABANDONED:  # its writer is not just slower
                half.unlink(missing_ok=True)
        yield fresh
        if target.is_dir():
            target.replace(old)  # a folder cannot take the place of another
        fresh.replace(target)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException as fault:
        shutil.rmtree(fresh, ignore_errors=True)
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        if old.is_dir() and not target.exists():
            old.replace(target)
        # safetensors wraps the system's error in one of its own.
        if isinstance(fault, UserError) or not (isinstance(fault, OSError) or "(os error" in str(fault)):
            raise
        reason = getattr(fault, "strerror", None) or fault
        raise RunError(
            f"cannot write {str(target)!r}: {reason}. Nothing was changed there; free some space or choose another "
            "folder."
        ) from fault


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file atomically: it exists whole or not at all.

    Raises:
        RunError: If the disk is full or the folder cannot be written to.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    with whole(path) as fresh, fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically."""
    write_atomically(path, json.dumps(content, ensure_ascii=False, indent=1, default=str) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of an earlier run.

    Raises:
        RunError: If it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{str(path)!r} does not exist; is its folder the --out of a finished run?") from None
    except (ValueError, RecursionError) as fault:
        raise RunError(f"{str(path)!r} is not valid JSON ({fault}); delete it and run the command again") from None


def hash_paths(paths: Iterable[str | Path]) -> dict[str, str]:
    """SHA-256 of each file, and of each folder by its files' names and contents; hub names are left out.

    A folder's ``manifest.json`` is ignored: it tells when and where the folder was made, not what is in it. Links to
    folders are followed, as all readers do.

    Raises:
        DataError: A file or folder cannot be read.
    """
    hashes = {}
    for path in map(local_path, paths):
        if not path.exists():
            continue
        digest = hashlib.sha256()
        with readable(path):
            files = [path] if path.is_file() else sorted(_files_below(path))
            for file in files:
                if file == path / MANIFEST:
                    continue
                digest.update(str(file.relative_to(path)).encode())
                known = file.stat()
                digest.update(_digest(file, known.st_size, known.st_mtime_ns))
        hashes[str(path)] = digest.hexdigest()
    return hashes


def _files_below(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """The files in a folder and in its folders, but not in those (by a link) that hold the folder itself.

    An inner folder that may not be listed, such as ``lost+found``, has none: no reader reads any there.
    """
    real = folder.resolve()
    if real in above:
        return
    try:
        entries = list(folder.iterdir())
    except PermissionError:
        if not above:
            raise
        return
    for entry in entries:
        if entry.is_dir():
            yield from _files_below(entry, (*above, real))
        elif entry.is_file():
            yield entry


@cache  # a run asks for the hash of its model and data once for each stage
def _digest(file: Path, _size: int, _changed: int) -> bytes:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def disk_is_full(fault: BaseException) -> bool:
    """Whether an exception comes from a full disk, whatever library raised it (torch and safetensors wrap it)."""
    words = str(fault)
    return getattr(fault, "errno", None) == errno.ENOSPC or any(
        sign in words
        for sign in (os.strerror(errno.ENOSPC), "os error 28", "PytorchStreamWriter failed", "unexpected pos")
    )


def check_target(out: str | Path) -> Path:
    """Check that a folder can be written.

    Args:
        out: The folder.

    Returns:
        The folder, as a path.

    Raises:
        RunError: If it exists and is not an empty folder.
    """
    target = Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RunError(f"{target} exists and is not an empty folder; it would be overwritten. Give another --out.")
    return target
