"""Reading run folders for the report: whatever is there as plain records, and the names of what is missing.

1. `read_run` recognises the folder by its files: a whole run (``summary.json`` or the folders ``probe/`` and
   ``evaluation/``), or a single verb (``probe.json``, ``scores.json``, ``training.json``).
2. Each file becomes records (`Probe`, `midalign.records.Score`); a value that is null or NaN becomes None.
3. Languages get name, script, family, role and resource level from the summary, else from `midalign.languages`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from midalign.errors import LanguageError, RunError
from midalign.files import read_json
from midalign.languages import Language
from midalign.records import Score
from midalign.runs import MANIFEST

SYSTEMS = ("base", "sft", "joint", "merged")
T = TypeVar("T")


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
        by_language: Mean over the directions of each language, both ways. May be empty.
        anisotropy: Mean cosine of sentences that are not translations.
    """

    layer: int
    accuracy: Estimate
    matrix: tuple[tuple[float | None, ...], ...] = ()
    groups: Mapping[str, Estimate] = field(default_factory=dict)
    by_language: tuple[float | None, ...] = ()
    anisotropy: float | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """One ``probe.json``.

    Attributes:
        languages: Canonical codes.
        layers: In their order.
        best_layer: Number of the best one.
        facts: n, margin, k, candidates and pooling, as they stand there.
        projection: 2-D maps of the same sentences, ``{"layer": ..., "points": {code: [[x, y], ...]}}``.
        fertility: By language, tokens per word and the like.
        resampled: Whether its intervals resample the sentences; else they come from the error over directions.
        best_share: Share of the resamples in which the best layer is the best, where the probe says.
    """

    languages: tuple[str, ...]
    layers: tuple[ProbeLayer, ...]
    best_layer: int
    facts: Mapping[str, Any]
    projection: tuple[Mapping[str, Any], ...] = ()
    fertility: Mapping[str, Any] = field(default_factory=dict)
    resampled: bool = False
    best_share: float | None = None

    def at(self, layer: int) -> ProbeLayer | None:
        """The entry of that layer, or None where it was not probed."""
        return next((entry for entry in self.layers if entry.layer == layer), None)

    def language_accuracy(self, layer: int) -> dict[str, float]:
        """Mean accuracy of each language over all its directions, as query and as candidate."""
        entry = self.at(layer)
        if entry is None:
            return {}
        means = entry.by_language or tuple(_row_and_column_mean(entry.matrix, i) for i in range(len(entry.matrix)))
        return {code: mean for code, mean in zip(self.languages, means, strict=False) if mean is not None}

    @property
    def spread(self) -> str:
        """What the intervals of this probe were taken over."""
        return "sentences" if self.resampled else "directions"


def _row_and_column_mean(matrix: Sequence[Sequence[float | None]], i: int) -> float | None:
    others = [j for j in range(len(matrix)) if j != i]
    known = [cell for j in others for cell in (matrix[i][j], matrix[j][i]) if cell is not None]
    return sum(known) / len(known) if known else None


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
        logs: ``training.json`` by system.
        changes: By system, from ``comparison.json`` beside its probe: change of retrieval by layer.
        transfers: By system, from ``transfer.json`` beside its probe: Pearson's coefficient by layer.
        missing: What a whole run has and this folder lacks, in words.
    """

    folder: Path
    name: str
    manifest: Mapping[str, Any]
    summary: Mapping[str, Any]
    languages: Mapping[str, LanguageView]
    probes: Mapping[str, Probe]
    scores: Mapping[str, tuple[Score, ...]]
    logs: Mapping[str, Mapping[str, Any]]
    changes: Mapping[str, Curve]
    transfers: Mapping[str, Curve]
    missing: tuple[str, ...]

    @property
    def systems(self) -> tuple[str, ...]:
        """The systems with anything to show: base, then in the summary's order, else sft, joint, merged, others."""
        known = dict.fromkeys(["base", *self.summary.get("systems", ()), *SYSTEMS, *self.probes, *self.scores])
        return tuple(system for system in known if system in self.probes or system in self.scores)

    @property
    def is_whole(self) -> bool:
        """Whether this is a whole run with several systems, not the folder of a single verb."""
        return bool(self.summary) or self.manifest.get("command") in ("run", "demo")

    @property
    def aligned_layer(self) -> int | None:
        """The layer that was aligned, where the run says."""
        layer = self.summary.get("aligned_layer")
        return int(layer) if isinstance(layer, int | float) else None


