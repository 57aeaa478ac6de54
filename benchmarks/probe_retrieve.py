"""How long retrieval in all directions takes, against the bare matrix products it cannot do without.

    python benchmarks/probe_retrieve.py [--quick] [--threads N] [--json FILE]

The bare products of a few pairs of languages are timed right after those pairs were scored (in the progress callback
of `retrieve_all`), so both see the same load of the machine. The total ratio counts everything, scaling to unit length
too; the other ratio is the median over these steps, with their 5th and 95th percentile. Goal: at most 1.3 for 47
languages, n = 1,012, d = 4,096 (one layer of an 8B model on FLORES-200 devtest). Vectors are random, with noise of the
language's own around a common sentence vector: their values do not change the time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from midalign.functional.retrieval import accuracy, retrieve_all

GOAL = 1.3


@dataclass(frozen=True)
class Timing:
    what: str
    languages: int
    n: int
    d: int
    pairs: int
    seconds: float
    bare_seconds: float
    per_pair: float
    bare_per_pair: float
    ratio: float
    ratio_low: float
    ratio_high: float
    accuracy: float


def random_languages(n_languages: int, n: int, d: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    meaning = torch.randn(n, d, generator=generator)
    vectors = torch.empty(n_languages, n, d)
    for language in range(n_languages):
        noise = torch.randn(n, d, generator=generator) * (2 + language % 5)
        vectors[language] = meaning + 3 * torch.randn(d, generator=generator) + noise
    return vectors


def measure(
    what: str,
    n_languages: int,
    n: int,
    d: int,
    margins: tuple[str, ...] = ("ratio",),
    candidates: str = "all",
    console: Console | None = None,
) -> Timing:
    vectors = random_languages(n_languages, n, d)
    pairs = [(a, b) for a in range(n_languages) for b in range(a + 1, n_languages)]
    ours: list[float] = []  # seconds of each step of retrieve_all, and of the bare products of its pairs
    bare: list[float] = []
    counts: list[int] = []
    for _ in range(3):  # warm up both
        torch.mm(vectors[0], vectors[1].T)
    retrieve_all(vectors[:2], margins, candidates=candidates)
    clock = time.perf_counter()  # the first step also pays for scaling all languages to unit length

    def time_the_bare_products(_stage: str, done: int, total: int) -> None:
        nonlocal clock
        ours.append(time.perf_counter() - clock)
        step = pairs[sum(counts) : done]
        counts.append(len(step))
        clock = time.perf_counter()
        for a, b in step:
            torch.mm(vectors[a], vectors[b].T)
        bare.append(time.perf_counter() - clock)
        if console is not None and (done // 200 > (done - len(step)) // 200 or done == total):
            console.print(f"  {what}: {done} of {total} pairs, {sum(ours):.1f} s, bare {sum(bare):.1f} s")
        clock = time.perf_counter()

    predictions = retrieve_all(vectors, margins, candidates=candidates, progress=time_the_bare_products)
    ours[-1] += time.perf_counter() - clock
    ratios = sorted(one / other for one, other in zip(ours, bare, strict=True))
    return Timing(
        what=what,
        languages=n_languages,
        n=n,
        d=d,
        pairs=len(pairs),
        seconds=sum(ours),
        bare_seconds=sum(bare),
        per_pair=statistics.median(one / count for one, count in zip(ours, counts, strict=True)),
        bare_per_pair=statistics.median(one / count for one, count in zip(bare, counts, strict=True)),
        ratio=statistics.median(ratios),
        ratio_low=ratios[int(0.05 * (len(ratios) - 1))],
        ratio_high=ratios[round(0.95 * (len(ratios) - 1))],
        accuracy=float(accuracy(predictions[margins[0]]).nanmean()),
    )


def table(timings: list[Timing]) -> Table:
    shown = Table(title="Retrieval in all directions: our time and the bare matrix products")
    for name in ("case", "languages", "directions", "n", "d", "ours (s)", "bare (s)", "total ratio"):
        shown.add_column(name, justify="left" if name == "case" else "right")
    for name in ("a pair (ms)", "bare (ms)", "median ratio", "5 to 95 %"):
        shown.add_column(name, justify="right")
    for t in timings:
        shown.add_row(
            t.what,
            str(t.languages),
            f"{2 * t.pairs:,}",
            f"{t.n:,}",
            f"{t.d:,}",
            f"{t.seconds:.2f}",
            f"{t.bare_seconds:.2f}",
            f"{t.seconds / t.bare_seconds:.2f}",
            f"{1000 * t.per_pair:.1f}",
            f"{1000 * t.bare_per_pair:.1f}",
            f"{t.ratio:.2f}",
            f"{t.ratio_low:.2f} to {t.ratio_high:.2f}",
        )
    return shown


def cases(quick: bool) -> list[tuple[str, int, int, int]]:
    if quick:
        return [
            ("goal, fewer languages", 8, 1012, 4096),
            ("n", 4, 250, 1024),
            ("n", 4, 1000, 1024),
            ("d", 4, 1012, 512),
        ]
    return [
        ("goal", 47, 1012, 4096),
        *(("n", 4, n, 4096) for n in (250, 500, 2000, 4000, 8000)),
        ("n, in blocks", 2, 12_000, 4096),
        *(("d", 6, 1012, d) for d in (256, 512, 1024, 2048, 8192)),
        *(("languages", languages, 1012, 4096) for languages in (5, 10, 20)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few small cases, in about ten seconds")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    console = Console(width=None if Console().is_terminal else 160)
    load = os.getloadavg()[0]
    console.print(f"torch {torch.__version__}, {arguments.threads} threads, load before the start {load:.1f}")
    timings = [measure(*case, console=console) for case in cases(arguments.quick)]
    goal = timings[0]
    size = (goal.languages if arguments.quick else 6, goal.n, goal.d)
    timings.append(measure("nearest", *size, candidates="nearest"))
    timings.append(measure("three margins", *size, margins=("ratio", "distance", "cosine")))
    console.print(table(timings))
    total_ratio = goal.seconds / goal.bare_seconds
    verdict = "met" if max(goal.ratio, total_ratio) <= GOAL else "MISSED"
    console.print(
        f"Goal (at most {GOAL} times the bare products, {goal.languages} languages, n = {goal.n:,}, "
        f"d = {goal.d:,}): {goal.ratio:.2f} (median), {total_ratio:.2f} (total), {verdict}."
    )
    pairs = 35 * 34 // 2
    console.print(
        f"Extrapolated to 35 languages ({2 * pairs:,} directions) x 33 layers at n = 1,012, d = 4,096 (Llama 3 8B): "
        f"{pairs * 33 * goal.per_pair / 60:.1f} minutes, of which bare products "
        f"{pairs * 33 * goal.bare_per_pair / 60:.1f}."
    )
    if arguments.json:
        record = {
            "torch": torch.__version__,
            "threads": arguments.threads,
            "load_before": load,
            "machine": platform.processor() or platform.machine(),
            "timings": [asdict(timing) for timing in timings],
        }
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
