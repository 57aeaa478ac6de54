"""Prompts: the only place with prompt text.

With a chat template the prompt is the template's, with a system turn, a user turn (those of the row, for the task chat)
and the opening of the answer. If a template has no system turn, the system text goes before that of the first user
turn; if it reads a turn as a list of parts, it is given one. Without a template, a plain prompt::

    <system text>

    <the user's text>
    Answer:

The boundary between prompt and completion is a place where tokenizers split anyway. A chat prompt ends in the
template's special tokens or line break. The plain prompt ends in a line break, after which BPE, unigram and word-level
tokenizers begin a new token. In both cases the completion begins with its first letter. The end-of-sequence token is
added where prompts are tokenized (`midalign.data.prompt_tokens`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from jinja2.exceptions import TemplateError

from midalign.answers.format import AnswerFormat
from midalign.data.control_tokens import chat_template, cut, marked
from midalign.errors import ModelError
from midalign.languages import Language
from midalign.records import Message, TaskExample

_SLOTS = (
    "The user gives a command to a voice assistant. Find the parts of the command that the assistant needs in order to "
    "carry it out, and the type of each.\n"
    "Answer in one line with `type: words` for each part, copied from the command in its order and separated by `; `; "
    "answer None if there are no such parts."
)
_INTENT_SLOTS = (
    "The user gives a command to a voice assistant. Name the intent of the command, then find the parts of the command "
    "that the assistant needs in order to carry it out, and the type of each.\n"
    "Answer in one line with the intent, ` | `, and `type: words` for each part, copied from the command in its order "
    "and separated by `; `; write None in place of the parts if there are none."
)
_EXTRACTION = (
    "Find the named entities in the user's sentence: {types}.\n"
    'Answer with JSON only, in the form {{"Results": [{{"TypeName": "{last}", "Text": "..."}}]}}, with one entry for '
    "each entity, copied from the sentence in its order; the list is empty if there are no entities."
)
_TRANSLATION = "Translate the user's text from {source} to {target}. Answer with the translation only."
_ANSWER = "\nAnswer:\n"

PROMPT_DATE = "26 Jul 2024"
"""Today, to a chat template that asks: the date that Llama 3's own templates write where there is no clock."""
_DIRECTIVES = {
    "%Y": "2024", "%y": "24", "%m": "07", "%-m": "7", "%B": "July", "%b": "Jul", "%d": "26", "%-d": "26", "%e": "26",
    "%A": "Friday", "%a": "Fri", "%j": "208", "%F": "2024-07-26", "%D": "07/26/24", "%x": "07/26/24",
    "%c": "Fri Jul 26 00:00:00 2024", "%H": "00", "%I": "12", "%M": "00", "%S": "00", "%p": "AM", "%X": "00:00:00",
}  # fmt: skip
# Hides transformers' function of this name, for the whole template.
_CLOCK = "{% macro strftime_now(format) %}{{ format" + "".join(
    f'.replace("{directive}", "{value}")' for directive, value in _DIRECTIVES.items()
) + " }}{% endmacro %}{{ '' }}"  # fmt: skip
_OTHER_CLOCK = "{% macro strftime_now(format) %}1 Jan 1970{% endmacro %}{{ '' }}"
_SAMPLE = (
    {"role": "system", "content": "midalign instruction 71"},
    {"role": "user", "content": "midalign question 29"},
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt.

    Attributes:
        pieces: Its text, cut where the user wrote the name of a control token; each piece is tokenized by itself.
        from_template: Whether a chat template wrote it, special tokens included.
    """

    pieces: tuple[str, ...]
    from_template: bool

    @property
    def text(self) -> str:
        """The whole prompt."""
        return "".join(self.pieces)


class _ChatForm(NamedTuple):
    """The form of turns that a chat template accepts."""

    system_turn: bool
    parts: bool


# What a template raises for turns that it does not take, by itself or because it expects others.
_REFUSALS = (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
_FORMS = tuple(_ChatForm(system_turn, parts) for parts in (False, True) for system_turn in (True, False))


def turns(example: TaskExample, answer_format: AnswerFormat = AnswerFormat()) -> tuple[Message, ...]:
    """The turns of one example's prompt; none for a row of chat whose text is the whole prompt.

    A row of chat has its own turns; if none is a system turn, the format's system text goes before them. The other
    tasks have a system and a user turn.
    """
    system = answer_format.system
    if example.task != "chat":
        instruction = system if system is not None else _instruction(example, answer_format)
        return ({"role": "system", "content": instruction}, {"role": "user", "content": example.text})
    if system and example.messages and all(turn["role"] != "system" for turn in example.messages):
        return ({"role": "system", "content": system}, *example.messages)
    return example.messages


def render(example: TaskExample, tokenizer: Any, answer_format: AnswerFormat = AnswerFormat()) -> Prompt:
    """The prompt of one example for this tokenizer.

    Control tokens in the example's turns are text, except in a system text that the format gives. A row of chat that is
    plain text is the prompt unchanged, control tokens included. A chat template that asks for the date always gets
    `PROMPT_DATE`.

    Raises:
        ModelError: If the chat template refuses the turns, or leaves out a turn or a tool, or changes it.
    """
    asked = turns(example, answer_format)
    if not asked:
        return Prompt((example.text,), from_template=False)
    own = {"role": "system", "content": answer_format.system}
    safe = [turn if turn == own else {**turn, "content": marked(turn["content"], tokenizer)} for turn in asked]
    template = chat_template(tokenizer)
    if not template:
        return Prompt(cut("\n\n".join(turn["content"] for turn in safe) + _ANSWER), from_template=False)
    form = _chat_form(tokenizer, template)
    try:
        text = _apply(form, safe, tokenizer, template, example.tools)
    except _REFUSALS as fault:
        raise ModelError(
            f"item {example.id}: the chat template of the tokenizer refuses its turns "
            f"({', '.join(turn['role'] for turn in asked)}): {str(fault) or type(fault).__name__}. So the model cannot "
            "be asked. Write turns that the template takes, mostly those of user and assistant in turn with a user's "
            "turn as the last before the answer, or take the item out."
        ) from fault
    prompt = Prompt(cut(text), from_template=True)
    _check_whole(prompt.text, asked, example)
    return prompt


def asks_for_the_date(tokenizer: Any) -> bool:
    """Whether the chat template writes today's date into a prompt."""
    template = chat_template(tokenizer)
    if "strftime_now" not in template:
        return False
    return _sample(tokenizer, template) != _sample(tokenizer, _OTHER_CLOCK + template)


def lets_think(tokenizer: Any) -> bool:
    """Whether the chat template has a switch for thoughts before the answer, and it is on."""
    template = chat_template(tokenizer)
    if "enable_thinking" not in template:
        return False
    return _sample(tokenizer, template) != _sample(tokenizer, template, enable_thinking=False)


def _instruction(example: TaskExample, answer_format: AnswerFormat) -> str:
    if example.task == "slots":
        return _INTENT_SLOTS if answer_format.style == "intent_slots" else _SLOTS
    if example.task == "extraction":
        named = [f"{meaning} ({name})" if meaning else name for name, meaning in answer_format.types]
        types = f"{', '.join(named[:-1])} and {named[-1]}" if len(named) > 1 else named[0]
        return _EXTRACTION.format(types=types, last=answer_format.types[-1][0])
    source = Language.parse(example.language).name
    target = Language.parse(example.target_language).name
    return _TRANSLATION.format(source=source, target=target)


def _check_whole(text: str, asked: Sequence[Message], example: TaskExample) -> None:
    """Check that a prompt contains every turn unchanged; earlier answers may lose what templates call thoughts."""
    wanted = [(turn["role"], turn["content"].strip()) for turn in asked if turn["role"] != "assistant"]
    functions: list[Any] = [tool.get("function", tool) for tool in example.tools]
    wanted += [("tool", str(function.get("name", ""))) for function in functions]
    for role, content in wanted:
        if content not in text:
            raise ModelError(
                f"item {example.id}: its {role} text {content[:80]!r} is not in the prompt as the chat template of the "
                "tokenizer writes it, so the model would be asked something else. Correct the template "
                "(tokenizer.chat_template), or take the item out."
            )


@lru_cache(maxsize=8)
def _chat_form(tokenizer: Any, template: str) -> _ChatForm:
    """The form in which a chat template writes both the instruction and the user's text.

    Raises:
        ModelError: If it does so in none.
    """
    samples = [turn["content"] for turn in _SAMPLE]
    reason = "it leaves out the instruction or the user's text"
    for form in _FORMS:
        try:
            text = _apply(form, _SAMPLE, tokenizer, template)
        except _REFUSALS as fault:
            reason = str(fault) or type(fault).__name__
            continue
        # In quotes, the list of parts itself was written.
        if all(sample in text and f"'{sample}'" not in text and f'"{sample}"' not in text for sample in samples):
            return form
    raise ModelError(
        f"the chat template of the tokenizer cannot write a prompt: {reason}. The model would not see what is asked, "
        "whether as a string or as a list of parts. Correct the template (tokenizer.chat_template), or take a model "
        "whose template has turns of text."
    )


def _sample(tokenizer: Any, template: str, **arguments: Any) -> str:
    return _apply(_chat_form(tokenizer, chat_template(tokenizer)), _SAMPLE, tokenizer, template, **arguments)


def _apply(
    form: _ChatForm,
    asked: Sequence[Message],
    tokenizer: Any,
    template: str,
    tools: Sequence[dict[str, Any]] = (),
    **arguments: Any,
) -> str:
    if not form.system_turn and asked[0]["role"] == "system":
        if len(asked) == 1:
            raise ValueError("it takes no system turn, and there is no other turn to put the text into")
        instruction, first, *others = asked
        joined = "\n\n".join(filter(None, (instruction["content"], first["content"])))
        asked = [{**first, "content": joined}, *others]
    messages = [
        {**turn, "content": [{"type": "text", "text": turn["content"]}] if form.parts else turn["content"]}
        for turn in asked
    ]
    options: dict[str, Any] = {"chat_template": _CLOCK + template} if "strftime_now" in template else {}
    if tools:
        options["tools"] = list(tools)
    options |= arguments
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options))