def read_run(folder: Path) -> RunView:
    """Read one run folder.

    Raises:
        RunError: If the folder does not exist, holds no result of midalign, or a file of it is damaged.
    """
    if not folder.is_dir():
        raise RunError(f"{str(folder)!r} is not a folder; give the --out folder of a midalign command")
    manifest, summary = _optional(folder / MANIFEST), _optional(folder / "summary.json")
    probes = {path.parent.name: _read(path, _probe) for path in sorted(folder.glob("probe/*/probe.json"))}
    scores = {path.parent.name: _read(path, _scores) for path in sorted(folder.glob("evaluation/*/scores.json"))}
    logs = {path.parent.name: _read(path, _log) for path in sorted(folder.glob("train/*/training.json"))}
    changes, transfers = _curves(folder, "comparison.json", _changes), _curves(folder, "transfer.json", _transfers)
    name = str(summary.get("name") or _recipe(manifest).get("name") or folder.resolve().name)
    if (folder / "probe.json").exists():
        probes[folder.resolve().name] = _read(folder / "probe.json", _probe)
    if (folder / "scores.json").exists():
        scores[folder.resolve().name] = _read(folder / "scores.json", _scores)
    if (folder / "training.json").exists():
        logs[folder.resolve().name] = _read(folder / "training.json", _log)
    if not (summary or probes or scores or logs):
        raise RunError(
            f"{str(folder)!r} holds no summary.json, probe.json, scores.json or training.json, so there is nothing to "
            "report. Give the --out folder of midalign run, probe, train or evaluate."
        )
    run = RunView(
        folder=folder,
        name=name,
        manifest=manifest,
        summary=summary,
        languages=_read(folder / "summary.json", lambda _: _languages(summary, probes, scores)),
        probes=probes,
        scores=scores,
        logs=logs,
        changes=changes,
        transfers=transfers,
        missing=(),
    )
    return replace(run, missing=_missing(run)) if run.is_whole else run


def _read(path: Path, parse: Any) -> Any:
    """Parse a JSON file, turning a wrong shape into an error that names the file."""
    content = read_json(path) if path.exists() else {}
    try:
        return parse(content)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as fault:
        raise RunError(
            f"{str(path)!r} does not have the form that midalign writes ({type(fault).__name__}: {fault}), so its "
            "numbers cannot be trusted. Run the command that wrote it again."
        ) from fault


def _curves(folder: Path, name: str, parse: Any) -> dict[str, Curve]:
    """A file beside each probe, by system; beside the probe of a single verb, under the folder's name."""
    found = {path.parent.name: _read(path, parse) for path in sorted(folder.glob(f"probe/*/{name}"))}
    if (folder / name).exists():
        found[folder.resolve().name] = _read(folder / name, parse)
    return found


def _changes(content: Mapping[str, Any]) -> Curve:
    return [
        (float(entry["layer"]), Estimate(float(entry["difference"]), number(entry["low"]), number(entry["high"])))
        for entry in content["layers"]
    ]


def _transfers(content: Mapping[str, Any]) -> Curve:
    """Layers where all languages have the same accuracy have no correlation and are left out."""
    found = [(float(entry["layer"]), entry["pearson"]) for entry in content["layers"]]
    return [
        (layer, Estimate(float(p["value"]), number(p["low"]), number(p["high"])))
        for layer, p in found
        if number(p["value"]) is not None
    ]


