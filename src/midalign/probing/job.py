"""The job of ``midalign probe``: read the corpus, load the model, probe, write ``probe.json``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from midalign.data.parallel.corpus import OnEmpty, ParallelCorpus, read_parallel
from midalign.data.parallel.layout import ParallelFormat
from midalign.data.parallel.moses import named_files
from midalign.functional.margin import check_names
from midalign.functional.pooling import check_pooling
from midalign.models.adapters import attach_adapter
from midalign.models.source import ModelSource
from midalign.probing.comparison import write_comparison, write_transfer
from midalign.probing.probe import probe
from midalign.probing.result import PROBE_FILE, ProbeResult
from midalign.progress import Progress
from midalign.runs import Job, Run

_VECTORS = "vectors"


@dataclass(frozen=True)
class ProbeJob(Job[ProbeResult]):
    """Translation retrieval at every layer of one model.

    Attributes:
        model: The model.
        data: A corpus that is parallel across all its languages.
        adapter: PEFT folder to put on the model; None for the model as it is.
        format: Format of the corpus.
        languages: Canonical codes; None for all that the corpus has.
        split: Split, where the corpus has several.
        columns: Language to column, as of `midalign.data.parallel.corpus.read_parallel`; likewise `on_empty`.
        limit: Number of sentences to read, from the first; None for all.
        pooling: As in `midalign.probe`; likewise `margin`, `k`, `candidates`, `groups` and `seed`.
        compare: ``probe.json`` of another model, to compare this one with.
        transfer: ``scores.json`` by language, to correlate retrieval with.
        cache: Folder to keep sentence vectors in; None keeps them while the probe runs only.

    Raises:
        OptionError: If there is no such pooling, margin or kind of candidates.
    """

    verb: ClassVar[str] = "probe"
    result: ClassVar[str] = PROBE_FILE

    model: ModelSource
    data: str
    adapter: str | None = None
    format: str = "auto"
    languages: tuple[str, ...] | None = None
    split: str | None = None
    columns: Mapping[str, str | int] | None = None
    on_empty: OnEmpty = "error"
    limit: int | None = None
    pooling: str = "mean"
    margin: str = "ratio"
    k: int = 4
    candidates: str = "all"
    groups: Mapping[str, tuple[str, ...]] | None = None
    seed: int = 0
    compare: str | None = None
    transfer: str | None = None
    cache: str | None = None

    def __post_init__(self) -> None:
        check_pooling(self.pooling)
        check_names((self.margin,), self.candidates)

    def paths(self) -> list[str | None]:
        """What the job reads."""
        return [self.model.path, *named_files(self.data), self.adapter, self.compare, self.transfer]

    def finish(self, run: Run, progress: Progress | None = None) -> ProbeResult:
        """Probe into the run's folder.

        Raises:
            UserError: If the corpus, the model and the options do not fit.
        """
        corpus = self._corpus()
        earlier = ProbeResult.from_file(Path(self.compare)) if self.compare is not None else None
        tokenizer = self.model.tokenizer()
        model: Any = self.model.load()
        if self.adapter is not None:
            model = attach_adapter(model, self.adapter)
        vectors = Path(self.cache) if self.cache is not None else run.out / _VECTORS
        with run.timed("probe"):
            result = probe(
                model, tokenizer, corpus, pooling=self.pooling, margin=self.margin, k=self.k,
                candidates=self.candidates, groups=self.groups, cache=vectors, progress=progress, seed=self.seed,
            )  # fmt: skip
        result.write(run.out)
        if earlier is not None:
            write_comparison(earlier, result, run.out)
        if self.transfer is not None:
            write_transfer(result, Path(self.transfer), run.out)
        run.finish(seeds=[self.seed], dtype=str(model.dtype))
        if self.cache is None:
            shutil.rmtree(vectors, ignore_errors=True)
        return result

    def _corpus(self) -> ParallelCorpus:
        chosen = cast("ParallelFormat", self.format)
        languages = None if self.languages is None else list(self.languages)
        corpus = read_parallel(
            self.data, format=chosen, languages=languages, split=self.split, columns=self.columns,
            on_empty=self.on_empty, limit=self.limit,
        )  # fmt: skip
        corpus.multiway(limit=self.limit)  # says now what is missing, rather than after the model is loaded
        return corpus
