"""Check of the prompt on a real example, before training or generation: is it complete and always the same?"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from midalign.answers.format import AnswerFormat
from midalign.answers.write import completion
from midalign.data.prompt_tokens import answer_ids, prompt_ids
from midalign.data.prompts import PROMPT_DATE, asks_for_the_date, lets_think, render, turns
from midalign.errors import ModelError
from midalign.records import TaskExample

logger = logging.getLogger(__name__)


def check_prompt(example: TaskExample, tokenizer: Any, answer_format: AnswerFormat = AnswerFormat()) -> None:
    """Check that the prompt of an example is complete and constant, and that the tokenizer can write its answer.

    A template that writes today's date is given `midalign.data.prompts.PROMPT_DATE`, and the log says so. The log also
    warns if the template lets the model think before it answers, and if the tokens do not spell the prompt or the gold
    answer, as with a tokenizer that does not know the script.

    Args:
        example: Any one of those that the model will see.
        tokenizer: The model's tokenizer.
        answer_format: Style of the answers.

    Raises:
        ModelError: If the prompt lacks the instruction or the text, differs between two calls or ends in the end of the
            sequence, or the tokenizer adds special tokens although it is told not to.
    """
    prompt = render(example, tokenizer, answer_format)
    if prompt != render(example, tokenizer, answer_format):
        raise ModelError(
            "the chat template of the tokenizer writes a different prompt at each call, so the prompts of training "
            "and of generation would differ. Remove what is random from the template (tokenizer.chat_template)."
        )
    if extra := tokenizer("", add_special_tokens=False)["input_ids"]:
        raise ModelError(
            f"this {type(tokenizer).__name__} adds {tokenizer.convert_ids_to_tokens(extra)} to every text, even with "
            "add_special_tokens=False, so these tokens would also be inside prompts and answers. Set its "
            "add_bos_token and add_eos_token to false, and save it again."
        )
    asked = prompt_ids(prompt, tokenizer)
    _check_end(asked, len(turns(example, answer_format)), tokenizer)
    if asks_for_the_date(tokenizer):
        _say_the_date(tokenizer)
    if lets_think(tokenizer):
        _say_that_it_thinks(tokenizer)
    answer = completion(example, answer_format.style)
    written = answer_ids(answer, tokenizer)[:-1]
    for name, text, ids in (("prompt", prompt.text, asked), ("gold answer", answer, written)):
        spelled = tokenizer.decode(ids, skip_special_tokens=False)
        if not _same(text, spelled):
            logger.warning(
                "item %s: the tokens of its %s decode to %r instead of %r, so the model does not see all of it",
                example.id, name, spelled[-80:], text[-80:],
            )  # fmt: skip


def _check_end(ids: Sequence[int], turns_asked: int, tokenizer: Any) -> None:
    """Refuse a prompt that ends in the end of the sequence, unless its template ends every turn so (DialoGPT)."""
    end = tokenizer.eos_token_id
    if list(ids[-1:]) == [end] and list(ids).count(end) == 1 and turns_asked > 1:
        raise ModelError(
            f"the chat template of the tokenizer ends the prompt in {tokenizer.eos_token!r}, the end of the sequence, "
            "so that the answer would come after the end. Correct the template (tokenizer.chat_template), or write "
            "the token that ends an answer as training.eos_token."
        )


@lru_cache(maxsize=8)
def _say_the_date(_tokenizer: Any) -> None:
    """Once for each tokenizer."""
    logger.warning(
        "the chat template writes today's date: prompts have %s on every day, in training and in generation. Use "
        "that date in other programs too",
        PROMPT_DATE,
    )


@lru_cache(maxsize=8)
def _say_that_it_thinks(_tokenizer: Any) -> None:
    """Once for each tokenizer."""
    logger.warning(
        "the chat template lets the model think before it answers. Without training, its thoughts fill the answer and "
        "score nothing. model.chat_template_kwargs: {enable_thinking: false} switches that off"
    )


def _same(text: str, spelled: str) -> bool:
    """Whether a text is in what its tokens spell, apart from whitespace and case."""
    plain, found = ("".join(part.split()).casefold() for part in (text, spelled))
    return plain in found
