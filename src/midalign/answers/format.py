"""`AnswerFormat`: the style of answers that a model is asked for, and the constraint on generation.

Styles and constraints are listed only here; recipe, command line and help are made from these lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from midalign.errors import DataError
from midalign.records import TaskExample, TaskName

Style = Literal["slots", "intent_slots"]
Constrained = Literal["json", "slots"]
STYLES: tuple[Style, ...] = get_args(Style)
STYLE_HELP = "slots, or intent_slots where answers begin with the intent."
CONSTRAINED_TASK: dict[Constrained, TaskName] = {"json": "extraction", "slots": "slots"}
"""Each constraint, and the task whose answers it is for."""
CONSTRAINED_HELP = (
    "json forces answers of extraction into the JSON that the prompt asks for, slots forces answers of slot filling "
    "into their form, with values copied from the sentence (extra 'constrained')."
)


METRICS = ("exact_match", "token_f1", "chrf", "bleu", "rougeL", "json_match", "accuracy", "macro_f1")
METRIC_HELP = f"What answers of chat are scored by: {', '.join(METRICS)}, or module:function for your own."


EntityTypes = tuple[tuple[str, str], ...]
"""Names of entity types, each with what it means (empty where the name says it)."""
ENTITY_TYPES: EntityTypes = (("PER", "people"), ("ORG", "organisations"), ("LOC", "places"))
"""Those of Universal NER."""
TYPES_HELP = "Entity types of extraction, each with what it means, such as PER=people; PER, ORG and LOC by default."


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """Format of a run's answers; the same in training, generation and evaluation.

    Attributes:
        style: ``"slots"`` as in the paper, or ``"intent_slots"``: the intent before the slots (slot filling only).
        system: System text of the prompt, for example of a model trained elsewhere. None is midalign's own text; with
            the empty string there is no system text.
        constrained: Constraint on generation, a key of `CONSTRAINED_TASK`; None does not constrain.
        metrics: Metrics of the task chat (`midalign.metrics.chat`); merge weights are chosen by the first.
        types: The entity types of extraction, which the prompt names.

    Examples:
        >>> midalign.AnswerFormat("intent_slots", constrained="slots").style
        'intent_slots'
    """

    style: Style = "slots"
    system: str | None = None
    constrained: Constrained | None = None
    metrics: tuple[str, ...] = ("exact_match",)
    types: EntityTypes = ENTITY_TYPES

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", tuple(dict.fromkeys(self.metrics)))  # one that is named twice counts once

    def check_task(self, task: TaskName) -> None:
        """Check that style, constraint, metrics and types are ones for this task.

        Raises:
            DataError: If they are for another.
        """
        if self.style != "slots" and task != "slots":
            raise DataError(
                f"completion_style: {self.style} is what answers of slots contain; the answers of {task} have another "
                "form, so leave it out"
            )
        if self.constrained is not None and (wanted := CONSTRAINED_TASK[self.constrained]) != task:
            raise DataError(
                f"constrained: {self.constrained} is for the task {wanted}; the answers of {task} have another form, "
                "so leave it out"
            )
        if self.metrics != ("exact_match",) and task != "chat":
            raise DataError(
                f"metric: {', '.join(self.metrics)} is for the task chat; {task} has its own metrics, so leave it out"
            )
        if self.types != ENTITY_TYPES and task != "extraction":
            raise DataError(
                f"types: {', '.join(name for name, _ in self.types)} are for the task extraction; the prompt of {task} "
                "names none, so leave them out"
            )

    def check_examples(self, examples: Sequence[TaskExample], data: str) -> None:
        """Check that examples have what answers of this style contain.

        Raises:
            DataError: If they have no intents, and answers begin with the intent.
        """
        lacking = [example.id for example in examples if not example.intent] if self.style == "intent_slots" else []
        if lacking:
            raise DataError(
                f"{data}: {len(lacking)} of {len(examples)} items have no intent, such as {lacking[0]}, and with "
                "completion_style: intent_slots answers begin with it. Write completion_style: slots"
            )