def _optional(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    content = read_json(path)
    if not isinstance(content, dict):
        raise RunError(f"{str(path)!r} holds a {type(content).__name__}, not an object; run its command again")
    return content


def _recipe(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """The resolved recipe in a manifest, wherever the command put it."""
    inputs = manifest.get("inputs")
    if not isinstance(inputs, Mapping):
        return {}
    recipe = inputs.get("recipe", inputs)
    return recipe if isinstance(recipe, Mapping) else {}


def recipe_of(run: RunView) -> Mapping[str, Any]:
    """The resolved recipe, or the arguments of a single verb."""
    return _recipe(run.manifest)


def number(value: Any) -> float | None:
    """A finite float, or None for null, NaN and infinities."""
    if value is None:
        return None
    result = float(value)
    return result if math.isfinite(result) else None


def _estimate(value: Any) -> Estimate | None:
    """A plain number, or an object with accuracy or value, and interval, low and high, or stderr."""
    if not isinstance(value, Mapping):
        plain = number(value)
        return None if plain is None else Estimate(plain)
    center = number(value["accuracy"] if "accuracy" in value else value["value"])
    if center is None:
        return None
    ends = value.get("interval") or (value.get("low"), value.get("high"))
    low, high, stderr = number(ends[0]), number(ends[1]), number(value.get("stderr"))
    if (low is None or high is None) and stderr is not None:
        low, high = max(0.0, center - 1.96 * stderr), min(1.0, center + 1.96 * stderr)
    return Estimate(center, low, high)


def _probe(content: Mapping[str, Any]) -> Probe:
    languages = tuple(content["languages"])
    layers = []
    for entry in content["layers"]:
        matrix = tuple(tuple(number(cell) for cell in row) for row in entry.get("matrix") or ())
        if matrix and [len(row) for row in matrix] != [len(languages)] * len(languages):
            raise ValueError(f"layer {entry['layer']}: the matrix is not {len(languages)} x {len(languages)}")
        accuracy = _estimate(entry)
        if accuracy is None:
            raise ValueError(f"layer {entry['layer']} has no accuracy")
        layers.append(
            ProbeLayer(
                layer=int(entry["layer"]),
                accuracy=accuracy,
                matrix=matrix,
                groups=_groups(entry),
                by_language=tuple(number(value) for value in entry.get("by_language") or ()),
                anisotropy=number(entry.get("anisotropy")),
            )
        )
    if not layers:
        raise ValueError("no layers")
    best = content.get("best_layer")
    if not isinstance(best, int):
        best = max(layers, key=lambda entry: entry.accuracy.value).layer
    facts = {key: content[key] for key in ("n", "margin", "k", "candidates", "pooling") if key in content}
    projection = content.get("projection") or ()
    projections = (projection,) if isinstance(projection, Mapping) else tuple(projection)
    resampled = all("interval" in entry for entry in content["layers"])
    shares = (content.get("best_layer_bootstrap") or {}).get("share_best") or {}
    return Probe(
        languages=languages,
        layers=tuple(layers),
        best_layer=best,
        facts=facts,
        projection=projections,
        fertility=content.get("fertility") or {},
        resampled=resampled,
        best_share=number(shares.get(str(best))),
    )


def _groups(entry: Mapping[str, Any]) -> dict[str, Estimate]:
    """The groups of a layer: a number each with its interval under ``group_intervals``, or an object as `_estimate`."""
    intervals = entry.get("group_intervals") or {}
    found = {}
    for name, value in (entry.get("groups") or {}).items():
        estimate = _estimate(value)
        if estimate is not None and name in intervals:
            low, high = intervals[name]
            estimate = replace(estimate, low=number(low), high=number(high))
        if estimate is not None:
            found[str(name)] = estimate
    return found


def _scores(content: Mapping[str, Any]) -> tuple[Score, ...]:
    names = ("metric", "value", "low", "high", "n", "signature")
    scores = []
    for entry in content["scores"]:
        if number(entry["value"]) is None:
            continue
        fields = {name: entry[name] for name in names}
        scores.append(Score(**fields, language=entry.get("language"), group=entry.get("group")))
    return tuple(scores)


def _log(content: Mapping[str, Any]) -> Mapping[str, Any]:
    steps = [dict(entry) for entry in content.get("log_history", ()) if "step" in entry]
    return {**content, "log_history": steps}


def _languages(
    summary: Mapping[str, Any], probes: Mapping[str, Probe], scores: Mapping[str, Sequence[Score]]
) -> dict[str, LanguageView]:
    found: dict[str, LanguageView] = {}
    for entry in summary.get("languages", ()):
        known = _language(str(entry["code"]))
        found[known.code] = LanguageView(
            code=known.code,
            name=str(entry.get("name") or known.name),
            script=str(entry.get("script") or known.script),
            family=known.family,
            role=str(entry.get("role") or ""),
            resource=str(entry.get("resource") or ""),
        )
    others = [code for probe in probes.values() for code in probe.languages]
    others += [score.language for entries in scores.values() for score in entries if score.language]
    for code in dict.fromkeys(others):
        found.setdefault(code, _language(code))
    return found


def _language(code: str) -> LanguageView:
    try:
        language = Language.parse(code)
    except LanguageError:  # a report shows every result, also of a code that this version no longer knows
        return LanguageView(code, code, code[4:8])
    return LanguageView(code, language.name, language.script, language.family)


def _missing(run: RunView) -> tuple[str, ...]:
    """What a whole run has and this folder lacks, in words."""
    missing = []
    if not run.manifest:
        missing.append("manifest.json, so versions, data hashes and the recipe are not known")
    elif not run.manifest.get("done"):
        missing.append("the end of the run: its manifest says that it was not finished")
    if not run.summary:
        missing.append("summary.json, so roles of languages, paired comparisons and examples are not known")
    for system in run.summary.get("systems", SYSTEMS[1:]):
        if system not in run.probes:
            missing.append(f"the probe of {system!r} (probe/{system}/probe.json)")
        if system not in run.scores:
            missing.append(f"the scores of {system!r} (evaluation/{system}/scores.json)")
    if not run.logs:
        missing.append("training logs (train/*/training.json)")
    return tuple(missing)
