"""The engine on transformers: rows that end leave the batch, and what all rows begin with is computed once."""

import pytest

from midalign.answers.format import AnswerFormat
from midalign.data.prompt_tokens import prompt_ids
from midalign.data.prompts import render
from midalign.generation.engine import TransformersEngine
from midalign.generation.generate import generate
from tests.conftest import build_model, build_tokenizer
from tests.greedy import EXAMPLES, NO_SYSTEM, OPTIONS, answers, often_ending, plain_loop


def test_finished_rows_are_not_computed_any_more(monkeypatch):
    model, tokenizer = build_model("llama"), build_tokenizer()
    engine = TransformersEngine(model, tokenizer)
    rows = [prompt_ids(render(example, tokenizer, NO_SYSTEM), tokenizer) for example in EXAMPLES]
    free = engine.answer(rows, 20)
    early = free[0][3]
    engine.stops = [*engine.stops, early]
    sizes = []
    model.register_forward_pre_hook(lambda _m, _a, kw: sizes.append(len(kw["input_ids"])), with_kwargs=True)
    monkeypatch.setattr("midalign.generation.engine.ROUND", 4)
    stopped = engine.answer(rows, 20)
    assert sizes[:2] == [1, len(rows)], "what all begin with, once; then the batch"
    assert sizes[-1] < len(rows)
    for row, whole in zip(stopped, free, strict=True):
        assert row == (whole[: whole.index(early)] if early in whole else whole)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "bloom", "qwen3_moe"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_rows_that_leave_the_batch_change_no_answer(family, steps, monkeypatch):
    """Against one call of transformers' generate per batch, no row left out."""
    model, tokenizer = often_ending(build_model(family)), build_tokenizer()
    monkeypatch.setattr("midalign.generation.engine.ROUND", 10_000)
    expected = answers(generate(model, tokenizer, EXAMPLES, **{**OPTIONS, "max_new_tokens": 25}))
    monkeypatch.setattr("midalign.generation.engine.ROUND", steps)
    assert answers(generate(model, tokenizer, EXAMPLES, **{**OPTIONS, "max_new_tokens": 25})) == expected


SHARING = ["llama", "gpt2", "bloom", "opt", "falcon", "gpt_neox", "qwen3_moe", "phi3", "gemma3", "mistral"]


@pytest.mark.parametrize("family", SHARING)
def test_a_system_text_computed_once_for_a_batch_changes_no_answer(family):
    """Positions by rotation, learned (GPT-2, OPT) or by ALiBi; windows (Gemma, Mistral) share nothing."""
    model, tokenizer = often_ending(build_model(family)), build_tokenizer()
    asked = AnswerFormat(system="turn on the light in the kitchen")
    expected = plain_loop(model, tokenizer, EXAMPLES, answer_format=asked)
    calls = []
    model.register_forward_pre_hook(lambda _m, _a, kw: calls.append(kw["input_ids"].shape), with_kwargs=True)
    assert answers(generate(model, tokenizer, EXAMPLES, asked, max_new_tokens=10)) == expected
    assert (calls[0][0] == 1) == (family not in ("gemma3", "mistral"))


def test_one_prompt_that_is_the_beginning_of_all_others_keeps_a_token_of_its_own():
    model = build_model("llama")
    engine = TransformersEngine(model, build_tokenizer())
    rows = [[1, 50, 60], [1, 50, 60, 70], [1, 50, 60, 70, 80], [1, 50, 60]]
    alone = [engine.answer([row], 6)[0] for row in rows]
    assert engine.answer(rows, 6) == alone
    assert engine.answer([[1], [1]], 6) == [engine.answer([[1]], 6)[0]] * 2
