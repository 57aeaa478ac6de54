"""Constrained JSON: a random model's answers parse under the task's schema; without the constraint they never do."""

import sys

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedTokenizerBase

from midalign.answers.format import AnswerFormat
from midalign.answers.parse import ENTITY_SCHEMA, parse_entities
from midalign.errors import DataError, MissingExtraError, ModelError
from midalign.generation.engine import TransformersEngine
from midalign.generation.generate import generate
from midalign.generation.vllm import VllmEngine
from midalign.records import TaskExample
from tests.conftest import build_model, build_tokenizer
from tests.greedy import closing
from tests.slot_sentences import SENTENCES

pytest.importorskip("llguidance", reason="needs the extra 'constrained'")
from midalign.answers.grammar import json_grammar
from midalign.generation.constraint import ConstrainedRows, Constraint

EXAMPLES = [
    TaskExample(f"x:{i}", "extraction", "eng_Latn", text)
    for i, text in enumerate(
        ["licht", "на кухне am freitag", "wake me", "闹钟", "a", "turn on the light in the kitchen"]
    )
]
NO_SYSTEM = AnswerFormat(system="")
HELD = AnswerFormat(system="", constrained="json")
FREE = dict(answer_format=NO_SYSTEM, max_new_tokens=90)
OPTIONS = dict(answer_format=HELD, max_new_tokens=90)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_every_answer_of_a_random_model_that_ends_is_json_of_the_schema(family):
    """An answer that does not end is cut off inside the JSON, and is said to be."""
    ended = 0
    for seed in range(4):
        model, tokenizer = closing(family, seed)
        free = generate(model, tokenizer, EXAMPLES, **FREE)
        assert all(parse_entities(p.prediction).failure for p in free)
        held = generate(model, tokenizer, EXAMPLES, **OPTIONS)
        for prediction in held:
            output = parse_entities(prediction.prediction)
            tokens = tokenizer(prediction.prediction, add_special_tokens=False)["input_ids"]
            assert output.failure in (None, "truncated"), prediction.prediction
            assert output.failure is None or len(tokens) > OPTIONS["max_new_tokens"] / 4
            ended += output.failure is None
        assert generate(model, tokenizer, EXAMPLES, **FREE) == free, "the constraint is of one call"
    assert ended > 3


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "qwen3_moe"])
def test_batches_and_rounds_change_no_constrained_answer(family, monkeypatch):
    model, tokenizer = closing(family, 1)
    expected = [generate(model, tokenizer, [e], **OPTIONS)[0] for e in EXAMPLES]
    for batch_tokens, rounds in ((100_000, 8), (300, 3), (100_000, 1), (100_000, 10_000)):
        monkeypatch.setattr("midalign.generation.engine.ROUND", rounds)
        found = generate(model, tokenizer, EXAMPLES, batch_tokens=batch_tokens, **OPTIONS)
        assert found == expected


def test_constrained_answers_equal_a_plain_loop_that_asks_a_fresh_matcher_at_every_step():
    """Greedy over the tokens that leave the text a beginning of valid JSON; nothing is carried from step to step."""
    from llguidance import LLMatcher
    from llguidance.hf import from_tokenizer

    from midalign.data.prompt_tokens import prompt_ids
    from midalign.data.prompts import render

    model, tokenizer = closing("llama", 2)
    layout = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    grammar = LLMatcher.grammar_from_json_schema(ENTITY_SCHEMA, overrides=layout)
    known = from_tokenizer(tokenizer)
    for example in EXAMPLES[:3]:
        ids, new = prompt_ids(render(example, tokenizer, NO_SYSTEM), tokenizer), []
        while len(new) < 40 and new[-1:] != [tokenizer.eos_token_id]:
            with torch.no_grad():
                order = model(torch.tensor([ids + new])).logits[0, -1].argsort(descending=True).tolist()
            new.append(next(t for t in order if LLMatcher(known, grammar).validate_tokens([*new, t]) == len(new) + 1))
        (found,) = generate(model, tokenizer, [example], HELD, max_new_tokens=40)
        assert found.prediction == tokenizer.decode(new, skip_special_tokens=True).strip()


