"""Walks hassil's expression trees: from a sentence template to one sentence whose slots are known by construction.

1. The templates of a language (`home-assistant-intents`) are grouped by `Key`: intent, slot combination, fixed slots
   and required context. Sentences of the same key with the same slot values mean the same in any two languages.
2. A walk picks one alternative at every branch; early alternatives are likelier (Zipf), so common wordings dominate.
3. At every ``{list}`` the walk asks a `Chooser` for the value; if the chooser has no name for it, the walk fails.
4. The pieces are joined into a text with the character offsets of every slot, and into a *pattern*: the same text with
   ``{label}`` in place of the slots.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Protocol, TypeVar

from midalign.errors import MissingExtraError

try:
    import hassil.expression as hx
    from hassil.parse_expression import parse_sentence
    from home_assistant_intents import get_intents
except ImportError as error:  # pragma: no cover - depends on the installation
    raise MissingExtraError("home-assistant-intents", "demo", "The testbed") from error

_T = TypeVar("_T")

OPTIONAL_SHARE = 0.25
"""How often an optional part is said. Below one half, so that short wordings dominate, as in the LOG's prototypes."""
ZIPF_EXPONENT = 2.0
"""Alternative number i (from 1) has weight ``i ** -ZIPF_EXPONENT``."""
SHUFFLE_SHARE = 0.2
"""How often the parts of a free permutation change their order."""


class UnrenderableError(Exception):
    """This walk cannot give a sentence: a list without a value, or a value that was not asked for."""


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """What a template does, apart from its slot values; equal keys mean the same in every language."""

    intent: str
    combination: str
    fixed: tuple[tuple[str, str], ...]
    context: tuple[tuple[str, str], ...]

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains that a named device may have, such as ``("light",)``; empty where the template does not say."""
        return tuple(value for name, values in self.context if name == "domain" for value in values.split("|"))


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a sentence: its text and, where it is a slot's value, the slot's label and concept."""

    text: str
    label: str | None = None
    concept: str | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """Some templates of one `Key` with the expansion rules that hold for them."""

    sentences: tuple[str, ...]
    rules: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ListSpec:
    """A slot list of a language: a range of numbers, a wildcard, or the values that its templates spell out."""

    name: str
    is_range: bool
    low: int
    high: int
    values: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Grammar:
    """All templates of one language."""

    code: str
    blocks: Mapping[Key, tuple[Block, ...]]
    lists: Mapping[str, ListSpec]


class Chooser(Protocol):
    """Gives the value of a list at a point of the walk."""

    def __call__(self, slot: str, spec: ListSpec, rng: random.Random) -> list[Piece]:
        """The pieces to say for ``{spec.name:slot}``; raises `UnrenderableError` where there is no value."""


def _as_text(value: Any) -> str:
    if isinstance(value, list):
        return "|".join(sorted(map(str, value)))
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _key(intent: str, block: Mapping[str, Any]) -> Key:
    # The context entry `area` only says where the speaker stands; it does not change the meaning of the sentence.
    context = {name: v for name, v in block.get("requires_context", {}).items() if name != "area"}
    return Key(
        intent=intent,
        combination=str(block.get("metadata", {}).get("slot_combination")),
        fixed=tuple(sorted((name, _as_text(v)) for name, v in block.get("slots", {}).items())),
        context=tuple(sorted((name, _as_text(v)) for name, v in context.items())),
    )


def _list_spec(name: str, entry: Mapping[str, Any]) -> ListSpec:
    if "range" in entry:
        limits = entry["range"]
        return ListSpec(name, True, int(limits["from"]), int(limits["to"]), ())
    values = []
    for value in entry.get("values", ()):
        said, meant = (value, value) if isinstance(value, str) else (value["in"], value.get("out"))
        values.append((str(said), str(meant)))
    return ListSpec(name, False, 0, 0, tuple(values))


