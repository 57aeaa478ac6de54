"""Statistics of a probe: accuracies, intervals, groups, hubness, tokens per word, a 2-D projection.

All intervals come from one table, the *hits*: ``hits[layer, a, i]`` is the number of directions, of the 2 (N - 1) from
or into language a, in which sentence i retrieved its translation. The accuracy of a language is the mean over its
directions. That of a group is the mean over its languages, so a group of one language has one too. The overall accuracy
is the mean over all languages, which equals the mean over all directions. Intervals resample sentences, the same ones
for all layers, so that layers, and probes of the same corpus, are compared in pairs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from torch import Tensor

from midalign.functional.margin import unit
from midalign.functional.retrieval import accuracy, hits, hubness, mean_cosines
from midalign.functional.statistics import FloatArray, paired_result, percentiles, resample_sums
from midalign.languages import Language
from midalign.records import RESAMPLES

HitArray = npt.NDArray[np.uint16]

# Scripts that put no space between words, so that "words" are no unit of theirs (Unicode Standard Annex 29).
UNSPACED_SCRIPTS = frozenset({"Hans", "Hant", "Hani", "Jpan", "Thai", "Laoo", "Khmr", "Mymr", "Tibt", "Bopo"})
DIGITS = 6
_MOST_EXACT = 8  # values whose orders are all tried; nine have 362,880


def clean(value: float) -> float | None:
    """A number as JSON can hold it: rounded, and None where it is not finite."""
    return round(float(value), DIGITS) if math.isfinite(value) else None


def hit_counts(predictions: Tensor) -> HitArray:
    """Hits ``(N, n)`` from predictions ``(N, N, n)``: the number of directions in which a sentence hits."""
    found = hits(predictions)
    return (found.sum(dim=0) + found.sum(dim=1)).numpy().astype(np.uint16)


def layer_numbers(
    layer: int, vectors: Mapping[str, Tensor], predictions: Mapping[str, Tensor], margin: str
) -> dict[str, Any]:
    """Numbers of one layer that need no resampling: accuracy, cosines, hubness, matrix.

    Args:
        layer: Its number.
        vectors: By language ``(n, hidden)``.
        predictions: Of ``margin`` and ``cosine``, ``(N, N, n)`` each, from
            `midalign.functional.retrieval.retrieve_all`.
        margin: Name of the margin in `predictions` that the accuracy is of.
    """
    matrix = accuracy(predictions[margin])
    directions = matrix[~torch.eye(len(matrix), dtype=torch.bool)]
    hubs = hubness(predictions[margin])
    cosines = mean_cosines(vectors)
    return {
        "layer": layer,
        "accuracy": clean(directions.mean().item()),
        "stderr": clean(directions.std().item() / math.sqrt(len(directions))),
        "cosine_accuracy": clean(accuracy(predictions["cosine"]).nanmean().item()),
        "pair_cosine": clean(cosines.pairs),
        "anisotropy": clean(cosines.non_pairs),
        "hubness": {name: clean(values.nanmean().item()) for name, values in hubs._asdict().items()},
        "matrix": [[clean(value) for value in row] for row in matrix.tolist()],
    }


def find_groups(languages: Sequence[str], given: Mapping[str, Collection[str]] | None) -> dict[str, dict[str, Any]]:
    """Groups of the probed languages: those given, then by script and by family where there are two or more.

    Args:
        languages: Canonical codes.
        given: Name and canonical codes; languages that are not probed are left out.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, members in (given or {}).items():
        chosen = [language for language in languages if language in members]
        if chosen:
            found[name] = {"kind": "given", "languages": chosen}
    for kind in ("script", "family"):
        by_value: dict[str, list[str]] = {}
        for language in languages:
            by_value.setdefault(getattr(Language.parse(language), kind), []).append(language)
        if len(by_value) > 1:
            for value, members in sorted(by_value.items()):
                found[f"{kind}:{value}"] = {"kind": kind, "languages": members}
    return found


def shares(counts: HitArray, languages: Sequence[str], groups: Mapping[str, Iterable[str]]) -> FloatArray:
    """Share of directions in which each sentence hits: overall, in each group, and in each language.

    Args:
        counts: Hits ``(layers, N, n)``.
        languages: The N languages.
        groups: Name and languages of each group.

    Returns:
        ``(n, layers, 1 + groups + N)`` float64. Means over sentences are accuracies.
    """
    by_language = counts.astype(np.float64) / (2 * (len(languages) - 1))
    columns = [by_language.mean(axis=1, keepdims=True)]
    for members in groups.values():
        rows = [languages.index(member) for member in members]
        columns.append(by_language[:, rows].mean(axis=1, keepdims=True))
    return np.concatenate([*columns, by_language], axis=1).transpose(2, 0, 1)


