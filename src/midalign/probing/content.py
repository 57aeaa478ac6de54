"""Types of what ``probe.json``, ``comparison.json`` and ``transfer.json`` hold; docs/probe.md explains the keys.

A number is None where it is not defined.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

Number = float | None


class Group(TypedDict):
    """Languages that belong together, and why: named by the user, or of one script or family."""

    kind: Literal["given", "script", "family"]
    languages: list[str]


class Gap(TypedDict):
    """A difference with its 95 % interval."""

    difference: Number
    low: Number
    high: Number


class Neighbour(Gap):
    """Accuracy of the best layer minus that of a layer beside it."""

    p_value: Number


class BestLayerBootstrap(TypedDict):
    """Bootstrap of the best layer: differences to its neighbours; by layer, the share of resamples that it wins."""

    neighbours: dict[str, Neighbour]
    share_best: dict[str, Number]


class Projection(TypedDict):
    """A 2-D map of the same sentences in all languages, at one layer."""

    layer: int
    sentences: list[int]
    explained: list[Number]
    points: dict[str, list[list[Number]]]


class LayerContent(TypedDict):
    """Retrieval at one layer, fractions."""

    layer: int
    accuracy: float
    stderr: Number
    cosine_accuracy: Number
    pair_cosine: Number
    anisotropy: Number
    hubness: dict[str, Number]
    matrix: list[list[Number]]
    interval: list[Number]
    groups: dict[str, Number]
    group_intervals: dict[str, list[Number]]
    by_language: list[Number]
    gaps: dict[str, Gap]


class ProbeContent(TypedDict):
    """``probe.json``."""

    languages: list[str]
    n: int
    margin: str
    k: int
    candidates: str
    seed: int
    resamples: int
    data: str
    groups: dict[str, Group]
    fertility: dict[str, dict[str, Number]]
    pooling: str
    best_layer: int
    best_layer_bootstrap: BestLayerBootstrap
    projection: Projection
    layers: list[LayerContent]


class Change(TypedDict):
    """Retrieval of two probes and their paired difference; ``p_holm`` (languages only) corrects for all languages."""

    before: Number
    after: Number
    difference: Number
    low: Number
    high: Number
    p_value: Number
    p_holm: NotRequired[Number]


class LayerChange(Change):
    """The change at one layer: overall, by group and by language."""

    layer: int
    groups: dict[str, Change]
    by_language: dict[str, Change]


class BestLayers(TypedDict):
    """The best layer of either probe."""

    before: int
    after: int


class ProbeComparison(TypedDict):
    """``comparison.json``."""

    languages: list[str]
    n: int
    resamples: int
    seed: int
    groups: dict[str, Group]
    best_layer: BestLayers
    layers: list[LayerChange]


class Coefficient(TypedDict):
    """A correlation coefficient with its p-value (two-sided) and 95 % interval."""

    value: Number
    p_value: Number
    low: Number
    high: Number


class LayerCorrelation(TypedDict):
    """Correlation of retrieval at one layer with the scores; ``accuracy`` is in the order of the languages."""

    layer: int
    accuracy: list[Number]
    pearson: Coefficient
    spearman: Coefficient


class TransferCorrelation(TypedDict):
    """``transfer.json`` and ``gains.json``, without the name of the metric."""

    languages: list[str]
    scores: list[Number]
    left_out: list[str]
    resamples: int
    seed: int
    layers: list[LayerCorrelation]
