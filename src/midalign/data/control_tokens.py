"""Control tokens (``<|im_end|>``, ``</s>``) in a user's text are read as text, not as the end of a turn.

A tokenizer finds such a token wherever its name occurs in a text. So a mark is put after the first character of each
such name, and the text is cut there before it is tokenized: neither part is then a control token.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from midalign.errors import DataError, ModelError

_MARK = "\ufdd0"  # a code point that Unicode keeps out of text


def marked(text: str, tokenizer: Any) -> str:
    """The text with a mark inside each name that this tokenizer would read as a control token.

    Raises:
        DataError: If the mark itself stands in the text.
    """
    if _MARK in text:
        raise DataError(
            f"the text {text[:80]!r} has the code point U+FDD0, which is not a character and which midalign uses to "
            "mark control tokens. Remove it."
        )
    return _pattern(tokenizer, chat_template(tokenizer), len(tokenizer)).sub(lambda found: found[0] + _MARK, text)


def cut(text: str) -> tuple[str, ...]:
    """The pieces of a text between its marks; joined, they are the text without marks."""
    return tuple(text.split(_MARK))


def chat_template(tokenizer: Any) -> str:
    """The tokenizer's chat template; the empty string where it has none.

    Raises:
        ModelError: If it has several by name, and none of them is the default.
    """
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict):  # as in Command R
        if "default" not in template:
            raise ModelError(
                f"the tokenizer has the chat templates {', '.join(map(repr, template))} and no 'default', so it is "
                "unclear which one writes the prompts. Save one of them as tokenizer.chat_template."
            )
        template = template["default"]
    return template or ""


@lru_cache(maxsize=8)
def _pattern(tokenizer: Any, template: str, _size: int) -> re.Pattern[str]:
    """Finds the first character of each special token's name, and of each added token's that the template writes."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    names = {*tokenizer.all_special_tokens, *(it.content for it in added if it.special or it.content in template)}
    cuttable = sorted((name for name in names if len(name) > 1 and not name.isspace()), key=len, reverse=True)
    if not cuttable:
        return re.compile("(?!)")  # which matches nothing
    first, whole = ("|".join(map(re.escape, part)) for part in ({name[0] for name in cuttable}, cuttable))
    # Some tokenizers have thousands: they are tried only where one can begin.
    return re.compile(rf"(?=(?:{first}))(?=(?:{whole}))(.)", re.DOTALL)
