"""Parser of answers: slots, slots with an intent, and entities as JSON.

Parsing never raises and never drops anything. What does not fit the format stays as an item with an empty label, which
counts as a false positive, and the output counts as unparsed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from midalign.answers.format import Style
from midalign.answers.matching import FoldedSentence, Item, fold

NO_SLOTS = "None"
Failure = Literal["truncated", "not_json", "wrong_schema"]
FAILURES: tuple[Failure, ...] = ("truncated", "not_json", "wrong_schema")
# What `parse_entities` accepts, as JSON Schema. Types are open: which there are is the prompt's to say.
ENTITY_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "Results": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"TypeName": {"type": "string"}, "Text": {"type": "string"}},
                "required": ["TypeName", "Text"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["Results"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class SlotOutput:
    """A parsed slot answer.

    Attributes:
        items: ``(label, phrase)`` in the order written; an empty label marks text that did not fit the format.
        parsed: Whether the whole output fitted the format.
        intent: The intent, for the style ``"intent_slots"``; empty where none was written.
    """

    items: tuple[Item, ...]
    parsed: bool
    intent: str = ""


@dataclass(frozen=True, slots=True)
class EntityOutput:
    """A parsed JSON answer: its ``(type, text)`` items, or the kind of failure and no items."""

    items: tuple[Item, ...]
    failure: Failure | None = None


def parse_slots(
    output: str,
    words: Sequence[str],
    *,
    labels: Collection[str] = (),
    style: Style = "slots",
) -> SlotOutput:
    """Read ``label: phrase; label: phrase``, ``None``, or, with an intent, ``intent | ...``.

    1. The answer is the first line that is not blank; what follows is ignored, since the format has one line. Only a
       line feed ends a line: U+2028, U+0085 and others stand inside sentences, and in phrases copied from them.
    2. ``None`` alone (any case) means no slots. An empty output did not parse.
    3. The answer is cut at every ``;``. A piece that does not begin with a known label and a colon is taken as the
       rest of the value before it (``;`` and all) if, and only if, the joined value occurs in the sentence.
    4. The label ends at the first ``:``, or after a known label that has a colon inside; the rest is the value, so
       ``:`` inside a value is kept. Blanks around both are dropped.
    5. A piece without a colon, label or value is kept as an item that matches nothing. An empty last piece (a closing
       ``;`` that belongs to no value) is ignored.

    Args:
        output: What the system wrote.
        words: The words of the sentence, for step 3.
        labels: The known labels; may be empty, then every ``label:`` is one.
        style: ``"slots"`` as in the paper, or ``"intent_slots"``.
    """
    line = next((part.strip() for part in output.split("\n") if part.strip()), "")
    intent, well_formed = "", True
    if style == "intent_slots":
        intent, bar, rest = line.partition("|")
        intent, line = (intent.strip(), rest.strip()) if bar else ("", line)
        well_formed = bool(intent)
    if line.casefold() == NO_SLOTS.casefold():
        return SlotOutput((), well_formed, intent)
    items = _items_of_pieces(line.split(";"), FoldedSentence(words), sorted(labels, key=len, reverse=True))
    parsed = well_formed and all(label and phrase for label, phrase in items)
    return SlotOutput(tuple(items) if line else (), parsed, intent)


def _items_of_pieces(pieces: list[str], sentence: FoldedSentence, labels: Sequence[str]) -> list[Item]:
    items = []
    at = 0
    while at < len(pieces) and not (at and at == len(pieces) - 1 and not pieces[at].strip()):
        label, value = _split_label(pieces[at], labels)
        end = _end_of_value(pieces, at, value, sentence, labels) if label else at + 1
        items.append((label, ";".join([value, *pieces[at + 1 : end]]).strip()))
        at = end
    return items


def _split_label(piece: str, labels: Sequence[str]) -> Item:
    """Label and value of one piece, the value with its blanks; the label is empty where there is none."""
    piece = piece.lstrip()
    for label in labels:
        if piece.startswith(label) and piece[len(label) :].lstrip().startswith(":"):
            return label, piece[len(label) :].lstrip()[1:]
    label, colon, value = piece.partition(":")
    return (label.strip(), value) if colon else ("", piece)


def _end_of_value(pieces: list[str], at: int, value: str, sentence: FoldedSentence, labels: Sequence[str]) -> int:
    """The index after the last piece of the longest value that begins in ``pieces[at]`` and is in the sentence."""
    best = at + 1
    for end in range(at + 1, len(pieces)):
        if _split_label(pieces[end], labels)[0] in labels:
            break
        joined = ";".join([value, *pieces[at + 1 : end + 1]])
        if len(fold(joined)) > len(sentence.text):
            break
        if sentence.occurrences(joined):
            best = end + 1
    return best


def parse_entities(output: str) -> EntityOutput:
    """Read ``{"Results": [{"TypeName": "LOC", "Text": "..."}]}``, strictly.

    Blanks around the object are allowed, nothing else is: no code fence, no further text, no other keys, none twice.
    An output that ends inside the JSON is ``truncated``, one that is not JSON is ``not_json``, and JSON of another
    shape is ``wrong_schema``.
    """
    text = output.strip()
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        return EntityOutput((), "truncated" if _breaks_off(text, error) else "not_json")
    except (ValueError, RecursionError):  # an integer of thousands of digits, brackets thousands deep
        return EntityOutput((), "not_json")
    items = _entities(value)
    return EntityOutput((), "wrong_schema") if items is None else EntityOutput(items)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | None:
    """The pairs as an object; None, which fits no schema, where a key comes twice and one value would be lost."""
    found = dict(pairs)
    return found if len(found) == len(pairs) else None


def _breaks_off(text: str, error: json.JSONDecodeError) -> bool:
    """Whether ``text`` is the beginning of a truncated JSON object or array."""
    if not text.startswith(("{", "[")):
        return False
    in_string = error.msg.startswith("Unterminated string")
    in_escape = error.msg.startswith("Invalid \\uXXXX escape") and len(text) - error.pos < 6
    return in_string or in_escape or error.pos >= len(text)


def _entities(value: Any) -> tuple[Item, ...] | None:
    """The items of a decoded object, or None if it does not fit the schema."""
    if not isinstance(value, dict) or set(value) != {"Results"} or not isinstance(value["Results"], list):
        return None
    items = []
    for entry in value["Results"]:
        if not isinstance(entry, dict) or set(entry) != {"TypeName", "Text"}:
            return None
        label, phrase = entry["TypeName"], entry["Text"]
        if not isinstance(label, str) or not isinstance(phrase, str):
            return None
        items.append((label, phrase))
    return tuple(items)
