"""The report's heat map: retrieval between every two languages, as data for the page's script."""

from __future__ import annotations

import math
from typing import Any

from midalign.report.views import Probe, RunView
from midalign.report.words import system_name

_MATRIX_CHARACTERS = 1_600_000  # of the page's 3 MB; two characters a cell
_MISSING_CELL = "zz"
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_SHOWN_OF_A_LANGUAGE = ("name", "script", "family", "role", "resource")


def heat_data(run: RunView, shown: str) -> dict[str, Any] | None:
    """The retrieval matrices: per cell two base-36 digits of the accuracy times 1,000.

    The page starts with the system ``shown``, where it was probed.

    Where all layers of all systems would not fit into the page, evenly spread ones stay, with the first, the last, the
    aligned and the best ones.
    """
    probes = {system: probe for system, probe in run.probed.items() if probe.layers[0].matrix}
    if not probes:
        return None
    characters = sum(2 * len(p.languages) ** 2 * len(p.layers) for p in probes.values())
    every = max(1, math.ceil(characters / _MATRIX_CHARACTERS))
    codes = dict.fromkeys(code for probe in probes.values() for code in probe.languages)
    start = next(iter(probes.values())).best_layer if run.aligned_layer is None else run.aligned_layer
    return {
        "languages": {c: {key: getattr(run.languages[c], key) for key in _SHOWN_OF_A_LANGUAGE} for c in codes},
        "layer": start,
        "shown": list(probes).index(shown) if shown in probes else 0,
        "thinned": every > 1,
        "systems": [
            {"name": system_name(system), "codes": probe.languages, "layers": _encoded(run, probe, every)}
            for system, probe in probes.items()
        ],
    }


def _encoded(run: RunView, probe: Probe, every: int) -> dict[str, str]:
    always = {probe.layers[0].layer, probe.layers[-1].layer, probe.best_layer, run.aligned_layer}
    kept = [e for i, e in enumerate(probe.layers) if e.matrix and (i % every == 0 or e.layer in always)]
    return {str(e.layer): "".join(_digits(cell) for row in e.matrix for cell in row) for e in kept}


def _digits(cell: float | None) -> str:
    if cell is None:
        return _MISSING_CELL
    value = min(1000, max(0, round(1000 * cell)))
    return _DIGITS[value // 36] + _DIGITS[value % 36]
