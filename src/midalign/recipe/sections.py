"""The YAML recipe as typed sections: one recipe describes one run, from probing to the report.

Sections are frozen and closed: an unknown key is an error. ``training:`` and ``lora:`` go unchanged into trl's
``SFTConfig`` and peft's ``LoraConfig``: their names stay theirs. `midalign.recipe.file` reads the YAML.

Relative paths are relative to the folder that the command is run in, as in a shell.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from midalign.answers.format import CONSTRAINED_HELP, STYLE_HELP, AnswerFormat, Constrained, Style
from midalign.data.parallel.corpus import ParallelFormat
from midalign.data.tasks.read import TaskFormat
from midalign.errors import ModelError
from midalign.languages import canonical
from midalign.recipe.schedule import Schedule
from midalign.records import TaskName

PAPER = "arXiv 2502.14830"

Pooling = Literal["mean", "mean_no_special", "mean_no_first", "mean_unit", "last", "weighted"]
Margin = Literal["ratio", "distance", "absolute", "cosine"]
Candidates = Literal["all", "nearest"]
MergeMethod = Literal["sum", "parameters", "peft_linear", "svd", "ties", "dare"]
Layer = int | float | str | dict[int, float]
LanguageCode = Annotated[str, AfterValidator(lambda code: canonical(code, "recipe"))]
LanguageCodes = Annotated[tuple[LanguageCode, ...], AfterValidator(lambda codes: tuple(dict.fromkeys(codes)))]


def _checked_schedule(text: str) -> str:
    Schedule.parse(text)
    return text


def _checked_layer(layer: Layer) -> Layer:
    if isinstance(layer, dict):
        for number, weight in layer.items():
            _checked_layer(number)
            if weight <= 0:
                raise ValueError(f"the weight of layer {number} is {weight}; weights are positive")
        if not layer:
            raise ValueError("name at least one layer")
    elif isinstance(layer, str) and layer not in ("middle", "auto"):
        raise ValueError("a layer is a number such as 16, a fraction of the depth such as 0.5, 'middle' or 'auto'")
    elif isinstance(layer, float) and not 0 < layer <= 1:
        raise ValueError("a fraction of the depth lies above 0 and up to 1; write a whole number for a layer")
    elif isinstance(layer, int) and layer < 1:
        raise ValueError("layer k is the output of block k; the lowest that can be trained is 1")
    return layer


class Section(BaseModel):
    """A part of a recipe: frozen, and closed to keys that do not exist."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class ModelSection(Section):
    """Which model to start from."""

    path: str = Field(description="Hub name or local folder of the base model; 'testbed' is the embedded small one.")
    revision: str | None = Field(None, description="Hub branch, tag or commit.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="'auto' is the saved dtype on an accelerator and float32 on a CPU."
    )
    quantization: Literal["4bit"] | None = Field(None, description="'4bit' trains on NF4 weights (QLoRA).")
    trust_remote_code: bool = Field(False, description="Let code from the model's repository run here.")

    @property
    def loading(self) -> dict[str, Any]:
        """The section as arguments of `midalign.models.loading.load_model`, which has no recipes."""
        return {"name" if name == "path" else name: value for name, value in self}


class LanguagesSection(Section):
    """The role of every language; any usual code is understood."""

    supervised: LanguageCodes = Field(description="Languages with task data to train on.")
    aligned: LanguageCodes = Field((), description="Languages with parallel data and no task data.")
    unseen: LanguageCodes = Field((), description="Languages with neither, for evaluation only.")
    low_resource: LanguageCodes = Field((), description="Languages to report as low-resource.")

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
    def _roles_are_distinct(self) -> LanguagesSection:
        if not self.supervised:
            raise ValueError("supervised must name at least one language with task data")
        both = sorted(set(self.unseen) & set(self.supervised + self.aligned))
        if both:
            raise ValueError(f"{', '.join(both)} cannot be unseen and supervised or aligned at once")
        if strange := [code for code in self.low_resource if code not in self.all]:
            raise ValueError(
                f"low_resource names {', '.join(strange)}, which is neither supervised nor aligned nor unseen, so it "
                "would have no effect; give it a role too, or take it out"
            )
        return self


