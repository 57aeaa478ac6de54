"""Test sets by name, through sacreBLEU: ``sacrebleu:wmt23/en-de`` is WMT23's English-German set.

sacreBLEU downloads a set once and keeps it in ``~/.sacrebleu`` (or where ``SACREBLEU`` says); with the set there, no
network is needed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from midalign.data.file_names import shown
from midalign.data.parallel.line_files import RawRow, read_aligned, restrict
from midalign.errors import DataError, did_you_mean
from midalign.languages import canonical

logger = logging.getLogger(__name__)

SACREBLEU = "sacrebleu:"


def direction_of(name: str) -> tuple[str, str]:
    """Canonical languages of a test set's name: source and target.

    Raises:
        DataError: sacreBLEU has no such set, or not in this pair of languages.
    """
    _, pair = _set_and_pair(name)
    source, _, target = pair.partition("-")
    return canonical(source, name), canonical(target, name)


def read_test_set(name: str, wanted: Sequence[str] | None, limit: int | None) -> list[RawRow]:
    """Rows of a test set, its source with the first reference.

    Raises:
        DataError: As `direction_of`; the set lacks a wanted language, or cannot be loaded.
    """
    found, pair = _set_and_pair(name)
    languages = direction_of(name)
    restrict(dict.fromkeys(languages), wanted, name)
    try:
        source, references = found.get_source_file(pair), found.get_reference_files(pair)
    except (
        Exception,
        SystemExit,
    ) as fault:  # whatever the network, an archive or a parser raised; a wrong checksum exits
        raise DataError(
            f"the test set {name!r} cannot be loaded through sacreBLEU ({fault}). It is downloaded once: try again "
            f"with a network, or copy another machine's ~/.sacrebleu/{found.name} here."
        ) from fault
    if len(references) > 1:
        logger.warning("%s has %d references; the first is taken: %s", name, len(references), references[0])
    files = dict(zip(languages, (Path(source), Path(references[0])), strict=True))
    return read_aligned(files, name.removeprefix(SACREBLEU).replace("/", "."), limit)


def _set_and_pair(name: str) -> tuple[Any, str]:
    from sacrebleu.dataset import DATASETS

    chosen, _, pair = name.removeprefix(SACREBLEU).rpartition("/")
    if name.removeprefix(SACREBLEU) in DATASETS:
        chosen, pair = name.removeprefix(SACREBLEU), ""
    if chosen not in DATASETS:
        raise DataError(
            f"{name}: sacreBLEU has no test set {chosen or pair!r}.{did_you_mean(chosen or pair, DATASETS)} Write "
            "sacrebleu:SET/PAIR, such as sacrebleu:wmt23/en-de; `sacrebleu --list` shows them all."
        )
    pairs = list(DATASETS[chosen].langpairs)
    if pair not in pairs:
        raise DataError(
            f"{name}: the set {chosen!r} has no pair {pair!r}.{did_you_mean(pair, pairs)} It has: {shown(pairs, 40)}."
        )
    return DATASETS[chosen], pair
