"""Reading a recipe: YAML to typed sections, with every fault reported at once.

1. the YAML is read with the recipe's schema, which says where a bare word is text (`midalign.recipe.text`);
2. ``section.key=value`` overrides are applied, their values read in the same way;
3. ``${VARIABLE}`` and ``${VARIABLE:-default}`` are expanded from the environment;
4. `midalign.recipe.sections.Recipe` checks it, and each fault is rewritten as place, value, and what to write instead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from midalign.errors import MissingFileError, RecipeError, did_you_mean
from midalign.recipe.sections import Recipe
from midalign.recipe.shipped import recipe_file, shipped
from midalign.recipe.text import Schema, allows_null, at_key, expects_text, read_yaml, shown

_MOST_BYTES = 1_000_000


@cache
def recipe_schema() -> Schema:
    """The JSON schema of a recipe."""
    return Recipe.model_json_schema()


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        path: The YAML file, or the name of a recipe that comes with midalign (`midalign.recipe.shipped`).
        overrides: ``section.key=value`` strings; the value is read as YAML.

    Raises:
        MissingFileError: If there is no such file.
        RecipeError: With every fault of the recipe: its place, the value, and what to write instead.

    Examples:
        >>> midalign.load_recipe("recipe.yaml", ["alignment.layer=3", "seed=7"]).alignment.layer
        3
    """
    return load_text(_text_of(path), str(path), overrides)


def load_text(text: str, where: str, overrides: Sequence[str] = ()) -> Recipe:
    """Check a recipe given as YAML text; `where` is what messages call it. See `load_recipe`."""
    try:
        content, faults = read_yaml(text, recipe_schema(), recipe_schema())
    except RecipeError as fault:
        raise RecipeError(f"{where}:{fault}") from None
    if not isinstance(content, dict):
        raise RecipeError(
            f"{where}: a recipe is a mapping of sections (model:, languages:, task:, ...), not {shown(content)}"
        )
    return build_recipe(content, overrides, where, [f"{where}:{fault}" for fault in faults])


def build_recipe(
    content: dict[str, Any], overrides: Sequence[str] = (), where: str = "recipe", faults: Sequence[str] = ()
) -> Recipe:
    """Check a recipe given as plain data; see `load_recipe`.

    Args:
        content: The recipe; it is not changed.
        overrides: ``section.key=value`` strings.
        where: Name of the recipe in messages.
        faults: Faults that are already known, to report with the others.

    Raises:
        RecipeError: With every fault.
    """
    found = list(faults)
    content = _copied(content)
    for override in overrides:
        try:
            _override(content, override)
        except RecipeError as fault:
            found.append(str(fault))
    content = _expand(content, found)
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as fault:
        found += _explain(fault.errors(), content)
    if found:
        raise RecipeError(all_faults(where, found))
    return recipe


def _text_of(given: str | Path) -> str:
    """The text of a recipe's file, or of a shipped recipe.

    Raises:
        MissingFileError: If there is no such file.
        RecipeError: If it is not text, or far too long.
    """
    path = Path(given)
    try:
        path = recipe_file(given)
        if path.is_dir():
            raise RecipeError(f"{str(path)!r} is a folder; give the YAML file of a recipe")
        if not path.is_file():
            beside = [*map(str, path.parent.glob("*.y*ml")), *shipped()] if path.parent.is_dir() else []
            raise MissingFileError(f"recipe {str(path)!r} does not exist.{did_you_mean(str(path), beside)}")
        if path.stat().st_size > _MOST_BYTES:
            raise RecipeError(f"{path}: {path.stat().st_size} bytes are too many for a recipe; give its YAML file")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise RecipeError(f"{path}: not UTF-8 (byte {fault.start}); save the recipe as UTF-8") from None
    except (OSError, ValueError) as fault:
        if isinstance(fault, MissingFileError | RecipeError):
            raise
        raise RecipeError(f"the recipe {shown(str(path))} cannot be read: {fault}") from None


