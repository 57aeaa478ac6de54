"""Languages and their codes: every usual way of writing a code, and its one canonical form.

The canonical code is ISO 639-3, an underscore and the ISO 15924 script, as FLORES-200 writes it: ``deu_Latn``. A
variety that a corpus keeps apart from the language's default one has a suffix: ``por_Latn-BR``, ``gsw_Latn-BE``.

The table is ``languages.tsv`` beside this file: FLORES-200 and FLORES+, NTREX-128, LASER's Tatoeba, MASSIVE, xSID,
home-assistant-intents, and the rest of ISO 639-1. Where a language has several rows, the first is the one that
a bare code means (``zh`` is ``zho_Hans``, ``sr`` is ``srp_Cyrl``).
"""

from __future__ import annotations

import csv
import functools
import re
from dataclasses import dataclass
from importlib import resources

from midalign.errors import LanguageError, nearest

ENGLISH = "eng_Latn"
_SCRIPT_WORDS = {"arabic": "arab", "cyrillic": "cyrl", "devanagari": "deva", "latin": "latn"}  # sr@latin, uz@cyrillic
_CODE = re.compile(r"(?P<base>[a-z]{2,3})(?:_(?P<script>[a-z]{4}))?(?:_(?P<region>[a-z]{2}|\d{3}))?")


@dataclass(frozen=True, slots=True)
class Language:
    """One language (or a named variety of it) in one script.

    Attributes:
        code: Canonical code, such as ``"deu_Latn"`` or ``"por_Latn-BR"``.
        name: English name.
        script: ISO 15924 code of the script, such as ``"Latn"``.
        family: Top-level language family, such as ``"Indo-European"``; ``"Creole"``, ``"Isolate"`` and
            ``"Constructed"`` where there is none.
        iso639_1: Two-letter code, or the empty string where there is none or another row of the language has it.

    Examples:
        >>> midalign.Language.parse("de-DE")
        Language(code='deu_Latn', name='German', script='Latn', family='Indo-European', iso639_1='de')
    """

    code: str
    name: str
    script: str
    family: str
    iso639_1: str

    @classmethod
    def parse(cls, code: str, where: str = "") -> Language:
        """The language that ``code`` names.

        Case does not matter, and ``-`` and ``@`` are the same as ``_``. A region that names no variety of its own is
        dropped (``de-DE`` and ``de_AT`` are ``deu_Latn``); a macrolanguage means its usual member (``swa`` is
        ``swh_Latn``).

        Args:
            code: ISO 639-1, ISO 639-3 or FLORES code, locale, or one of the corpora's own codes.
            where: File or recipe that the code is from, for the message.

        Raises:
            LanguageError: No row of the table answers to ``code``.
        """
        found = _lookup(code)
        if found is None:
            raise LanguageError(_unknown(code, where))
        return found


def canonical(code: str, where: str = "") -> str:
    """The canonical form of a language code: ``canonical("de-DE") == "deu_Latn"``.

    Raises:
        LanguageError: The code is not known; ``where`` (a file or recipe path) is named in the message.
    """
    return Language.parse(code, where).code


def known(code: str) -> str | None:
    """The canonical form of a language code, or None if it is not one."""
    found = _lookup(code)
    return None if found is None else found.code


@functools.cache
def languages_by_name() -> dict[str, str]:
    """Canonical code by the English name in small letters: ``languages_by_name()["german"] == "deu_Latn"``."""
    return {language.name.casefold(): language.code for language in _table()[0]}


@functools.cache
def _table() -> tuple[tuple[Language, ...], dict[str, Language]]:
    """The rows of ``languages.tsv``, and a mapping from every code in it (folded) to its language."""
    text = resources.files("midalign").joinpath("languages.tsv").read_text(encoding="utf-8")
    languages: list[Language] = []
    index: dict[str, Language] = {}
    for row in csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE):
        code = row["code"]
        language = Language(code, row["name"], code[4:8], row["family"], row["iso639_1"])
        languages.append(language)
        for alias in row["aliases"].split():
            index[alias.casefold()] = language
        for name in (code.replace("-", "_"), row["iso639_1"], code[:3]):
            if name:  # the first row of a language owns its bare codes, unless another lists them as aliases
                index.setdefault(name.casefold(), language)
    return tuple(languages), index


@functools.lru_cache(maxsize=4096)
def _lookup(code: str) -> Language | None:
    """The language of a code as it is written, or None."""
    base, *more = re.split(r"[-_@]", code.strip().casefold())
    return _find("_".join([base, *(_SCRIPT_WORDS.get(part, part) for part in more)]))


def _find(folded: str) -> Language | None:
    """The language of a folded code, or None: as written, else by its parts from the most to the least exact."""
    index = _table()[1]
    if folded in index:
        return index[folded]
    parts = _CODE.fullmatch(folded)
    default = index.get(parts["base"]) if parts else None
    if parts is None or default is None:
        return None
    stem = f"{default.code[:3]}_{parts['script'] or default.script}".casefold()
    return index.get(f"{stem}_{parts['region']}") or index.get(stem)


def _unknown(code: str, where: str) -> str:
    """The message for an unknown code, with the nearest codes and names."""
    languages, index = _table()
    by_text = {language.name: language for language in languages} | index
    by_text |= {language.code: language for language in languages}
    base = index.get(re.split(r"[-_]", code.casefold())[0])
    same = [language for language in languages if base and language.code[:3] == base.code[:3]]
    close = dict.fromkeys([*same, *(by_text[text] for text in nearest(code, by_text))])
    hint = " or ".join(f"{language.code!r} ({language.name})" for language in list(close)[:4])
    return (
        (f"{where}: " if where else "")
        + f"unknown language {code!r}. Languages are matched by code, so a wrong one would mix up corpora."
        + (f" Did you mean {hint}?" if hint else "")
        + " Write an ISO 639-1 or 639-3 code (de, deu), with a script where it matters (deu_Latn, srp_Latn)."
    )