class TaskSection(Section):
    """The downstream task."""

    name: TaskName = Field("slots", description="slots, translation or extraction.")
    data: str = Field(description="Folder or file with the task data.")
    format: Literal[TaskFormat, ParallelFormat] = Field("auto", description="Format of the data; see docs/data.md.")
    train_split: str = Field("train", description="Split to train on, in the supervised languages.")
    dev_split: str = Field("dev", description="Split to choose settings on (early stopping, merge weights).")
    test_split: str = Field("test", description="Split to report scores on.")
    dev_share: float = Field(
        0.1, gt=0, lt=1, description="Share of train_split held out as dev where dev_split is the same split."
    )
    dev_languages: Literal["supervised", "supervised_and_aligned"] = Field(
        "supervised_and_aligned", description="Whose dev items early stopping and merge weights are chosen on."
    )
    system: str | None = Field(None, description="System text of the prompt; midalign's own by default, '' for none.")
    limit_train: int | None = Field(None, gt=0, description="At most so many training items per language.")
    limit_test: int | None = Field(None, gt=0, description="At most so many test items per language.")
    limit_dev: int | None = Field(100, gt=0, description="At most so many dev items per language.")


class ParallelSection(Section):
    """Parallel sentences to align on."""

    data: str = Field(description="Folder, file or hub dataset with parallel sentences.")
    format: ParallelFormat = Field("auto", description="Format of the corpus; see docs/data.md.")
    split: str | None = Field(None, description="Split, where the format has several.")
    directions: Literal["english", "all"] = Field(
        "english", description=f"Pair every language with English ({PAPER}), or all with all."
    )
    limit_per_language: int | None = Field(None, gt=1, description="At most so many pairs per language pair.")
    held_out: int = Field(
        64, ge=0, description="Pairs per language pair that are never trained on, for the alignment metrics."
    )
    chunks: Literal["none", "sentences"] = Field(
        "none",
        description="'sentences' cuts a pair into the pairs of its sentences where both sides have equally many; the "
        "numbers of pairs above count whole pairs.",
    )


