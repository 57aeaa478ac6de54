"""Task data in columns: xSID, Universal NER and generic BIO files, as `RawItem` records with every fault's line.

The three share `read_conll`; `midalign.data.tasks.json_files` reads JSON formats. `midalign.data.tasks.layout` and
`midalign.data.tasks.read` choose files, languages, splits and ids.

A tag ``I-x`` that does not continue a span labelled ``x`` begins a new span (as in CoNLL-2000 and seqeval's default
reading); such tags are counted and reported, as are sentences whose words do not spell their text.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from midalign.answers.matching import word_offsets
from midalign.errors import DataError
from midalign.files import is_blank, read_lines
from midalign.languages import known
from midalign.records import Span

logger = logging.getLogger(__name__)

_TEXT_COMMENT = re.compile(r"#\s*text\s*=\s?(.*)")
_INTENT_COMMENT = re.compile(r"#\s*intent\s*[=:]\s*(.*)")
_KEY_COMMENT = re.compile(r"#\s*[\w.-]+\s*=(\s.*)?")
_TAG = re.compile(r"O|[BI]-.+")
_NUMBER = re.compile(r"[0-9]{1,9}")
_NUMBERED = re.compile(r"(?P<before>[^\d]*)(?P<number>\d{1,9})(?P<after>[^\d]*)")  # also t1, 1., and other digits
_JOINED = re.compile(r"[0-9]+[-.][0-9]+")
NO_TYPE = ("O", "OTH")
"""Labels of entities that are none of Universal NER's three types, in its first release: ``B-O``, ``I-O``, ``OTH``."""


