"""Task data in JSON: MASSIVE, Snips and the reference implementation's records, as `RawItem` records.

Faults name file and line. Files in columns are read by `midalign.data.tasks.columns`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from midalign.answers.matching import match_items, word_offsets
from midalign.answers.parse import parse_slots
from midalign.data.tasks.columns import RawItem, Repairs
from midalign.data.tasks.row_language import language_of_row
from midalign.errors import DataError
from midalign.files import is_blank, parse_json, read_json_lines, read_lines
from midalign.records import Span

_BRACKET = re.compile(r"\[\s*(?P<label>[^\[\]:]+?)\s*:\s*(?P<phrase>[^\[\]]*?)\s*\]")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_USER_TURNS = (  # Llama 3, ChatML (Qwen)
    re.compile(r"<\|start_header_id\|>user<\|end_header_id\|>\s*(.*?)\s*<\|eot_id\|>", re.DOTALL),
    re.compile(r"<\|im_start\|>user\s*(.*?)\s*<\|im_end\|>", re.DOTALL),
)
_SPECIAL_TOKEN = re.compile(r"<\|[a-z_]+\|>")


def _rows(path: Path, required: Sequence[str]) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Objects of a JSONL file as ``(line, index, object)``.

    Raises:
        DataError: As `read_json_lines`, or a required key has no text, with file and line.
    """
    for index, (number, row) in enumerate(read_json_lines(path)):
        if missing := [key for key in required if not isinstance(row.get(key), str)]:
            raise DataError(
                f"{path}:{number}: no text under {', '.join(map(repr, missing))}, which this format needs; "
                "give the format by name if it is another one"
            )
        yield number, index, row


def read_massive(path: Path, language: str | None = None) -> Iterator[RawItem]:
    """MASSIVE: ``annot_utt`` has slots as ``[label : phrase]``; the index counts the file's rows, of all splits.

    Words are separated by blanks and by the brackets; in Japanese and Chinese every character is a word, except that
    ASCII runs between blanks stay whole (as in MASSIVE's own ``create_hf_dataset.py``). The text is ``utt``; rows
    without any are left out and counted.

    Args:
        path: The file.
        language: Canonical code for rows that tell none (`midalign.data.tasks.row_language`); their own goes before it.

    Raises:
        DataError: Not UTF-8, not JSON, keys missing, brackets that are not ``[label : phrase]``.
        LanguageError: A locale that is not known.
    """
    repairs = Repairs(path)
    for number, index, row in _rows(path, ("utt", "annot_utt", "partition")):
        place = f"{path}:{number}"
        own = language_of_row(row, place)
        chunks = _annotated_chunks(row["annot_utt"], place)
        if any(label and not phrase for phrase, label in chunks):
            repairs.add("a slot has no phrase; left out", number)
        words, spans = words_of_chunks(chunks, (own or language or "")[:3] in ("jpn", "zho"))
        text = row["utt"].strip()
        if word_offsets(text, words) is None:
            repairs.add("annot_utt does not spell utt; taking the text of annot_utt", number)
            text = " ".join("".join(chunk for chunk, _ in chunks).split())
        if is_blank(text):
            repairs.add("the row has no text; left out", number)
            continue
        intent = "" if row.get("intent") is None else _text(row, "intent", place)
        yield RawItem(index, text, words, spans, intent, row["partition"], own)
    repairs.report()


def _text(row: Mapping[str, Any], key: str, place: str) -> str:
    """A string, or a whole number as one (the hub's conversions number the intents)."""
    value = row[key]
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise DataError(f"{place}: {key!r} is {value!r}, not a string; write one, or leave the key out")
    return str(value)


def _annotated_chunks(annotated: str, where: str) -> list[tuple[str, str]]:
    """``(text, label)`` pieces of an annotated utterance; the label is empty outside slots."""
    chunks = []
    at = 0
    for match in _BRACKET.finditer(annotated):
        chunks += [(annotated[at : match.start()], ""), (match["phrase"], match["label"])]
        at = match.end()
    chunks.append((annotated[at:], ""))
    if any("[" in text or "]" in text for text, _ in chunks):
        raise DataError(
            f"{where}: cannot read the slots of {annotated!r}: each must be `[label : phrase]`, without brackets inside"
        )
    return chunks


