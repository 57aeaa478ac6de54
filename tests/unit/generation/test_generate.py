"""Generation: batches equal one by one, interrupted runs go on, every row stops at its own end."""

import json
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GenerationConfig, LlamaForCausalLM

from midalign.answers.format import AnswerFormat
from midalign.data.prompt_tokens import prompt_ids, training_rows
from midalign.data.prompts import render
from midalign.errors import RunError
from midalign.generation.engine import TransformersEngine
from midalign.generation.generate import generate
from midalign.metrics.loss import has_loss
from tests.conftest import build_model, build_tokenizer
from tests.greedy import EXAMPLES, NO_SYSTEM, OPTIONS, answers, often_ending, plain_loop


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_batched_left_padded_answers_equal_a_plain_loop_over_single_prompts(family):
    tokenizer = build_tokenizer()
    for model in (build_model(family), often_ending(build_model(family))):
        expected = plain_loop(model, tokenizer, EXAMPLES)
        for batch_tokens in (1, 100, 100_000):
            assert answers(generate(model, tokenizer, EXAMPLES, batch_tokens=batch_tokens, **OPTIONS)) == expected
    assert len(set(expected)) > 1


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_order_of_the_examples_changes_no_answer(family):
    model, tokenizer = build_model(family), build_tokenizer()
    forward = generate(model, tokenizer, EXAMPLES, **OPTIONS)
    backward = generate(model, tokenizer, EXAMPLES[::-1], **OPTIONS)
    assert backward[::-1] == forward
    assert [p.id for p in forward] == [e.id for e in EXAMPLES]


def test_a_prediction_records_the_prompt_that_was_asked():
    tokenizer = build_tokenizer(chat=True)
    (first, *_) = generate(build_model("llama"), tokenizer, EXAMPLES, **OPTIONS)
    assert first.prompt == render(EXAMPLES[0], tokenizer, NO_SYSTEM).text
    assert first.language == "eng_Latn"


@pytest.mark.parametrize("adapter", [False, True])
def test_answers_are_greedy_whatever_the_model_ships_as_its_settings(adapter):
    """Qwen 2.5 ships a repetition penalty, Llama 3 sampling: ``generate`` would fill its gaps from them."""
    tokenizer = build_tokenizer()
    model = build_model("llama")
    expected = plain_loop(model, tokenizer, EXAMPLES)
    shipped = GenerationConfig(
        do_sample=True, temperature=3.0, top_k=5, repetition_penalty=5.0, no_repeat_ngram_size=1, num_beams=2,
        suppress_tokens=list(range(50, 384)), max_length=3,
    )  # fmt: skip
    model.generation_config = shipped
    wrapped = get_peft_model(model, LoraConfig(target_modules=["q_proj"])) if adapter else model
    assert answers(generate(wrapped, tokenizer, EXAMPLES, **OPTIONS)) == expected
    assert model.generation_config is shipped, "the model is as it was"


def test_a_row_stops_at_its_own_end_token_and_at_the_models_others():
    tokenizer = build_tokenizer()
    model = build_model("llama")
    free = plain_loop(model, tokenizer, EXAMPLES)
    ids = prompt_ids(render(EXAMPLES[0], tokenizer, NO_SYSTEM), tokenizer)
    with torch.no_grad():
        third = model.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), max_new_tokens=10,
            do_sample=False,
        )[0, len(ids) + 2]  # fmt: skip
    model.generation_config.eos_token_id = [2, int(third)]
    stopped = answers(generate(model, tokenizer, EXAMPLES, **OPTIONS))
    assert all(long.startswith(short) for long, short in zip(free, stopped, strict=True))
    assert len(stopped[0]) < len(free[0])


def test_a_model_without_a_padding_token_answers_the_same():
    tokenizer = build_tokenizer()
    model = build_model("llama")
    expected = answers(generate(model, tokenizer, EXAMPLES, **OPTIONS))
    tokenizer.pad_token = tokenizer.eos_token
    assert answers(generate(model, tokenizer, EXAMPLES, **OPTIONS)) == expected


def test_generation_leaves_a_training_model_in_evaluation_and_without_gradients():
    model = build_model("llama").train()
    generate(model, build_tokenizer(), EXAMPLES[:1], **OPTIONS)
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


class KilledError(Exception):
    pass


def short_of_memory(monkeypatch, most):
    """Let every forward pass of more than so many rows run out of memory; the rows of all passes that did not."""
    forward, rows = LlamaForCausalLM.forward, []

    def limited(self, input_ids, **options):
        if len(input_ids) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        rows.append(len(input_ids))
        return forward(self, input_ids, **options)

    monkeypatch.setattr(LlamaForCausalLM, "forward", limited)
    return rows


def test_where_memory_runs_out_a_batch_is_answered_in_halves(monkeypatch, caplog):
    model, tokenizer = build_model("llama"), build_tokenizer()
    expected = generate(model, tokenizer, EXAMPLES, losses=True, **OPTIONS)
    rows = short_of_memory(monkeypatch, most=2)
    found = generate(model, tokenizer, EXAMPLES, losses=True, **OPTIONS)
    assert max(rows) == 2
    assert answers(found) == answers(expected)
    assert [p.gold_loss for p in found] == pytest.approx([p.gold_loss for p in expected], abs=1e-4)
    assert "computed in halves" in caplog.text


