"""Grammars for constrained decoding, in llguidance's syntax: JSON of a schema, and slots of one sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from midalign.answers.format import Style
from midalign.answers.matching import word_offsets
from midalign.answers.parse import NO_SLOTS
from midalign.records import TaskExample

# As `json.dumps` writes it, which is how the gold answers that a model was trained on look.
_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


_NAME = r"[^|;:\s\p{Cc}]+([ :][^|;:\s\p{Cc}]+)*"  # of an intent or a label; a colon inside it has no space after it


def json_grammar(schema: Mapping[str, Any]) -> str:
    """Grammar for JSON of a schema, formatted as by `json.dumps`; keys come in the order of the schema."""
    return f'start: " "? json\njson: %json {json.dumps({**schema, "x-guidance": _LAYOUT})}'


def slot_grammar(example: TaskExample, style: Style = "slots") -> str:
    """Grammar for slots as `midalign.answers.write.completion` writes them; a value is a run of the sentence's words.

    Labels and the intent may be any names without ``|`` and ``;``. Where the words do not spell the text, a value is
    the words joined by spaces. One case cannot be written: a value with another slot after it, if the sentence has a
    ``;`` right after the value.
    """
    opening = "INTENT " if style == "intent_slots" else ""
    slots = " | LABEL VALUE (NEXT VALUE)*" if any(word.strip() for word in example.words) else ""
    # A separator is part of the name before it, since the lexer of llguidance never goes back.
    return "\n".join(
        [
            f'start: " "? {opening}(NONE{slots})',
            rf"INTENT: /{_NAME} \| /",
            rf"LABEL: /{_NAME}: /",
            rf"NEXT: /; {_NAME}: /",
            f"NONE: {json.dumps(NO_SLOTS)}",
            f"WORDS: %regex {json.dumps({'substring_chunks': _pieces(example)}, ensure_ascii=False)}",
            r"VALUE: WORDS & /\S(.*\S)?/",
        ]
    )


def _pieces(example: TaskExample) -> list[str]:
    """The words of a sentence and the spaces between them, in order; a value is a run of these pieces."""
    offsets = word_offsets(example.text, example.words)
    pieces: list[str] = []
    for number, word in enumerate(example.words):
        if pieces and (offsets is None or offsets[number][0] > offsets[number - 1][1]):
            pieces.append(" ")
        pieces.append(" ".join(word.split()))
    return pieces
