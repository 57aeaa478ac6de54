"""Findings of a parallel corpus: identical sides and exact duplicates, counted and reported.

Neither is dropped: a name or a number may be the same in two languages, and news repeats itself. But many identical
sides are a sign of untranslated text, and duplicates are false negatives of each other in a batch.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from midalign.data.parallel.line_files import RawRow

log = logging.getLogger(__name__)

LanguagePair = tuple[str, str]
EXAMPLES = 3  # places named for each finding and pair of languages


@dataclass(frozen=True, slots=True)
class Finding:
    """Finding about a pair of languages: its count, and ``file:line`` of the first few."""

    count: int
    places: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CorpusReport:
    """What the checks of a corpus found.

    Attributes:
        rows: Number of rows kept.
        skipped: Rows dropped for an empty side (only with ``on_empty="skip"``).
        identical: By pair of languages, rows whose two sides are the same text (often untranslated).
        duplicates: By pair of languages, rows that repeat both sides of an earlier row.
    """

    rows: int
    skipped: Finding
    identical: Mapping[LanguagePair, Finding]
    duplicates: Mapping[LanguagePair, Finding]

    def as_dict(self) -> dict[str, object]:
        """The report as a JSON object, pairs written ``"eng_Latn deu_Latn"``."""

        def plain(finding: Finding) -> dict[str, object]:
            return {"count": finding.count, "places": list(finding.places)}

        return {
            "rows": self.rows,
            "skipped": plain(self.skipped),
            "identical": {" ".join(pair): plain(finding) for pair, finding in self.identical.items()},
            "duplicates": {" ".join(pair): plain(finding) for pair, finding in self.duplicates.items()},
        }


def identical_sides(rows: list[RawRow], order: Sequence[str]) -> dict[LanguagePair, Finding]:
    """By pair of languages, the rows whose two sides are the same text."""
    places: dict[LanguagePair, list[str]] = {}
    for row in rows:
        if len(set(row.texts.values())) == len(row.texts):
            continue
        for a, b in _couples(row.texts, order):
            if row.texts[a] == row.texts[b]:
                places.setdefault((a, b), []).append(row.place(b))
    return _findings(places)


def exact_duplicates(rows: list[RawRow], order: Sequence[str]) -> dict[LanguagePair, Finding]:
    """By pair of languages, the rows that repeat both sides of an earlier row.

    Only sentences that occur more than once in their language are compared in pairs, so that the cost grows with the
    number of sentences and not of pairs (1,081 pairs for each row of 47 languages).
    """
    counts = Counter((language, text) for row in rows for language, text in row.texts.items())
    first: dict[tuple[str, str, str, str], str] = {}
    places: dict[LanguagePair, list[str]] = {}
    for row in rows:
        repeated = [language for language, text in row.texts.items() if counts[language, text] > 1]
        for a, b in _couples(repeated, order):
            place, both = row.place(b), (a, b, row.texts[a], row.texts[b])
            if both in first:
                places.setdefault((a, b), []).append(f"{place} (repeats {first[both]})")
            else:
                first[both] = place
    return _findings(places)


def _couples(languages: Iterable[str], order: Sequence[str]) -> Iterable[LanguagePair]:
    return itertools.combinations(sorted(languages, key=order.index), 2)


def _findings(places: Mapping[LanguagePair, list[str]]) -> dict[LanguagePair, Finding]:
    return {pair: Finding(len(found), tuple(found[:EXAMPLES])) for pair, found in places.items()}


def warn_of(report: CorpusReport, path: object) -> None:
    """Log the findings; only rows with an empty side are dropped."""
    if report.skipped.count:
        log.warning("%s: %d rows dropped for an empty side: %s", path, report.skipped.count, report.skipped.places)
    kinds = (("identical sides", report.identical), ("exact duplicates", report.duplicates))
    for name, findings in kinds:
        total = sum(finding.count for finding in findings.values())
        if total:
            places = itertools.chain.from_iterable(finding.places for finding in findings.values())
            shown = ", ".join(itertools.islice(places, EXAMPLES))
            log.warning("%s: %d %s in %d language pairs (kept): %s", path, total, name, len(findings), shown)