@dataclass(frozen=True, slots=True)
class RawItem:
    """One item of a file; ``index`` counts from 0 within the file.

    Attributes:
        language: Canonical code where the row itself tells it.
        split: The corpus's name of the split where the row itself tells it.
    """

    index: int
    text: str
    words: tuple[str, ...]
    spans: tuple[Span, ...]
    intent: str = ""
    split: str = ""
    language: str = ""


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns of a CoNLL-like format, counted from 0.

    Attributes:
        word: The word's column, or None: the first, but the second where the first numbers the words.
        tag: The tag's column; -1 for the last.
        counts: Numbers of columns that a file may have; none for any from 2 on.
        intent: The intent's column, or None.
        numbered: Whether the first column is always the number of the word.
        untyped: Whether tags may be those of `NO_TYPE`.
    """

    word: int | None
    tag: int
    counts: tuple[int, ...] = ()
    intent: int | None = None
    numbered: bool = False
    untyped: bool = False


COLUMNS: Mapping[str, Columns] = {
    "xsid": Columns(word=1, tag=3, counts=(4,), intent=2, numbered=True),
    "uner": Columns(word=1, tag=2, counts=(5, 3), numbered=True, untyped=True),  # its first release has three
    "bio": Columns(word=None, tag=-1),
}


class Repairs:
    """Counts of the repairs that a file needed; one warning per kind."""

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


@dataclass
class _Sentence:
    comments: list[str] = field(default_factory=list)
    rows: list[tuple[int, list[str]]] = field(default_factory=list)


def read_conll(path: Path, columns: Columns) -> Iterator[RawItem]:
    """Sentences of a column file: one word per line, a blank line after each sentence, ``#`` comments before it.

    Columns are separated by tabs if the line has one, else by blanks; other white space belongs to a word. ``# text =
    ...`` gives the text; without it, or where the words do not spell it, the text is the words joined by spaces.

    Left out are ``-DOCSTART-`` lines, and, counted in a warning: rows that are numbered ``1-2`` or ``1.1`` (as in
    CoNLL-U), a language before every word (``de:Anna``, as in WikiANN), empty words tagged ``O`` (xSID's Chinese has
    some), and sentences without any word.

    Raises:
        DataError: Not UTF-8, a wrong number of columns, columns that cannot be told apart, an empty word with a label,
            a tag that is not BIO; with file and line.
    """
    repairs = Repairs(path)
    sentences = _without_joined_words(path, _sentences(path, columns), columns, repairs)
    rows = [row for sentence in sentences for row in sentence.rows]
    if columns.word is None:
        columns = replace(columns, word=_word_column(path, sentences))
        _check_one_tag(path, rows, columns)
        _strip_language(rows, columns, repairs)
    elif columns.numbered:
        for number, fields in rows:
            if not _NUMBER.fullmatch(fields[0]):
                raise DataError(
                    f"{path}:{number}: {fields[0]!r} in the first column, which numbers the words in this format; "
                    "give the format by its name if it is another one (bio: word first, tag last)"
                )
    for index, sentence in enumerate(sentences):
        item = _item(path, index, sentence, columns, repairs)
        if item is not None:
            yield item
    repairs.report()


def _sentences(path: Path, columns: Columns) -> list[_Sentence]:
    """The file split at its blank lines; sentences without rows are left out."""
    lines = [*enumerate(read_lines(path), start=1), (0, "")]
    counts = _counts_of_columns(lines, columns)
    least = max(2, (columns.word or 0) + 1, columns.tag + 1)
    found, sentence = [], _Sentence()
    for number, line in lines:
        fields = _fields(line)
        if is_blank(line):
            found.append(sentence)
            sentence = _Sentence()
        elif line.startswith("#") and not sentence.rows and _is_comment(line, fields, counts, columns.numbered):
            sentence.comments.append(line)
        elif fields[0] != "-DOCSTART-":
            if len(fields) not in counts or len(fields) < least:
                raise DataError(
                    f"{path}:{number}: {len(fields)} columns where {max(*counts, least)} were expected, so word and "
                    f"tag cannot be told apart: {line[:80]!r}; separate columns by one tab, sentences by a blank line"
                )
            sentence.rows.append((number, fields))
    return [sentence for sentence in found if sentence.rows]


def _counts_of_columns(lines: Sequence[tuple[int, str]], columns: Columns) -> tuple[int, ...]:
    """How many columns rows may have: as many as the first row has; the format's, where that is none of them."""
    held = [_fields(line) for _, line in lines if not is_blank(line) and not line.startswith("-DOCSTART-")]
    plain = [fields for fields in held if not fields[0].startswith("#")] or [f for f in held if _TAG.fullmatch(f[-1])]
    count = len(plain[0]) if plain else 0
    return (count,) if count in columns.counts or not columns.counts else columns.counts


def _fields(line: str) -> list[str]:
    if "\t" in line:
        return [cell.strip(" ") for cell in line.split("\t")]
    return [cell for cell in line.split(" ") if cell]


def _is_comment(line: str, fields: Sequence[str], counts: Sequence[int], numbered: bool) -> bool:
    """Whether a line that begins with ``#`` is a comment rather than a word such as ``#`` or ``#tag`` with its tag."""
    if numbered or not _TAG.fullmatch(fields[-1]) or _KEY_COMMENT.fullmatch(line):
        return True
    return len(fields) not in counts and line[1:2] in ("", " ", "\t")


def _without_joined_words(
    path: Path, sentences: list[_Sentence], columns: Columns, repairs: Repairs
) -> list[_Sentence]:
    """The sentences without CoNLL-U's rows for several words at once (``1-2``) and for none (``1.1``)."""
    rows = [row for sentence in sentences for row in sentence.rows]
    of_conllu = columns.numbered or (columns.word is None and all(len(fields) > 2 for _, fields in rows))
    if not of_conllu or not all(_NUMBER.fullmatch(fields[0]) or _JOINED.fullmatch(fields[0]) for _, fields in rows):
        return sentences
    return [
        _Sentence(sentence.comments, kept)
        for sentence in sentences
        if (kept := [row for row in sentence.rows if not _is_joined(path, *row, columns, repairs)])
    ]


