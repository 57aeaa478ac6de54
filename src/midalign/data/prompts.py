"""Every word that a model is asked with, and the completions it is taught: the only place with prompt text.

With a chat template the prompt is the template's, with a system turn, a user turn and the opening of the answer; where
a template knows no system turn, its text goes before the user's. Without one, a plain prompt::

    <system text>

    <the user's text>
    Answer:

The boundary between prompt and completion falls where a tokenizer splits anyway. A chat prompt ends in the template's
special tokens or line break, and the completion follows as it is. The plain prompt ends in a line break, after which
BPE, unigram and word-level tokenizers begin a new token; so nothing has to be moved to the completion, which
begins with its first letter in both cases. The end-of-sequence token is the trainer's to add.
"""

from __future__ import annotations

from typing import Any

from midalign.answers.format import AnswerFormat, Style
from midalign.answers.write import completion
from midalign.languages import Language
from midalign.records import TaskExample

Messages = list[dict[str, str]]

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
    "Find the named entities in the user's sentence: people (PER), organisations (ORG) and places (LOC).\n"
    'Answer with JSON only, in the form {"Results": [{"TypeName": "LOC", "Text": "..."}]}, with one entry for each '
    "entity, copied from the sentence in its order; the list is empty if there are no entities."
)
_TRANSLATION = "Translate the user's text from {source} to {target}. Answer with the translation only."
_PLAIN = "{system}\n\n{user}\nAnswer:\n"


def task_prompt(example: TaskExample, answer_format: AnswerFormat = AnswerFormat()) -> Messages:
    """The system and the user turn that put one example to a model.

    Args:
        example: What is asked.
        answer_format: Gives the style that is asked for, and the system text where it is not ours.
    """
    system = answer_format.system
    return [
        {"role": "system", "content": system if system is not None else _system_text(example, answer_format.style)},
        {"role": "user", "content": example.text},
    ]


def render(example: TaskExample, tokenizer: Any, answer_format: AnswerFormat = AnswerFormat()) -> tuple[str, str]:
    """Prompt and completion of one example, as text for this tokenizer; arguments as `task_prompt`.

    A chat template's text holds its own special tokens (begin of sequence included): tokenize such a prompt with
    ``add_special_tokens=False``.
    """
    return render_prompt(task_prompt(example, answer_format), tokenizer), completion(example, answer_format.style)


def render_prompt(messages: Messages, tokenizer: Any) -> str:
    """Messages as the text of a prompt: by the tokenizer's chat template, or plain where it has none."""
    if not getattr(tokenizer, "chat_template", None):
        return _PLAIN.format(system=messages[0]["content"], user=messages[1]["content"])
    if not _has_system_turn(messages, tokenizer):
        joined = "\n\n".join(message["content"] for message in messages)
        messages = [{"role": "user", "content": joined}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def _has_system_turn(messages: Messages, tokenizer: Any) -> bool:
    """Whether the chat template takes a system turn: some refuse it, some drop it silently."""
    from jinja2.exceptions import TemplateError

    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except TemplateError:
        return False
    return messages[0]["content"].strip() in text


def _system_text(example: TaskExample, style: Style) -> str:
    if example.task == "slots":
        return _INTENT_SLOTS if style == "intent_slots" else _SLOTS
    if example.task == "extraction":
        return _EXTRACTION
    source = Language.parse(example.language).name
    target = Language.parse(example.target_language).name
    return _TRANSLATION.format(source=source, target=target)
