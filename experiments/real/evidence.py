"""Writes docs/evidence.md: every claim of the paper on a real pretrained model, from the runs of run.py.

    midalign probe --model MODEL [--adapter ADAPTER] --data FLORES --languages ... --limit 200 \\
                   --pooling mean_no_first --out PROBES/<base, sft or joint>
    python -m experiments.real.evidence --measure --probes PROBES --model MODEL --pairs PAIRS --out RUNS [--set ...]
    python -m experiments.real.evidence --write docs/evidence.md --readme README.md

The first reads the runs and writes ``results/<task>.json``; the second needs these files only. ``measured`` reads runs,
``claims`` tests each claim, ``figures`` draws, ``evidence.md.in`` is the text around.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.real.claims import CLAIMS, LARGER, SETS, gain_of, main_metric, shown, tasks
from experiments.real.figures import draw
from experiments.real.measured import METRICS, Runs, measure, measure_probe
from experiments.real.run import RECIPES, add_places, set_places
from midalign.answers.predictions import PREDICTIONS
from midalign.files import read_json, write_atomically, write_json
from midalign.probing.result import PROBE_FILE, ProbeResult

HERE = Path(__file__).parent
RESULTS = HERE / "results"
GROUPS = ("supervised", "aligned", "unseen")
JUDGED = {"joint": "sentences", "prompt_last": "last state"}  # the arms that are judged, and what they align
STATES_TEXT = (
    "What states within the prompt of the task carry over from English: a linear classifier is trained on English "
    "items and tried on aligned languages. It reads the intent from the last state of the prompt, from which the "
    "answer is written, and the label of a slot from the mean state of its words. Retrieval is by the mean state of "
    "the sentence, with English."
)
STATES = {"intent": "intent", "label": "slot label", "retrieval": "retrieval"}


def read_results(folder: Path) -> dict[str, Any]:
    """What was measured, by set of runs; also ``transfer_<set>``, and ``probes`` in many languages and ``poolings``."""
    found = {}
    for name in (*SETS, *(f"transfer_{name}" for name in SETS), "probes", "poolings"):
        file = folder / f"{name}.json"
        if file.exists():
            found[name] = read_json(file)
    return found


def claims_table(results: dict[str, Any]) -> list[str]:
    """A row for each claim."""
    lines = ["| | claim | the paper (Llama 3 8B) | here | verdict |", "|---|---|---|---|---|"]
    for claim in CLAIMS:
        row = claim(results)
        lines.append(f"| {row.number or ''} | {row.claim} | {row.paper} | {row.ours} | **{row.verdict}** |")
    return lines


def arms_table(task: dict[str, Any], metric: str) -> list[str]:
    """Every arm of a task: its level, and its gain over SFT and over shuffled pairs, by group."""
    groups = [group for group in GROUPS if task["languages"][group]]
    lines = [
        "| arm | seeds | " + " | ".join(f"{group} | minus SFT | minus shuffled" for group in groups) + " |",
        "|---" * (2 + 3 * len(groups)) + "|",
    ]
    for name, arm in task["arms"].items():
        if not arm["levels"].get(metric):
            continue
        cells = [f"`{name}`", str(len(arm["seeds"]))]
        for group in groups:
            gains = [gain_of(task, name, group, other, metric) for other in ("sft", "shuffled")]
            cells += [f"{arm['levels'][metric][group]:.1f}", *(shown(gain) if gain else "" for gain in gains)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def parts_table(task: dict[str, Any], arm: str) -> list[str]:
    """What an arm gains on aligned languages, by metric."""
    lines = [f"| aligned languages | SFT | `{arm}` minus SFT | `{arm}` minus shuffled |", "|---|---|---|---|"]
    levels = task["arms"]["sft"]["levels"]
    for metric, name in METRICS.items():
        if not levels.get(metric):
            continue
        gains = [shown(gain_of(task, arm, "aligned", other, metric)) for other in ("sft", "shuffled")]
        lines.append(f"| {name} | {levels[metric]['aligned']:.1f} | {gains[0]} | {gains[1]} |")
    return lines


def languages_table(task: dict[str, Any]) -> list[str]:
    """The main metric of every language: SFT, joint, the gain."""
    lines = ["| language | role | SFT | joint minus SFT | joint minus shuffled |", "|---|---|---|---|---|"]
    for group in GROUPS:
        for code in task["languages"][group]:
            gains = [shown(gain_of(task, "joint", code, other)) for other in ("sft", "shuffled")]
            level = task["arms"]["sft"]["levels"][main_metric(task)][code]
            lines.append(f"| {code} | {group} | {level:.1f} | {gains[0]} | {gains[1]} |")
    return lines


def fates_table(transfer: dict[str, Any]) -> list[str]:
    """What became of the gold slots of aligned languages, by arm."""
    names = list(next(iter(transfer["slots"].values()))["aligned"])
    lines = [f"| gold slots of aligned languages, % | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for arm, groups in transfer["slots"].items():
        lines.append(f"| `{arm}` | " + " | ".join(f"{groups['aligned'][name]:.1f}" for name in names) + " |")
    return lines


def states_table(transfer: dict[str, Any], aligned: Sequence[str]) -> list[str]:
    """What states within the prompt carry over from English: means over languages and seeds, by arm and layer."""
    layers = transfer["layers"]
    head = ["within the prompt, %", "language", *(f"{name}, layer {k}" for name in STATES.values() for k in layers)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for arm, seeds in transfer["states"].items():
        for name, codes in (("English", ["eng_Latn"]), ("aligned", aligned)):
            cells = [f"`{arm}`", name]
            for kind in STATES:
                curves = [found[kind][code] for found in seeds.values() for code in codes if found[kind][code]]
                means = [sum(values) / len(values) for values in zip(*curves, strict=True)]
                cells += [f"{mean:.0f}" for mean in means] or [""] * len(layers)
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def transfer_section(transfer: dict[str, Any] | None, task: dict[str, Any]) -> list[str]:
    """How answers are wrong, and what states carry over, where `transfer.py` measured it."""
    if not transfer:
        return []
    states = ["", STATES_TEXT, "", *states_table(transfer, task["languages"]["aligned"])] if transfer["states"] else []
    return ["What becomes of the gold slots:", "", *fates_table(transfer), *states, ""]


def tables(results: dict[str, Any]) -> list[str]:
    """The tables of all tasks."""
    lines: list[str] = []
    keys = {shown: key for key, shown in SETS.items()}
    for name, task in tasks(results).items():
        score = METRICS[main_metric(task)]
        lines += [f"## {name}", "", f"{task['items']} test items. The score is {score}, in points.", ""]
        lines += [*arms_table(task, main_metric(task)), ""]
        if task["arms"]["sft"]["levels"].get("loss"):
            lines += [f"The {METRICS['loss']}:", "", *arms_table(task, "loss"), ""]
        for arm in [arm for arm in JUDGED if arm in task["arms"]]:
            lines += ["What moves:", "", *parts_table(task, arm), ""]
        if "joint" in task["arms"]:
            lines += ["By language:", "", *languages_table(task), ""]
        lines += transfer_section(results.get(f"transfer_{keys[name]}"), task)
    return lines


def times(results: dict[str, Any]) -> str:
    """What training took, beside SFT."""
    said = []
    for name, task in tasks(results).items():
        seconds = {
            arm: [value for value in task["arms"].get(arm, {}).get("seconds", {}).values() if value]
            for arm in ("sft", "joint")
        }
        if all(seconds.values()):
            ratio = (sum(seconds["joint"]) / len(seconds["joint"])) / (sum(seconds["sft"]) / len(seconds["sft"]))
            said.append(f"{name}: {ratio:.2f} times SFT")
    return "; ".join(said) or "not measured"


def visible(results: dict[str, Any]) -> str:
    """How large a difference of aligned languages must be to be seen: half the width of its interval, by task."""
    gains = {name: gain_of(task, "joint", "aligned") for name, task in tasks(results).items()}
    return ", ".join(f"{(g['high'] - g['low']) / 2:.1f} ({name})" for name, g in gains.items() if g)


def page(results: dict[str, Any], images: Path) -> str:
    """The page: ``evidence.md.in`` with tables in place of its marks."""
    *most, last = sorted({task["updates"] for task in tasks(results).values()})
    marks = {
        "updates": " or ".join([", ".join(map(str, most)), str(last)][not most :]),
        "claims": "\n".join(claims_table(results)),
        "tables": "\n".join(tables(results)),
        "times": times(results),
        "visible": visible(results),
        "figures": "\n\n".join(f"![{text}](images/{file})" for file, text in draw(results, images)),
    }
    text = (HERE / "evidence.md.in").read_text(encoding="utf-8")
    return re.sub(r"<!-- (\w+) -->", lambda mark: marks[mark[1]], text)


def readme_table(results: dict[str, Any]) -> list[str]:
    """The table of the README: what the judged arms gain, by task and group; of larger runs if there are any."""
    lines = ["| task | aligned | languages | SFT | minus SFT | minus shuffled pairs |", "|---" * 6 + "|"]
    for key, name in RECIPES.items():
        for arm, what in JUDGED.items():
            sets = [results.get(key + end, {}) for end in (LARGER, "")]
            task = next((task for task in sets if arm in task.get("arms", {})), None)
            if task is None:
                continue
            for group in [group for group in GROUPS if task["languages"][group]]:
                gains = [shown(gain_of(task, arm, group, other)) for other in ("sft", "shuffled")]
                level = task["arms"]["sft"]["levels"][main_metric(task)][group]
                lines.append(f"| {name} | {what} | {group} | {level:.1f} | {gains[0]} | {gains[1]} |")
    return lines


def write_between_marks(page: Path, lines: Sequence[str]) -> None:
    """Put lines between the marks ``<!-- evidence -->`` and ``<!-- end -->`` of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition("<!-- evidence -->\n")
    _, _, after = rest.partition("<!-- end -->")
    if not after:
        raise SystemExit(f"{page} has no marks <!-- evidence --> and <!-- end --> to write between")
    page.write_text(before + "\n".join(["<!-- evidence -->", *lines, "<!-- end -->"]) + after, encoding="utf-8")


