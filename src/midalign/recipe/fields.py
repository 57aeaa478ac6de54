"""Base classes and shared types of the recipe's sections, and sources of defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    WithJsonSchema,
    create_model,
    field_validator,
    model_serializer,
)

from midalign.languages import canonical

# Larger numbers do not fit where they are used (seeds, sizes of tensors) or are slips of the keyboard.
LARGEST_SEED = 2**32 - 1
LARGEST = 1_000_000_000
LARGEST_BATCH = 1_000_000


def _path(text: str) -> str:
    """A path with the home folder in place of ``~``.

    Raises:
        ValueError: If there can be no such path.
    """
    found = os.path.expanduser(text)  # noqa: PTH111 - `Path` would change testbed:slots, or a hub name
    try:
        Path(found).exists()
    except (OSError, ValueError) as fault:
        raise ValueError(f"cannot be a path: {fault}"[:200]) from None
    return found


LanguageCode = Annotated[str, AfterValidator(lambda code: canonical(code, "recipe"))]
LanguageCodes = Annotated[tuple[LanguageCode, ...], AfterValidator(lambda codes: tuple(dict.fromkeys(codes)))]
Count = Annotated[int, Field(gt=0, le=LARGEST)]
BatchSize = Annotated[int, Field(gt=0, le=LARGEST_BATCH)]
PathText = Annotated[str, AfterValidator(_path)]
"""A path, or the name of something on the hub; ``~`` at its beginning is the home folder."""

SectionType = TypeVar("SectionType", bound="Section")


class Section(BaseModel):
    """Section of a recipe: frozen, refuses unknown keys and numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_neither_a_number_nor_a_word(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[info.field_name or ""]
        if _holds_bool(value) and not _takes_bool(field.annotation):
            raise ValueError("true and false are neither words nor numbers; put the word in quotes")
        return value


def _holds_bool(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_holds_bool, value))
    return isinstance(value, bool)


def _takes_bool(annotation: Any) -> bool:
    return annotation in (bool, Any) or isinstance(annotation, bool) or any(map(_takes_bool, get_args(annotation)))


def refuse_conflicts(section: SectionType, conflicts: Sequence[str]) -> SectionType:
    """Return the section, or raise one error with all its conflicts, one per line.

    Raises:
        ValueError: If there is any conflict.
    """
    if conflicts:
        raise ValueError("\n".join(conflicts))
    return section


class Arguments(Section):
    """Arguments of another library that take effect here. An argument that is not given keeps its default."""

    model_config = ConfigDict(validate_default=False)

    def given(self) -> dict[str, Any]:
        """The arguments that the recipe gives."""
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}

    @model_serializer(mode="wrap")
    def _only_what_is_given(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if name in self.model_fields_set}

    @classmethod
    def refusing(cls, name: str, refused: Mapping[str, Refused]) -> type[Self]:
        """Subclass with further keys, each of which is refused with its reason."""
        fields: dict[str, Any] = {}
        for key, why in refused.items():
            allowed = WithJsonSchema({"enum": list(why.accepted)} if why.accepted else {"not": {}})
            fields[key] = (Annotated[Any, AfterValidator(why.check), allowed], argument(why.text))
        return create_model(name, __base__=cls, __doc__=cls.__doc__, **fields)


class Refused(NamedTuple):
    """Why an argument of another library is refused.

    Attributes:
        reason: What to write instead, or why it would have no effect.
        accepted: Values that are allowed, because they ask for what is done anyway.
    """

    reason: str
    accepted: tuple[Any, ...] = ()

    @property
    def text(self) -> str:
        """The description of the key."""
        return f"Refused: {self.reason}."

    def check(self, value: Any) -> Any:
        """Return the value if it is accepted.

        Raises:
            ValueError: With the reason, if it is not.
        """
        if any(value is one or (value == one and type(value) is type(one)) for one in self.accepted):
            return value
        raise ValueError(self.reason)


def argument(description: str, **constraints: Any) -> Any:
    """Field of `Arguments`: no default of midalign's, and the bounds of `pydantic.Field`."""
    return Field(default=None, description=description, **constraints)


def source(text: str) -> dict[str, Any]:
    """Source of a default, as ``json_schema_extra`` of a field; docs/recipe.md shows it."""
    return {"source": text}


PAPER = source("the paper, arXiv 2502.14830")
REFERENCE = source("the paper's reference implementation, dannigt/mid-align")
MARGIN_PAPER = source("Artetxe and Schwenk 2019, as in the paper")
