"""Experiment: all steps of one recipe (probe, train, merge, evaluate, compare, report).

Each stage is a job of its verb with a folder of its own. A stage that an earlier call has finished is skipped.

1. probe the base model;
2. train the SFT baseline, the joint adapter and the alignment adapter;
3. tune the merge weights on dev and merge task and alignment adapter;
4. probe, generate and score each system on test;
5. compare every system with the SFT baseline, item by item, and write ``summary.json`` and ``report.html``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate.utils.memory import clear_device_cache

from midalign.answers.predictions import PREDICTIONS
from midalign.data.parallel.corpus import ParallelCorpus
from midalign.data.prompt_check import check_prompt
from midalign.errors import DataError
from midalign.evaluation.job import EvaluateJob
from midalign.evaluation.score import SCORES, check_references, main_metric
from midalign.experiment.probe_comparison import compare_probes, correlate_transfer
from midalign.experiment.summary import BASELINE, SUMMARY, SYSTEMS, TRAINED, summarise
from midalign.experiment.validate import check_packages
from midalign.files import write_json
from midalign.generation.job import GenerateJob
from midalign.generation.questions import check_questions
from midalign.merging.job import MergeJob
from midalign.metrics.chat import own_metric_files
from midalign.models.source import ModelSource
from midalign.probing.job import ProbeJob
from midalign.progress import Progress
from midalign.recipe.data import (
    TaskData,
    data_paths,
    evaluation_texts,
    read_pair_data,
    read_probe_corpus,
    read_task_data,
    scored_languages,
    task_source,
)
from midalign.recipe.sections import Recipe
from midalign.report.page import write_report
from midalign.runs import Job, Run
from midalign.training.arguments import check_lora, training_tokenizer
from midalign.training.job import TrainJob
from midalign.training.train import ADAPTER, check_pairs

logger = logging.getLogger(__name__)

_WHY = {
    "task": "the baseline, task data only",
    "joint": "task and alignment updates in turn",
    "align": "alignment only, for merging",
}


class Experiment:
    """One run folder of one recipe.

    Args:
        recipe: The recipe.
        out: Run folder.
        progress: Called with the progress.
        announce: Called with one sentence before each stage.

    Raises:
        UserError: If data, model and recipe do not fit together.
    """

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        progress: Progress | None = None,
        announce: Callable[[str], None] = logger.info,
    ) -> None:
        self.recipe = recipe
        self.out = out
        self.progress = progress
        self.announce = announce
        self.model = ModelSource.of(recipe.model)
        self.tokenizer = training_tokenizer(recipe)
        self.task: TaskData = read_task_data(recipe)
        self.corpus: ParallelCorpus = read_probe_corpus(recipe)
        self.pairs = read_pair_data(recipe, evaluation_texts(self.task, self.corpus))
        self._engine: Any = None
        self._check_fit()
        self.manifest = Run(out, "run", recipe.as_dict(), data_paths(recipe))

    def run(self) -> dict[str, Any]:
        """Run every stage that is not done yet; returns the summary."""
        self._probe("base", None)
        for system, objective in TRAINED.items():
            self._stage(
                f"train.{system}",
                TrainJob(self.recipe, objective),
                self.out / "train" / system,
                f"training {system}: {_WHY[objective]}",
                task_data=self.task,
                pair_data=self.pairs,
            )
        self._merge()
        for system in SYSTEMS:
            self._evaluate(system)
        self._engine = None  # vLLM's takes most of the GPU's memory, which the probes need
        for system in (*TRAINED, "merged"):
            self._probe(system, self.adapter(system))
        with self.manifest.timed("summary"):
            compare_probes(self.out, {"sft": "base", "alignment": "base", "joint": BASELINE, "merged": BASELINE})
            correlate_transfer(
                self.out,
                main_metric(self.recipe.task.name, self.recipe.answer_format),
                [code for code in self.recipe.languages.all if code not in self.recipe.languages.supervised],
                baseline=BASELINE,
                systems=[system for system in SYSTEMS if system != BASELINE],
            )
            summary = summarise(self.recipe, self.out, self.task.test, self.manifest.manifest["timings"])
        write_json(self.out / SUMMARY, summary)
        if self.manifest.begun or not self.manifest.was_done:  # else no stage was done anew
            self.manifest.finish(systems=list(SYSTEMS))
        write_report([self.out], self.out)
        return summary

    def _check_fit(self) -> None:
        """Check before the first stage what would fail after hours: layers and prompts that do not fit the model."""
        if not self.pairs.train:
            raise DataError(
                "languages.aligned names no language other than English, so there is nothing to align on. Name some, "
                "or train on the task alone: midalign train RECIPE --objective task"
            )
        config = self.model.config()
        text = config.get_text_config()
        self.recipe.alignment.check_model(text.num_hidden_layers, text.hidden_size)
        check_lora(self.recipe, config)
        self.recipe.merge.check_model(text.num_hidden_layers)
        check_packages(self.recipe)
        check_prompt(self.task.train[0], self.tokenizer, self.recipe.answer_format)
        for part in (self.task.dev, self.task.test):
            check_references(part, self.recipe.answer_format)
        check_pairs(self.recipe, self.tokenizer, config, self.task, self.pairs)
        asked = [*self.task.dev, *self.task.test]
        longest = self.recipe.generation.max_new_tokens
        check_questions(config, self.tokenizer, asked, self.recipe.answer_format, longest)

    def adapter(self, system: str) -> Path:
        """Folder of a system's adapter."""
        return self.out / ("merge" if system == "merged" else f"train/{system}") / ADAPTER

    def _stage(self, name: str, job: Job[Any], folder: Path, said: str, **given: Any) -> None:
        """Run a job, unless an earlier call has finished it; `given` is already read, or a function that makes it."""
        run = job.start(folder, self.out)
        if run.was_done and (folder / job.result).exists():
            return
        self.announce(said)
        self.manifest.begin()
        clear_device_cache(garbage_collection=True)  # a trainer and its model refer to each other: they outlive a stage
        with self.manifest.timed(name):
            made = {key: value() if callable(value) else value for key, value in given.items()}
            job.finish(run, self.progress, **made)

    def _probe(self, system: str, adapter: Path | None) -> None:
        section = self.recipe.probe
        probed = set(section.languages or self.corpus.languages)
        groups = {
            name: tuple(sorted(set(codes) & probed))
            for name, codes in self.recipe.languages.groups().items()
            if len(set(codes) & probed) > 1
        }
        job = ProbeJob(
            self.model,
            section.data,
            adapter=None if adapter is None else str(adapter),
            format=section.format,
            languages=section.languages,
            split=section.split,
            columns=section.columns,
            on_empty=section.on_empty,
            limit=section.limit,
            pooling=section.pooling,
            margin=section.margin,
            k=section.k,
            candidates=section.candidates,
            groups=groups,
            seed=self.recipe.seed,
        )
        said = f"probing {system}: translation retrieval at every layer, {len(self.corpus.languages)} languages"
        self._stage(f"probe.{system}", job, self.out / "probe" / system, said)

    def _merge(self) -> None:
        adapters = {"task": str(self.adapter("sft")), "alignment": str(self.adapter("alignment"))}
        job = MergeJob(self.model, adapters, recipe=self.recipe, method=self.recipe.merge.method)
        said = "merging: weights of the task and the alignment adapter tuned on dev, no test item seen"
        self._stage("merge", job, self.out / "merge", said, dev=self.task.dev)

    def _vllm(self, job: GenerateJob) -> Any:
        """The engine of vLLM, one for all systems since it keeps the GPU's memory; None for transformers."""
        if job.backend == "vllm" and self._engine is None:
            self._engine = job.engine(self.tokenizer, [self.adapter(each) for each in SYSTEMS])
        return self._engine

    def _evaluate(self, system: str) -> None:
        recipe, folder = self.recipe, self.out / "evaluation" / system
        task, languages = recipe.task, scored_languages(recipe, self.task)
        items = task_source(task, task.test_split, languages, task.limit_test)
        job = GenerateJob(
            self.model,
            items,
            adapter=str(self.adapter(system)),
            answer_format=recipe.answer_format,
            max_new_tokens=recipe.generation.max_new_tokens,
            batch_tokens=recipe.generation.batch_tokens,
            backend=recipe.generation.backend,
        )
        said = f"evaluating {system}: {len(self.task.test)} test items in {len(languages)} languages"
        self._stage(f"evaluate.{system}", job, folder, said, engine=lambda: self._vllm(job))
        missing = not (folder / SCORES).exists()
        if missing:
            self.manifest.begin()
        if missing or own_metric_files(recipe.answer_format):  # they may have changed
            EvaluateJob(
                items,
                (str(folder / PREDICTIONS),),
                answer_format=recipe.answer_format,
                groups=recipe.languages.groups(),
                resamples=recipe.evaluation.resamples,
            ).write(folder)