def test_any_of_several_end_tokens_may_end_an_answer():
    tokenizer = build_tokenizer()
    rows = Constraint(tokenizer, [2, 5]).rows([json_grammar(ENTITY_SCHEMA)])
    ids = [1]
    for token in tokenizer('{"Results": []}', add_special_tokens=False)["input_ids"]:
        assert not torch.isfinite(rows(torch.tensor([ids]), torch.zeros(1, 384))[0, [2]]).any()
        ids.append(token)
    assert torch.isfinite(rows(torch.tensor([ids]), torch.zeros(1, 384))[0]).nonzero().flatten().tolist() == [2, 5]


def test_an_adapter_is_constrained_as_well(tmp_path):
    model, tokenizer = closing("llama", 3)
    config = LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(closing("llama", 3)[0], config).save_pretrained(tmp_path, save_embedding_layers=False)
    found = generate(model, tokenizer, EXAMPLES, adapter=tmp_path, **OPTIONS)
    assert {parse_entities(p.prediction).failure for p in found} <= {None, "truncated"}


def test_an_interrupted_constrained_run_goes_on(tmp_path):
    model, tokenizer = closing("llama", 1)
    options = dict(OPTIONS, batch_tokens=250)
    expected = generate(model, tokenizer, EXAMPLES, **options)
    calls = []

    def stop(_description, done, total):
        calls.append(done)
        if len(calls) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(model, tokenizer, EXAMPLES, partial=tmp_path / "p", progress=stop, **options)
    assert 0 < (tmp_path / "p").read_text(encoding="utf-8").count("\n") < len(EXAMPLES)
    assert generate(model, tokenizer, EXAMPLES, partial=tmp_path / "p", **options) == expected


def test_other_tasks_are_refused_before_anything_is_generated(monkeypatch):
    monkeypatch.setattr(TransformersEngine, "answer", lambda *_: pytest.fail("generated"))
    slots = [TaskExample("s:0", "slots", "eng_Latn", "a")]
    with pytest.raises(DataError, match="constrained: json is for the task extraction; the answers of slots"):
        generate(build_model("llama"), build_tokenizer(), slots, **OPTIONS)


def test_without_the_extra_the_message_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingExtraError, match=r"generation.constrained.*pip install 'midalign\[constrained\]'"):
        generate(build_model("llama"), build_tokenizer(), EXAMPLES, **OPTIONS)
    generate(build_model("llama"), build_tokenizer(), EXAMPLES[:1], NO_SYSTEM, max_new_tokens=2)


def test_a_tokenizer_of_another_library_is_refused():
    class Slow(PreTrainedTokenizerBase):
        pass

    with pytest.raises(ModelError, match="cannot read this Slow"):
        Constraint(Slow(), [2])


def test_a_row_that_breaks_the_schema_is_an_error_not_a_wrong_answer():
    rows = Constraint(build_tokenizer(), [2]).rows([json_grammar(ENTITY_SCHEMA)])
    rows(torch.tensor([[1]]), torch.zeros(1, 384))
    with pytest.raises(ModelError, match="does not work with this tokenizer"):
        rows(torch.tensor([[1, 7]]), torch.zeros(1, 384))
    assert isinstance(rows, ConstrainedRows)


def test_vllm_refuses_by_name():
    with pytest.raises(ModelError, match="backend 'transformers'"):
        VllmEngine.answer(object.__new__(VllmEngine), [[1]], 4, [json_grammar(ENTITY_SCHEMA)])


def test_a_random_models_slots_are_words_of_the_sentence_each_item_its_own():
    model, tokenizer = closing("llama", 1)
    options = dict(answer_format=AnswerFormat("intent_slots", "", "slots"), max_new_tokens=90)
    held = generate(model, tokenizer, SENTENCES, **options)
    alone = [generate(model, tokenizer, [e], **options)[0] for e in SENTENCES]
    assert held == alone
    with pytest.raises(DataError, match="constrained: slots is for the task slots; the answers of extraction"):
        generate(
            model, tokenizer, EXAMPLES, **options | {"answer_format": AnswerFormat(system="", constrained="slots")}
        )
