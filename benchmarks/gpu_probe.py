"""A whole probe at the size of Llama 3 8B on one accelerator, against its pure forward time.

    python benchmarks/gpu_probe.py [--languages 35] [--sentences 1012] [--size llama3-8b|tiny] [--json FILE]

Random weights at the model's shape (retrieval then means nothing, but takes as long), bfloat16, random token ids whose
lengths are spread as a tokenizer of 128k words spreads FLORES-200 (log-normal, median 35 tokens, more for a few
languages). Three figures:

- forward: the same batches through the base model, nothing pooled;
- encode: the same batches with every layer pooled and brought to the CPU;
- retrieve: all directions at every layer, ratio margin.

Goal: encode + retrieve at most 1.2 times forward. ``--size tiny`` runs in seconds on a CPU, to test the script.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM

from midalign.functional.retrieval import accuracy, retrieve_all
from midalign.models.encoding import Encoder, encode_corpus
from midalign.models.hidden import find_decoder
from midalign.models.tokens import Tokens

GOAL = 1.2
SIZES = {
    "llama3-8b": dict(
        vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, max_position_embeddings=8192, rope_theta=500000.0,
    ),
    "tiny": dict(
        vocab_size=384, hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=8192,
    ),
}  # fmt: skip


def random_model(size: str, device: torch.device) -> LlamaForCausalLM:
    """Random weights, made on the device: normal with the spread that Llama's own initialisation has."""
    torch.manual_seed(0)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device.type != "cpu" else torch.float32)
    try:
        with device:
            return LlamaForCausalLM(LlamaConfig(**SIZES[size])).eval()
    finally:
        torch.set_default_dtype(previous)


def random_corpus(languages: int, sentences: int, vocabulary: int) -> dict[str, Tokens]:
    rng = random.Random(0)
    corpus = {}
    for language in range(languages):
        median = 35 * (1 + 2 * (language % 7 == 6))  # one language in seven is cut three times as finely
        lengths = [max(3, round(median * rng.lognormvariate(0, 0.4))) for _ in range(sentences)]
        ids = tuple(tuple(rng.choices(range(vocabulary), k=length)) for length in lengths)
        corpus[f"language {language}"] = Tokens(ids, tuple((0,) * n for n in lengths), tuple(lengths), 0)
    return corpus


def synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


class Bare(Encoder):
    """The encoder's batches through the base model, nothing pooled."""

    def _forward(self, tokens, rows, longest):  # type: ignore[no-untyped-def]
        device = next(self.model.parameters()).device
        ids = torch.zeros((len(rows), longest), dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : len(tokens.ids[row])] = torch.tensor(tokens.ids[row])
        lengths = torch.tensor([len(tokens.ids[row]) for row in rows])
        mask = (torch.arange(longest) < lengths.unsqueeze(1)).long()
        with torch.no_grad():
            find_decoder(self.model).base(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False)
        return {}

    def _collect(self, _share, _order):  # type: ignore[no-untyped-def]
        return {}


def seconds(work, device: torch.device) -> tuple[float, object]:  # type: ignore[no-untyped-def]
    synchronize(device)
    start = time.perf_counter()
    result = work()
    synchronize(device)
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=tuple(SIZES), default=None, help="llama3-8b with an accelerator, else tiny")
    parser.add_argument("--languages", type=int, default=35)
    parser.add_argument("--sentences", type=int, default=1012)
    parser.add_argument("--batch-tokens", type=int, default=None)
    parser.add_argument("--cache", type=Path, help="keep the vectors on disk: at full size they take 19 GB of memory")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    size = options.size or ("tiny" if device.type == "cpu" else "llama3-8b")
    if size == "tiny":
        options.languages, options.sentences = min(options.languages, 4), min(options.sentences, 64)
    console = Console()
    model = random_model(size, device)
    corpus = random_corpus(options.languages, options.sentences, SIZES[size]["vocab_size"])
    warm = dict(list(corpus.items())[:1])
    encoder, bare = Encoder(model, batch_tokens=options.batch_tokens), Bare(model, batch_tokens=options.batch_tokens)
    encode_corpus(encoder, warm)
    encode_corpus(bare, warm)
    forward, encode, parts = 0.0, 0.0, []
    for language, tokens in corpus.items():  # interleaved, so that clocks and heat are the same for both
        forward += seconds(lambda t=tokens: bare.encode(t), device)[0]
        own = {language: tokens}
        took, vectors = seconds(lambda o=own: encode_corpus(encoder, o, cache=options.cache, model_key="gpu"), device)
        encode += took
        parts.append(vectors)

    def retrieve() -> float:
        best = 0.0
        for layer in encoder.layers:
            here = {name: v.to(device) for part in parts for name, v in part.layer(layer).items()}
            best = max(best, float(accuracy(retrieve_all(here, ("ratio", "cosine"))["ratio"]).nanmean()))
        return best

    retrieval, best = seconds(retrieve, device)
    ratio = (encode + retrieval) / forward
    tokens_in_all = sum(len(ids) for tokens in corpus.values() for ids in tokens.ids)
    name = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    table = Table(title=f"{size} on {name}: {len(corpus)} languages x {options.sentences}, {tokens_in_all:,} tokens")
    for column in ("", "seconds", "of forward"):
        table.add_column(column, justify="right")
    for what, value in (("forward", forward), ("encode", encode), ("retrieve", retrieval)):
        table.add_row(what, f"{value:.2f}", f"{value / forward:.2f}")
    table.add_row("encode + retrieve", f"{encode + retrieval:.2f}", f"{ratio:.2f} (goal: at most {GOAL})")
    console.print(table)
    console.print(f"best layer's retrieval with random weights: {best:.3f}")
    if options.json:
        found = dict(
            size=size, device=name, forward=forward, encode=encode, retrieve=retrieval, ratio=ratio,
            tokens=tokens_in_all, batch_tokens=encoder.batch_tokens, torch=torch.__version__,
        )  # fmt: skip
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