def _copied(value: Any) -> Any:
    """A copy of plain data, however deep its sections are shared."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _expand(value: Any, faults: list[str]) -> Any:
    """Replace ``${NAME}`` and ``${NAME:-default}`` in every string, recursively; a copy."""
    if isinstance(value, dict):
        return {key: _expand(item, faults) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, faults) for item in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        found = os.environ.get(name, default)
        if found is None:
            faults.append(
                f"the recipe uses ${{{name}}}, but the environment variable {name} is not set; "
                f"set it, or write ${{{name}:-default}}"
            )
        return found or ""

    text = re.sub(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}", replace, value)
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        faults.append(f"{shown(text)} has a character that is not text (NUL, or half of a surrogate pair)")
    return text


def _override(content: dict[str, Any], override: str) -> None:
    """Set ``section.key=value`` in place; ``null`` removes a key that may not be null."""
    name, equals, text = override.partition("=")
    if not equals or not all(name.split(".")):
        raise RecipeError(f"override {shown(override)} is not of the form section.key=value, such as alignment.layer=8")
    *parents, last = name.split(".")
    schema = root = recipe_schema()
    for parent in parents:
        if content.get(parent) is None:
            content[parent] = {}
        content, schema = content[parent], at_key(schema, parent, root)
        if not isinstance(content, dict):
            raise RecipeError(f"override {shown(override)}: {parent!r} is a value, not a section")
    schema = at_key(schema, last, root)
    if not text and not expects_text(schema, root):
        raise RecipeError(f"override {shown(override)} has no value; write {name}=null to remove a value")
    try:
        content[last], faults = read_yaml(text, schema, root) if text else ("", [])
    except RecipeError:
        raise RecipeError(
            f"override {shown(override)}: {shown(text)} is not valid YAML; put strings in quotes"
        ) from None
    if faults:
        raise RecipeError(f"override {shown(override)}: {faults[0].partition(': ')[2]}")
    if text == "null" and not allows_null(schema, root):
        del content[last]  # the default takes its place


def _explain(errors: Iterable[Any], content: Any) -> list[str]:
    """Pydantic's faults as ``place = value: what is wrong``; one line for a value of a union type."""
    by_place: dict[tuple[Any, ...], list[Any]] = {}
    for error in errors:
        by_place.setdefault(_place(error, content), []).append(error)
    return [line for place, found in by_place.items() for line in _explain_place(place, found)]


def _place(error: Any, content: Any) -> tuple[Any, ...]:
    """Place of a fault in the recipe: pydantic's location without the members of unions."""
    place: list[Any] = []
    for part in error["loc"]:
        inside = content if isinstance(content, dict) else dict(enumerate(content if isinstance(content, list) else ()))
        if part in inside:
            place.append(part)
            content = inside[part]
    return (*place, error["loc"][-1]) if error["type"] == "missing" else tuple(place)


def _explain_place(place: tuple[Any, ...], errors: list[Any]) -> list[str]:
    name, error = ".".join(map(str, place)), errors[0]
    given = error["input"]
    value = name if isinstance(given, dict) else f"{name} = {shown(given)}"
    if error["type"] == "missing":
        return [f"{name}: missing; {_description(place)}"]
    if error["type"] == "extra_forbidden":
        known = _known_keys(place[:-1])
        hint = did_you_mean(str(place[-1]), known) or f" Known keys: {', '.join(known)}."
        return [f"{name}: no such key.{hint}"]
    if error["type"] == "model_type":
        return [f"{value}: must be a section of `key: value` lines; leave it out where the defaults will do"]
    if len(errors) > 1:
        reasons = " or ".join(dict.fromkeys(map(_reason, errors)))
        return [f"{value}: cannot be read ({reasons}). {_description(place)}"]
    return [f"{value}: {line}" for line in _reason(error).splitlines()]


def _reason(error: Any) -> str:
    message = str(error["msg"])
    if error["type"] == "value_error":  # our own words
        return message.removeprefix("Value error, ")
    if error["type"] == "literal_error":
        expected = str(error["ctx"]["expected"])
        hint = did_you_mean(str(error["input"]), re.findall("'([^']*)'", expected))
        return f"must be {expected}.{hint}"
    if error["type"] == "string_type" and error["input"] is None:
        return (
            "null is not text; leave the key out, or put it in quotes (for the home folder write ~/), or in braces "
            "write a blank after the colon ({eng: 0})"
        )
    if error["type"] == "tuple_type":
        given = error["input"]
        items = (
            re.split(r"[\s,]+", given) if isinstance(given, str) else ["a", "b"] if isinstance(given, dict) else [given]
        )
        return f"write a list: [{','.join(map(str, items))}]"
    if error["type"] == "dict_type":
        return "write keys and values in braces, with a blank after the colon: {eng: 0}"
    return message[:1].lower() + message[1:]


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
