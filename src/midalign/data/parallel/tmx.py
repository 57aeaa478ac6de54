"""Parallel corpora in TMX, the exchange format of translation memories, to rows with their file and line.

A translation unit (``<tu>``) is a row; each of its variants (``<tuv xml:lang="de">``) is the sentence of one language.
Of a segment's inline elements, ``<hi>`` contains text. The others (``bpt``, ``ept``, ``ph``, ``it``, ``ut``) contain
codes of the original format and are left out.
"""

from __future__ import annotations

import io
import logging
import xml.sax
import xml.sax.handler
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from midalign.data.file_names import bare
from midalign.data.parallel.line_files import RawRow
from midalign.errors import DataError, UserError
from midalign.files import unpacked
from midalign.languages import canonical, known

logger = logging.getLogger(__name__)

_CODES = {"bpt", "ept", "ph", "it", "ut", "sub"}


def read_tmx(path: Path, wanted: Sequence[str] | None) -> list[RawRow]:
    """Rows of a TMX file; runs of white space become one blank, because XML editors indent.

    Raises:
        DataError: Not XML, not TMX; a unit with one language twice.
        LanguageError: A code is not known, and no languages were asked for.
    """
    units = _Units(path, wanted)
    try:
        xml.sax.parse(io.BytesIO(unpacked(path)), units)  # noqa: S317 - expat limits expansion
    except xml.sax.SAXParseException as fault:
        raise DataError(
            f"{path}:{fault.getLineNumber()}: not valid XML ({fault.getMessage()}). Correct the file, or export it "
            "again."
        ) from None
    except UserError:
        raise
    except (ValueError, LookupError) as fault:
        raise DataError(f"{path}: not valid XML ({fault}). Export it again, as UTF-8.") from None
    if not units.is_tmx:
        raise DataError(f"{path}: XML, but not TMX, whose outermost element is <tmx>. Name another format.")
    rows = [
        RawRow(f"{bare(path).stem}:{number}", texts, dict.fromkeys(texts, str(path)), line)
        for number, (line, texts) in enumerate(units.found)
        if len(texts) > 1
    ]
    if len(rows) < len(units.found):
        logger.warning("%s: left out %d units without two of the languages", path, len(units.found) - len(rows))
    return rows


class _Units(xml.sax.handler.ContentHandler):
    """Collects the units of a TMX file: ``found`` holds the line of each, and its texts by canonical language."""

    def __init__(self, path: Path, wanted: Sequence[str] | None) -> None:
        super().__init__()
        self.found: list[tuple[int, dict[str, str]]] = []
        self.is_tmx = False
        self._path, self._wanted = path, wanted
        self._language: str | None = None
        self._text: list[str] | None = None
        self._inside_codes = 0
        self._at: Any = None

    def setDocumentLocator(self, locator: Any) -> None:  # noqa: N802 - the name is xml.sax's
        self._at = locator

    @property
    def _place(self) -> str:
        return f"{self._path}:{self._at.getLineNumber()}"

    def startElement(self, name: str, attrs: Any) -> None:  # noqa: N802
        if name == "tmx":
            self.is_tmx = True
        elif name == "tu":
            self.found.append((self._at.getLineNumber(), {}))
        elif name == "tuv":
            self._language = self._language_of(attrs.get("xml:lang") or attrs.get("lang"))
        elif name == "seg" and self._language is not None:
            self._text = []
        elif name in _CODES:
            self._inside_codes += 1

    def endElement(self, name: str) -> None:  # noqa: N802
        if name in _CODES:
            self._inside_codes -= 1
        elif name == "seg" and self._text is not None:
            self._keep(" ".join("".join(self._text).split()))
            self._text = None
        elif name == "tuv":
            self._language = None

    def characters(self, content: str) -> None:
        if self._text is not None and not self._inside_codes:
            self._text.append(content)

    def _language_of(self, code: str | None) -> str | None:
        if code is None or not self.found:
            raise DataError(
                f"{self._place}: a <tuv> without a language or outside a <tu>. Write <tuv xml:lang=...> inside a <tu>."
            )
        return canonical(code, self._place) if self._wanted is None else known(code)

    def _keep(self, text: str) -> None:
        line, texts = self.found[-1]
        language = str(self._language)
        if language in texts and (self._wanted is None or language in self._wanted):
            raise DataError(
                f"{self._path}:{line}: a unit has two segments in {language}, so it is unclear which is the "
                "translation. Keep one of them."
            )
        texts.setdefault(language, text)
