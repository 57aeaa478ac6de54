"""Reading a recipe: YAML to typed sections, with every fault reported at once.

1. the YAML is read strictly (a key given twice is an error);
2. ``${VARIABLE}`` and ``${VARIABLE:-default}`` are expanded from the environment;
3. ``section.key=value`` overrides are applied;
4. `midalign.recipe.sections.Recipe` checks it, and what it finds is rewritten as place, value, and what to write
   instead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from midalign.errors import MissingFileError, RecipeError, did_you_mean
from midalign.recipe.sections import Recipe


class _StrictLoader(yaml.SafeLoader):
    """YAML without two traps: of a key given twice plain YAML keeps the last, and it reads 5e-4 as a string."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *anchor`; the keys it brings may be overridden
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | None):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is not a word or a number", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        path: The YAML file.
        overrides: ``section.key=value`` strings; the value is read as YAML.

    Raises:
        MissingFileError: If there is no such file.
        RecipeError: With every fault of the recipe: its place, the value, and what to write instead.
    """
    path = Path(path)
    if not path.is_file():
        beside = [str(p) for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise MissingFileError(f"recipe {str(path)!r} does not exist.{did_you_mean(str(path), beside)}")
    return build_recipe(_read_yaml(path), overrides, str(path))


def build_recipe(content: dict[str, Any], overrides: Sequence[str] = (), where: str = "recipe") -> Recipe:
    """Check a recipe given as plain data; see `load_recipe`."""
    content = _expand(content)
    for override in overrides:
        _override(content, override)
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as fault:
        lines = [_explain(error) for error in fault.errors()]
        raise RecipeError(all_faults(where, lines)) from None
    return recipe


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except UnicodeDecodeError as fault:
        raise RecipeError(f"{path}: not UTF-8 (byte {fault.start}); save the recipe as UTF-8") from None
    except yaml.MarkedYAMLError as fault:
        line = fault.problem_mark.line + 1 if fault.problem_mark else 0
        raise RecipeError(f"{path}:{line}: not valid YAML: {fault.problem or fault}") from None
    except (yaml.YAMLError, ValueError) as fault:  # the second from a date that does not exist
        raise RecipeError(f"{path}: not valid YAML: {fault}") from None
    if not isinstance(content, dict):
        raise RecipeError(
            f"{path}: a recipe is a mapping of sections (model:, languages:, task:, ...), not {content!r}"
        )
    return content


def _expand(value: Any) -> Any:
    """Replace ``${NAME}`` and ``${NAME:-default}`` in every string, recursively; a copy."""
    if isinstance(value, dict):
        return {key: _expand(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item) for item in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        found = os.environ.get(name, default)
        if found is None:
            raise RecipeError(
                f"the recipe uses ${{{name}}}, but the environment variable {name} is not set; "
                f"set it, or write ${{{name}:-default}}"
            )
        return found

    return re.sub(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}", replace, value)


def _override(content: dict[str, Any], override: str) -> None:
    """Set ``section.key=value`` in place."""
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise RecipeError(f"override {override!r} is not of the form section.key=value, such as alignment.layer=8")
    *parents, last = name.split(".")
    for parent in parents:
        if content.get(parent) is None:
            content[parent] = {}
        content = content[parent]
        if not isinstance(content, dict):
            raise RecipeError(f"override {override!r}: {parent!r} is a value, not a section")
    try:
        content[last] = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError):
        raise RecipeError(f"override {override!r}: {text!r} is not valid YAML; put strings in quotes") from None


# Pydantic puts into an error's place the validators and the member of a union that failed.
_NOT_A_PLACE = re.compile(r"int|float|str|[a-z-]+\[.*", re.DOTALL)


def _explain(error: Any) -> str:
    """One fault of pydantic's as ``place = value: what is wrong``."""
    *parents, last = error["loc"]
    parts = [part for part in parents if not _NOT_A_PLACE.fullmatch(str(part))]
    if error["type"] == "extra_forbidden" or not _NOT_A_PLACE.fullmatch(str(last)):
        parts.append(last)
    place = ".".join(map(str, parts))
    if error["type"] == "extra_forbidden":
        known = _known_keys(error["loc"][:-1])
        hint = did_you_mean(str(error["loc"][-1]), known) or f" Known keys: {', '.join(known)}."
        return f"{place}: no such key.{hint}"
    if error["type"] == "missing":
        return f"{place}: missing; {_description(error['loc'])}"
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "literal_error":
        expected, given = str(error["ctx"]["expected"]), error["input"]
        allowed = re.findall("'([^']*)'", expected)
        return f"{place} = {given!r}: must be {expected}.{did_you_mean(str(given), allowed)}"
    given = error["input"]
    value = "" if isinstance(given, dict) else f" = {given!r}"
    if error["type"] == "string_type" and isinstance(given, bool):
        return f"{place}{value}: YAML reads no, off, yes and on as false and true; put the word in quotes"
    if error["type"] == "model_type":
        return f"{place}{value}: must be a section of `key: value` lines; leave it out where the defaults will do"
    if str(last) in ("int", "float", "str") or str(last).startswith("dict["):  # one line for all members of the union
        return f"{place}{value}: cannot be read. {_description(parts)}"
    return f"{place}{value}: {message[:1].lower() + message[1:]}"


def _section_of(location: Iterable[Any]) -> type[BaseModel] | None:
    section: type[BaseModel] | None = Recipe
    for part in location:
        field = section.model_fields.get(str(part)) if section else None
        annotation = field.annotation if field else None
        candidates = [annotation, *get_args(annotation)]
        section = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
    return section


def _known_keys(location: Iterable[Any]) -> list[str]:
    section = _section_of(location)
    return list(section.model_fields) if section else []


def _description(location: Sequence[Any]) -> str:
    section = _section_of(location[:-1])
    field = section.model_fields.get(str(location[-1])) if section else None
    return (field.description if field and field.description else "this section is required").rstrip(".")


def all_faults(where: str, lines: list[str]) -> str:
    """The message that lists every fault of a recipe."""
    unique = list(dict.fromkeys(lines))
    count = "1 fault" if len(unique) == 1 else f"{len(unique)} faults"
    return "\n".join([f"{where} has {count}:", *(f"  {line}" for line in unique)])
