"""Which pooling shows best where a real model aligns languages: retrieval at every layer, on the same sentences.

    python -m experiments.real.poolings --model MODEL --data FLORES --out RUNS/poolings

MODEL is a folder of ``midalign model smollm2``, to whose tokenizer nothing is added. ``mean_after_sink`` is measured
behind several sinks: the line break that it puts, and two tokens that it might put instead. The probe of each arm goes
to a folder of its own in OUT; what lies there already is not measured again. The table is printed at the end, with the
difference of each arm to ``mean_no_first`` on the same sentences.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from midalign.data.parallel.corpus import read_parallel
from midalign.models import tokens
from midalign.models.loading import load_model, load_tokenizer
from midalign.probing.comparison import compare
from midalign.probing.probe import probe_poolings
from midalign.probing.result import PROBE_FILE, ProbeResult

# Five scripts beside Latin, and languages near to and far from English.
LANGUAGES = ("eng", "deu", "fra", "ita", "swe", "tur", "ind", "rus", "ell", "arb", "hin", "zho")
SENTENCES = 200
PLAIN = ("mean", "mean_no_first", "mean_unit")
SINKS = {"line break": "\n", "im_start": "<|im_start|>", "endoftext": "<|endoftext|>"}
BASELINE = "mean_no_first"
MIDDLE = (0.4, 0.8)  # share of the depth between which the middle layers lie, for the mean over them


def measure(options: argparse.Namespace) -> None:
    """Probe the arms whose results are not there yet."""
    arms = [(PLAIN, None, list(PLAIN))]
    arms += [(("mean_after_sink",), sink, [f"mean_after_sink, {name}"]) for name, sink in SINKS.items()]
    model: Any = None
    for poolings, sink, names in arms:
        if all((options.out / name / PROBE_FILE).exists() for name in names):
            continue
        model = model or load_model(options.model, device="cpu")
        corpus = read_parallel(options.data, languages=LANGUAGES, split="devtest", limit=SENTENCES)
        with mock.patch.object(tokens, "SINK", sink or tokens.SINK):
            found = probe_poolings(model, load_tokenizer(options.model), corpus, poolings=poolings)
        for name, result in zip(names, found.values(), strict=True):
            result.write(options.out / name)


def table(results: dict[str, ProbeResult]) -> str:
    """Retrieval in percent: at some layers, over the middle ones, with English there, and against the baseline."""
    depth = results[BASELINE].layers[-1]
    shown = [round(share * depth) for share in (0, 0.2, 0.4, 0.5, 0.6, 0.8, 1)]
    middle = range(round(MIDDLE[0] * depth), round(MIDDLE[1] * depth))
    head = [
        "pooling",
        *map(str, shown),
        "best",
        f"English, {middle[0]} to {middle[-1]}",
        f"less {BASELINE}, at its best",
    ]
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, result in results.items():
        low, high = (100 * end for end in result.content["layers"][result.best_layer]["interval"])
        change = compare(results[BASELINE], result)["layers"][results[BASELINE].best_layer]
        in_english = [100 * result.by_language(layer)["eng_Latn"] for layer in middle]
        cells = [
            name,
            *(f"{100 * result.accuracy[layer]:.1f}" for layer in shown),
            f"{100 * result.accuracy.max():.1f} [{low:.1f}, {high:.1f}] at {result.best_layer}",
            f"{sum(in_english) / len(in_english):.1f}",
            f"{100 * change['difference']:+.1f} [{100 * change['low']:+.1f}, {100 * change['high']:+.1f}]",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    measure(options)
    names = [*PLAIN, *(f"mean_after_sink, {name}" for name in SINKS)]
    print(table({name: ProbeResult.from_file(options.out / name) for name in names}))


if __name__ == "__main__":
    main()
