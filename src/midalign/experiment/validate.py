"""The job of ``midalign validate``: find all faults of a recipe, its data and its model in seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from midalign.data.prompt_check import check_prompt
from midalign.errors import ModelError, RecipeError, UserError
from midalign.evaluation.score import check_metrics, check_references
from midalign.experiment.named import TESTBED, ready_model
from midalign.files import write_json
from midalign.generation.constraint import load_llguidance
from midalign.generation.questions import check_questions
from midalign.generation.vllm import check_vllm
from midalign.models.loading import check_model_path
from midalign.models.source import ModelSource
from midalign.progress import Progress
from midalign.recipe.data import (
    PairData,
    TaskData,
    data_paths,
    evaluation_texts,
    read_pair_data,
    read_probe_corpus,
    read_task_data,
)
from midalign.recipe.sections import Recipe
from midalign.runs import Job, Run
from midalign.training.arguments import check_arguments, check_lora, training_tokenizer
from midalign.training.train import check_pairs


@dataclass(frozen=True)
class ValidateJob(Job[dict[str, str]]):
    """Check of a recipe against the data and the model that it names; nothing is trained.

    Attributes:
        recipe: The recipe.
        file: Its file, for the message.
    """

    verb: ClassVar[str] = "validate"
    result: ClassVar[str] = "validation.json"

    recipe: Recipe
    file: str = "recipe"

    def paths(self) -> list[str]:
        """What the job reads."""
        return data_paths(self.recipe)

    def finish(self, run: Run, progress: Progress | None = None) -> dict[str, str]:  # noqa: ARG002 - it takes seconds
        """Check, and write what was found.

        Raises:
            ModelError: As `check`.
        """
        found = self.check()
        write_json(run.out / self.result, found)
        run.finish()
        return found

    def check(self) -> dict[str, str]:
        """Number of items, pairs and sentences, by section of the recipe.

        Raises:
            ModelError: With every fault.
        """
        faults: list[str] = []
        found: dict[str, str] = {}
        data: dict[str, Any] = {}

        def read_pairs(recipe: Recipe) -> PairData:
            return read_pair_data(recipe, evaluation_texts(data.get("task", TaskData([], [], [])), data.get("probe")))

        readers: dict[str, tuple[str, Callable[[Recipe], Any]]] = {
            "task": (self.recipe.task.data, read_task_data),
            "probe": (self.recipe.probe.data, read_probe_corpus),
            "parallel": (self.recipe.parallel.data, read_pairs),
        }
        for section, (path, read) in readers.items():
            if path.partition(":")[0] != TESTBED:  # made when it is first used
                with _noted(section, faults):
                    data[section] = read(self.recipe)
                    found[section] = _counted(data[section])
        if "task" in data:
            with _noted("task", faults):
                for part in (data["task"].dev, data["task"].test):
                    check_references(part, self.recipe.answer_format)
        with _noted("training and lora", faults):
            check_arguments(self.recipe, self.file)
        with _noted("generation", faults):
            check_packages(self.recipe)
        self._check_model(data.get("task"), data.get("parallel"), faults)
        if faults:
            raise ModelError("\n".join([f"{self.file}: the recipe is well formed, but what it names is not:", *faults]))
        return found

    def _check_model(self, task: TaskData | None, pairs: PairData | None, faults: list[str]) -> None:
        """Check what the recipe says against a model that is on this machine, but for its weights."""
        section = self.recipe.model
        recipe = config = tokenizer = None
        with _noted("model", faults):
            path = ready_model(section.path)
            if path is not None and Path(check_model_path(path, section.gguf_file)).exists():
                recipe = self.recipe.model_copy(update={"model": section.model_copy(update={"path": path})})
                config = ModelSource.of(recipe.model).config()
        if recipe is None or config is None:
            return
        with _noted("alignment", faults):
            text = config.get_text_config()
            recipe.alignment.check_model(text.num_hidden_layers, text.hidden_size)
        with _noted("merge", faults):
            recipe.merge.check_model(config.get_text_config().num_hidden_layers)
        with _noted("lora", faults):
            check_lora(recipe, config)
        with _noted("training", faults):
            tokenizer = training_tokenizer(recipe)
        if task is None or tokenizer is None:
            return
        with _noted("model", faults):
            check_prompt(task.train[0], tokenizer, recipe.answer_format)
        if pairs is not None and not any(fault.startswith("training") for fault in faults):
            with _noted("parallel", faults):
                check_pairs(recipe, tokenizer, config, task, pairs)
        if not any(fault.startswith("generation: ") for fault in faults):
            with _noted("generation", faults):
                asked = [*task.dev, *task.test]
                check_questions(config, tokenizer, asked, recipe.answer_format, recipe.generation.max_new_tokens)


def check_packages(recipe: Recipe) -> None:
    """Check that the packages that generation needs are installed.

    Raises:
        MissingExtraError: If one is not installed.
        RecipeError: If vLLM would answer with another adapter than the one that is trained.
        RunError: If a metric is unknown.
    """
    if recipe.generation.constrained is not None:
        load_llguidance()
    if recipe.generation.backend == "vllm":
        if patterns := [name for name in ("rank_pattern", "alpha_pattern") if recipe.lora.given().get(name)]:
            raise RecipeError(
                f"lora.{patterns[0]} gives modules scales of their own, and backend: vllm would scale all alike; write "
                "backend: transformers, or leave it out"
            )
        check_vllm()
    check_metrics(recipe.task.name, recipe.answer_format)


@contextmanager
def _noted(section: str, faults: list[str]) -> Iterator[None]:
    """Collect a `UserError` as a fault instead of stopping at it."""
    try:
        yield
    except UserError as fault:
        faults.append(f"{section}: {fault}")


def _counted(found: Any) -> str:
    """Number of items read: of a corpus, or of each part of task data and pairs."""
    if hasattr(found, "rows"):
        return f"{len(found.rows)} sentences in {len(found.languages)} languages"
    return ", ".join(f"{len(part)} {name}" for name, part in found._asdict().items())
