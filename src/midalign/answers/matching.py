"""Matching phrases to words: from predicted phrases to spans of a sentence, and from gold spans to phrases.

The rule of `match_items` for predicted ``(label, phrase)`` items never looks at the gold answer:

1. Phrase and words are compared decomposed (NFD) and casefolded, with all whitespace removed.
2. A phrase occurs only at word boundaries: it must cover whole words.
3. Items are taken in the order the system wrote them, and no two of them may share a word.
4. An item takes its first free occurrence after the previous matched item; failing that, its leftmost free one.
5. An item with an empty label, an empty phrase or no free occurrence matches nothing: a false positive.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from midalign.records import Span, TaskExample

Item = tuple[str, str]
"""A predicted ``(label, phrase)``, as the system wrote it."""


def fold(text: str) -> str:
    """``text`` decomposed, casefolded and without whitespace; phrases are compared in this form.

    Decomposed (NFD), because composed text changes when words are joined; the equivalence is the same.
    """
    decomposed = unicodedata.normalize("NFD", "".join(text.split())).casefold()
    return unicodedata.normalize("NFD", decomposed)


class FoldedSentence:
    """The words of one sentence, folded once to look up many phrases."""

    def __init__(self, words: Sequence[str]) -> None:
        self.text = "".join(fold(word) for word in words)
        self._word_starting: dict[int, int] = {}
        self._word_ending: dict[int, int] = {}
        offset = 0
        for index, word in enumerate(words):
            length = len(fold(word))
            if not length:  # an empty word is part of no phrase
                continue
            self._word_starting[offset] = index
            offset += length
            self._word_ending[offset] = index + 1

    def occurrences(self, phrase: str) -> list[tuple[int, int]]:
        """All ``(start, end)`` word ranges that read like ``phrase``, leftmost first; they may overlap."""
        wanted = fold(phrase)
        if not wanted:
            return []
        found = []
        at = self.text.find(wanted)
        while at >= 0:
            start, end = self._word_starting.get(at), self._word_ending.get(at + len(wanted))
            if start is not None and end is not None:
                found.append((start, end))
            at = self.text.find(wanted, at + 1)
        return found


def match_items(words: Sequence[str], items: Sequence[Item]) -> list[Span | None]:
    """The span of each predicted item, or None where it matches nothing; the rule stands in the module docstring.

    Args:
        words: The units that spans count in.
        items: Predicted ``(label, phrase)`` pairs in the order they were written.
    """
    sentence = FoldedSentence(words)
    taken: set[int] = set()
    spans: list[Span | None] = []
    position = 0
    for label, phrase in items:
        free = [
            (start, end)
            for start, end in (sentence.occurrences(phrase) if label else [])
            if taken.isdisjoint(range(start, end))
        ]
        if not free:
            spans.append(None)
            continue
        start, end = next((place for place in free if place[0] >= position), free[0])
        taken.update(range(start, end))
        position = end
        spans.append(Span(label, start, end))
    return spans


def word_offsets(text: str, words: Sequence[str]) -> list[tuple[int, int]] | None:
    """Character range ``(start, end)`` of each word in ``text``, or None where the words do not spell the text.

    Whitespace is ignored on both sides; everything else must agree character by character.
    """
    places = [index for index, character in enumerate(text) if not character.isspace()]
    spelled = [character for word in words for character in word if not character.isspace()]
    if [text[index] for index in places] != spelled:
        return None
    offsets = []
    at = 0
    for word in words:
        length = sum(not character.isspace() for character in word)
        start = places[at] if length else (places[at - 1] + 1 if at else 0)
        at += length
        offsets.append((start, places[at - 1] + 1 if length else start))
    return offsets


def span_phrases(example: TaskExample) -> list[str]:
    """The phrase of each gold span in the example's text, with runs of whitespace as one space.

    Where the words do not spell the text, the words of the span joined by spaces.
    """
    offsets = word_offsets(example.text, example.words)
    phrases = []
    for span in example.spans:
        if offsets is None:
            raw = " ".join(example.words[span.start : span.end])
        else:
            raw = example.text[offsets[span.start][0] : offsets[span.end - 1][1]]
        phrases.append(" ".join(raw.split()))
    return phrases