def overrides_of(name: str, given: Sequence[str]) -> tuple[str, ...]:
    """The overrides of one recipe: those of all, and then its own (``translation:task.limit_test=50``)."""
    own = [text.removeprefix(f"{name}:") for text in given if text.startswith(f"{name}:")]
    return (*[text for text in given if ":" not in text.partition("=")[0]], *own)


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="read the runs, and write results/")
    add_places(parser, needed=False)
    parser.add_argument("--out", type=Path, help="where run.py wrote the runs")
    parser.add_argument("--larger", action="store_true", help="the runs are a recipe's larger ones, a set of their own")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the figures are, or go with --measure")
    parser.add_argument("--probes", type=Path, help="folder with probes in many languages: base, sft, joint")
    parser.add_argument("--layer", type=int, default=15, help="the aligned layer")
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        help="the overrides that the runs were given; those of one recipe as recipe:key=value",
    )
    parser.add_argument("--write", type=Path, help="the page to write")
    parser.add_argument("--readme", type=Path, help="the README whose table to write")
    given = parser.parse_args()
    if given.measure:
        set_places(given)
        for name in RECIPES:
            if list(given.out.glob(f"{name}/seed*/sft/{PREDICTIONS}")):
                runs = Runs(given.out, name, overrides_of(name, given.set))
                file = given.results / f"{name}{LARGER if given.larger else ''}.json"
                write_json(file, measure(runs, given.layer))
    if given.probes:
        files = sorted(given.probes.glob(f"*/{PROBE_FILE}"))
        write_json(
            given.results / "probes.json",
            {file.parent.name: measure_probe(ProbeResult.from_file(file), given.layer) for file in files},
        )
    results = read_results(given.results)
    if given.write:
        write_atomically(given.write, page(results, given.write.parent / "images"))
    if given.readme:
        write_between_marks(given.readme, readme_table(results))
    if not given.write:
        print("\n".join([*claims_table(results), "", *tables(results)]))


if __name__ == "__main__":
    main()
