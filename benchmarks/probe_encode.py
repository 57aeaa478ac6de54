"""How long sentence vectors of all layers take, against the two usual ways and against the bare model.

    python benchmarks/probe_encode.py [--languages N] [--sentences N] [--threads N] [--cpu-time] [--quick] [--json FILE]
    python benchmarks/probe_encode.py --dtypes [--model FOLDER] [--languages N] [--sentences N] [--cpu-time]

Four ways to get the mean vector of every layer for the same sentences, on a model of the demo's size:

- ours: `midalign.models.encoding`, tokenisation included;
- single: one sentence at a time through the causal LM with `output_hidden_states`, as MEXA's released code does;
- unsorted: batches of 32 in the order of the file, through the causal LM with `output_hidden_states`;
- bare: the same batches as ours through the base model, nothing pooled: what no method can do without.

Each round takes one language (or, without data, one random corpus) and times all four right after one another, so that
they see the same load of the machine; ratios are medians over rounds, with their range. Goals on 2 cores: single / ours
at least 8, unsorted / ours at least 2, ours / bare at most 1.10.

Then a saved model (``--model FOLDER``, the embedded one by default) in float32 and, on a CPU that has instructions for
it, in bfloat16, which ``dtype: auto`` takes: both encode each language in turn. Goals: bfloat16 at least 1.6 times as
fast, the same best layer, and retrieval there (ratio margin, all directions) the same to half a point.

Then peak memory: a process of its own encodes sentences of 64 and of 256 tokens with 8 and with 32 layers, the tokens
in a batch being the same. What it needs beyond the model must grow by the vectors only (layers x sentences x hidden),
while keeping the states of all layers needs layers x tokens x hidden.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from midalign.data.parallel.corpus import read_parallel
from midalign.functional.retrieval import accuracy_matrix
from midalign.models.encoding import Encoder
from midalign.models.hidden import find_decoder
from midalign.models.limits import context_window
from midalign.models.loading import cpu_computes_in_bfloat16, load_config, load_model, load_tokenizer
from midalign.models.tokens import Tokens, tokenize
from midalign.testbed.workspace import shipped_base

GOALS = {"single / ours": 8.0, "unsorted / ours": 2.0, "ours / bare": 1.10}
FASTER, POINTS = 1.6, 0.5  # bfloat16 against float32


def demo_sized_model(vocabulary: int, depth: int = 8, hidden: int = 192) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=hidden * 8 // 3, num_hidden_layers=depth,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024, bos_token_id=1, eos_token_id=2,
        pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def train_tokenizer(corpus: dict[str, list[str]], vocabulary: int = 4096) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=["<pad>", "<s>", "</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    inner.train_from_iterator((text for texts in corpus.values() for text in texts), trainer)
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def load_corpus(languages: int, sentences: int) -> tuple[str, dict[str, list[str]]]:
    folder = Path(os.environ.get("MIDALIGN_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")) / "ntrex"
    if folder.is_dir():
        corpus = read_parallel(folder, limit=sentences).multiway()
        codes = list(corpus)
        step = max(1, len(codes) // languages)  # spread over the list, so over scripts
        return "NTREX", {code: corpus[code] for code in codes[::step][:languages]}
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 9))) for _ in range(3000)]
    made = {
        f"made {i}": [" ".join(rng.choices(words, k=max(1, int(rng.lognormvariate(3, 0.5))))) for _ in range(sentences)]
        for i in range(languages)
    }
    return "made-up words (no NTREX found)", made


def single(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> torch.Tensor:
    """The loop of MEXA's released code: one sentence, all hidden states, mean over tokens."""
    vectors = []
    with torch.no_grad():
        for text in texts:
            states = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
            vectors.append(torch.stack([layer[0].mean(dim=0) for layer in states]))
    return torch.stack(vectors, dim=1)


