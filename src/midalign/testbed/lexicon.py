"""The languages of the testbed, and the names of things in each (`lexicon.txt`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Literal

Role = Literal["supervised", "aligned", "unseen"]
Resource = Literal["high", "low"]


@dataclass(frozen=True, slots=True)
class TestbedLanguage:
    """A language of the testbed.

    Attributes:
        code: Canonical code, such as ``"zho_Hans"``.
        grammar: Its code in `home-assistant-intents`.
        spoken: Its code in the number speller (`unicode_rbnf`), or None if the speller does not know it.
        role: supervised = has task data; aligned = has pairs with English; unseen = neither.
        resource: Resource level: how much pretraining text it has.
        spaces: Whether words are separated by spaces; if not, single characters are its words.
    """

    code: str
    grammar: str
    spoken: str | None
    role: Role
    resource: Resource
    spaces: bool = True

    @property
    def iso639_3(self) -> str:
        """The three-letter code, such as ``"zho"``."""
        return self.code.split("_")[0]

    @property
    def script(self) -> str:
        """The ISO 15924 script code, such as ``"Hans"``."""
        return self.code.split("_")[1]


_TABLE = (
    TestbedLanguage("eng_Latn", "en", "en", "supervised", "high"),
    TestbedLanguage("deu_Latn", "de", "de", "supervised", "high"),
    TestbedLanguage("fra_Latn", "fr", "fr", "supervised", "high"),
    TestbedLanguage("rus_Cyrl", "ru", "ru", "supervised", "high"),
    TestbedLanguage("zho_Hans", "zh-CN", "zh", "supervised", "high", spaces=False),
    TestbedLanguage("spa_Latn", "es", "es", "aligned", "high"),
    TestbedLanguage("pol_Latn", "pl", "pl", "aligned", "high"),
    TestbedLanguage("ell_Grek", "el", "el", "aligned", "low"),
    TestbedLanguage("npi_Deva", "ne", "ne", "aligned", "low"),
    TestbedLanguage("tha_Thai", "th", "th", "aligned", "low", spaces=False),
    TestbedLanguage("ita_Latn", "it", "it", "unseen", "high"),
    TestbedLanguage("nld_Latn", "nl", "nl", "unseen", "high"),
    TestbedLanguage("bul_Cyrl", "bg", "bg", "unseen", "low"),
    TestbedLanguage("ukr_Cyrl", "uk", "uk", "unseen", "low"),
    TestbedLanguage("hun_Latn", "hu", "hu", "unseen", "low"),
    TestbedLanguage("eus_Latn", "eu", None, "unseen", "low"),
    TestbedLanguage("arb_Arab", "ar", "ar", "unseen", "low"),
    TestbedLanguage("mal_Mlym", "ml", None, "unseen", "low"),
)
LANGUAGES: dict[str, TestbedLanguage] = {language.code: language for language in _TABLE}
DEMO_LANGUAGES = (
    "eng_Latn",
    "deu_Latn",
    "fra_Latn",
    "spa_Latn",
    "ell_Grek",
    "tha_Thai",
    "ita_Latn",
    "bul_Cyrl",
    "npi_Deva",
)
SHARED_NAMES = ("Luna", "Nova", "Atlas", "Orion", "Titan", "Vega", "Pixel", "Zeta")
"""Names of devices that are written the same in every language, as brand names are."""

THINGS = ("area", "light", "appliance", "media", "opening", "lock", "climate", "person", "place", "item")
"""The categories of `lexicon.txt` whose lines hold names of things; the other lines are small phrases."""


@dataclass(frozen=True)
class Lexicon:
    """The names and phrases of one language: category to the list of its entries."""

    entries: dict[str, list[str]]

    def name(self, concept: str) -> str:
        """The name of a concept such as ``"area/3"`` or ``"shared/Luna"``."""
        category, _, which = concept.partition("/")
        return which if category == "shared" else self.entries[category][int(which)]


@lru_cache(maxsize=1)
def load_lexicons() -> dict[str, Lexicon]:
    """All lexicons by canonical language code."""
    lexicons: dict[str, Lexicon] = {}
    entries: dict[str, list[str]] = {}
    for line in files("midalign.testbed").joinpath("lexicon.txt").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            entries = {}
            lexicons[line.strip("[]")] = Lexicon(entries)
        else:
            category, _, names = line.partition(": ")
            entries[category] = [name.strip() for name in names.split("|")]
    return lexicons
