"""Sentence splitting of long parallel texts, into pairs where both sides have equally many sentences.

A sentence ends at ``. ! ? …`` and their equivalents in other scripts, with closing quotes and brackets after them, if
white space or the end of the text follows; at ``。！？`` it always ends. It does not end

- after a full stop behind a digit ("3. Mai"), behind a letter that stands alone ("J. S. Bach", "z. B."), or behind a
  title (`_TITLES`: English, since English is one side of most pairs, and what other languages share with it);
- where the next word begins in lower case ("etc. and", "'Why?' she asked").

If the splitter misses an end on one side, or finds one too many, the counts differ and the pair stays whole. So its
simplicity costs chunks, and seldom gives a wrong pair.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import replace

from midalign.records import ParallelPair

logger = logging.getLogger(__name__)

_BEFORE_SPACE = ".!?…।॥۔؟։።፧။។"
_ANYWHERE = "。！？｡"
_CLOSING = r"\"'”’»›)\]」』）】"
# A run of marks is tried once, from its beginning and as a whole, so that long ones (tables of contents) cost no more.
_END = re.compile(
    rf"(?<![{_BEFORE_SPACE}])[{_BEFORE_SPACE}]++[{_CLOSING}]*+(?=\s|$)"
    rf"|[{_ANYWHERE}][{_BEFORE_SPACE}{_ANYWHERE}]*[{_CLOSING}]*"
)
_BLANKS = re.compile(r"\s*")
# What most often made counts differ on NTREX-128.
_TITLES = {
    "Mr", "Mrs", "Ms", "Dr", "Prof", "St", "Sen", "Sens", "Rep", "Reps", "Rev", "Gen", "Gov", "Capt", "Sgt", "Lt",
    "Det", "vs",
}  # fmt: skip


def sentences(text: str) -> list[str]:
    """Split a text into sentences, in order and without white space around them; together they are the whole text."""
    parts, start = [], 0
    for end in _END.finditer(text):
        if not _goes_on(text, end):
            parts.append(text[start : end.end()])
            start = end.end()
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]


def chunked(pairs: Iterable[ParallelPair]) -> list[ParallelPair]:
    """Split each pair into pairs of sentences, if both sides have equally many; other pairs stay whole.

    Chunk k (from 0) of the pair ``id`` has the id ``id.k``. The log says how many pairs were split.
    """
    result: list[ParallelPair] = []
    split = whole = unequal = 0
    for pair in pairs:
        sources, targets = sentences(pair.source), sentences(pair.target)
        if len(sources) != len(targets) or len(sources) < 2:
            unequal += len(sources) != len(targets)
            whole += 1
            result.append(pair)
            continue
        split += 1
        result += [
            replace(pair, source=source, target=target, id=f"{pair.id}.{number}")
            for number, (source, target) in enumerate(zip(sources, targets, strict=True))
        ]
    logger.info(
        "split %d of %d pairs into %d of one sentence each; %d stay whole, of which %d for unequal counts",
        split,
        split + whole,
        len(result) - whole,
        whole,
        unequal,
    )
    return result


def _goes_on(text: str, end: re.Match[str]) -> bool:
    """Whether the sentence goes on behind a mark that could end it."""
    if end.group()[0] in _ANYWHERE:
        return False
    blanks = _BLANKS.match(text, end.end())
    if blanks and text[blanks.end() : blanks.end() + 1].islower():
        return True
    at = end.start()
    if not end.group().startswith(".") or end.group().startswith("..") or at == 0:
        return False
    last, before = text[at - 1], text[at - 2 : at - 1]
    # Combining marks belong to the word (Marathi), and so does an apostrophe (don't).
    alone = not before or (unicodedata.category(before)[0] not in "LMN" and before not in "'’")
    return last.isdigit() or (last.isalpha() and alone) or _last_word(text[max(0, at - 20) : at]) in _TITLES


def _last_word(text: str) -> str:
    found = re.search(r"[^\W\d_]+$", text)
    return found.group() if found else ""
