"""The chat template, its arguments and the token that ends an answer, where a recipe chose others than the model's own.

The choice is saved with the adapter, in its folder's tokenizer files, and taken over from there by every verb that uses
the adapter, so that a model is asked, and stops, as it was trained.
"""

from __future__ import annotations

import json
import keyword
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from midalign.errors import MissingFileError, ModelError, did_you_mean
from midalign.files import read_json

logger = logging.getLogger(__name__)

_SETTINGS, _TEMPLATE = "tokenizer_config.json", "chat_template.jinja"


class _Choice(NamedTuple):
    end_token: str | None
    template: Any


def choose(
    tokenizer: PreTrainedTokenizerBase, *, end_token: str | None = None, template_path: str | None = None
) -> None:
    """Give a tokenizer another end token or chat template.

    Args:
        tokenizer: Changed in place.
        end_token: A token of its vocabulary; None leaves its own.
        template_path: A Jinja file (``.jinja``, ``.j2``), or the folder or hub name of a tokenizer; None leaves it.

    Raises:
        MissingFileError: If the template is not there.
        ModelError: If the vocabulary has no such token, or the template cannot be used.
    """
    if end_token is not None:
        _set_end_token(tokenizer, end_token, "training.eos_token")
    if template_path is not None:
        _set_template(tokenizer, _read_template(template_path), f"training.chat_template_path {template_path!r}")


def fix_arguments(tokenizer: PreTrainedTokenizerBase, arguments: Mapping[str, bool | int | float | str]) -> None:
    """Give arguments of the chat template, such as ``enable_thinking``, a value in the template itself.

    The template then begins by setting each of them, unless it is called with one. So every program that reads the
    tokenizer asks in the same way.

    Args:
        tokenizer: Changed in place.
        arguments: Values by name; an empty mapping changes nothing.

    Raises:
        ModelError: If there is no template, or it never reads an argument.
    """
    if not arguments:
        return
    found = tokenizer.chat_template
    templates = found if isinstance(found, dict) else {"": found or ""}
    for name in arguments:
        readers = [text for text in templates.values() if re.search(rf"\b{re.escape(name)}\b", text)]
        if not readers or not name.isidentifier() or {name, name.title()} & set(keyword.kwlist):
            known = re.findall(r"(\w+) is (?:not )?defined", "".join(templates.values()))
            raise ModelError(
                f"model.chat_template_kwargs names {name!r}, which the tokenizer's chat template does not read"
                f"{'' if found else ', as it has none'}, so that it would have no effect. Leave it out."
                f"{did_you_mean(name, known)}"
            )
    # Jinja drops the line break after a block, so that the template's own beginning stays as it is.
    fixed = "".join(
        f"{{% if {name} is not defined %}}{{% set {name} = {json.dumps(value, ensure_ascii=False)} %}}{{% endif %}}\n"
        for name, value in arguments.items()
    )
    changed = {key: text if text.startswith(fixed) else fixed + text for key, text in templates.items()}
    tokenizer.chat_template = changed if isinstance(found, dict) else changed[""]


def take_over(tokenizer: PreTrainedTokenizerBase, adapters: Iterable[str | Path]) -> None:
    """Give a tokenizer the end token and chat template that adapters were trained with.

    Args:
        tokenizer: The base model's, changed in place.
        adapters: PEFT folders; those without tokenizer files say nothing.

    Raises:
        ModelError: If two adapters were trained with different ones, or one cannot be used.
    """
    found = {str(folder): choice for folder in adapters if (choice := _choice_of(Path(folder))) is not None}
    own = _Choice(tokenizer.eos_token, tokenizer.chat_template)
    for what in ("end_token", "template"):
        folders = {str(getattr(choice, what)): folder for folder, choice in found.items()}
        if len(folders) > 1:
            raise ModelError(
                f"the adapters {' and '.join(folders.values())} were trained with different {what.replace('_', ' ')}s, "
                "so that no prompt fits both. Train them with the same training.eos_token and "
                "training.chat_template_path."
            )
    for folder, choice in found.items():
        if choice.end_token not in (None, own.end_token):
            _set_end_token(tokenizer, str(choice.end_token), folder)
        if choice.template is not None and choice.template != own.template:
            _set_template(tokenizer, choice.template, folder)


def _choice_of(folder: Path) -> _Choice | None:
    """What an adapter's folder says; None where it holds no tokenizer."""
    if not (folder / _SETTINGS).is_file():
        return None
    settings = read_json(folder / _SETTINGS)
    end = settings.get("eos_token") if isinstance(settings, dict) else None
    if isinstance(end, dict):
        end = end.get("content")
    template = settings.get("chat_template") if isinstance(settings, dict) else None
    if isinstance(template, list):  # several, by name
        template = {each.get("name"): each.get("template") for each in template}
    if (folder / _TEMPLATE).is_file():
        template = (folder / _TEMPLATE).read_text(encoding="utf-8")
    return _Choice(end, template)


def _set_end_token(tokenizer: PreTrainedTokenizerBase, token: str, where: str) -> None:
    if token not in tokenizer.get_vocab():
        known = [*tokenizer.all_special_tokens, *map(str, tokenizer.added_tokens_decoder.values())]
        raise ModelError(
            f"{where}: the model's vocabulary has no token {token!r}, so that answers could not end in it."
            f"{did_you_mean(token, known)}"
        )
    tokenizer.eos_token = token


def _read_template(path: str) -> Any:
    """The template of a Jinja file, or of a tokenizer.

    Raises:
        MissingFileError: If there is no such file, folder or hub name.
        ModelError: If it cannot be read, or the tokenizer has no template.
    """
    file = Path(path)
    if file.suffix in (".jinja", ".j2"):
        if not file.is_file():
            raise MissingFileError(f"training.chat_template_path {path!r}: there is no such file")
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as fault:
            raise ModelError(f"training.chat_template_path {path!r} cannot be read: {fault}") from None
    if file.is_file():
        raise ModelError(
            f"training.chat_template_path {path!r} is neither a Jinja file (.jinja, .j2) nor the folder of a tokenizer"
        )
    try:
        template = AutoTokenizer.from_pretrained(path).chat_template
    except (OSError, ValueError, KeyError) as fault:
        raise MissingFileError(
            f"training.chat_template_path {path!r}: no tokenizer can be loaded from there "
            f"({str(fault).splitlines()[0]}). Give a Jinja file (.jinja, .j2), or the folder or hub name of a "
            "tokenizer."
        ) from None
    if template is None:
        raise ModelError(f"training.chat_template_path {path!r}: that tokenizer has no chat template; give another")
    return template


def _set_template(tokenizer: PreTrainedTokenizerBase, template: Any, where: str) -> None:
    former, tokenizer.chat_template = tokenizer.chat_template, template
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False, add_generation_prompt=True)
    except (TemplateError, ValueError, TypeError) as fault:
        tokenizer.chat_template = former
        raise ModelError(f"{where}: the chat template cannot be used: {fault}") from None
    tokens = set(re.findall(r"<\|[^|<>\s]+\|>", str(template)))
    if strange := sorted(tokens - set(tokenizer.get_vocab())):
        tokenizer.chat_template = former
        raise ModelError(
            f"{where}: the chat template writes {', '.join(strange)}, which the model's vocabulary does not have as a "
            "token. Give a template for this model, or a model that has such tokens."
        )