def _is_joined(path: Path, number: int, fields: Sequence[str], columns: Columns, repairs: Repairs) -> bool:
    if not _JOINED.fullmatch(fields[0]):
        return False
    if fields[columns.tag] not in ("O", "_"):
        raise DataError(
            f"{path}:{number}: the row {fields[0]} is for several words and has the tag {fields[columns.tag]!r}, which "
            "would be lost; tag the words themselves"
        )
    repairs.add("the row stands for several words, or for none; left out", number)
    return True


def _strip_language(rows: Sequence[tuple[int, list[str]]], columns: Columns, repairs: Repairs) -> None:
    """Take away the language that stands before every word of a file."""
    at = columns.word or 0
    begins = {fields[at].partition(":")[0] for _, fields in rows}
    code = begins.pop() if len(begins) == 1 else ""
    if known(code) and all(len(fields[at]) > len(code) + 1 for _, fields in rows):
        repairs.add(f"every word begins with {code + ':'!r}, which is left out", rows[0][0])
        for _, fields in rows:
            fields[at] = fields[at].removeprefix(f"{code}:")


def _word_column(path: Path, sentences: Sequence[_Sentence]) -> int:
    """The first column, or the second where the first numbers the words of every sentence."""
    rows = [row for sentence in sentences for row in sentence.rows]
    if not rows:
        return 0
    line, fields = rows[0]
    several = len(rows) > len(sentences)
    if numbers := _numbers_in_front(sentences):
        counted = _count_the_words(numbers)
        if counted and len(fields) > 2:
            logger.info("%s: the first column numbers the words, which stand in the second", path)
            return 1
        if len(fields) > 2 or (counted and several):
            raise _unclear(path, line, f"holds only numbers{'' if counted else ' that do not count 1, 2, 3'}")
    same = all(len({fields[0] for _, fields in sentence.rows}) == 1 for sentence in sentences)
    if same and several and len(fields) > 2:
        raise _unclear(path, line, "is the same in all rows of a sentence, as a name or number of the sentence is")
    return 0


def _numbers_in_front(sentences: Sequence[_Sentence]) -> list[list[int]]:
    """The numbers in the first column of each sentence, all of one form; nothing where it holds anything else."""
    cells = [[fields[0] for _, fields in sentence.rows] for sentence in sentences]
    matches = [_NUMBERED.fullmatch(cell) for row in cells for cell in row]
    forms = {(match["before"], match["after"]) if match else None for match in matches}
    if len(forms) > 1 or None in forms or (forms != {("", "")} and len(matches) == 1):
        return []
    numbers = iter(int(match["number"]) for match in matches if match)
    return [[next(numbers) for _ in row] for row in cells]


def _unclear(path: Path, line: int, first_column: str) -> DataError:
    return DataError(
        f"{path}:{line}: the first column {first_column}, so it is unclear where the words are; say with `columns` "
        "which column is the word and which is the tag"
    )


def _count_the_words(numbers: Sequence[Sequence[int]]) -> bool:
    """Whether the numbers of each sentence, or of all of them on and on, count from 0 or from 1."""

    def counts(row: Sequence[int], start: int) -> bool:
        return list(row) == list(range(start, start + len(row)))

    on_and_on = list(itertools.chain.from_iterable(numbers))
    return any(all(counts(row, start) for row in numbers) or counts(on_and_on, start) for start in (0, 1))


def _check_one_tag(path: Path, rows: Sequence[tuple[int, Sequence[str]]], columns: Columns) -> None:
    """Refuse files in which another column than the last may be that of the tags.

    Either the last holds no tags and another does, or both hold tags of the same labels (nested entities).
    """
    if not rows:
        return
    cells = [[fields[at] for _, fields in rows] for at in range(len(rows[0][1]))]
    labels = [{tag[2:] for tag in column} if all(map(_TAG.fullmatch, column)) else None for column in cells]
    *others, last = labels
    for at, found in enumerate(others):
        if at == columns.word or not found or found == {""}:
            continue
        both = last is not None and found & last - {""}
        if last is None or both:
            raise DataError(
                f"{path}:{rows[0][0]}: column {at} (counted from 0) has tags, and the last has "
                f"{'the same ones' if both else 'none'}, so it is unclear which to use; say with `columns` which "
                "column is the word and which is the tag"
            )


