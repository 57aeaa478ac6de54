"""Greedy answers by a plain loop, and random models whose answers end."""

from __future__ import annotations

import torch

from midalign.answers.format import AnswerFormat
from midalign.data.prompt_tokens import prompt_ids
from midalign.data.prompts import render
from midalign.records import TaskExample
from tests.conftest import build_model, build_tokenizer

EXAMPLES = [
    TaskExample(f"x:{i}", "slots", "eng_Latn", "call me " + "at nine " * (i % 4) + text)
    for i, text in enumerate(["licht", "на кухне", "friday", "闹钟", "turn on the light", "a", "küche um neun", "9"])
]
NO_SYSTEM = AnswerFormat(system="")
OPTIONS = dict(max_new_tokens=10, answer_format=NO_SYSTEM)


def plain_loop(model, tokenizer, examples, steps=10, answer_format=NO_SYSTEM):
    """Greedy decoding with nothing but forward passes: no cache, no padding, no batch, no generate()."""
    answers = []
    for example in examples:
        ids = prompt_ids(render(example, tokenizer, answer_format), tokenizer)
        new = []
        for _ in range(steps):
            with torch.no_grad():
                logits = model(torch.tensor([ids + new])).logits
            new.append(int(logits[0, -1].argmax()))
            if new[-1] == tokenizer.eos_token_id:
                break
        answers.append(tokenizer.decode(new, skip_special_tokens=True).strip())
    return answers


def answers(predictions):
    return [prediction.prediction for prediction in predictions]


def often_ending(model):
    """Make the end token likely, so that rows of a batch stop at different steps."""
    head = model.get_output_embeddings()
    with torch.no_grad():
        head.weight[2] = head.weight[2] * 4 + 0.1
    return model


def closing(family, seed, **changes):
    """A random model that likes to end things: quotes, brackets and the end token are likely where allowed."""
    tokenizer = build_tokenizer()
    model = build_model(family, max_position_embeddings=256, **changes)
    if family == "gpt2":
        model = build_model(family, n_positions=256, max_position_embeddings=256, tie_word_embeddings=False)
    head = model.get_output_embeddings()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator))
        for text in ('"', "]", "}"):
            (token,) = tokenizer(text, add_special_tokens=False)["input_ids"]
            head.weight[token] *= 3
    return model, tokenizer
