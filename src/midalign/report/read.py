"""Reader of run folders for the report: plain records of what is there, and names of what is missing.

1. `read_run` recognises the folder by its files: a whole run (``summary.json`` or the folders ``probe/`` and
   ``evaluation/``), or a single verb (``probe.json``, ``scores.json``, ``training.json``).
2. Each file becomes records (`midalign.report.views`, `midalign.records.Score`); a value that is null or NaN becomes
   None.
3. Languages get name, script, family, role and resource level from the summary, else from `midalign.languages`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from midalign.errors import LanguageError, RunError
from midalign.files import MANIFEST, read_json
from midalign.languages import Language
from midalign.records import Score
from midalign.report.form import (
    an_object,
    checked_differences,
    checked_fertility,
    checked_manifest,
    checked_projection,
    checked_summary,
    known_number,
    number,
)
from midalign.report.views import (
    USUAL_SYSTEMS,
    Coefficient,
    Correlation,
    Curve,
    Estimate,
    LanguageView,
    Probe,
    ProbeLayer,
    RunView,
    Transfer,
    recipe_of,
)
from midalign.report.words import Difference

T = TypeVar("T")
_BASELINE = "the baseline"


def read_run(folder: Path) -> RunView:
    """Read one run folder.

    Raises:
        RunError: If the folder does not exist, holds no result of midalign, or a file of it is damaged.
    """
    if not folder.is_dir():
        raise RunError(f"{str(folder)!r} is not a folder; give the --out folder of a midalign command")
    manifest = _read(folder / MANIFEST, checked_manifest)
    summary = _read(folder / "summary.json", checked_summary)
    probes = _by_system(folder, "probe", "probe.json", _probe)
    scores = _by_system(folder, "evaluation", "scores.json", _scores)
    logs = _by_system(folder, "train", "training.json", _log)
    if not (summary or probes or scores or logs):
        raise RunError(
            f"{str(folder)!r} holds no summary.json, probe.json, scores.json or training.json, so there is nothing to "
            "report. Give the --out folder of midalign run, probe, train or evaluate."
        )
    transfers, gains = (_by_system(folder, "probe", name, _transfer) for name in ("transfer.json", "gains.json"))
    run = RunView(
        folder=folder,
        name=str(summary.get("name") or recipe_of(manifest).get("name") or folder.resolve().name),
        manifest=manifest,
        summary=summary,
        languages=_read(folder / "summary.json", lambda _: _languages(summary, probes, scores, [transfers, gains])),
        probes=probes,
        scores=scores,
        comparisons=_comparisons(folder),
        logs=logs,
        changes=_by_system(folder, "probe", "comparison.json", _changes),
        transfers={system: found for system, found in transfers.items() if system in probes},
        gains={system: found for system, found in gains.items() if system in probes},
        missing=(),
    )
    return replace(run, missing=_missing(run)) if run.is_whole else run


def _by_system(folder: Path, stage: str, name: str, parse: Callable[[Mapping[str, Any]], T]) -> dict[str, T]:
    """A file of every system of a whole run. The run of a single verb has one system, named after the folder."""
    found = {path.parent.name: _read(path, parse) for path in sorted(folder.glob(f"{stage}/*/{name}"))}
    if (folder / name).exists():
        found[folder.resolve().name] = _read(folder / name, parse)
    return found


def _comparisons(folder: Path) -> list[Difference]:
    """The paired comparisons of a whole run, or of an evaluation with a baseline."""
    names = {"baseline": _BASELINE, "system": folder.resolve().name}
    return [
        *_read(folder / "summary.json", lambda content: checked_differences(content.get("comparisons", ()))),
        *_read(
            folder / "comparisons.json",
            lambda content: checked_differences(names | e for e in content.get("comparisons", ())),
        ),
    ]


def _read(path: Path, parse: Callable[[Mapping[str, Any]], T]) -> T:
    """Parse a JSON file, turning a wrong shape into an error that names the file."""
    content = read_json(path) if path.exists() else {}
    try:
        return parse(content)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, IndexError) as fault:
        raise RunError(
            f"{str(path)!r} does not have the form that midalign writes ({type(fault).__name__}: {fault}), so its "
            "numbers cannot be trusted. Run the command that wrote it again."
        ) from fault


def _probe(content: Mapping[str, Any]) -> Probe:
    languages = tuple(map(str, content["languages"]))
    layers = tuple(_layer(entry, len(languages)) for entry in content["layers"])
    if not layers:
        raise ValueError("no layers")
    best = int(content["best_layer"])
    shares = (content.get("best_layer_bootstrap") or {}).get("share_best") or {}
    return Probe(
        languages=languages,
        layers=layers,
        best_layer=best,
        facts={key: content[key] for key in ("n", "margin", "k", "candidates", "pooling") if key in content},
        projection=checked_projection(content.get("projection")),
        fertility=checked_fertility(content.get("fertility"), languages),
        best_share=number(shares.get(str(best))),
    )


def _layer(entry: Mapping[str, Any], languages: int) -> ProbeLayer:
    matrix = tuple(tuple(number(cell) for cell in row) for row in entry.get("matrix") or ())
    if matrix and [len(row) for row in matrix] != [languages] * languages:
        raise ValueError(f"layer {entry['layer']}: the matrix is not {languages} x {languages}")
    accuracy = _estimate(entry["accuracy"], entry.get("interval"))
    if accuracy is None:
        raise ValueError(f"layer {entry['layer']} has no accuracy")
    intervals = entry.get("group_intervals") or {}
    groups = {str(name): _estimate(value, intervals.get(name)) for name, value in (entry.get("groups") or {}).items()}
    return ProbeLayer(
        layer=int(entry["layer"]),
        accuracy=accuracy,
        matrix=matrix,
        groups={name: estimate for name, estimate in groups.items() if estimate is not None},
        anisotropy=number(entry.get("anisotropy")),
    )


def _estimate(value: Any, interval: Sequence[Any] | None) -> Estimate | None:
    """A value with its interval, without one where the file has none; None where the value is not known."""
    plain = number(value)
    low, high = (None, None) if interval is None else map(number, interval)
    return None if plain is None else Estimate(plain, low, high)


def _changes(content: Mapping[str, Any]) -> Curve:
    return [
        (float(entry["layer"]), Estimate(float(entry["difference"]), number(entry["low"]), number(entry["high"])))
        for entry in content["layers"]
    ]


def _transfer(content: Mapping[str, Any]) -> Transfer:
    languages = tuple(map(str, content["languages"]))
    scores = tuple(map(float, content["scores"]))
    layers = {
        int(entry["layer"]): Correlation(
            tuple(map(float, entry["accuracy"])), _coefficient(entry["pearson"]), _coefficient(entry["spearman"])
        )
        for entry in content["layers"]
    }
    if {len(languages)} != {len(scores), *(len(found.retrieval) for found in layers.values())}:
        raise ValueError("languages, scores and accuracies differ in length")
    return Transfer(str(content["metric"]), languages, scores, layers)


def _coefficient(entry: Mapping[str, Any]) -> Coefficient | None:
    estimate = _estimate(entry["value"], (entry["low"], entry["high"]))
    return None if estimate is None else Coefficient(estimate, float(entry["p_value"]))


def _scores(content: Mapping[str, Any]) -> tuple[Score, ...]:
    return tuple(_score(entry) for entry in content["scores"] if number(entry["value"]) is not None)


def _score(entry: Mapping[str, Any]) -> Score:
    value, low, high = (known_number(entry[name], name) for name in ("value", "low", "high"))
    language, group = (None if entry.get(name) is None else str(entry[name]) for name in ("language", "group"))
    return Score(str(entry["metric"]), value, low, high, int(entry["n"]), str(entry["signature"]), language, group)


def _log(content: Mapping[str, Any]) -> Mapping[str, Any]:
    number(content.get("seconds"))
    entries = [an_object(entry, "an entry of log_history") for entry in content.get("log_history", ())]
    steps = [entry for entry in entries if "step" in entry]
    for entry in steps:
        known_number(entry["step"], "step")
        for name in entry:
            number(entry[name] if name.endswith("loss") else None)
    return {**content, "log_history": steps}


def _languages(
    summary: Mapping[str, Any],
    probes: Mapping[str, Probe],
    scores: Mapping[str, Sequence[Score]],
    transfers: Sequence[Mapping[str, Transfer]],
) -> dict[str, LanguageView]:
    described = [_described(entry) for entry in summary.get("languages", ())]
    found = {language.code: language for language in described}
    others = [code for probe in probes.values() for code in probe.languages]
    others += [code for found in transfers for transfer in found.values() for code in transfer.languages]
    others += [score.language for entries in scores.values() for score in entries if score.language]
    return found | {code: _language(code) for code in dict.fromkeys(others) if code not in found}


def _described(entry: Mapping[str, Any]) -> LanguageView:
    """A language as the summary lists it; what it leaves out is taken from the table of languages."""
    known = _language(str(entry["code"]))
    given = {name: str(entry[name]) for name in ("name", "script", "role", "resource") if entry.get(name)}
    return replace(known, **given)


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
    for system in run.summary.get("systems", USUAL_SYSTEMS[1:]):
        if system not in run.probes:
            missing.append(f"the probe of {system!r} (probe/{system}/probe.json)")
        if system not in run.scores:
            missing.append(f"the scores of {system!r} (evaluation/{system}/scores.json)")
    if run.transfers and not run.gains:
        missing.append("changes of retrieval against changes of scores (probe/*/gains.json)")
    if not run.logs:
        missing.append("training logs (train/*/training.json)")
    return tuple(missing)
