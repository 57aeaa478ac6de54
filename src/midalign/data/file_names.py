"""File names of data: the split and the languages that a name tells, and whether the file is data at all.

A name may have its language first (``de_news.bio``), last (``test_de.tsv``) or nowhere (``train.txt``), and ordinary
words may be codes of languages (``my_data.bio``, ``no_context.tsv``). So a part of a name is a language

1. if it is a code of more than one part (``pt-BR``, ``zh_Hant``, ``sr@latin``) or not an English word (``de``,
   ``swh``);
2. if it is an English word (``it``, ``no``, ``max``), only if the whole name is that code, the language was asked for,
   or a file beside it has a language at the same place of the same name (``test_it.tsv`` beside ``test_de.tsv``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from midalign.files import readable
from midalign.languages import known, languages_by_name

SPLITS: dict[str, tuple[str, ...]] = {  # our name, and what the corpora call it
    "train": ("train", "training"),
    "dev": ("dev", "valid", "validation", "validate", "val", "testa"),  # testa and testb: CoNLL 2002 and 2003
    "test": ("test", "devtest", "testb"),
}
PACKED = (".gz", ".bz2", ".xz")

_NOTES = re.compile(
    r"_?readme([._-].*)?"
    # `LICENSE_CC-BY.txt` is a note, but `citation_intent.eng.test.jsonl` is data.
    r"|_?(licen[cs]e|copying|changelog|citation)([._-](?!.*\.(jsonl?|csv|tsv|parquet|conllu?|bio|iob2?|tmx)$).*)?"
    r"|_?(about|authors|changes|checksums?|contributors|credits|document_ids|info|languages|manifest|notes?|notice|"
    r"requirements|sources?|version|[a-z0-9]*sums?)(\.(txt|md|rst|tsv|csv|json|ya?ml))?",
    re.IGNORECASE,
)
# English words, and words of file names, that are also codes of languages.
_WORDS = re.compile(
    r"am|an|as|be|co|do|ha|he|hi|ho|id|ie|ii|io|is|it|la|lo|mi|ml|my|na|ne|no|nr|om|or|os|pa|pi|ps|se|si|sm|so|st|ta|te|"
    r"ti|to|tr|ts|ve|wa|yo|ace|arm|bak|ban|bar|ben|bug|cat|che|cos|dan|dar|din|ell|est|fin|fur|geo|got|hat|her|ice|ill|ind|"
    r"kin|lad|lat|lim|lin|lit|mac|mag|mal|max|may|men|min|mon|mos|nap|nav|nor|nov|pag|pam|pan|pap|per|pol|que|run|rum|"
    r"sag|san|sat|sin|som|spa|sun|tam|tat|tel|ton|tum|ven|vol|war|wel"
)
_REGION = re.compile(r"[A-Z]{2}|\d{3}")


def bare(path: Path) -> Path:
    """The path without the suffix of compression: ``eng.txt`` for ``eng.txt.gz``."""
    return path.with_suffix("") if path.suffix in PACKED else path


def data_files(folder: Path) -> list[Path]:
    """The data files of a folder, sorted by name, without hidden files, README and the like; none if it is a file.

    Raises:
        DataError: It cannot be read.
    """
    with readable(folder):
        entries = sorted(folder.iterdir()) if folder.is_dir() else []
        return [file for file in entries if file.is_file() and not is_note(file)]


def is_note(path: Path) -> bool:
    """Whether a file is not data: hidden, a backup, README, LICENSE, checksums and the like."""
    return path.name.startswith(".") or path.name.endswith("~") or _NOTES.fullmatch(bare(path).name) is not None


def split_name(split: str) -> str:
    """The name of a split in midalign, whatever the corpus calls it; any other word unchanged."""
    return next((name for name, aliases in SPLITS.items() if split in aliases), split)


def splits_in(name: str) -> set[str]:
    """The splits (by midalign's names) that the parts of a file's name tell."""
    parts = re.split(r"[\W_]", name.casefold())
    return {split for split, aliases in SPLITS.items() if not set(aliases).isdisjoint(parts)}


class Named(NamedTuple):
    """A language that a part of a name tells.

    Attributes:
        language: Canonical code.
        part: The part as it is written.
        rest: The name with ``{}`` in that part's place.
        is_word: Whether the part is also an English word, so that it may not mean a language.
    """

    language: str
    part: str
    rest: str
    is_word: bool


def languages_in(stem: str) -> list[Named]:
    """The languages that parts of a file's stem tell, in order, by code or by English name (``german.tsv``)."""
    pieces = re.split(r"([._\s-]+)", stem)  # parts at even places, what separates them at odd ones
    found: list[Named] = []
    at = 0
    while at < len(pieces):
        end = next((end for end in (at + 5, at + 3) if end <= len(pieces) and _code(pieces[at:end:2])), at + 1)
        if language := _code(pieces[at:end:2]):
            rest = "".join(pieces[:at]) + "{}" + "".join(pieces[end:])
            is_word = end == at + 1 and rest != "{}" and _WORDS.fullmatch(pieces[at].casefold()) is not None
            found.append(Named(language, "".join(pieces[at:end]), rest, is_word))
        at = end + 1
    return found


def _code(parts: Sequence[str]) -> str | None:
    """The language of one to three neighbouring parts that together are a code."""
    language = known("_".join(parts)) or (languages_by_name().get(parts[0].casefold()) if len(parts) == 1 else None)
    if language is None or len(parts) == 1 or _REGION.fullmatch(parts[-1]):
        return language
    # `en_de` are two languages rather than English as in Germany, but `pt_br` and `zh_hant` are one.
    return language if language != known("_".join(parts[:-1])) or known(parts[-1]) is None else None


def language_of_each(stems: Sequence[str], wanted: Collection[str] | None) -> list[str | None]:
    """The one language that each of some files' stems tells, or None where it tells none, or several.

    Args:
        stems: Stems of files that lie together.
        wanted: Canonical codes that were asked for; they decide ambiguous cases.
    """
    all_named = [languages_in(stem) for stem in stems]
    places = {named.rest for found in all_named for named in found if not named.is_word}
    return [_only(found, wanted or (), places) for found in all_named]


def _only(found: Iterable[Named], wanted: Collection[str], places: Collection[str]) -> str | None:
    meant = {named.language for named in found if not named.is_word or named.rest in places or named.language in wanted}
    return meant.pop() if len(meant) == 1 else None


def shown(names: Iterable[object], most: int = 5) -> str:
    """Names for a message; only the first ones if there are many."""
    listing = [str(name) for name in names]
    return ", ".join(listing[:most]) + (f" and {len(listing) - most} more" if len(listing) > most else "")
