"""The recipe's section ``task``: the downstream task and its data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from midalign.answers.format import ENTITY_TYPES, METRIC_HELP, TYPES_HELP, AnswerFormat, EntityTypes
from midalign.data.parallel.layout import ParallelFormat
from midalign.data.tasks.layout import TaskFormat
from midalign.recipe.fields import Count, PathText, Section, refuse_conflicts
from midalign.records import TaskName, Translated

_TEXTS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
Metrics = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda given: (given,) if isinstance(given, str) else given),
    Field(min_length=1),
    WithJsonSchema({"anyOf": [{"type": "string"}, _TEXTS]}),
]
"""Names of metrics; one alone may be written without a list."""


def _types(given: object) -> object:
    """Entity types as pairs, from a list of names or from names with meanings."""
    if isinstance(given, Mapping):
        return tuple(given.items())
    return tuple((name, "") if isinstance(name, str) else name for name in given) if isinstance(given, list) else given


_MEANINGS = {"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1}
_PAIRS = {"type": "array", "items": _TEXTS | {"minItems": 2, "maxItems": 2}, "minItems": 1}  # as manifests have them
Types = Annotated[
    EntityTypes,
    BeforeValidator(_types),
    Field(min_length=1),
    WithJsonSchema({"anyOf": [_TEXTS, _MEANINGS, _PAIRS]}),
]


class TaskSection(Section):
    """The downstream task."""

    name: TaskName = Field(default="slots", description="Name of the task; docs/evaluation.md explains each.")
    data: PathText = Field(description="Folder or file with the task data.")
    format: Literal[TaskFormat, ParallelFormat] = Field(
        default="auto", description="Format of the data; see docs/data.md."
    )
    types: Types = Field(default=ENTITY_TYPES, description=f"{TYPES_HELP} A list of names, or names with meanings.")
    columns: dict[str, str | int] | None = Field(
        default=None,
        description="What each column holds, if the data do not say, counted from 0: {word: 1, tag: 2}; for "
        "translation {eng: 0, deu: 1}, or names of columns.",
    )
    labels: tuple[str, ...] | None = Field(
        default=None, description="Labels of spans to keep, for slots and extraction; all by default."
    )
    directions: Translated = Field(
        default="from_english",
        description="What a translation task translates: 'from_english' into each language, 'into_english', or 'both'; "
        "a test set by name has its own direction.",
    )
    metric: Metrics = Field(
        default=("exact_match",),
        description=f"{METRIC_HELP} Several as a list: merge weights are chosen by the first.",
    )
    train_split: str = Field(default="train", description="Split to train on, in the supervised languages.")
    dev_split: str = Field(default="dev", description="Split to choose settings on (early stopping, merge weights).")
    test_split: str = Field(
        default="test",
        description="Split to report scores on; for translation also a test set by name, such as "
        "sacrebleu:wmt23/en-de.",
    )
    dev_share: float = Field(
        default=0.1, gt=0, lt=1, description="Share of train_split held out as dev where dev_split is the same split."
    )
    dev_languages: Literal["supervised", "supervised_and_aligned"] = Field(
        default="supervised_and_aligned",
        description="Languages whose dev items decide early stopping and merge weights; of the aligned ones, those "
        "that have dev items.",
    )
    system: str | None = Field(
        default=None, description="System text of the prompt; midalign's own by default, '' for none."
    )
    limit_train: Count | None = Field(default=None, description="Largest number of training items per language.")
    limit_test: Count | None = Field(default=None, description="Largest number of test items per language.")
    limit_dev: Count | None = Field(default=100, description="Largest number of dev items per language.")

    @model_validator(mode="after")
    def _settings_are_for_the_task(self) -> TaskSection:
        return refuse_conflicts(self, list(self._conflicts()))

    def _conflicts(self) -> Iterator[str]:
        if self.name != "extraction" and self.types != ENTITY_TYPES:
            yield f"types are for name: extraction; {self.name} has none. Leave them out"
        if self.name != "translation" and self.directions != "from_english":
            yield f"directions = {self.directions!r} is for name: translation, not {self.name}. Leave it out"
        if self.name != "chat" and self.metric != AnswerFormat().metrics:
            yield f"metric = {list(self.metric)} is for name: chat; {self.name} has metrics of its own. Leave it out"
        if self.name == "chat" and self.format != "auto":
            yield f"format = {self.format!r} is not for name: chat, whose files say their format. Leave it out"
