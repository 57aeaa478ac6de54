"""Runs many arms of run.py at once, on one accelerator: small models keep it busy only if several are trained in turn.

    python -m experiments.real.many PLAN --workers 12 --seconds 560 --model MODEL --pairs PAIRS --out RUNS --dev-out DEV

A line of PLAN is ``<recipe> <seed> <arm> [overrides]``; with ``dev`` before it, dev items are scored, in DEV. The arms
CHOSEN and CHOSEN_SHUFFLED stand for what ``choose.py`` chooses, once all dev lines are done. Lines are begun in order;
those that are not done after so many seconds are left, and another call goes on with them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
import traceback
from dataclasses import dataclass, replace
from multiprocessing.pool import AsyncResult
from pathlib import Path
from typing import Any

import torch

from experiments.real.choose import choose
from experiments.real.run import add_places, run_arm, set_places

CHOSEN = ("CHOSEN", "CHOSEN_SHUFFLED")
FAULTS = 6  # if the first so many jobs fail, all would


@dataclass(frozen=True)
class Job:
    """One line of a plan."""

    recipe: str
    seed: int
    arm: str
    dev: bool = False
    more: tuple[str, ...] = ()

    @classmethod
    def of(cls, line: str) -> Job:
        """Reads a line."""
        words = line.split()
        dev = words[0] == "dev"
        recipe, seed, arm, *more = words[1:] if dev else words
        return cls(recipe, int(seed), arm, dev, tuple(more))


def read_plan(file: Path) -> list[Job]:
    """The jobs of a plan; what follows a # is a comment."""
    lines = [line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    return [Job.of(line) for line in lines if line]


def begin(logs: Path) -> None:
    """Each worker writes to a file of its own."""
    file = os.open(logs / f"{os.getpid()}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    torch.set_num_threads(1)


def work(job: Job, out: Path, more: tuple[str, ...], probe: bool) -> tuple[float, str]:
    """Runs a job; returns how many seconds it took, and its fault or an empty text."""
    started = time.monotonic()
    try:
        run_arm(job.recipe, job.seed, job.arm, out, dev=job.dev, probe=probe, more=(*more, *job.more))
        fault = ""
    except (Exception, SystemExit):
        fault = traceback.format_exc()
    if torch.accelerator.is_available():
        torch.accelerator.memory.empty_cache()
    return time.monotonic() - started, fault


class Queue:
    """The jobs of a plan, with those that wait for the choice."""

    def __init__(self, plan: list[Job], dev_out: Path) -> None:
        self.waiting = list(plan)
        self.dev_out = dev_out
        self.dev_left = sum(job.dev for job in plan)
        self.chosen: str | None = None

    def done(self, job: Job) -> None:
        """Notes a job as over, done or failed, and chooses after the last dev job."""
        self.dev_left -= job.dev
        if job.dev and not self.dev_left:
            self.chosen = choose(self.dev_out)

    def next(self) -> Job | None:
        """The next job that can begin."""
        for job in self.waiting:
            if job.arm not in CHOSEN:
                self.waiting.remove(job)
                return job
            if self.chosen is not None:
                self.waiting.remove(job)
                return replace(job, arm=self.chosen + ("_shuffled" if job.arm == CHOSEN[1] else ""))
        return None


def run(queue: Queue, given: argparse.Namespace) -> int:
    """Keeps the workers busy until the plan or the time is over; returns how many jobs failed."""
    end = time.monotonic() + given.seconds
    logs = given.out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    done = failed = 0
    running: list[tuple[Job, AsyncResult[Any]]] = []
    seen: set[Job] = set()
    with multiprocessing.get_context("spawn").Pool(given.workers, begin, (logs,)) as pool:  # ended at the end
        while time.monotonic() < end:
            while len(running) < given.workers and (job := queue.next()):
                if job not in seen:  # CHOSEN may be an arm of the plan
                    seen.add(job)
                    out = given.dev_out if job.dev else given.out
                    arguments = (job, out, tuple(given.set), job.arm in given.probed)
                    running.append((job, pool.apply_async(work, arguments)))
            if not running:
                break
            for job, result in [entry for entry in running if entry[1].ready()]:
                running.remove((job, result))
                seconds, fault = result.get()
                done, failed = done + 1, failed + bool(fault)
                left = end - time.monotonic()
                print(f"{job} {seconds:.0f} s, {left:.0f} s left {fault[-1500:]}", flush=True)
                queue.done(job)
                if failed == done == FAULTS:
                    return failed
            time.sleep(0.2)
        for job, _ in running:
            print(f"{job} not done", flush=True)
    return failed


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3600)
    add_places(parser)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dev-out", type=Path, required=True)
    parser.add_argument("--probed", nargs="*", default=["sft", "joint"], help="arms whose retrieval is measured")
    parser.add_argument("--set", nargs="*", default=[], help="overrides of every recipe")
    given = parser.parse_args()
    set_places(given)
    sys.exit(1 if run(Queue(read_plan(given.plan), given.dev_out), given) else 0)


if __name__ == "__main__":
    main()