def _item(path: Path, index: int, sentence: _Sentence, columns: Columns, repairs: Repairs) -> RawItem | None:
    at = columns.word or 0
    first, fields = sentence.rows[0]
    rows = _rows_with_words(path, sentence, columns, repairs)
    if not rows:
        repairs.add("the sentence has no word; left out", first)
        return None
    words = tuple(fields[at] for _, fields in rows)
    spans = read_bio(path, [(number, fields[columns.tag]) for number, fields in rows], repairs, columns.untyped)
    text = _comment(sentence.comments, _TEXT_COMMENT).strip()
    if not text or word_offsets(text, words) is None:
        if text:
            repairs.add("the words do not spell the sentence's text; taking the words as the text", rows[0][0])
        text = " ".join(words)
    intent = _comment(sentence.comments, _INTENT_COMMENT).strip()
    if not intent and columns.intent is not None:
        intent = fields[columns.intent]
    return RawItem(index, text, words, spans, intent)


def _rows_with_words(
    path: Path, sentence: _Sentence, columns: Columns, repairs: Repairs
) -> list[tuple[int, list[str]]]:
    """The rows whose word can be seen; others are left out and counted, unless a span would be lost with them.

    A word of invisible characters inside a span (MTOP's Thai has some) is left out, and the span goes on without it.
    """
    kept = []
    tags = ["O", *(fields[columns.tag] for _, fields in sentence.rows), "O"]
    for (number, fields), before, tag, after in zip(sentence.rows, tags, tags[1:], tags[2:], strict=False):
        word = fields[columns.word or 0]
        if not is_blank(word):
            kept.append((number, fields))
            continue
        goes_on = after == f"I-{tag[2:]}" or (tag.startswith("I-") and before[2:] == tag[2:])
        if tag != "O" and not (word and goes_on):
            raise DataError(
                f"{path}:{number}: the word is empty but has the tag {tag!r}, which would label "
                "nothing; write the word, or the tag O"
            )
        repairs.add("the word is empty; left out", number)
    return kept


def _comment(comments: Sequence[str], pattern: re.Pattern[str]) -> str:
    return next((match[1] for line in comments if (match := pattern.fullmatch(line))), "")


def read_bio(path: Path, tags: Sequence[tuple[int, str]], repairs: Repairs, untyped: bool = False) -> tuple[Span, ...]:
    """Spans of numbered BIO tags; an ``I-`` that continues nothing begins a span and is counted.

    Args:
        path: The file, for messages.
        tags: Line and tag of each word.
        repairs: Where an ``I-`` that continues nothing is counted.
        untyped: Whether ``OTH`` by itself (read as ``I-OTH``) and the label ``O`` may occur.

    Raises:
        DataError: A tag that is neither ``O`` nor ``B-label`` nor ``I-label``.
    """
    spans: list[Span] = []
    for position, (number, tag) in enumerate(tags):
        if tag == "O":
            continue
        prefix, _, label = ("I", "-", tag) if untyped and tag == "OTH" else tag.partition("-")
        if prefix not in ("B", "I") or not label or (label == "O" and not untyped):
            raise DataError(
                f"{path}:{number}: the tag {tag!r} is not BIO, so its span is unknown; write O, B-label or I-label"
            )
        continues = bool(spans) and spans[-1].end == position and spans[-1].label == label
        if prefix == "I" and continues:
            spans[-1] = Span(label, spans[-1].start, position + 1)
            continue
        if prefix == "I" and tag != "OTH":
            repairs.add("an I- tag continues no span of its label; taken as the beginning of one", number)
        spans.append(Span(label, position, position + 1))
    return tuple(spans)
