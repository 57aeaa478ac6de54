"""docs/recipe.md and the JSON schema of recipes, made from the sections themselves.

``python -m midalign.recipe.reference``, in a checkout, writes both anew; a test compares them with what is there.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from midalign.recipe import lora, shipped, training
from midalign.recipe.fields import Arguments, Refused, Section
from midalign.recipe.file import recipe_schema
from midalign.recipe.sections import Recipe
from midalign.recipe.text import Schema, alternatives

_HEAD = """# The recipe

One YAML file describes one run. This page lists every key; it is made from `src/midalign/recipe/` by
`python -m midalign.recipe.reference`. `midalign recipe new` writes a first recipe for your own
data, `midalign recipe list` lists those that come with midalign (in a checkout they are in `recipes/`; `demo` is what
`midalign demo` runs), `midalign recipe schema` writes a JSON schema for editors.

* `midalign validate RECIPE` names all faults at once. A key that does not exist is a fault; so are most
  keys that would have no effect.
* Any key can be given on the command line too: `midalign run RECIPE --out DIR alignment.layer=8 lora.r=16`.
* `${NAME}` and `${NAME:-default}` are taken from the environment. `~` in a path is the home folder. Relative paths
  start at the folder that the command is run in.
* Words without quotes are read as in YAML 1.2. If a key takes text, a word stays as it is written: `save_strategy: no`,
  `aligned: [no]`, `name: 12:30`, `revision: 7e10`. If a key takes true or false, `yes` and `on` mean true.
* Language codes may be of any usual standard: `de`, `deu`, `deu_Latn`.
"""
_ARGUMENTS = (
    """Names, meanings and most defaults are those of {library}; *{library}'s* is a default that {library} sets."""
)
_REFUSED = """These would have no effect here, or would train weights that an adapter cannot hold. Each is an error:"""


def reference() -> str:
    """The whole page, Markdown."""
    parts = [_HEAD, _table(Recipe, [name for name in Recipe.model_fields if not _section(name)])]
    for name in Recipe.model_fields:
        if (section := _section(name)) is not None:
            parts.append(f"## `{name}`\n\n{_summary(section)}\n")
            parts += _arguments(name, section) if issubclass(section, Arguments) else _groups(section)
    return "\n".join(parts)


def _section(name: str) -> type[Section] | None:
    annotation = Recipe.model_fields[name].annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def _summary(section: type[Section]) -> str:
    return (inspect.getdoc(section) or "").partition("\n")[0]


def groups(section: type[Section]) -> dict[str, list[str]]:
    """The groups of a section's keys, by the titles in its docstring; one without a title where it names none."""
    found = re.findall(r"^- ([^:]+): ((?:``\w+``[,.]\s*)+)", inspect.getdoc(section) or "", re.MULTILINE)
    return {title: re.findall(r"\w+", names) for title, names in found} or {"": list(section.model_fields)}


def _groups(section: type[Section], library: str = "", defaults: Mapping[str, Any] = {}) -> Iterator[str]:
    for title, names in groups(section).items():
        if title:
            yield f"### {title}\n"
        yield _table(section, names, library, defaults)


def _arguments(name: str, section: type[Section]) -> Iterator[str]:
    library, module = ("trl", training) if name == "training" else ("peft", lora)
    defaults = {"training": training.TRAINING_DEFAULTS, "lora": lora.LORA_DEFAULTS}[name]
    yield _ARGUMENTS.format(library=library) + "\n"
    base = section.__bases__[0]
    assert issubclass(base, Section)
    yield from _groups(base, library, defaults)
    yield f"### Refused in `{name}`\n\n{_REFUSED}\n"
    by_reason: dict[str, list[str]] = {}
    refused: dict[str, Refused] = module.REFUSED
    for key, why in refused.items():
        by_reason.setdefault(why.reason, []).append(f"`{key}`")
    yield _rows(("keys", "why"), [(", ".join(keys), reason) for reason, keys in by_reason.items()])


def _table(section: type[Section], names: list[str], library: str = "", defaults: Mapping[str, Any] = {}) -> str:
    """Keys of a section; of another library's arguments, `defaults` are ours."""
    schema = section.model_json_schema() if section is not Recipe else recipe_schema()
    rows = []
    for name in names:
        field, found = section.model_fields[name], schema["properties"][name]
        default, origin = f"`{_yaml(found.get('default'))}`", found.get("source", "midalign")
        if field.is_required():
            default, origin = "*required*", ""
        elif name in defaults:
            default, origin = f"`{_yaml(defaults[name])}`", "the paper or its reference implementation"
        elif library:
            default, origin = f"{library}'s", library
        rows.append((f"`{name}`", _type(found, schema), default, field.description or "", origin))
    return _rows(("key", "type", "default", "what it is", "source of the default"), rows)


def _rows(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines) + "\n"


def _type(schema: Schema, root: Schema) -> str:
    """A JSON schema in words."""
    return " or ".join(dict.fromkeys(_one(each, root) for each in alternatives(schema, root)))


def _one(schema: Schema, root: Schema) -> str:
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{_yaml(value)}`" for value in schema.get("enum", [schema.get("const")]))
    kind = str(schema.get("type", "anything"))
    if kind == "array" and "prefixItems" in schema:
        return f"{len(schema['prefixItems'])} numbers"
    if kind == "array":
        return f"list of {_type(schema['items'], root)}"
    if kind == "object":
        inner = schema.get("additionalProperties")
        return f"mapping to {_type(inner, root)}" if isinstance(inner, dict) else "mapping"
    names = {"string": "text", "integer": "whole number", "boolean": "true, false", "null": "null"}
    bounds = [
        f"{sign} {schema[key]:g}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in schema and schema[key] < 10_000
    ]
    return f"{names.get(kind, kind)} {', '.join(bounds)}".strip()


def _yaml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    named = {None: "null", True: "true", False: "false", "": "''"}
    return named[value] if value is None or isinstance(value, bool) or value == "" else f"{value}"


def json_schema() -> Schema:
    """The JSON schema of a recipe, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | recipe_schema() | {"title": "midalign recipe"}


def schema_text() -> str:
    """The schema as the file that stands beside the shipped recipes."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    (shipped.folder().parents[2] / "docs" / "recipe.md").write_text(reference(), encoding="utf-8")
    (shipped.folder() / shipped.SCHEMA).write_text(schema_text(), encoding="utf-8")