def unsorted(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> torch.Tensor:
    """Batches of 32 as they come, through the whole causal LM."""
    vectors = []
    with torch.no_grad():
        for start in range(0, len(texts), 32):
            batch = tokenizer(list(texts[start : start + 32]), return_tensors="pt", padding=True)
            states = model(**batch, output_hidden_states=True).hidden_states
            mask = batch["attention_mask"].unsqueeze(-1)
            vectors.append(torch.stack([(layer * mask).sum(dim=1) / mask.sum(dim=1) for layer in states]))
    return torch.cat(vectors, dim=1)


class Recorder(Encoder):
    """Our encoder, remembering its batches so that the bare model can be given the same."""

    batches: list[tuple[torch.Tensor, torch.Tensor]]

    def _forward(self, tokens, rows, longest):  # type: ignore[no-untyped-def]
        ids = torch.zeros((len(rows), longest), dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : len(tokens.ids[row])] = torch.tensor(tokens.ids[row])
        self.batches.append((ids, (ids != 0).long()))
        return super()._forward(tokens, rows, longest)


clock = time.perf_counter


def timed(work: Callable[[], object]) -> float:
    start = clock()
    work()
    return clock() - start


def measure_time(
    languages: int, sentences: int, batch_tokens: int, depth: int, hidden: int, console: Console
) -> dict[str, object]:
    source, corpus = load_corpus(languages, sentences)
    tokenizer = train_tokenizer({code: texts[:300] for code, texts in corpus.items()})
    model = demo_sized_model(len(tokenizer), depth, hidden)
    base = find_decoder(model).base
    rounds: list[dict[str, float]] = []
    agree = 0.0
    for code, texts in corpus.items():
        recorder = Recorder(model, batch_tokens=batch_tokens)
        recorder.batches = []
        found = recorder.encode(tokenize(tokenizer, texts))["mean"]  # also warms up
        if not rounds:
            theirs = unsorted(model, tokenizer, texts)
            agree = (found[:-1] - theirs[:-1]).abs().max().item()  # their last layer is after the final norm

        def bare(batches: list[tuple[torch.Tensor, torch.Tensor]] = recorder.batches) -> None:
            with torch.no_grad():
                for ids, mask in batches:
                    base(input_ids=ids, attention_mask=mask, use_cache=False)

        tokens = tokenize(tokenizer, texts)
        encoder = Encoder(model, batch_tokens=batch_tokens)
        row = {
            "bare": timed(bare),
            "passes": timed(lambda e=encoder, t=tokens: e.encode(t)),
            "ours": timed(lambda e=encoder, t=texts: e.encode(tokenize(tokenizer, t))),
            "unsorted": timed(lambda t=texts: unsorted(model, tokenizer, t)),
            "single": timed(lambda t=texts: single(model, tokenizer, t)),
            "tokens": sum(map(len, tokens.ids)),
        }
        rounds.append(row)
        console.print(
            f"  {code}: " + ", ".join(f"{k} {v:.2f}" if k != "tokens" else f"{v} tokens" for k, v in row.items())
        )
    ratios = {
        "single / ours": [row["single"] / row["ours"] for row in rounds],
        "unsorted / ours": [row["unsorted"] / row["ours"] for row in rounds],
        "ours / bare": [row["passes"] / row["bare"] for row in rounds],
        "ours with tokenising / bare": [row["ours"] / row["bare"] for row in rounds],
    }
    table = Table(title=f"{source}: {len(corpus)} languages x {sentences} sentences, {torch.get_num_threads()} threads")
    for column in ("ratio", "median", "lowest", "highest", "goal"):
        table.add_column(column, justify="left" if column == "ratio" else "right")
    for name, values in ratios.items():
        goal = GOALS.get(name)
        sign = "" if goal is None else f"{'<=' if name == 'ours / bare' else '>='} {goal}"
        table.add_row(name, f"{statistics.median(values):.2f}", f"{min(values):.2f}", f"{max(values):.2f}", sign)
    console.print(table)
    console.print(f"largest difference between the vectors of the two ways: {agree:.1e}")
    return {"source": source, "rounds": rounds, "ratios": {k: statistics.median(v) for k, v in ratios.items()}}


def measure_dtypes(folder: str, languages: int, sentences: int, console: Console) -> dict[str, object]:
    """A saved model in float32 and bfloat16: time of the vectors, language by language, and retrieval with them."""
    source, corpus = load_corpus(languages, sentences)
    tokenizer = load_tokenizer(folder)
    encoders = {dtype: Encoder(load_model(folder, dtype=dtype, device="cpu")) for dtype in ("float32", "bfloat16")}
    longest = context_window(load_config(folder), tokenizer)
    seconds: dict[str, list[float]] = {dtype: [] for dtype in encoders}
    vectors: dict[str, list[torch.Tensor]] = {dtype: [] for dtype in encoders}
    for encoder in encoders.values():  # libraries choose their kernels at the first call
        encoder.encode(tokenize(tokenizer, next(iter(corpus.values()))[:8], longest))
    for number, texts in enumerate(corpus.values()):
        tokens = tokenize(tokenizer, texts, longest)
        for dtype in list(encoders)[:: 1 if number % 2 else -1]:
            start = clock()
            vectors[dtype].append(encoders[dtype].encode(tokens)["mean"])
            seconds[dtype].append(clock() - start)
    ratios = [exact / fast for exact, fast in zip(*seconds.values(), strict=True)]
    accuracy = {
        dtype: [100 * accuracy_matrix(layer).nanmean().item() for layer in torch.stack(found, dim=1)]
        for dtype, found in vectors.items()
    }
    exact, fast = accuracy.values()
    apart = [abs(one - other) for one, other in zip(exact, fast, strict=True)]
    best = [max(range(len(layers)), key=layers.__getitem__) for layers in (exact, fast)]
    console.print(
        f"{source}, {len(corpus)} languages x {sentences} sentences, {folder}\n"
        f"float32/bfloat16 {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, goal >= {FASTER}) "
        f"best layer {best[0]} and {best[1]}, retrieval there {exact[best[0]]:.2f} and {fast[best[0]]:.2f} % "
        f"(goal <= {POINTS} points apart), at any layer {max(apart):.2f} points apart at most",
        soft_wrap=True,
    )
    return {"source": source, "ratios": ratios, "best_layers": best, "accuracy": accuracy}


class PeakMemory:
    """The largest resident memory within a ``with`` block above that at its start, sampled every millisecond.

    (The kernel's own maximum, ru_maxrss, covers the imports as well, and is inherited from the parent process.)
    """

    def __enter__(self) -> PeakMemory:
        self.start = self.largest = self._resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.001):
            self.largest = max(self.largest, self._resident())

    @staticmethod
    def _resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    @property
    def mib(self) -> float:
        return (self.largest - self.start) / 2**20


