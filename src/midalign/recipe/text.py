"""YAML reader for recipes: the schema decides what a bare word means.

YAML 1.1 reads ``no`` and ``off`` as booleans, ``12:30`` as 750, ``010`` as 8 and ``7e10`` as a number. In a recipe they
may be the name of a split, a run or a commit. So:

1. the text is parsed to nodes, which still hold every word as it was written;
2. each node becomes plain data by the JSON schema of `midalign.recipe.sections.Recipe`: where text is expected, a bare
   word stays as it was written; elsewhere it is read as YAML 1.2;
3. what is ambiguous is a fault: a key given twice, a number with a leading zero, an unknown tag.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from midalign.errors import RecipeError

Schema = dict[str, Any]

_MOST_NODES = 100_000
_DEEPEST = 50
_CORE = "tag:yaml.org,2002:"
_OLD_BOOLEANS = {"yes": True, "on": True, "no": False, "off": False}


class _Loader(yaml.SafeLoader):
    """PyYAML's loader with the bare words of YAML 1.2: numbers, true, false and null; dates and `no` are text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own attribute


for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?\d+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"{_CORE}{_name}", re.compile(rf"^(?:{_pattern})$", re.ASCII), _first)


def read_yaml(text: str, schema: Schema, root: Schema) -> tuple[Any, list[str]]:
    """YAML text as plain data.

    Args:
        text: One YAML document.
        schema: JSON schema of what is expected.
        root: The JSON schema that its references point into.

    Returns:
        Dictionaries, lists, strings, numbers, booleans and None; and the faults, each with its line.

    Raises:
        RecipeError: If the text is not YAML, with the line.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        reader = _Reader(loader, root)
        return (None if node is None else reader.value(node, schema)), reader.faults
    except yaml.MarkedYAMLError as fault:
        line = fault.problem_mark.line + 1 if fault.problem_mark else 0
        raise RecipeError(f"{line}: not valid YAML: {fault.problem or fault}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as fault:  # the others from escapes beyond Unicode
        raise RecipeError(f"1: not valid YAML: {str(fault).splitlines()[0]}") from None
    except RecursionError:
        raise RecipeError("1: nested too deeply to be a recipe") from None


def alternatives(schema: Schema, root: Schema) -> list[Schema]:
    """The alternative schemas of a union, or the schema alone, with references resolved."""
    if "$ref" in schema:
        found = root["$defs"][schema["$ref"].rpartition("/")[2]]
        return alternatives(found, root)
    return [
        one
        for part in schema.get("anyOf", [schema])
        for one in ([part] if part is schema else alternatives(part, root))
    ]


def at_key(schema: Schema, key: str, root: Schema) -> Schema:
    """The schema at a key of a mapping; empty if there is none."""
    for one in alternatives(schema, root):
        if key in one.get("properties", {}):
            return dict(one["properties"][key])
        if isinstance(one.get("additionalProperties"), dict):
            return dict(one["additionalProperties"])
    return {}


def expects_text(schema: Schema, root: Schema) -> bool:
    """Whether only text is expected, apart from null and collections."""
    kinds = {_kind(one) for one in alternatives(schema, root)}
    return "string" in kinds and not kinds & {"integer", "number", "boolean", None}


def allows_null(schema: Schema, root: Schema) -> bool:
    """Whether null is a value of its own here; so it is for a key that the schema does not know."""
    return not schema or any(
        one.get("type") == "null" or None in one.get("enum", [one.get("const", "")])
        for one in alternatives(schema, root)
    )


def _kind(schema: Schema) -> str | None:
    if "type" in schema:
        return str(schema["type"])
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    return "string" if values and all(isinstance(value, str | None) for value in values) else None


@dataclass
class _Reader:
    """Converter from nodes to plain data; collects the faults."""

    loader: _Loader
    root: Schema
    faults: list[str] = field(default_factory=list)
    merged: set[int] = field(default_factory=set)
    depth: int = 0
    nodes: int = 0

    def value(self, node: yaml.Node, schema: Schema) -> Any:
        self.nodes += 1
        self.depth += 1
        if self.nodes > _MOST_NODES or self.depth > _DEEPEST:
            raise RecipeError(
                f"{_line(node)}: more than {_MOST_NODES} values or {_DEEPEST} levels; does an anchor (&) contain "
                "itself?"
            )
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, schema)
            if isinstance(node, yaml.SequenceNode):
                items: Schema = next((one["items"] for one in alternatives(schema, self.root) if "items" in one), {})
                self._check_tag(node, "seq")
                return [self.value(item, items) for item in node.value]
            assert isinstance(node, yaml.ScalarNode)
            return self._scalar(node, schema)
        finally:
            self.depth -= 1

    def _mapping(self, node: yaml.MappingNode, schema: Schema) -> dict[Any, Any]:
        self._check_tag(node, "map")
        seen: set[Any] = set()
        for key_node, _ in [] if id(node) in self.merged else node.value:
            if key_node.tag == f"{_CORE}merge":  # `<<: *anchor`; the keys that it brings may be given again
                continue
            key = self._key(key_node)
            if key in seen:
                self.faults.append(f"{_line(key_node)}: the key {shown(key)} is given twice")
            seen.add(key)
        self.loader.flatten_mapping(node)
        self.merged.add(id(node))  # an alias may lead here again, and the keys that were merged are not given twice
        found = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            found[key] = self.value(value_node, at_key(schema, str(key), self.root))
        return found

    def _key(self, node: yaml.Node) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {_short(node)} is not a word or a number", node.start_mark
            )
        return self._scalar(node, {}) if node.tag == f"{_CORE}int" else node.value

    def _scalar(self, node: yaml.ScalarNode, schema: Schema) -> Any:
        text, tag = node.value, node.tag.removeprefix(_CORE)
        if tag == "null":
            return None
        if tag in ("str", "merge") or expects_text(schema, self.root):
            untyped = node.style is None and not schema
            return _OLD_BOOLEANS.get(text.lower(), text) if untyped else text
        if tag == "bool" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if tag == "int":
            return self._integer(node)
        if tag == "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        self._check_tag(node, "str")
        return text

    def _integer(self, node: yaml.ScalarNode) -> int:
        text = node.value
        if re.fullmatch(r"[-+]?0\d+", text):
            self.faults.append(
                f"{_line(node)}: {shown(text)} begins with a zero, which YAML 1.1 takes for an octal number; write it "
                "without the zero, with 0o for an octal number, or in quotes for text"
            )
            return int(text[:4000])
        if len(text) > 4000:
            self.faults.append(f"{_line(node)}: a number of {len(text)} digits is too large")
            return 0
        return int(text, 0)

    def _check_tag(self, node: yaml.Node, expected: str) -> None:
        if node.tag.removeprefix(_CORE) != expected:
            self.faults.append(f"{_line(node)}: the tag {shown(node.tag)} has no meaning in a recipe; leave it out")


def shown(value: Any) -> str:
    """A value for a message, shortened if it is long."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text)} characters)"


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _short(node: yaml.Node) -> str:
    return "of a list" if isinstance(node, yaml.SequenceNode) else "of a mapping"
