"""Which pooling shows best where a real model aligns languages: retrieval at every layer, on the same sentences.

    python -m experiments.real.poolings --model MODEL --data FLORES --out RUNS/poolings

MODEL is a folder of ``midalign model smollm2``. One JSON file for each sink token that is tried (that of the tokenizer,
and the other candidates) goes to OUT; what lies there already is not measured again. The table is printed at the end.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from midalign.data.parallel.corpus import read_parallel
from midalign.files import read_json, write_json
from midalign.models.loading import load_model, load_tokenizer
from midalign.probing.probe import probe_poolings

# Five scripts beside Latin, and languages near to and far from English.
LANGUAGES = ("eng", "deu", "fra", "ita", "swe", "tur", "ind", "rus", "ell", "arb", "hin", "zho")
POOLINGS = ("mean", "mean_no_first", "mean_unit", "mean_after_sink")
SENTENCES = 200


def measure(model: Any, tokenizer: Any, data: str, poolings: tuple[str, ...]) -> dict[str, Any]:
    """Mean accuracy over all directions at every layer, and over those from and into English, by pooling."""
    corpus = read_parallel(data, languages=LANGUAGES, split="devtest", limit=SENTENCES)
    found = {}
    for pooling, result in probe_poolings(model, tokenizer, corpus, poolings=poolings).items():
        english = [result.by_language(layer)["eng_Latn"] for layer in result.layers]
        best = result.content["layers"][result.layers.index(result.best_layer)]
        found[pooling] = {
            "accuracy": result.accuracy.tolist(), "english": english, "best_layer": result.best_layer,
            "best": best["accuracy"], "interval": best["interval"], "anisotropy": best["anisotropy"],
        }  # fmt: skip
    return found


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = load_tokenizer(options.model)
    model = None
    sinks = dict.fromkeys((tokenizer.bos_token or tokenizer.eos_token, tokenizer.eos_token, tokenizer.unk_token))
    found = {}
    for number, sink in enumerate(sink for sink in sinks if sink is not None):
        file = options.out / f"{number}.json"
        if not file.exists():
            model = model or load_model(options.model, device="cpu")
            tokenizer.bos_token = sink
            poolings = POOLINGS if number == 0 else ("mean_after_sink",)
            write_json(file, {"sink": sink, "poolings": measure(model, tokenizer, options.data, poolings)})
        content = read_json(file)
        for pooling, result in content["poolings"].items():
            found[f"{pooling} ({content['sink']})" if pooling == "mean_after_sink" else pooling] = result
    print(table(found))


def table(found: dict[str, dict[str, Any]]) -> str:
    """Retrieval in percent at some layers, and at the best one with its interval."""
    depth = len(next(iter(found.values()))["accuracy"]) - 1
    layers = [round(share * depth) for share in (0, 0.2, 0.4, 0.5, 0.6, 0.8, 1)]
    rows = [
        "| pooling | " + " | ".join(map(str, layers)) + " | best | English, best |",
        "|---" * (len(layers) + 3) + "|",
    ]
    for name, result in found.items():
        low, high = (100 * end for end in result["interval"])
        cells = [f"{100 * result['accuracy'][layer]:.1f}" for layer in layers]
        best = f"{100 * result['best']:.1f} [{low:.1f}, {high:.1f}] at {result['best_layer']}"
        rows.append(f"| {name} | {' | '.join(cells)} | {best} | {100 * max(result['english']):.1f} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
