"""What the sections of a recipe are made of: their base class, and the types that several of them share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict

from midalign.languages import canonical

Pooling = Literal["mean", "mean_no_special", "mean_no_first", "mean_unit", "last", "weighted"]
Margin = Literal["ratio", "distance", "absolute", "cosine"]
LanguageCode = Annotated[str, AfterValidator(lambda code: canonical(code, "recipe"))]
LanguageCodes = Annotated[tuple[LanguageCode, ...], AfterValidator(lambda codes: tuple(dict.fromkeys(codes)))]


SectionType = TypeVar("SectionType", bound="Section")


class Section(BaseModel):
    """A part of a recipe: frozen, and closed to keys that do not exist."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def refuse_conflicts(section: SectionType, conflicts: Sequence[str]) -> SectionType:
    """The section itself, or an error with everything in it that does not fit together, one line each.

    Raises:
        ValueError: If there is any conflict.
    """
    if conflicts:
        raise ValueError("\n".join(conflicts))
    return section


def source(text: str) -> dict[str, Any]:
    """Where a default comes from, as ``json_schema_extra`` of a field; shown in docs/recipe.md."""
    return {"source": text}


PAPER = source("the paper, arXiv 2502.14830")
REFERENCE = source("the paper's reference implementation, dannigt/mid-align")
MARGIN_PAPER = source("Artetxe and Schwenk 2019, as in the paper")
