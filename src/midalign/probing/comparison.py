"""Comparison of two probes, and correlation of retrieval with downstream scores.

`compare` gives the difference of two probes of the same sentences, per layer and language, with a paired bootstrap over
sentences. `correlate` correlates retrieval accuracy with a downstream score over languages: Pearson's and Spearman's
coefficients at each layer (the paper's claim is p < 0.01). `correlate_gains` does the same for changes. All return
plain data for JSON.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import stats

from midalign.errors import DataError, RunError
from midalign.files import read_json, write_json
from midalign.functional.statistics import FloatArray, holm, paired_result
from midalign.languages import canonical
from midalign.probing.content import (
    Change,
    Coefficient,
    LayerChange,
    LayerCorrelation,
    ProbeComparison,
    TransferCorrelation,
)
from midalign.probing.result import ProbeResult
from midalign.probing.statistics import clean, interval, resampled, shares, spearman
from midalign.records import RESAMPLES

COMPARISON_FILE = "comparison.json"
TRANSFER_FILE = "transfer.json"
GAINS_FILE = "gains.json"

# What must be equal for a difference to be one of the models.
_SAME = ("languages", "n", "data", "margin", "k", "candidates", "pooling")

# Fewer points give a coefficient, but no p-value worth printing: with 3, Spearman's rho is +-1 or +-0.5.
FEWEST_LANGUAGES = 4


def compare(before: ProbeResult, after: ProbeResult, *, resamples: int = RESAMPLES, seed: int = 0) -> ProbeComparison:
    """Difference of two probes of the same sentences, for example before and after alignment.

    Args:
        before: Probe of the first model.
        after: Probe of the second model on the same sentences, with the same options. Only layers that both have are
            compared.
        resamples: Resamples of the sentences.
        seed: Of the bootstrap.

    Returns:
        ``languages``, ``n``, ``best_layer`` (before and after) and ``layers``: for each layer ``before``, ``after``,
        ``difference``, ``low``, ``high``, ``p_value``, and the same by language and by group of ``after``. Languages
        also have ``p_holm``, corrected for their number.

    Raises:
        RunError: If the probes differ in sentences or options, or one was read without its hits.

    Examples:
        >>> corpus = midalign.read_parallel("probe")
        >>> before = midalign.probe(model, tokenizer, corpus)
        >>> after = midalign.probe(model, tokenizer, corpus)  # of the same model, so that nothing has changed
        >>> change = midalign.compare(before, after)["layers"][2]["by_language"]["deu_Latn"]
        >>> change["difference"], change["p_value"]
        (0.0, 1.0)
    """
    _check_comparable(before, after)
    languages = after.languages
    groups = {name: group["languages"] for name, group in after.content["groups"].items()}
    common = [layer for layer in after.layers if layer in before.layers]
    tables = []
    for result in (before, after):
        rows = [result.layers.index(layer) for layer in common]
        assert result.hits is not None
        tables.append(shares(result.hits[rows], languages, groups))
    means = [table.mean(axis=0) for table in tables]
    draws = [resampled(table, seed, resamples) for table in tables]

    def test(layer: int, column: int) -> Change:
        found = paired_result(
            means[0][layer, column], means[1][layer, column], draws[0][:, layer, column], draws[1][:, layer, column]
        )
        return {
            "before": clean(found.a), "after": clean(found.b), "difference": clean(found.difference),
            "low": clean(found.low), "high": clean(found.high), "p_value": clean(found.p_value),
        }  # fmt: skip

    entries: list[LayerChange] = []
    for place, layer in enumerate(common):
        by_language = {language: test(place, 1 + len(groups) + i) for i, language in enumerate(languages)}
        corrected = holm({language: found["p_value"] or 0.0 for language, found in by_language.items()})
        for language, found in by_language.items():
            found["p_holm"] = clean(corrected[language])
        by_group = {name: test(place, 1 + i) for i, name in enumerate(groups)}
        entries.append({"layer": layer, **test(place, 0), "groups": by_group, "by_language": by_language})
    return {
        "languages": languages,
        "n": after.content["n"],
        "resamples": resamples,
        "seed": seed,
        "groups": after.content["groups"],
        "best_layer": {"before": before.best_layer, "after": after.best_layer},
        "layers": entries,
    }


def correlate(
    result: ProbeResult, transfer_scores: Mapping[str, float], *, resamples: int = RESAMPLES, seed: int = 0
) -> TransferCorrelation:
    """Correlation of retrieval accuracy with a downstream score, over languages.

    Args:
        result: A probe, usually of the base model.
        transfer_scores: Language (any code) to its downstream score, usually of the fine-tuned model on languages
            without task data. Languages that were not probed are left out and named in the result.
        resamples: Resamples of the languages, for the intervals.
        seed: Of the bootstrap.

    Returns:
        ``languages``, ``scores``, ``left_out`` and ``layers``: for each layer ``accuracy`` (in the order of
        ``languages``), ``pearson`` and ``spearman``, each with ``value``, ``p_value`` (two-sided), ``low`` and
        ``high``. Where all accuracies or all scores are equal there is no correlation, and these are None.

    Raises:
        DataError: If fewer than four languages have both.
        LanguageError: If a language code is not known.

    Examples:
        >>> texts = {code: [f"{code} {i}" for i in range(9)] for code in ("en", "de", "fr", "nl")}
        >>> result = midalign.probe(model, tokenizer, texts)
        >>> found = midalign.correlate(result, {"en": 0.7, "de": 0.6, "fr": 0.5, "nl": 0.6})
        >>> found["layers"][2]["pearson"].keys()
        dict_keys(['value', 'p_value', 'low', 'high'])
    """
    scores = {canonical(code, "transfer scores"): float(value) for code, value in transfer_scores.items()}
    accuracy = {layer: result.by_language(layer) for layer in result.layers}
    return _correlated(accuracy, result.languages, scores, resamples, seed)


def correlate_gains(
    comparison: ProbeComparison, gains: Mapping[str, float], *, resamples: int = RESAMPLES, seed: int = 0
) -> TransferCorrelation:
    """Correlation of changes: does more alignment bring a higher downstream score?

    Args:
        comparison: Of two probes, as `compare` gives it.
        gains: Language (canonical code) to the change of its score between the same two models.
        resamples: As in `correlate`.
        seed: As in `correlate`.

    Returns:
        As `correlate`; ``accuracy`` and ``scores`` are the changes.

    Raises:
        DataError: As `correlate`.
    """
    changes = {
        entry["layer"]: {language: found["difference"] or 0.0 for language, found in entry["by_language"].items()}
        for entry in comparison["layers"]
    }
    return _correlated(changes, comparison["languages"], gains, resamples, seed)


def _correlated(
    accuracy: Mapping[int, Mapping[str, float]],
    probed: Sequence[str],
    scores: Mapping[str, float],
    resamples: int,
    seed: int,
) -> TransferCorrelation:
    """Both coefficients at each layer, over the languages that have an accuracy and a score."""
    languages = [language for language in probed if language in scores]
    if len(languages) < FEWEST_LANGUAGES:
        raise DataError(
            f"{len(languages)} languages have both a retrieval accuracy and a transfer score ({languages}); a "
            f"correlation needs {FEWEST_LANGUAGES} or more. Scores are for {sorted(scores)}, the probe for "
            f"{list(probed)}."
        )
    downstream = np.array([scores[language] for language in languages])
    drawn = np.random.default_rng(seed).integers(len(languages), size=(resamples, len(languages)))
    entries: list[LayerCorrelation] = []
    for layer, by_language in accuracy.items():
        retrieval = np.array([by_language[language] for language in languages])
        entries.append(
            {
                "layer": layer,
                "accuracy": [clean(value) for value in retrieval],
                "pearson": _coefficient(retrieval, downstream, drawn),
                "spearman": _coefficient(stats.rankdata(retrieval), stats.rankdata(downstream), drawn, ranks=True),
            }
        )
    return {
        "languages": languages,
        "scores": [clean(value) for value in downstream],
        "left_out": sorted(set(scores) - set(languages)),
        "resamples": resamples,
        "seed": seed,
        "layers": entries,
    }


def write_comparison(before: ProbeResult, after: ProbeResult, folder: Path) -> None:
    """Write `compare` as ``comparison.json``, beside the ``probe.json`` of `after`.

    Raises:
        RunError: As `compare`; or if the folder cannot be written to.
    """
    write_json(folder / COMPARISON_FILE, compare(before, after))


def write_transfer(result: ProbeResult, scores: Path, folder: Path) -> None:
    """Write `correlate` with the first metric of a file as ``transfer.json``, beside the ``probe.json`` of `result`.

    Args:
        result: A probe.
        scores: A ``scores.json`` of midalign or any other program.
        folder: Where to write.

    Raises:
        RunError: If the file is missing or damaged.
        DataError: If the file has no score by language, or as `correlate`.
    """
    name, found = scores_by_language(scores)
    write_json(folder / TRANSFER_FILE, {"metric": name, **correlate(result, found)})


def scores_by_language(path: Path, metric: str | None = None) -> tuple[str, dict[str, float]]:
    """A metric and its score by language; of a translation both ways, the mean of both.

    Args:
        path: A ``scores.json`` of midalign or any other program.
        metric: The metric; None for the first one in the file.

    Raises:
        RunError: If the file is missing or damaged.
        DataError: If it has no score by language.
    """
    content = read_json(path)
    entries = content.get("scores") if isinstance(content, dict) else None
    values: dict[str, list[float]] = defaultdict(list)
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and entry.get("language") and isinstance(entry.get("value"), int | float):
            metric = entry.get("metric") if metric is None else metric
            if entry.get("metric") == metric:
                values[entry["language"]].append(float(entry["value"]))
    if metric is None or not values:
        raise DataError(
            f"{path}: no score of metric {metric!r} by language; `midalign evaluate` writes a file of the form "
            '{"scores": [{"metric": "slot_f1", "language": "deu_Latn", "value": 0.61, ...}]}'
        )
    return metric, {language: sum(found) / len(found) for language, found in values.items()}


def _coefficient(x: FloatArray, y: FloatArray, drawn: npt.NDArray[np.int64], ranks: bool = False) -> Coefficient:
    """Pearson's coefficient of two rows of values (Spearman's, of ranks), with p-value and bootstrap interval."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return {"value": None, "p_value": None, "low": None, "high": None}
    value, p_value = spearman(x, y) if ranks else stats.pearsonr(x, y)
    a, b = x[drawn], y[drawn]
    if ranks:  # ranks within each resample, which has ties that the sample has not
        a, b = stats.rankdata(a, axis=1), stats.rankdata(b, axis=1)
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    norms = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    defined = norms > 1e-12  # a resample of one language many times has no correlation
    low, high = interval((a * b).sum(axis=1)[defined] / norms[defined]) if defined.any() else (None, None)
    return {"value": clean(value), "p_value": _p_value(p_value), "low": low, "high": high}


def _p_value(value: float) -> float | None:
    """Three significant digits: six decimals would print a p of 1e-9 as 0."""
    return float(f"{value:.3g}") if np.isfinite(value) else None


def _check_comparable(before: ProbeResult, after: ProbeResult) -> None:
    different = [name for name in _SAME if before.content.get(name) != after.content.get(name)]
    if different:
        name = different[0]
        raise RunError(
            f"the two probes differ in {', '.join(different)} ({name}: {before.content.get(name)!r} and "
            f"{after.content.get(name)!r}), so their difference would not be one of the models. Probe both with the "
            "same data and options."
        )
    if before.hits is None or after.hits is None:
        raise RunError(
            "a probe was read without hits.safetensors, which holds what each sentence retrieved; keep it beside "
            "probe.json, or probe again"
        )
    if not set(before.layers) & set(after.layers):
        raise RunError(
            f"the two probes have no layer in common ({before.layers} and {after.layers}); probe the same layers"
        )