def resampled(table: FloatArray, seed: int, resamples: int = RESAMPLES) -> FloatArray:
    """Means over resampled sentences of `shares`, ``(resamples, layers, columns)``."""
    n = len(table)
    sums = resample_sums(table.reshape(n, -1), resamples, seed)
    return (sums / n).reshape(resamples, *table.shape[1:])


def spearman(x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[float, float]:
    """Spearman's rank correlation and its two-sided p-value.

    Up to eight values, p is exact: the share of all orders that are at least as extreme (twice the smaller tail). For
    more, it is that of Student's t, which is wrong for few: four values in the same order have p = 0 by t, and 0.083
    exactly.

    Args:
        x: Values, such as one a language; not all equal.
        y: As many others.
    """
    found = stats.spearmanr(x, y)
    if len(np.asarray(x)) > _MOST_EXACT:
        return float(found.statistic), float(found.pvalue)
    first, second = (stats.zscore(stats.rankdata(values)) for values in (x, y))
    exact = stats.permutation_test(
        (first,), lambda ranks, axis: np.mean(ranks * second, axis=axis), permutation_type="pairings",
        n_resamples=np.inf, vectorized=True, batch=10_000,
    )  # fmt: skip
    return float(found.statistic), float(exact.pvalue)


def interval(values: FloatArray) -> list[float | None]:
    """The two ends of the central 95 %."""
    return [clean(end) for end in percentiles(values)]


def best_layer_bootstrap(layers: Sequence[int], overall: FloatArray, draws: FloatArray, best: int) -> dict[str, Any]:
    """Bootstrap of the best layer: is it really better than its neighbours?

    Args:
        layers: Numbers of the layers.
        overall: Accuracy of each layer ``(layers,)``.
        draws: The same on resampled sentences ``(resamples, layers)``.
        best: Index of the best layer.

    Returns:
        For the layers beside it, accuracy of the best less theirs with interval and two-sided p; and for every layer
        the share of resamples in which it is the best.
    """
    neighbours = {}
    for other in (best - 1, best + 1):
        if 0 <= other < len(layers):
            test = paired_result(overall[other], overall[best], draws[:, other], draws[:, best])
            neighbours[str(layers[other])] = {
                "difference": clean(test.difference), "low": clean(test.low), "high": clean(test.high),
                "p_value": clean(test.p_value),
            }  # fmt: skip
    won = np.bincount(draws.argmax(axis=1), minlength=len(layers)) / len(draws)
    return {
        "neighbours": neighbours,
        "share_best": {str(layer): clean(share) for layer, share in zip(layers, won, strict=True)},
    }


def fertility(language: str, sentences: Sequence[str], tokens: Sequence[int]) -> dict[str, Any]:
    """Fertility: how many tokens the tokenizer makes of a language's text.

    Args:
        language: Canonical code.
        sentences: Its sentences.
        tokens: Number of tokens of each, without special ones and before cutting at the window.

    Returns:
        Tokens per sentence, per character (Unicode code points, spaces included) and per word (between white space;
        None for scripts without spaces).
    """
    total = sum(tokens)
    spaced = Language.parse(language).script not in UNSPACED_SCRIPTS
    return {
        "tokens_per_sentence": clean(total / len(sentences)),
        "tokens_per_character": clean(total / sum(map(len, sentences))),
        "tokens_per_word": clean(total / sum(len(text.split()) for text in sentences)) if spaced else None,
    }


def project(vectors: Mapping[str, Tensor], rows: Sequence[int]) -> dict[str, Any]:
    """2-D projection of the same sentences in all languages: the first two principal components of their unit vectors.

    Args:
        vectors: By language ``(n, hidden)``.
        rows: Which sentences.

    Returns:
        ``explained`` (the two shares of variance) and ``points``: by language the two coordinates of each sentence.
        Signs are fixed: the coordinate that is largest in size is positive.
    """
    points = torch.stack([unit(values[list(rows)], name) for name, values in vectors.items()]).double()
    flat = points.flatten(0, 1)
    centred = flat - flat.mean(dim=0)
    left, sizes, _ = torch.linalg.svd(centred, full_matrices=False)
    coordinates = left[:, :2] * sizes[:2]
    largest = coordinates.gather(0, coordinates.abs().argmax(dim=0, keepdim=True))
    coordinates = coordinates * torch.where(largest < 0, -1.0, 1.0)
    variance = sizes.square()
    by_language = coordinates.reshape(len(vectors), len(rows), -1).tolist()
    return {
        "sentences": list(rows),
        "explained": [clean(share) for share in (variance[:2] / variance.sum()).tolist()],
        "points": {
            language: [[clean(value) for value in point] for point in kept]
            for language, kept in zip(vectors, by_language, strict=True)
        },
    }
