"""The job of ``midalign generate``: read the items, load the model, answer, write ``predictions.jsonl``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from midalign.answers.format import AnswerFormat
from midalign.answers.predictions import PREDICTIONS, write_predictions
from midalign.data.examples import TaskSource
from midalign.data.parallel.moses import named_files
from midalign.errors import RunError
from midalign.generation.generate import generate
from midalign.generation.questions import check_questions
from midalign.models.source import ModelSource
from midalign.progress import Progress
from midalign.records import BACKENDS, Prediction, TaskExample
from midalign.runs import Job, Run


@dataclass(frozen=True)
class GenerateJob(Job[list[Prediction]]):
    """Greedy answers of one model to one split of a task.

    Attributes:
        model: The model.
        items: The items to answer.
        adapter: PEFT folder to answer with; None for the model as it is.
        answer_format: Style of the answers, and the constraint on them.
        max_new_tokens: Largest number of tokens of an answer.
        batch_tokens: Padded prompt and answer tokens in a batch.
        backend: One of `midalign.records.BACKENDS`.

    Raises:
        DataError: If `answer_format` is for another task.
        RunError: If the backend is unknown, or does not support the constraint.
    """

    verb: ClassVar[str] = "generate"
    result: ClassVar[str] = PREDICTIONS

    model: ModelSource
    items: TaskSource
    adapter: str | None = None
    answer_format: AnswerFormat = AnswerFormat()
    max_new_tokens: int = 128
    batch_tokens: int = 8192
    backend: str = "transformers"

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise RunError(f"backend {self.backend!r} is not one of {', '.join(BACKENDS)}")
        self.answer_format.check_task(self.items.task)
        if self.answer_format.constrained is not None and self.backend == "vllm":
            raise RunError(
                f"constrained: {self.answer_format.constrained} is for the backend transformers; leave it out with vllm"
            )
        if self.model.quantization is not None and self.backend == "vllm":
            raise RunError(
                f"quantization {self.model.quantization} is for the backend transformers; leave one of them out"
            )
        if self.model.gguf_file is not None and self.backend == "vllm":
            raise RunError(f"the GGUF {self.model.gguf_file!r} is for the backend transformers; leave one of them out")

    def paths(self) -> list[str | None]:
        """What the job reads."""
        return [self.model.path, *named_files(self.items.data), self.adapter]

    def examples(self) -> list[TaskExample]:
        """The items to answer."""
        found = self.items.read()
        self.answer_format.check_examples(found, self.items.data)
        return found

    def engine(self, tokenizer: Any, adapters: Sequence[str | Path]) -> Any:
        """The model, or a vLLM engine that can use these adapters."""
        if self.backend == "transformers":
            return self.model.load()
        from midalign.generation.vllm import VllmEngine

        return VllmEngine(
            self.model.path,
            tokenizer,
            adapters=[Path(adapter) for adapter in adapters],
            dtype=self.model.dtype,
            revision=self.model.revision,
            trust_remote_code=self.model.trust_remote_code,
        )

    def finish(self, run: Run, progress: Progress | None = None, *, engine: Any = None) -> list[Prediction]:
        """Answer into the run's folder; an interrupted run resumes after its last finished batch.

        Args:
            run: The run.
            progress: Called with the progress.
            engine: The engine, if it has been loaded already; see `engine`.

        Raises:
            UserError: If data, model and options do not fit.
        """
        examples = self.examples()
        adapters = [self.adapter] if self.adapter is not None else []
        tokenizer = self.model.tokenizer(adapters)
        check_questions(self.model.config(), tokenizer, examples, self.answer_format, self.max_new_tokens)
        if engine is None:
            engine = self.engine(tokenizer, adapters)
        run.begin()
        partial = run.out / f".{PREDICTIONS}.partial"
        with run.timed("generate"):
            predictions = generate(
                engine,
                tokenizer,
                examples,
                self.answer_format,
                adapter=Path(self.adapter) if self.adapter is not None else None,
                max_new_tokens=self.max_new_tokens,
                batch_tokens=self.batch_tokens,
                losses=True,
                partial=partial,
                progress=progress,
            )
        write_predictions(predictions, run.out / PREDICTIONS)
        partial.unlink(missing_ok=True)
        run.finish(dtype=str(getattr(engine, "dtype", self.model.dtype)))
        return predictions