def test_a_prompt_that_never_fits_into_memory_is_an_error(monkeypatch):
    short_of_memory(monkeypatch, most=0)
    with pytest.raises(RunError, match="one prompt with its answer does not fit into memory"):
        generate(build_model("llama"), build_tokenizer(), EXAMPLES, **OPTIONS)


def run_until(path, batches, **changes):
    """Generate into a partial file and be interrupted after so many batches."""
    count = 0

    def progress(_description, done, total):
        nonlocal count
        count += 1
        if count == batches and done < total:
            raise KilledError

    options = {**OPTIONS, "batch_tokens": 90, **changes}
    return generate(build_model("llama"), build_tokenizer(), EXAMPLES, partial=path, progress=progress, **options)


@pytest.mark.parametrize("batches", [1, 2, 3])
@pytest.mark.parametrize("cut", [0, 1, 25, 10_000])
def test_an_interrupted_run_goes_on_and_ends_as_the_uninterrupted(tmp_path, batches, cut, caplog):
    """`cut` bytes are taken from the end of the partial file, as a kill in the middle of a write would."""
    expected = run_until(tmp_path / "whole", 1000)
    with pytest.raises(KilledError):
        run_until(tmp_path / "partial", batches)
    content = (tmp_path / "partial").read_bytes()
    assert content.count(b"\n") < len(EXAMPLES)
    (tmp_path / "partial").write_bytes(content[: max(0, len(content) - cut)])
    assert run_until(tmp_path / "partial", 1000) == expected
    assert ("half a line" in caplog.text) == (cut in (1, 25))
    lines = [json.loads(line) for line in (tmp_path / "partial").read_text(encoding="utf-8").splitlines()]
    assert {line["id"]: line["prediction"] for line in lines} == {p.id: p.prediction for p in expected}


def test_finished_batches_are_not_generated_again(tmp_path, monkeypatch):
    run_until(tmp_path / "partial", 1000)
    monkeypatch.setattr(TransformersEngine, "answer", lambda *_: pytest.fail("generated again"))
    run_until(tmp_path / "partial", 1000)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
@pytest.mark.parametrize("chat", [False, True])
def test_the_loss_of_the_gold_answer_is_that_of_transformers(family, chat):
    """On the row that would be trained on: the same prompt, the answer and the end token."""
    model, tokenizer = build_model(family), build_tokenizer(chat=chat)
    found = generate(model, tokenizer, EXAMPLES, losses=True, batch_tokens=150, **OPTIONS)
    assert answers(found) == answers(generate(model, tokenizer, EXAMPLES, **OPTIONS))
    for prediction, row in zip(found, training_rows(EXAMPLES, tokenizer, NO_SYSTEM), strict=True):
        with torch.no_grad():
            loss = model(input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([row["labels"]])).loss
        assert prediction.gold_tokens == sum(label != -100 for label in row["labels"])
        assert prediction.gold_loss == pytest.approx(float(loss) * prediction.gold_tokens, rel=1e-4)


def test_a_gold_answer_beyond_the_window_has_no_loss():
    tokenizer = build_tokenizer()
    short = [replace(example, task="chat", reference="ja") for example in EXAMPLES[:1]]
    long = [replace(short[0], id="long", reference="licht " * 200)]
    chat = AnswerFormat(system="", metrics=("exact_match",))
    model = build_model("llama", max_position_embeddings=256)
    found = generate(model, tokenizer, [*long, *short], chat, max_new_tokens=4, losses=True)
    assert [prediction.gold_tokens is None for prediction in found] == [True, False]
    assert not has_loss(found)


def test_an_interrupted_run_keeps_the_losses(tmp_path):
    expected = run_until(tmp_path / "whole", 1000, losses=True)
    with pytest.raises(KilledError):
        run_until(tmp_path / "partial", 2, losses=True)
    assert run_until(tmp_path / "partial", 1000, losses=True) == expected
    assert has_loss(expected)


def test_a_full_disk_while_appending_is_a_clear_error():
    from pathlib import Path

    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")

    class Full(type(Path())):
        def exists(self):
            return False

    with pytest.raises(RunError, match="No space left on device"):
        generate(build_model("llama"), build_tokenizer(), EXAMPLES, partial=Full("/dev/full"), **OPTIONS)


def test_an_adapter_answers_as_when_live(tmp_path):
    tokenizer = build_tokenizer()
    wrapped = get_peft_model(build_model("llama"), LoraConfig(target_modules=["q_proj", "down_proj"]))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    wrapped.save_pretrained(tmp_path, save_embedding_layers=False)
    expected = plain_loop(wrapped.eval(), tokenizer, EXAMPLES)
    assert answers(generate(build_model("llama"), tokenizer, EXAMPLES, adapter=tmp_path, **OPTIONS)) == expected
    assert answers(generate(build_model("llama"), tokenizer, EXAMPLES, **OPTIONS)) != expected
