"""Sections of a recipe, typed: one recipe describes one run, from the probe to the report.

Sections are frozen, and an unknown key is an error. The keys of ``training:`` and ``lora:`` are arguments of trl's
``SFTConfig`` and peft's ``LoraConfig``, under their own names. `midalign.recipe.file` reads the YAML, and
docs/recipe.md is made from the descriptions here (`midalign.recipe.reference`).

Relative paths are relative to the working folder, as in a shell.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from midalign.answers.format import (
    CONSTRAINED_HELP,
    STYLE_HELP,
    AnswerFormat,
    Constrained,
    Style,
)
from midalign.data.parallel.corpus import Directions, OnEmpty
from midalign.data.parallel.layout import ParallelFormat
from midalign.errors import ModelError
from midalign.functional.names import Candidates, Margin, MergeMethod, Pooling
from midalign.recipe.alignment import AlignmentConfig
from midalign.recipe.fields import (
    LARGEST,
    LARGEST_SEED,
    MARGIN_PAPER,
    PAPER,
    BatchSize,
    Count,
    LanguageCodes,
    PathText,
    Section,
    refuse_conflicts,
    source,
)
from midalign.recipe.lora import LoraSection
from midalign.recipe.schedule import Schedule
from midalign.recipe.task import TaskSection
from midalign.recipe.training import TrainingSection
from midalign.records import MOST_RESAMPLES, RESAMPLES, Backend, Dtype


def _template_arguments(given: dict[str, bool | int | float | str]) -> dict[str, bool | int | float | str]:
    """Check arguments of a chat template.

    Raises:
        ValueError: If midalign itself gives one, or a switch is written as a word.
    """
    for name, value in given.items():
        if name in ("messages", "tools", "documents", "add_generation_prompt"):
            raise ValueError(f"midalign gives the template {name} itself; leave it out")
        if str(value).lower() in ("yes", "no", "on", "off"):
            raise ValueError(f"{name}: {value!r} is text, which a chat template reads as true; write true or false")
    return given


TemplateArguments = Annotated[dict[str, bool | int | float | str], AfterValidator(_template_arguments)]

_COLUMNS = (
    "Language of each column of a table without a header of language codes: {eng: 0, deu: 1}, counted from 0, or names "
    "of columns."
)
_ON_EMPTY = "'skip' leaves out rows with an empty side, which are an error otherwise."


class ModelSection(Section):
    """The model to start from."""

    path: PathText = Field(
        description="Hub name or local folder of the base model; 'testbed' is the small model of the demo, 'smollm2' a "
        "small real one."
    )
    gguf_file: str | None = Field(
        default=None, description="Name of a GGUF file in that folder or repository; it is dequantised (extra 'gguf')."
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit on the hub.")
    dtype: Dtype = Field(
        default="auto",
        description="Number format of the weights. 'auto' on a GPU: as the model was saved; on a CPU: float32, except "
        "that probe and generate keep bfloat16 if the CPU has instructions for it.",
    )
    quantization: Literal["4bit"] | None = Field(default=None, description="'4bit' trains on NF4 weights (QLoRA).")
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2", "flex_attention"] | None = Field(
        default=None,
        description="Attention kernel, by its name in transformers, whose choice is the default ('sdpa' for most "
        "models). To train in bfloat16 on a CPU, 'eager' is twice as fast on rows of up to 128 tokens.",
    )
    trust_remote_code: bool = Field(default=False, description="Let code from the model's repository run here.")
    chat_template_kwargs: TemplateArguments = Field(
        default={},
        description="Arguments of the chat template, such as {enable_thinking: false}. They are saved in the adapter's "
        "template, so that every program that reads it asks as training did.",
    )

    @model_validator(mode="after")
    def _four_bits_of_what(self) -> ModelSection:
        if self.quantization is not None and self.gguf_file is not None:
            raise ValueError(
                f"quantization: {self.quantization} with gguf_file: {self.gguf_file}: a GGUF is dequantised when it is "
                "loaded; leave one of them out"
            )
        return self


class LanguagesSection(Section):
    """The role of every language; any usual code is understood (en, eng, eng_Latn, ...)."""

    supervised: LanguageCodes = Field(description="Languages with task data to train on.")
    aligned: LanguageCodes = Field(
        default=(), description="Languages to align, with parallel data; they need no task data."
    )
    unseen: LanguageCodes = Field(default=(), description="Languages with neither, for evaluation only.")
    low_resource: LanguageCodes = Field(default=(), description="Languages to report as low-resource.")

    @property
    def all(self) -> tuple[str, ...]:
        """Every language, supervised first; each once."""
        return tuple(dict.fromkeys(self.supervised + self.aligned + self.unseen))

    def groups(self) -> dict[str, tuple[str, ...]]:
        """The groups that scores are reported for; empty ones left out."""
        transfer = tuple(code for code in self.all if code not in self.supervised)
        groups = {
            "all": self.all,
            "supervised": self.supervised,
            "transfer": transfer,
            "aligned": tuple(code for code in self.aligned if code not in self.supervised),
            "unseen": self.unseen,
            "low_resource": tuple(code for code in transfer if code in self.low_resource),
            "high_resource": tuple(code for code in transfer if code not in self.low_resource),
            "latin": tuple(code for code in transfer if "_Latn" in code),
            "non_latin": tuple(code for code in transfer if "_Latn" not in code),
        }
        return {name: codes for name, codes in groups.items() if codes}

    @model_validator(mode="after")
    def _roles_fit_together(self) -> LanguagesSection:
        return refuse_conflicts(self, list(self._conflicts()))

    def _conflicts(self) -> Iterator[str]:
        if not self.supervised:
            yield "supervised must name at least one language with task data"
        if both := sorted(set(self.unseen) & set(self.supervised + self.aligned)):
            yield f"{', '.join(both)} cannot be unseen and also supervised or aligned; take them out of unseen"
        if strange := [code for code in self.low_resource if code not in self.all]:
            yield (
                f"low_resource names {', '.join(strange)}, which is neither supervised nor aligned nor unseen, so it "
                "would have no effect; give it a role too, or take it out"
            )


class ParallelSection(Section):
    """Parallel sentences to align on."""

    data: PathText = Field(description="Folder, file or hub dataset with parallel sentences.")
    format: ParallelFormat = Field(default="auto", description="Format of the corpus; see docs/data.md.")
    split: str | None = Field(default=None, description="Split to read, where the corpus has several.")
    columns: dict[str, str | int] | None = Field(default=None, description=_COLUMNS)
    on_empty: OnEmpty = Field(default="error", description=_ON_EMPTY)
    directions: Directions = Field(
        default="english",
        description="'english' pairs every language with English, 'all' every language with every other.",
        json_schema_extra=PAPER,
    )
    limit_per_language: int | None = Field(
        default=None, gt=1, le=LARGEST, description="Largest number of pairs for each two languages."
    )
    held_out: int = Field(
        default=64,
        ge=0,
        le=LARGEST,
        description="Number of pairs, for each two languages, that are measured during training and never trained on; "
        "at most a fifth of them.",
    )
    chunks: Literal["none", "sentences"] = Field(
        default="none",
        description="'sentences' splits a pair of texts into pairs of sentences if both sides have equally many; "
        "limit_per_language and held_out count pairs before the split.",
    )


class ProbeSection(Section):
    """Translation retrieval at every layer."""

    data: PathText = Field(description="Corpus that is parallel across all probed languages.")
    format: ParallelFormat = Field(default="auto", description="Format of the corpus; see docs/data.md.")
    split: str | None = Field(
        default=None, description="Split to read, where the corpus has several (FLORES: devtest)."
    )
    columns: dict[str, str | int] | None = Field(default=None, description=_COLUMNS)
    on_empty: OnEmpty = Field(default="error", description=_ON_EMPTY)
    languages: LanguageCodes | None = Field(default=None, description="Languages to probe; all by default.")
    limit: int | None = Field(
        default=None, gt=1, le=LARGEST, description="Read only this many sentences, the first ones."
    )
    pooling: Pooling = Field(
        default="mean", description="How the token states of a sentence become one vector.", json_schema_extra=PAPER
    )
    margin: Margin = Field(
        default="ratio", description="Score of a candidate translation.", json_schema_extra=MARGIN_PAPER
    )
    k: BatchSize = Field(default=4, description="Number of neighbours in the margin.", json_schema_extra=MARGIN_PAPER)
    candidates: Candidates = Field(
        default="all", description="Retrieve among 'all' sentences or, as LASER's xsim does, among the k 'nearest'."
    )


class MergeSection(Section):
    """Merging the separately trained alignment adapter into the task adapter."""

    method: MergeMethod = Field(default="sum", description="Formula of the merge; 'sum' is the exact weighted sum.")
    task_weights: tuple[float, ...] = Field(default=(1.0,), description="Weights of the task adapter to try on dev.")
    alignment_weights: tuple[float, ...] = Field(
        default=(0.1, 0.3, 0.5, 1.0),
        description="Weights of the alignment adapter to try on dev.",
        json_schema_extra=source("the paper tunes weights on dev; these numbers are midalign's"),
    )
    search: Literal["grid", "golden", "coordinate"] = Field(
        default="grid",
        description="'grid' tries all pairs of the weights, 'golden' is golden-section search between the ends of "
        "alignment_weights, 'coordinate' changes one weight at a time.",
    )
    objective: Literal["score", "loss"] = Field(
        default="score",
        description="Choose by the 'score' of generated dev answers, or by the 'loss' of gold ones (cheap).",
    )
    bands: Count = Field(
        default=1, description="Number of bands of layers, each with an alignment weight; needs search: coordinate."
    )
    tolerance: float = Field(
        default=0.05,
        ge=1e-4,
        description="Golden-section search stops when the alignment weight is known to this precision.",
    )

    @model_validator(mode="after")
    def _search_fits_the_weights(self) -> MergeSection:
        return refuse_conflicts(self, list(self._conflicts()))

    def check_model(self, depth: int) -> None:
        """Check before training that a model of `depth` blocks can be cut into the bands.

        Raises:
            ModelError: If there are more bands than blocks.
        """
        if self.bands > depth:
            raise ModelError(
                f"merge.bands is {self.bands}, but this model has {depth} blocks, so that some bands would be empty; "
                f"write a number up to {depth}"
            )

    def _conflicts(self) -> Iterator[str]:
        if not self.task_weights or not self.alignment_weights:
            yield "task_weights and alignment_weights must each hold at least one weight"
        if self.bands > 1 and self.search != "coordinate":
            yield f"bands = {self.bands} needs search: coordinate; {self.search} tries one weight at all layers"
        if self.search == "golden" and (len(self.task_weights) > 1 or len(set(self.alignment_weights)) < 2):
            yield (
                "search: golden has one task weight and searches a range of alignment weights; give one in "
                "task_weights and the two ends of the range in alignment_weights, or write search: coordinate"
            )


class GenerationSection(Section):
    """Greedy generation of answers."""

    backend: Backend = Field(
        default="transformers", description="Library that generates; 'vllm' needs the extra of that name."
    )
    max_new_tokens: Count = Field(default=128, description="Longest answer, in tokens.")
    batch_tokens: Count = Field(default=8192, description="Tokens of a batch, padding and answers included.")
    constrained: Constrained | None = Field(default=None, description=f"Constraint on answers: {CONSTRAINED_HELP}")

    @model_validator(mode="after")
    def _backend_can_constrain(self) -> GenerationSection:
        if self.constrained is not None and self.backend == "vllm":
            raise ValueError(
                f"constrained: {self.constrained} does not work with backend: vllm; leave it out, or write backend: "
                "transformers"
            )
        return self


class EvaluationSection(Section):
    """Scores and their intervals."""

    resamples: int = Field(
        default=RESAMPLES, ge=100, le=MOST_RESAMPLES, description="Bootstrap resamples behind every interval."
    )
    completion_style: Style = Field(default="slots", description=f"What answers contain: {STYLE_HELP}")


class Recipe(Section):
    """One run of midalign.

    Examples:
        >>> recipe = midalign.load_recipe("recipe.yaml")
        >>> recipe.languages.aligned, recipe.alignment.layer
        (('deu_Latn',), 'middle')
    """

    name: str = Field(description="Name of the run.")
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED, description="Seed of everything random except the bootstrap.")
    model: ModelSection
    languages: LanguagesSection
    task: TaskSection
    parallel: ParallelSection
    probe: ProbeSection
    alignment: AlignmentConfig = AlignmentConfig()
    lora: LoraSection = LoraSection()
    training: TrainingSection = TrainingSection()
    early_stopping_patience: Count | None = Field(
        default=None, description="Stop after this many evaluations without a better training.metric_for_best_model."
    )
    merge: MergeSection = MergeSection()
    generation: GenerationSection = GenerationSection()
    evaluation: EvaluationSection = EvaluationSection()

    @field_validator("training")
    @classmethod
    def _the_metric_is_measured(cls, training: TrainingSection, found: ValidationInfo) -> TrainingSection:
        metric, alignment, parallel = (
            training.metric_for_best_model,
            found.data.get("alignment"),
            found.data.get("parallel"),
        )
        if metric is None or metric.removeprefix("eval_") == "loss" or alignment is None or parallel is None:
            return training
        if not parallel.held_out or "align" not in Schedule.parse(alignment.schedule).pattern:
            raise ValueError(
                f"metric_for_best_model: {metric} is measured on held-out pairs, and there are none: parallel.held_out "
                f"is {parallel.held_out}, alignment.schedule is {alignment.schedule!r}. Write eval_loss, or a higher "
                "parallel.held_out and a schedule with alignment"
            )
        return training

    @field_validator("evaluation")
    @classmethod
    def _answers_have_a_style(cls, evaluation: EvaluationSection, found: ValidationInfo) -> EvaluationSection:
        task = found.data.get("task")
        if task is not None:
            AnswerFormat(evaluation.completion_style).check_task(task.name)
        return evaluation

    @field_validator("early_stopping_patience")
    @classmethod
    def _evaluations_to_count(cls, patience: int | None, found: ValidationInfo) -> int | None:
        training = found.data.get("training")
        needed = {"eval_strategy", "metric_for_best_model"}
        if patience is not None and training is not None and not needed <= training.model_fields_set:
            raise ValueError(
                "it counts evaluations without a better value, so it needs training.eval_strategy (such as steps) and "
                "training.metric_for_best_model (such as eval_loss)"
            )
        return patience

    @field_validator("alignment")
    @classmethod
    def _prompts_that_name_no_language(cls, alignment: AlignmentConfig, found: ValidationInfo) -> AlignmentConfig:
        task = found.data.get("task")
        if alignment.prompt == "task" and task is not None and task.name == "translation":
            raise ValueError(
                "prompt: task is for slots, extraction and chat. The prompt of translation names the languages, so "
                "that the two sides of a pair would have different prompts. Write prompt: none"
            )
        return alignment

    @field_validator("generation")
    @classmethod
    def _what_answers_and_how(cls, generation: GenerationSection, found: ValidationInfo) -> GenerationSection:
        if (task := found.data.get("task")) is not None:
            AnswerFormat(constrained=generation.constrained).check_task(task.name)
        model = found.data.get("model")
        if model is not None and generation.backend == "vllm":
            if model.gguf_file is not None:
                raise ValueError(f"backend: vllm cannot read gguf_file: {model.gguf_file}; write backend: transformers")
            if model.quantization is not None:
                raise ValueError(
                    f"backend: vllm would answer with the full weights, and the adapter is trained on those of "
                    f"quantization: {model.quantization}; write backend: transformers"
                )
        return generation

    @property
    def answer_format(self) -> AnswerFormat:
        """Format of answers in training, generation and evaluation."""
        return AnswerFormat(
            self.evaluation.completion_style,
            self.task.system,
            self.generation.constrained,
            self.task.metric,
            self.task.types,
        )

    def as_dict(self) -> dict[str, object]:
        """The resolved recipe as plain data, ready for JSON or YAML."""
        return self.model_dump(mode="json")