class AlignmentConfig(Section):
    """The alignment objective and when it is trained."""

    layer: Annotated[Layer, AfterValidator(_checked_layer)] = Field(
        "middle",
        description=f"Layer to align: a number, a fraction of the depth, 'middle' ({PAPER}), 'auto' (where the base "
        "model retrieves translations best), or several with weights, such as {8: 1.0, 16: 0.5}.",
    )
    temperature: float = Field(
        0.1, gt=0, allow_inf_nan=False, description=f"Divides the cosines ({PAPER}: 0.1 for Llama 3)."
    )
    learn_temperature: tuple[float, float] | None = Field(
        None, description="Learn the temperature between these bounds, such as [0.02, 0.5], starting at 'temperature'."
    )
    direction: Literal["symmetric", "forward", "anchored"] = Field(
        "symmetric", description="'forward' is the reference's; 'anchored' moves only the non-English side."
    )
    pooling: Pooling = Field("mean", description=f"How a sentence vector is made ({PAPER}: mean).")
    prompt: Literal["none", "task"] = Field(
        "none",
        description="'task' aligns each sentence as it stands in the task's prompt, rather than by itself; with "
        "pooling: last that is the state from which the answer begins.",
    )
    centered: bool = Field(
        False,
        description="Subtract the mean vector of each side of the batch first, so that what tells two languages apart "
        "is left alone; needs batches: language.",
    )
    batches: Literal["mixed", "language"] = Field(
        "mixed", description="Draw the languages of every pair anew, or one pair of languages for a whole batch."
    )
    schedule: Annotated[str, AfterValidator(_checked_schedule)] = Field(
        "update", description="'update', 'micro_batch', 'task', 'align', or a pattern such as 'task:3,align:1'."
    )
    warmup: int = Field(0, ge=0, description="Task updates before the first alignment update.")
    max_updates: int | None = Field(
        None, gt=0, description="At most so many alignment updates; what is left of the training is the task's alone."
    )
    patience: int | None = Field(
        None, gt=0, description="Stop aligning after so many evaluations without a better eval_retrieval."
    )
    subspace: int | None = Field(
        None,
        gt=1,
        description="Align only in a fixed random subspace of so many dimensions, and leave the others to the task.",
    )
    weight: float = Field(1.0, gt=0, allow_inf_nan=False, description="Multiplies the alignment loss.")
    preserve: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Weight of a second loss of alignment updates: the divergence from the base model in how it says "
        "the non-English side again, which keeps values in their own language. 0 leaves it out.",
    )
    preserve_rows: int = Field(8, ge=1, description="Sentences of a batch that 'preserve' looks at.")
    modules: tuple[str, ...] | None = Field(
        None,
        description="Alignment updates move only the adapters of modules with such a word in their name, such as "
        "[mlp]; all by default.",
    )
    batch_size: int = Field(
        32, ge=2, description=f"Pairs in a contrastive batch of one process; the negatives come from it ({PAPER}: 32)."
    )
    mini_batch_size: int | None = Field(
        None, gt=0, description="Encode so many pairs at a time with cached gradients: more negatives, same memory."
    )
    gather_negatives: bool = Field(False, description="Take the pairs of all processes as negatives.")
    language_exponent: float = Field(
        0.0, ge=0, description="Languages are drawn with probability n**exponent; 0 is uniform over languages."
    )

    @model_validator(mode="after")
    def _temperature_starts_between_its_bounds(self) -> AlignmentConfig:
        if self.learn_temperature is not None:
            low, high = self.learn_temperature
            if not 0 < low < self.temperature < high < float("inf"):
                raise ValueError(
                    f"learn_temperature = [{low}, {high}] with temperature = {self.temperature}: the temperature "
                    "starts between the bounds, 0 < low < temperature < high; widen the bounds or change temperature"
                )
        return self

    @model_validator(mode="after")
    def _a_mean_is_that_of_one_language(self) -> AlignmentConfig:
        if self.centered and self.batches != "language":
            raise ValueError(
                f"centered = true with batches = {self.batches!r}: the mean of a side would be that of several "
                "languages, which tells nothing of any of them; write batches: language"
            )
        return self

    @model_validator(mode="after")
    def _what_goes_with_a_prompt(self) -> AlignmentConfig:
        if self.prompt == "none":
            return self
        if self.preserve:
            raise ValueError(
                f"preserve = {self.preserve} with prompt: task: what is said again would be the whole prompt; leave "
                "preserve out, or write prompt: none"
            )
        if self.layer == "auto":
            raise ValueError(
                "layer: auto with prompt: task: the layer would be chosen on sentences by themselves, which are not "
                "what is aligned; write a number, a fraction or middle, or prompt: none"
            )
        if self.pooling == "mean_no_first":
            raise ValueError(
                "pooling: mean_no_first with prompt: task: what comes before the sentence is left out already, so its "
                "first word would be; write pooling: mean"
            )
        return self

    @model_validator(mode="after")
    def _patience_has_something_to_go_on_with(self) -> AlignmentConfig:
        if self.patience is not None and "task" not in Schedule.parse(self.schedule).pattern:
            raise ValueError(
                f"patience = {self.patience} goes over to the task alone when retrieval no longer improves, but "
                f"schedule {self.schedule!r} has no task updates; leave patience out"
            )
        return self

    def check_model(self, depth: int, hidden: int) -> None:
        """Find out before a training what would stop it later.

        Args:
            depth: Blocks of the model.
            hidden: Its hidden size.

        Raises:
            ModelError: If the model has no such layer, or fewer dimensions than the subspace.
        """
        if self.layer != "auto":
            self.resolve_layers(depth)
        if self.subspace is not None and self.subspace > hidden:
            raise ModelError(
                f"alignment.subspace is {self.subspace}, but this model has hidden size {hidden}, so there is no such "
                f"subspace; write a number below {hidden}, or leave it out"
            )

    def resolve_layers(self, depth: int) -> dict[int, float]:
        """The aligned layers as numbers with their weights, for a model of `depth` blocks.

        Raises:
            ModelError: If the model has no such layer, or the layer is ``auto``, which needs the model itself.
        """
        if self.layer == "auto":
            raise ModelError("alignment.layer 'auto' is chosen with midalign.training.layer_choice.choose_layer first")
        if isinstance(self.layer, dict):
            layers = dict(self.layer)
        elif isinstance(self.layer, str):
            layers = {max(1, depth // 2): 1.0}
        else:
            layers = {self.layer if isinstance(self.layer, int) else max(1, round(self.layer * depth)): 1.0}
        if max(layers) > depth:
            raise ModelError(
                f"alignment.layer is {max(layers)}, but this model has {depth} blocks: layer k is the output of block "
                f"k, so layers 1 to {depth} can be aligned. The paper uses the middle, which is {depth // 2} here."
            )
        return layers


class ProbeSection(Section):
    """Translation retrieval at every layer."""

    data: str = Field(description="Corpus that is parallel across all probed languages.")
    format: ParallelFormat = Field("auto", description="Format of the corpus; see docs/data.md.")
    split: str | None = Field(None, description="Split, where the format has several (FLORES: devtest).")
    languages: LanguageCodes | None = Field(None, description="Languages to probe; all by default.")
    limit: int | None = Field(None, gt=1, description="Only the first so many sentences.")
    pooling: Pooling = Field("mean", description=f"How a sentence vector is made ({PAPER}: mean).")
    margin: Margin = Field("ratio", description=f"Score of a candidate ({PAPER}; LASER's default).")
    k: int = Field(4, ge=1, description="Neighbours in the margin (Artetxe and Schwenk 2019: 4).")
    candidates: Candidates = Field("all", description="Retrieve among 'all' sentences or, as xsim, the k 'nearest'.")


class MergeSection(Section):
    """Merging the separately trained alignment adapter into the task adapter."""

    method: MergeMethod = Field("sum", description="'sum' is the exact weighted sum of the two updates.")
    task_weights: tuple[float, ...] = Field((1.0,), description="Weights of the task adapter to try on dev.")
    alignment_weights: tuple[float, ...] = Field(
        (0.1, 0.3, 0.5, 1.0), description="Weights of the alignment adapter to try on dev."
    )
    search: Literal["grid", "golden", "coordinate"] = Field(
        "grid",
        description="'grid' tries all pairs of the weights, 'golden' narrows the range of alignment_weights, "
        "'coordinate' changes one weight at a time.",
    )
    objective: Literal["score", "loss"] = Field(
        "score", description="'score' of generated dev answers, or 'loss' of the gold ones, which is cheap."
    )
    bands: int = Field(1, ge=1, description="Bands of layers with an alignment weight each, by coordinate search.")
    tolerance: float = Field(0.05, ge=1e-4, description="How close golden section pins down the alignment weight.")

    @model_validator(mode="after")
    def _something_to_try(self) -> MergeSection:
        if not self.task_weights or not self.alignment_weights:
            raise ValueError("task_weights and alignment_weights must each hold at least one weight")
        if self.bands > 1 and self.search != "coordinate":
            raise ValueError(
                f"bands = {self.bands} needs search: coordinate; {self.search} tries one weight at all layers"
            )
        if self.search == "golden" and (len(self.task_weights) > 1 or len(set(self.alignment_weights)) < 2):
            raise ValueError(
                "search: golden keeps one task weight and narrows a range of alignment weights; give one in "
                "task_weights and the two ends of the range in alignment_weights, or take search: coordinate"
            )
        return self


class GenerationSection(Section):
    """Greedy generation of answers."""

    backend: Literal["transformers", "vllm"] = Field(
        "transformers", description="What generates; vllm is an extra of its own."
    )
    max_new_tokens: int = Field(128, gt=0, description="Longest answer, in tokens.")
    batch_tokens: int = Field(8192, gt=0, description="Padded prompt and answer tokens in a batch.")
    constrained: Constrained | None = Field(None, description=f"What answers are held to: {CONSTRAINED_HELP}")

    @model_validator(mode="after")
    def _backend_can_constrain(self) -> GenerationSection:
        if self.constrained is not None and self.backend == "vllm":
            raise ValueError(f"constrained: {self.constrained} is for backend: transformers; leave it out with vllm")
        return self


class EvaluationSection(Section):
    """Scores and their intervals."""

    resamples: int = Field(1000, ge=100, description="Bootstrap resamples behind every interval.")
    completion_style: Style = Field("slots", description=f"What answers hold: {STYLE_HELP}")


class Recipe(Section):
    """One run of midalign."""

    name: str = Field(description="Name of the run.")
    seed: int = Field(0, ge=0, description="Seed of everything random.")
    model: ModelSection
    languages: LanguagesSection
    task: TaskSection
    parallel: ParallelSection
    probe: ProbeSection
    alignment: AlignmentConfig = AlignmentConfig()
    lora: dict[str, Any] = Field(default_factory=dict, description="Goes unchanged into peft.LoraConfig.")
    training: dict[str, Any] = Field(default_factory=dict, description="Goes unchanged into trl.SFTConfig.")
    early_stopping_patience: int | None = Field(
        None, gt=0, description="Stop after so many evaluations without a better training.metric_for_best_model."
    )
    merge: MergeSection = MergeSection()
    generation: GenerationSection = GenerationSection()
    evaluation: EvaluationSection = EvaluationSection()

    @field_validator("alignment")
    @classmethod
    def _prompts_that_name_no_language(cls, alignment: AlignmentConfig, found: ValidationInfo) -> AlignmentConfig:
        task = found.data.get("task")
        if alignment.prompt == "task" and task is not None and task.name == "translation":
            raise ValueError(
                "prompt: task is for slots and extraction; the prompt of translation names the languages, so that the "
                "two sides of a pair would be asked different things. Write prompt: none"
            )
        return alignment

    @field_validator("generation")
    @classmethod
    def _answers_are_held_to_their_own_form(
        cls, generation: GenerationSection, found: ValidationInfo
    ) -> GenerationSection:
        if (task := found.data.get("task")) is not None:
            AnswerFormat(constrained=generation.constrained).check_task(task.name)
        return generation

    @property
    def answer_format(self) -> AnswerFormat:
        """How answers look, in training, generation and evaluation alike."""
        return AnswerFormat(self.evaluation.completion_style, self.task.system, self.generation.constrained)

    def as_dict(self) -> dict[str, Any]:
        """The resolved recipe as plain data, ready for JSON or YAML."""
        return self.model_dump(mode="json")


# The settings of the paper and its reference implementation, for whatever a recipe leaves out.
LORA_DEFAULTS: dict[str, Any] = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.1, "target_modules": "all-linear"}
TRAINING_DEFAULTS: dict[str, Any] = {
    "learning_rate": 5e-4,
    "lr_scheduler_type": "inverse_sqrt",
    "warmup_steps": 0.03,
    "per_device_train_batch_size": 32,
    "gradient_accumulation_steps": 4,
    "num_train_epochs": 5,
}