def peak_child(how: str, depth: int, length: int) -> None:
    """In a process of its own: peak memory above the loaded model, in MiB."""
    model = demo_sized_model(4096, depth)
    rng = random.Random(0)
    rows = 2 * 8192 // length
    ids = tuple(tuple(rng.choices(range(3, 4096), k=length)) for _ in range(rows))
    tokens = Tokens(ids, tuple((0,) * length for _ in ids), (length,) * rows, 0)
    model.model(torch.tensor([ids[0]]), use_cache=False)  # libraries get their own memory at the first call
    with PeakMemory() as peak, torch.no_grad():
        if how == "ours":
            Encoder(model, batch_tokens=8192).encode(tokens)
        else:
            for start in range(0, rows, 8192 // length):
                batch = torch.tensor(ids[start : start + 8192 // length])
                states = model.model(batch, output_hidden_states=True, use_cache=False).hidden_states
                torch.stack([layer.mean(dim=1) for layer in states])
                del states
    sys.stdout.write(str(peak.mib))


def measure_memory(console: Console) -> dict[str, float]:
    cases = [(depth, length) for depth in (8, 32) for length in (64, 256)]
    peaks = {}
    table = Table(title="Peak memory beyond the model (MiB), batches of 8,192 tokens")
    table.add_column("")
    for depth, length in cases:
        table.add_column(f"{depth} layers,\n{length} tokens", justify="right")
    # So that the C library gives back what is freed: else the peak is that of the heap's fragments.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    for how in ("ours", "output_hidden_states"):
        for depth, length in cases:
            command = [sys.executable, __file__, "--peak", how, str(depth), str(length)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            peaks[f"{how}, {depth} layers, {length} tokens"] = float(done.stdout)
        table.add_row(how, *(f"{peaks[f'{how}, {d} layers, {n} tokens']:.0f}" for d, n in cases))
    console.print(table)
    return peaks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--languages", type=int, default=12)
    parser.add_argument("--sentences", type=int, default=1012)
    parser.add_argument("--batch-tokens", type=int, default=1024, help="our batches; 1,024 is the default on a CPU")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--cpu-time", action="store_true", help="one thread, its CPU time: for a machine that is busy")
    parser.add_argument("--quick", action="store_true", help="3 languages x 128 sentences, no memory")
    parser.add_argument("--memory", action="store_true", help="only the memory")
    parser.add_argument("--dtypes", action="store_true", help="only float32 against bfloat16")
    parser.add_argument("--model", help="a model's folder for that; the embedded one by default")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        peak_child(options.peak[0], *map(int, options.peak[1:]))
        return
    if options.cpu_time:
        global clock
        clock, options.threads = time.process_time, 1
    if options.threads:
        torch.set_num_threads(options.threads)
    console = Console()
    if options.memory:
        measure_memory(console)
        return
    if options.quick:
        options.languages, options.sentences = 3, 128
    result: dict[str, object] = {}
    if not options.dtypes:
        result = measure_time(
            options.languages, options.sentences, options.batch_tokens, options.layers, options.hidden, console
        )
    folder = options.model or shipped_base()
    if folder is not None and cpu_computes_in_bfloat16():
        result["dtypes"] = measure_dtypes(str(folder), options.languages, options.sentences, console)
    if not options.quick and not options.dtypes:
        result["peak_mib"] = measure_memory(console)
    if options.json:
        result |= {
            "machine": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
        }
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