@cache
def load_grammar(code: str) -> Grammar:
    """Reads the templates of one language.

    Args:
        code: The package's own language code, such as ``"zh-CN"``.

    Returns:
        The grammar; cached, since parsing is lazy but reading takes some tens of milliseconds.
    """
    data = get_intents(code)
    if data is None:
        raise UnrenderableError(f"home-assistant-intents has no language {code!r}")
    rules = dict(data.get("expansion_rules", {}))
    grouped: dict[Key, list[Block]] = {}
    for intent, content in data["intents"].items():
        for block in content["data"]:
            local = {**rules, **block.get("expansion_rules", {})} if block.get("expansion_rules") else rules
            grouped.setdefault(_key(intent, block), []).append(Block(tuple(block["sentences"]), local))
    lists = {name: _list_spec(name, entry) for name, entry in data["lists"].items()}
    return Grammar(code, {key: tuple(blocks) for key, blocks in grouped.items()}, lists)


@cache
def _parse(template: str) -> hx.Expression:
    return parse_sentence(template).expression


@lru_cache(maxsize=64)
def _zipf(n: int) -> list[float]:
    """Cumulative Zipf weights of n alternatives, for `random.Random.choices`."""
    total, out = 0.0, []
    for i in range(n):
        total += (i + 1) ** -ZIPF_EXPONENT
        out.append(total)
    return out


def pick(items: Sequence[_T], rng: random.Random) -> _T:
    """One of ``items``, early ones likelier."""
    return rng.choices(items, cum_weights=_zipf(len(items)))[0] if len(items) > 1 else items[0]


@dataclass(frozen=True)
class Walk:
    """One random walk over templates of a grammar."""

    grammar: Grammar
    rng: random.Random
    choose: Chooser

    def sentence(self, key: Key) -> list[Piece]:
        """The pieces of one sentence of ``key``; raises `UnrenderableError` where this walk leads nowhere."""
        block = pick(self.grammar.blocks[key], self.rng)
        return self.expression(_parse(pick(block.sentences, self.rng)), block.rules)

    def expression(self, node: hx.Expression, rules: Mapping[str, str]) -> list[Piece]:
        """The pieces of one expression, in order."""
        if isinstance(node, hx.TextChunk):
            return [Piece(node.original_text)]
        if isinstance(node, hx.RuleReference):
            if node.rule_name not in rules:
                raise UnrenderableError(f"no rule <{node.rule_name}>")
            return self.expression(_parse(rules[node.rule_name]), rules)
        if isinstance(node, hx.ListReference):
            return self._list(node)
        if isinstance(node, hx.Alternative):
            return self.expression(self._alternative(node), rules)
        items = list(node.items)
        if isinstance(node, hx.Permutation) and self.rng.random() < SHUFFLE_SHARE:
            self.rng.shuffle(items)
        return [piece for item in items for piece in self.expression(item, rules)]

    def _alternative(self, node: hx.Alternative) -> hx.Expression:
        if not node.is_optional:
            return pick(node.items, self.rng)
        if self.rng.random() >= OPTIONAL_SHARE:
            return hx.TextChunk("")
        return pick(node.items[:-1], self.rng)  # the last item is the empty one

    def _list(self, node: hx.ListReference) -> list[Piece]:
        spec = self.grammar.lists.get(node.list_name)
        if spec is None:
            spec = ListSpec(node.list_name, False, 0, 0, ())  # name, area and floor: the user's own things
        return self.choose(node.slot_name, spec, self.rng)

    def value(self, template: str) -> str:
        """The text of a list's own value, which may be a small template such as ``"light[s]"``."""
        return "".join(piece.text for piece in self.expression(_parse(template), {}))


_SPACE = re.compile(r"\s+")
INVISIBLE = str.maketrans("", "", "\u200b\u00ad")


def join(pieces: Sequence[Piece], *, spaces: bool) -> tuple[str, list[tuple[int, int, Piece]], str]:
    """Joins pieces into a sentence.

    Args:
        pieces: In order; empty ones are skipped.
        spaces: Whether the language writes spaces between words; if not, all are taken out.

    Returns:
        The text; ``(start, end, piece)`` in characters of the text for every labelled piece; and the pattern.
    """
    text, pattern, slots = "", "", []
    for piece in pieces:
        part = _SPACE.sub(" " if spaces else "", piece.text.translate(INVISIBLE))
        if piece.label is not None:
            part = part.strip()
        if text == "" or text.endswith(" "):
            part = part.lstrip()
        if not part:
            continue
        if piece.label is not None:
            slots.append((len(text), len(text) + len(part), piece))
            pattern += "{" + piece.label + "}"
        else:
            pattern += part
        text += part
    return text.rstrip(), slots, pattern.rstrip()
