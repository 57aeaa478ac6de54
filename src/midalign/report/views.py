"""A run folder as plain records: what `midalign.report.read` finds, and all that the page's parts are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from midalign.records import Score
from midalign.report.words import Difference

USUAL_SYSTEMS = ("base", "sft", "joint", "merged")


@dataclass(frozen=True, slots=True)
class LanguageView:
    """What the page says about a language; role and resource are empty where the run does not tell."""

    code: str
    name: str
    script: str
    family: str = ""
    role: str = ""
    resource: str = ""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval, or with None where none is known."""

    value: float
    low: float | None = None
    high: float | None = None


Curve = Sequence[tuple[float, Estimate]]


@dataclass(frozen=True, slots=True)
class ProbeLayer:
    """Retrieval at one layer, fractions.

    Attributes:
        layer: Its number.
        accuracy: Mean over all directions.
        matrix: ``(languages, languages)``, row = language of the query; None on the diagonal. May be empty.
        groups: Mean of the directions of each group.
        anisotropy: Mean cosine of sentences that are not translations.
    """

    layer: int
    accuracy: Estimate
    matrix: tuple[tuple[float | None, ...], ...] = ()
    groups: Mapping[str, Estimate] = field(default_factory=dict)
    anisotropy: float | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """One ``probe.json``.

    Attributes:
        languages: Canonical codes.
        layers: In their order.
        best_layer: Number of the best one.
        facts: n, margin, k, candidates and pooling, as they stand there.
        projection: 2-D map of the same sentences, ``{"layer": ..., "points": {code: [[x, y], ...]}}``, or None.
        fertility: By language, tokens per word and the like.
        best_share: Share of the resamples in which the best layer is the best, where the probe says.
    """

    languages: tuple[str, ...]
    layers: tuple[ProbeLayer, ...]
    best_layer: int
    facts: Mapping[str, Any]
    projection: Mapping[str, Any] | None = None
    fertility: Mapping[str, Any] = field(default_factory=dict)
    best_share: float | None = None

    def at(self, layer: int) -> ProbeLayer | None:
        """The entry of that layer, or None where it was not probed."""
        return next((entry for entry in self.layers if entry.layer == layer), None)


@dataclass(frozen=True, slots=True)
class Coefficient:
    """A correlation coefficient with its 95 % interval and two-sided p-value."""

    estimate: Estimate
    p_value: float


@dataclass(frozen=True, slots=True)
class Correlation:
    """Retrieval against a score at one layer.

    Attributes:
        retrieval: One number per language, fractions.
        pearson: Pearson's r; None where all languages have the same retrieval or the same score.
        spearman: Spearman's rho, likewise.
    """

    retrieval: tuple[float, ...]
    pearson: Coefficient | None
    spearman: Coefficient | None


@dataclass(frozen=True, slots=True)
class Transfer:
    """One ``transfer.json`` (levels) or ``gains.json`` (changes): retrieval against a score over languages.

    Attributes:
        metric: Name of the score.
        languages: Canonical codes.
        scores: One per language, on the metric's own scale.
        layers: By layer.
    """

    metric: str
    languages: tuple[str, ...]
    scores: tuple[float, ...]
    layers: Mapping[int, Correlation]


@dataclass(frozen=True, slots=True)
class RunView:
    """Everything of one run folder that the page can show.

    Attributes:
        folder: The run folder.
        name: Name of the run, for headings.
        manifest: ``manifest.json``, or empty.
        summary: ``summary.json``, or empty.
        languages: By canonical code, in the order of the summary, else of the probe or the scores.
        probes: By system; a folder of a single probe has one system named after the folder.
        scores: By system.
        comparisons: Paired differences, of ``summary.json`` or of an evaluation with a baseline.
        logs: ``training.json`` by system.
        changes: By system, from ``comparison.json`` beside its probe: change of retrieval by layer.
        transfers: By system, from ``transfer.json`` beside its probe: retrieval against scores.
        gains: By system, from ``gains.json`` beside its probe: change of retrieval against change of scores.
        missing: What a whole run has and this folder lacks, in words.
    """

    folder: Path
    name: str
    manifest: Mapping[str, Any]
    summary: Mapping[str, Any]
    languages: Mapping[str, LanguageView]
    probes: Mapping[str, Probe]
    scores: Mapping[str, tuple[Score, ...]]
    comparisons: Sequence[Difference]
    logs: Mapping[str, Mapping[str, Any]]
    changes: Mapping[str, Curve]
    transfers: Mapping[str, Transfer]
    gains: Mapping[str, Transfer]
    missing: tuple[str, ...]

    @property
    def systems(self) -> tuple[str, ...]:
        """The systems with anything to show: base, then in the summary's order, else sft, joint, merged, others."""
        known = dict.fromkeys(["base", *self.summary.get("systems", ()), *USUAL_SYSTEMS, *self.probes, *self.scores])
        return tuple(system for system in known if system in self.probes or system in self.scores)

    @property
    def probed(self) -> dict[str, Probe]:
        """The probes, in the order of `systems`."""
        return {system: self.probes[system] for system in self.systems if system in self.probes}

    @property
    def is_whole(self) -> bool:
        """Whether this is a whole run with several systems, not the folder of a single verb."""
        return bool(self.summary) or self.manifest.get("command") in ("run", "demo")

    @property
    def aligned_layer(self) -> int | None:
        """The layer that was aligned, where the run says."""
        layer = self.summary.get("aligned_layer")
        return int(layer) if isinstance(layer, int | float) else None

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The resolved recipe in the manifest, wherever the command put it, or the arguments of a single verb."""
        return recipe_of(self.manifest)


def recipe_of(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """The recipe, or the arguments, that a manifest holds; empty where it holds none."""
    inputs = manifest.get("inputs")
    if not isinstance(inputs, Mapping):
        return {}
    recipe = inputs.get("recipe", inputs)
    return recipe if isinstance(recipe, Mapping) else {}