def words_of_chunks(
    chunks: Sequence[tuple[str, str]], by_character: bool = False
) -> tuple[tuple[str, ...], tuple[Span, ...]]:
    """Words and spans of labelled pieces of text: words end at blanks and where a piece ends.

    Args:
        chunks: ``(text, label)``; the label is empty outside slots. A labelled piece of blanks only gives no span.
        by_character: Whether every character is a word (ASCII runs between blanks stay whole).
    """
    words: list[str] = []
    spans = []
    for text, label in chunks:
        start = len(words)
        for word in text.split():
            words += list(word) if by_character and not word.isascii() else [word]
        if label and len(words) > start:
            spans.append(Span(label, start, len(words)))
    return tuple(words), tuple(spans)


def read_snips(path: Path) -> Iterator[RawItem]:
    """Snips: ``{intent: [{"data": [{"text": ..., "entity": ...}, ...]}, ...]}``, one intent per file.

    Raises:
        DataError: Not UTF-8, not JSON, or another shape.
    """
    content = parse_json("\n".join(read_lines(path)), path)
    if not isinstance(content, dict) or len(content) != 1:
        raise DataError(f"{path}: not the Snips format, which has one object with one intent as its only key")
    ((intent, rows),) = content.items()
    for index, row in enumerate(rows if isinstance(rows, list) else [None]):
        pieces = row.get("data") if isinstance(row, dict) else None
        if not isinstance(pieces, list) or not all(map(_is_piece, pieces)):
            raise DataError(
                f"{path}: item {index} of {intent!r} is not of the form "
                '{"data": [{"text": ..., "entity": ...}, ...]} that Snips has'
            )
        chunks = [(piece["text"], piece.get("entity", "")) for piece in pieces]
        words, spans = words_of_chunks(chunks)
        text = " ".join("".join(chunk for chunk, _ in chunks).split())
        if not is_blank(text):  # Snips has a few items without any text
            yield RawItem(index, text, words, spans, intent)


def _is_piece(piece: Any) -> bool:
    return isinstance(piece, dict) and isinstance(piece.get("text"), str) and isinstance(piece.get("entity", ""), str)


def read_reference(path: Path) -> Iterator[RawItem]:
    """The reference implementation's JSONL: ``prefix`` is a rendered chat prompt, ``text`` the completion after it.

    The command is the user turn of a Llama 3 or ChatML prompt; slots are read back from the completion. Words are
    separated by blanks; in text with Chinese or Japanese characters, as MASSIVE's. Phrases that the command does not
    have are dropped and counted.

    Raises:
        DataError: Not UTF-8, not JSON, keys missing, or no user turn.
    """
    repairs = Repairs(path)
    for number, index, row in _rows(path, ("prefix", "text")):
        turns = [match[1] for pattern in _USER_TURNS for match in pattern.finditer(row["prefix"])]
        if not turns:
            raise DataError(
                f"{path}:{number}: no user turn in the prefix, so the command is unknown; known are Llama 3 "
                "(<|start_header_id|>user<|end_header_id|>) and ChatML (<|im_start|>user)"
            )
        text = turns[-1]
        words, _ = words_of_chunks([(text, "")], by_character=bool(_CJK.search(text)))
        output = parse_slots(_SPECIAL_TOKEN.sub("", row["text"]), words)
        found = match_items(words, output.items)
        if None in found:
            repairs.add("a slot of the completion is not in the command; left out", number)
        spans = sorted((span for span in found if span), key=lambda span: span.start)
        if is_blank(text):
            repairs.add("the command is empty; left out", number)
            continue
        yield RawItem(index, text, words, tuple(spans), language=language_of_row(row, f"{path}:{number}"))
    repairs.report()
