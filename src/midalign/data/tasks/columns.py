"""Task data in columns: xSID, Universal NER and generic BIO files, as `RawItem` records with every fault's line.

The three share `read_conll`; JSON formats are in `midalign.data.tasks.json_files`. Which files to read, languages,
splits and ids are `midalign.data.tasks.read`' business.

A tag ``I-x`` that does not continue a span labelled ``x`` begins a new span (as in CoNLL-2000 and seqeval's default
reading); such tags are counted and reported, as are sentences whose words do not spell their text.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from midalign.answers.matching import word_offsets
from midalign.errors import DataError
from midalign.files import read_lines
from midalign.records import Span

logger = logging.getLogger(__name__)

_TEXT_COMMENT = re.compile(r"#\s*text\s*=\s?(.*)")
_INTENT_COMMENT = re.compile(r"#\s*intent\s*[=:]\s*(.*)")


@dataclass(frozen=True, slots=True)
class RawItem:
    """One item as its file has it; ``index`` counts from 0 within the file."""

    index: int
    text: str
    words: tuple[str, ...]
    spans: tuple[Span, ...]
    intent: str = ""
    split: str = ""


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a CoNLL-like format keeps things.

    Attributes:
        word: Index of the word's column.
        tag: Index of the tag's column.
        count: Exact number of columns, or 0 for any number from 2 on that is the same throughout the file.
        intent: Index of the intent's column, or None.
    """

    word: int
    tag: int
    count: int = 0
    intent: int | None = None


COLUMNS: Mapping[str, Columns] = {
    "xsid": Columns(word=1, tag=3, count=4, intent=2),
    "uner": Columns(word=1, tag=2, count=5),
    "bio": Columns(word=0, tag=-1),
}


class Repairs:
    """Counts what a file needed, and reports it in one warning each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[str, list[int]] = {}

    def add(self, kind: str, line: int) -> None:
        """Note one repair at a line (from 1)."""
        self._found.setdefault(kind, []).append(line)

    def report(self) -> None:
        """Log one warning per kind of repair."""
        for kind, lines in self._found.items():
            logger.warning("%s:%d: %s (%d in this file, this is the first)", self.path, lines[0], kind, len(lines))


def read_conll(path: Path, columns: Columns) -> Iterator[RawItem]:
    """Sentences of a column file: one word a line, a blank line after each sentence, ``#`` comments before it.

    Columns are separated by tabs if the line has one, else by blanks. ``# text = ...`` gives the text; without it, or
    where the words do not spell it, the text is the words joined by spaces. ``-DOCSTART-`` lines are skipped.

    Empty words tagged ``O`` (xSID's Chinese has some) are left out and counted.

    Raises:
        DataError: Not UTF-8, a wrong number of columns, an empty word with a label, a tag that is not BIO; with file
            and line.
    """
    repairs = Repairs(path)
    index = 0
    comments: list[str] = []
    rows: list[tuple[int, list[str]]] = []
    expected = columns.count
    for number, line in enumerate([*read_lines(path), ""], start=1):
        if not line.strip():
            if rows:
                yield _conll_item(path, index, comments, rows, columns, repairs)
                index += 1
            comments, rows = [], []
        elif line.startswith("#") and not rows and "\t" not in line:
            comments.append(line)
        else:
            fields = line.split("\t") if "\t" in line else line.split()
            if fields[0] == "-DOCSTART-":
                continue
            expected = expected or len(fields)
            if len(fields) != expected or len(fields) < 2:
                raise DataError(
                    f"{path}:{number}: {len(fields)} columns where {max(expected, 2)} were expected, so word and tag "
                    f"cannot be told apart: {line[:80]!r}; separate columns by one tab, sentences by a blank line"
                )
            rows.append((number, fields))
    repairs.report()


def _conll_item(
    path: Path,
    index: int,
    comments: Sequence[str],
    rows: Sequence[tuple[int, list[str]]],
    columns: Columns,
    repairs: Repairs,
) -> RawItem:
    kept = []
    for number, fields in rows:
        if fields[columns.word].strip():
            kept.append((number, fields))
        elif fields[columns.tag] == "O":
            repairs.add("the word is empty; left out", number)
        else:
            raise DataError(
                f"{path}:{number}: the word is empty but has the tag {fields[columns.tag]!r}, which would label "
                "nothing; write the word, or the tag O"
            )
    rows = kept
    words = tuple(fields[columns.word] for _, fields in rows)
    spans = read_bio(path, [(number, fields[columns.tag]) for number, fields in rows], repairs)
    text = _comment(comments, _TEXT_COMMENT).strip()
    if not text or word_offsets(text, words) is None:
        if text:
            repairs.add("the words do not spell the sentence's text; taking the words as the text", rows[0][0])
        text = " ".join(words)
    intent = _comment(comments, _INTENT_COMMENT).strip()
    if not intent and columns.intent is not None:
        intent = rows[0][1][columns.intent]
    return RawItem(index, text, words, spans, intent)


def _comment(comments: Sequence[str], pattern: re.Pattern[str]) -> str:
    return next((match[1] for line in comments if (match := pattern.fullmatch(line))), "")


def read_bio(path: Path, tags: Sequence[tuple[int, str]], repairs: Repairs) -> tuple[Span, ...]:
    """Spans of numbered BIO tags; an ``I-`` that continues nothing begins a span and is counted.

    Raises:
        DataError: A tag that is neither ``O`` nor ``B-label`` nor ``I-label``.
    """
    spans: list[Span] = []
    for position, (number, tag) in enumerate(tags):
        if tag == "O":
            continue
        prefix, _, label = tag.partition("-")
        if prefix not in ("B", "I") or not label:
            raise DataError(
                f"{path}:{number}: the tag {tag!r} is not BIO, so its span is unknown; write O, B-label or I-label"
            )
        continues = bool(spans) and spans[-1].end == position and spans[-1].label == label
        if prefix == "I" and continues:
            spans[-1] = Span(label, spans[-1].start, position + 1)
            continue
        if prefix == "I":
            repairs.add("an I- tag continues no span of its label; taken as the beginning of one", number)
        spans.append(Span(label, position, position + 1))
    return tuple(spans)
