"""The whole job of one recipe: probe, train, merge, evaluate, compare, report.

Stages, each skipped where an earlier call has finished it:

1. probe the base model;
2. train the SFT baseline, the joint adapter and the alignment adapter;
3. tune the merge weights on dev and merge task and alignment adapter;
4. probe, generate and score each system on test;
5. compare every system with the SFT baseline, item by item, and write ``summary.json`` and ``report.html``.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from midalign.answers.format import AnswerFormat
from midalign.answers.predictions import PREDICTIONS, read_predictions, write_predictions
from midalign.answers.write import completion
from midalign.data.parallel.corpus import ParallelCorpus
from midalign.data.prompt_tokens import prompt_ids
from midalign.data.prompts import render
from midalign.errors import DataError
from midalign.evaluation.comet import SEGMENTS, read_segments
from midalign.evaluation.score import MAIN_METRIC, SCORES, compare_runs, score, write_scores
from midalign.experiment.probe_comparison import compare_probes, correlate_transfer
from midalign.files import read_json, write_json
from midalign.generation.generate import check_constraint, check_window, generate
from midalign.languages import Language
from midalign.merging.export import merge_adapters
from midalign.merging.job import MERGE_FILE
from midalign.merging.tune import tune_weights
from midalign.models.adapters import attach_adapter
from midalign.models.loading import load_config, load_model, load_tokenizer
from midalign.probing.probe import probe
from midalign.progress import Progress
from midalign.recipe.data import (
    TaskData,
    data_paths,
    evaluation_texts,
    read_pair_data,
    read_probe_corpus,
    read_task_data,
)
from midalign.recipe.sections import Recipe
from midalign.records import TaskExample
from midalign.report.page import write_report
from midalign.runs import Run
from midalign.training.train import ADAPTER, TRAINING_FILE, Objective, train

logger = logging.getLogger(__name__)

SUMMARY = "summary.json"
TRAINED: dict[str, Objective] = {"sft": "task", "joint": "joint", "alignment": "align"}
BASELINE = "sft"
SYSTEMS = ("sft", "joint", "merged")


class Experiment:
    """One run folder of one recipe.

    Args:
        recipe: The recipe.
        out: Run folder.
        progress: Called with a description, what is done, and how much there is.
        announce: Called with one sentence before each stage.
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
        self._vllm: Any = None
        self.tokenizer = load_tokenizer(**recipe.model.source)
        self.task: TaskData = read_task_data(recipe)
        self.corpus: ParallelCorpus = read_probe_corpus(recipe)
        self.pairs = read_pair_data(recipe, evaluation_texts(self.task, self.corpus))
        self._check_fit()
        self.manifest = Run(out, "run", recipe.as_dict(), data_paths(recipe))

    def run(self) -> dict[str, Any]:
        """Do every stage that is not done yet; returns the summary."""
        self.manifest.begin()
        self._probe("base", None)
        for system, objective in TRAINED.items():
            self._train(system, objective)
        self._merge()
        for system in SYSTEMS:
            self._evaluate(system)
        for system in (*TRAINED, "merged"):
            self._probe(system, self.adapter(system))
        with self.manifest.timed("summary"):
            compare_probes(self.out, {"sft": "base", "alignment": "base", "joint": BASELINE, "merged": BASELINE})
            correlate_transfer(
                self.out,
                MAIN_METRIC[self.recipe.task.name],
                [code for code in self.recipe.languages.all if code not in self.recipe.languages.supervised],
                baseline=BASELINE,
                systems=[system for system in SYSTEMS if system != BASELINE],
            )
            summary = self._summarise()
        write_json(self.out / SUMMARY, summary)
        self.manifest.finish(systems=list(SYSTEMS))
        write_report([self.out], self.out)
        return summary

    def _check_fit(self) -> None:
        """Find out now what would otherwise fail after hours: a layer or a prompt that the model has no room for."""
        if not self.pairs.train:
            raise DataError(
                "languages.aligned names no language other than English, so there is nothing to align on. Name some, "
                "or train on the task alone: midalign train RECIPE --objective task"
            )
        config = load_config(**self.recipe.model.source)
        text = config.get_text_config()
        self.recipe.alignment.check_model(text.num_hidden_layers, text.hidden_size)
        answers = self.recipe.answer_format
        asked = [*self.task.dev, *self.task.test]
        tokens = [prompt_ids(render(example, self.tokenizer, answers)[0], self.tokenizer) for example in asked]
        check_window(config, asked, tokens, self.recipe.generation.max_new_tokens)
        check_constraint(self.tokenizer, asked, answers)

    def adapter(self, system: str) -> Path:
        """Folder of a system's adapter."""
        return self.out / ("merge" if system == "merged" else f"train/{system}") / ADAPTER

    def _model(self) -> Any:
        return load_model(**self.recipe.model.loading)

    def _engine(self) -> Any:
        """What answers: a fresh model, or the one vLLM engine, which keeps the accelerator's memory."""
        if self.recipe.generation.backend == "transformers":
            return self._model()
        if self._vllm is None:
            from midalign.generation.vllm import VllmEngine

            section = self.recipe.model
            self._vllm = VllmEngine(
                section.path,
                self.tokenizer,
                adapters=[self.adapter(system) for system in SYSTEMS],
                dtype=section.dtype,
                revision=section.revision,
                trust_remote_code=section.trust_remote_code,
            )
        return self._vllm

    def _probe(self, system: str, adapter: Path | None) -> None:
        target = self.out / "probe" / system / "probe.json"
        if target.exists():
            return
        self.announce(f"probing {system}: translation retrieval at every layer, {len(self.corpus.languages)} languages")
        section = self.recipe.probe
        languages = self.recipe.languages
        with self.manifest.timed(f"probe.{system}"):
            model = self._model()
            if adapter is not None:
                model = attach_adapter(model, adapter)
            probed = set(section.languages or self.corpus.languages)
            groups = {name: sorted(set(codes) & probed) for name, codes in languages.groups().items()}
            result = probe(
                model,
                self.tokenizer,
                self.corpus,
                pooling=section.pooling,
                margin=section.margin,
                k=section.k,
                candidates=section.candidates,
                groups={name: codes for name, codes in groups.items() if len(codes) > 1},
                progress=self.progress,
                seed=self.recipe.seed,
            )
        result.write(target.parent)

    def _train(self, system: str, objective: Objective) -> None:
        folder = self.out / "train" / system
        if (folder / TRAINING_FILE).exists():
            return
        why = {
            "task": "the baseline, task data only",
            "joint": "task and alignment updates in turn",
            "align": "alignment only, for merging",
        }
        self.announce(f"training {system}: {why[objective]}")
        with self.manifest.timed(f"train.{system}"):
            train(
                self.recipe,
                folder,
                objective=objective,
                task_data=self.task,
                pair_data=self.pairs,
                progress=self.progress,
            )

    def _merge(self) -> None:
        target = self.out / "merge"
        if (target / MERGE_FILE).exists():
            return
        method = self.recipe.merge.method
        self.announce("merging: weights of the task and the alignment adapter tuned on dev, no test item seen")
        adapters = {"task": self.adapter("sft"), "alignment": self.adapter("alignment")}
        with self.manifest.timed("merge"):
            model = self._model()
            tuned = tune_weights(model, self.tokenizer, adapters, self.recipe, self.task.dev, progress=self.progress)
            shutil.rmtree(target / ADAPTER, ignore_errors=True)  # of a run that was killed before it wrote its record
            done = merge_adapters(adapters, tuned["chosen"], method, out=target / ADAPTER, base_model=model)
        write_json(target / MERGE_FILE, tuned | {"method": method, "merge": asdict(done)})

    def _evaluate(self, system: str) -> None:
        folder = self.out / "evaluation" / system
        if (folder / SCORES).exists():
            return
        self.announce(
            f"evaluating {system}: {len(self.task.test)} test items in {len(self.recipe.languages.all)} languages"
        )
        recipe = self.recipe
        with self.manifest.timed(f"evaluate.{system}"):
            predictions = generate(
                self._engine(),
                self.tokenizer,
                self.task.test,
                recipe.answer_format,
                adapter=self.adapter(system),
                max_new_tokens=recipe.generation.max_new_tokens,
                batch_tokens=recipe.generation.batch_tokens,
                partial=folder / f".{PREDICTIONS}.partial",
                progress=self.progress,
            )
            write_predictions(predictions, folder / PREDICTIONS)
            scores = score(
                self.task.test,
                predictions,
                recipe.answer_format,
                groups=recipe.languages.groups(),
                resamples=recipe.evaluation.resamples,
            )
        write_scores(scores, folder / SCORES)
        (folder / f".{PREDICTIONS}.partial").unlink(missing_ok=True)

    def _summarise(self) -> dict[str, Any]:
        recipe = self.recipe
        main = MAIN_METRIC[recipe.task.name]
        outputs = {s: read_predictions(self.out / "evaluation" / s / PREDICTIONS) for s in SYSTEMS}
        folders = {system: self.out / "evaluation" / system / SEGMENTS for system in SYSTEMS}
        # Of an earlier `midalign comet add`.
        segments = {s: read_segments(path, outputs[s]) for s, path in folders.items() if path.exists()}
        comparisons = [
            {"baseline": BASELINE, "system": system} | asdict(found)
            for system in SYSTEMS
            if system != BASELINE
            for found in compare_runs(
                self.task.test,
                outputs[BASELINE],
                outputs[system],
                recipe.answer_format,
                groups=recipe.languages.groups(),
                segments=(segments[BASELINE], segments[system]) if {BASELINE, system} <= set(segments) else None,
                resamples=recipe.evaluation.resamples,
            )
        ]
        trained = {s: read_json(self.out / "train" / s / TRAINING_FILE) for s in TRAINED}
        return {
            "name": recipe.name,
            "task": recipe.task.name,
            "main_metric": main,
            "languages": [self._describe(code) for code in recipe.languages.all],
            "systems": list(SYSTEMS),
            "seeds": [recipe.seed],
            "aligned_layer": trained["joint"]["layer"],
            "comparisons": comparisons,
            "training": {s: {"seconds": t["seconds"], "updates": t["updates"]} for s, t in trained.items()},
            "merge": read_json(self.out / "merge" / MERGE_FILE),
            "examples": changed_examples(self.task.test, outputs[BASELINE], outputs["joint"], recipe.answer_format),
            "timings": self.manifest.manifest["timings"],
        }

    def _describe(self, code: str) -> dict[str, str]:
        language, roles = Language.parse(code), self.recipe.languages
        role = "supervised" if code in roles.supervised else "aligned" if code in roles.aligned else "unseen"
        resource = "low" if code in roles.low_resource else "high"
        return {"code": code, "name": language.name, "script": language.script, "role": role, "resource": resource}


def changed_examples(
    examples: Sequence[TaskExample],
    baseline: Sequence[Any],
    system: Sequence[Any],
    answer_format: AnswerFormat = AnswerFormat(),
    limit: int = 3,
) -> list[dict[str, Any]]:
    """Items that only one of two systems got exactly right: the first few that were helped, and that were hurt."""
    found: dict[str, list[dict[str, Any]]] = {"helped": [], "hurt": []}
    for example, before, after in zip(examples, baseline, system, strict=True):
        gold = completion(example, answer_format.style)
        if (before.prediction == gold) == (after.prediction == gold):
            continue
        kind = "helped" if after.prediction == gold else "hurt"
        if len(found[kind]) < limit:
            found[kind].append(
                {
                    "kind": kind,
                    "id": example.id,
                    "language": example.language,
                    "text": example.text,
                    "gold": gold,
                    "baseline": before.prediction,
                    "system": after.prediction,
                }
            )
    return found["helped"] + found["hurt"]
