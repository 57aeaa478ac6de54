"""Writing the gold answer of an example as text."""

from __future__ import annotations

import json

from midalign.answers.format import Style
from midalign.answers.matching import span_phrases
from midalign.answers.parse import NO_SLOTS
from midalign.records import TaskExample


def completion(example: TaskExample, style: Style = "slots") -> str:
    """The gold answer as text, which a model is trained to write and `midalign.metrics` parses.

    Slots: ``label: phrase; label: phrase`` or ``None``; with ``"intent_slots"``, ``intent | `` before it. Extraction:
    JSON on one line. Translation and chat: the reference.
    """
    if example.task in ("translation", "chat"):
        return example.reference
    phrases = span_phrases(example)
    if example.task == "extraction":
        results = [
            {"TypeName": span.label, "Text": phrase} for span, phrase in zip(example.spans, phrases, strict=True)
        ]
        return json.dumps({"Results": results}, ensure_ascii=False)
    slots = "; ".join(f"{span.label}: {phrase}" for span, phrase in zip(example.spans, phrases, strict=True))
    answer = slots or NO_SLOTS
    return f"{example.intent} | {answer}" if style == "intent_slots" else answer
