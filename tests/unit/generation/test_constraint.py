"""Constrained JSON: a random model's answers parse under the task's schema; without the constraint they never do."""

import json
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedTokenizerBase

from midalign.answers.format import AnswerFormat
from midalign.answers.matching import FoldedSentence, match_items
from midalign.answers.parse import ENTITY_SCHEMA, parse_entities, parse_slots
from midalign.answers.write import completion
from midalign.cli.main import main
from midalign.errors import DataError, MissingExtraError, ModelError, RecipeError
from midalign.generation.engine import TransformersEngine
from midalign.generation.generate import check_constraint, generate
from midalign.generation.vllm import VllmEngine
from midalign.recipe.file import build_recipe
from midalign.records import Span, TaskExample
from tests.conftest import build_model, build_tokenizer
from tests.tiny_world import recipe_content

pytest.importorskip("llguidance", reason="needs the extra 'constrained'")
from midalign.answers.grammar import json_grammar, slot_grammar
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
GOLD = '{"Results": [{"TypeName": "LOC", "Text": "K\\u00fcche \\" 闹钟 { ] в"}, {"TypeName": "", "Text": "x"}]}'


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
        ids, new = prompt_ids(render(example, tokenizer, NO_SYSTEM)[0], tokenizer), []
        while len(new) < 40 and new[-1:] != [tokenizer.eos_token_id]:
            with torch.no_grad():
                order = model(torch.tensor([ids + new])).logits[0, -1].argsort(descending=True).tolist()
            new.append(next(t for t in order if LLMatcher(known, grammar).validate_tokens([*new, t]) == len(new) + 1))
        (found,) = generate(model, tokenizer, [example], HELD, max_new_tokens=40)
        assert found.prediction == tokenizer.decode(new, skip_special_tokens=True).strip()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(384, 400))
def test_random_logits_write_json_that_parses(seed, width):
    """Sampled, not greedy: every branch of the schema; logits wider than the vocabulary, as models pad them."""
    tokenizer = build_tokenizer()
    rows = Constraint(tokenizer, [tokenizer.eos_token_id]).rows([json_grammar(ENTITY_SCHEMA)] * 3)
    generator = torch.Generator().manual_seed(seed)
    closing_tokens = [tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in ('"', "]", "}")]
    ids = torch.ones(3, 1, dtype=torch.long)
    for _ in range(120):
        scores = torch.randn(3, width, generator=generator)
        scores[:, closing_tokens] += 2
        ids = torch.cat([ids, rows(ids, scores).argmax(-1, keepdim=True)], dim=1)
    for row in ids[:, 1:].tolist():
        ended = tokenizer.eos_token_id in row
        row = row[: row.index(tokenizer.eos_token_id)] if ended else row
        assert max(row) < 384
        if ended:
            text = tokenizer.decode(row)
            assert parse_entities(text).failure is None
            assert set(json.loads(text)) == {"Results"}


@pytest.mark.parametrize("text", [GOLD, '{"Results": []}'])
def test_gold_answers_are_allowed_and_end(text):
    tokenizer = build_tokenizer()
    example = TaskExample("x:0", "extraction", "eng_Latn", "a b", ("a", "b"), (Span("LOC", 0, 1), Span("PER", 1, 2)))
    for gold in (json.dumps(json.loads(text), ensure_ascii=False), completion(example)):
        rows = Constraint(tokenizer, [2]).rows([json_grammar(ENTITY_SCHEMA)])
        ids = [1]
        for token in [*tokenizer(gold, add_special_tokens=False)["input_ids"], 2]:
            masked = rows(torch.tensor([ids]), torch.zeros(1, 384))[0]
            assert masked[token] == 0, tokenizer.decode([*ids, token])
            ids.append(token)
        assert (masked == 0).nonzero().tolist() == [[2]], "nothing but the end follows"


def slots_of(text, words, spans=(), intent="go"):
    return TaskExample(f"x:{text}", "slots", "eng_Latn", text, tuple(words), tuple(spans), intent)


SENTENCES = [
    slots_of("turn on the big light", ["turn", "on", "the", "big", "light"], [Span("device", 2, 5)]),
    slots_of("开大灯", "开大灯", [Span("the device", 1, 3)]),
    slots_of("wake me  at 5:30; twice", ["wake", "me", "at", "5:30", ";", "twice"], [Span("time", 3, 4)]),
    slots_of("a | b", ["a", "|", "b"], [Span("x:y", 0, 1), Span("z", 2, 3)]),
    slots_of("nothing here", ["nothing", "here"]),
    slots_of("so called  new\u00a0york", ["so", "called", "new\u00a0york"], [Span("city", 2, 3)]),
    slots_of("cannot", ["can", "not", "?"], [Span("w", 0, 2)]),  # the words do not spell the text
]


def with_a_space_first():
    """A tokenizer that begins every text with a space, as those of Llama 2 and Mistral do."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    texts = [completion(e, "intent_slots") for e in SENTENCES]
    texts.append(json.dumps(json.loads(GOLD), ensure_ascii=False))
    inner.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, special_tokens=special))
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def test_a_tokenizer_that_begins_every_text_with_a_space_can_write_the_gold_answers():
    tokenizer = with_a_space_first()
    constraint = Constraint(tokenizer, [tokenizer.eos_token_id])
    for example in SENTENCES:
        for style in ("slots", "intent_slots"):
            ids = tokenizer(completion(example, style), add_special_tokens=False)["input_ids"]
            assert tokenizer.convert_ids_to_tokens(ids)[0].startswith("▁")
            assert constraint.allows(slot_grammar(example, style), [*ids, tokenizer.eos_token_id])
    ids = tokenizer(json.dumps(json.loads(GOLD), ensure_ascii=False), add_special_tokens=False)["input_ids"]
    assert constraint.allows(json_grammar(ENTITY_SCHEMA), [*ids, tokenizer.eos_token_id])


def test_gold_answers_that_could_not_be_written_are_counted_before_anything_is_generated(caplog):
    held = AnswerFormat("intent_slots", constrained="slots")
    odd = slots_of("a b", ["a", "b"], [Span("x;y", 0, 1)])
    check_constraint(build_tokenizer(), SENTENCES, held)
    assert not caplog.text
    check_constraint(build_tokenizer(), [*SENTENCES, odd], held)
    assert "1 of 8 gold answers could not be written, such as that of item x:a b" in caplog.text
    with pytest.raises(DataError, match=r"1 of 1 gold answers could not be written.*leave it out"):
        check_constraint(build_tokenizer(), [odd], held)


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


def test_a_recipe_takes_it_for_extraction_and_transformers_only(tmp_path):
    content = recipe_content(tmp_path)
    held = ["generation.constrained=json", "task.name=extraction"]
    assert build_recipe(content, held).generation.constrained == "json"
    assert build_recipe(content).generation.constrained is None
    assert build_recipe(content, ["generation.constrained=slots"]).generation.constrained == "slots"
    with pytest.raises(RecipeError, match="constrained: slots is for the task slots; the answers of extraction"):
        build_recipe(content, ["generation.constrained=slots", "task.name=extraction"])
    with pytest.raises(
        RecipeError, match="generation: constrained: json is for the task extraction; the answers of slots"
    ):
        build_recipe(content, held[:1])
    with pytest.raises(RecipeError, match="constrained: json is for backend: transformers"):
        build_recipe(content, [*held, "generation.backend=vllm"])


def test_the_command_holds_answers_and_tells_its_run_from_a_free_one(tmp_path, monkeypatch, capsys):
    model, tokenizer = closing("llama", 1)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "data").mkdir()
    lines = ["# text = in Rom", "1\tin\tO\t-\t-", "2\tRom\tB-LOC\t-\t-", ""] * 2
    (tmp_path / "data" / "de_x-ud-test.iob2").write_text("\n".join([*lines, ""]))
    monkeypatch.chdir(tmp_path)
    command = [
        "midalign", "generate", "--model", "model", "--data", "data", "--task", "extraction", "--languages", "deu",
        "--max-new-tokens", "80", "--system", "x",
    ]  # fmt: skip

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [*command, *arguments])
        try:
            main()
        except SystemExit as ended:
            return ended.code
        return 0

    assert run("--out", "held", "--constrained", "json") in (0, None)
    predictions = [json.loads(line) for line in (tmp_path / "held" / "predictions.jsonl").read_text().splitlines()]
    assert {parse_entities(p["prediction"]).failure for p in predictions} <= {None, "truncated"}
    assert run("--out", "held") == 2
    assert "other inputs" in capsys.readouterr().err.replace("\n", " ")
    assert run("--out", "free") in (0, None)
    fingerprints = [
        json.loads((tmp_path / out / "manifest.json").read_text())["fingerprint"] for out in ("held", "free")
    ]
    assert fingerprints[0] != fingerprints[1]
    assert run("--out", "vllm", "--constrained", "json", "--backend", "vllm") == 2
    assert run("--out", "slots", "--constrained", "json", "--task", "slots") == 2


@pytest.mark.parametrize("style", ["slots", "intent_slots"])
@pytest.mark.parametrize("example", SENTENCES, ids=range(len(SENTENCES)))
def test_gold_slots_are_allowed_and_may_end(example, style):
    tokenizer = build_tokenizer()
    gold = completion(example, style)
    rows = Constraint(tokenizer, [2]).rows([slot_grammar(example, style)])
    ids = [1]
    for token in [*tokenizer(gold, add_special_tokens=False)["input_ids"], 2]:
        masked = rows(torch.tensor([ids]), torch.zeros(1, 384))[0]
        assert masked[token] == 0, (gold, tokenizer.decode([*ids, token]))
        ids.append(token)


@pytest.mark.parametrize(
    "answer", ["device: lamp", "device: the light", "device: ligh", "device:", "device: on; x: on the b"]
)
def test_a_value_that_is_no_run_of_words_of_the_sentence_cannot_be_written(answer):
    tokenizer = build_tokenizer()
    rows = Constraint(tokenizer, [2]).rows([slot_grammar(SENTENCES[0])])
    ids = [1]
    for token in [*tokenizer(answer, add_special_tokens=False)["input_ids"], 2]:
        if rows(torch.tensor([ids]), torch.zeros(1, 384))[0, token] != 0:
            return
        ids.append(token)
    pytest.fail(f"{answer!r} was allowed")


WORDS = st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=6), max_size=6)


@settings(deadline=None, max_examples=40)
@given(WORDS, st.booleans(), st.integers(0, 10_000))
def test_random_logits_write_slots_of_the_sentence(words, spaces, seed):
    """Whatever is written and ended reads back in full, and every value is found in the sentence."""
    tokenizer = build_tokenizer()
    example = slots_of((" " if spaces else "").join(words), words)
    rows = Constraint(tokenizer, [2]).rows([slot_grammar(example, "intent_slots")] * 3)
    generator = torch.Generator().manual_seed(seed)
    likely = [
        tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in (" |", "|", ":", ": ", ";", " ", "N")
    ]
    ids = torch.ones(3, 1, dtype=torch.long)
    for _ in range(60):
        scores = torch.randn(3, 384, generator=generator)
        scores[:, [*likely, 2]] += 2
        ids = torch.cat([ids, rows(ids, scores).argmax(-1, keepdim=True)], dim=1)
    for row in ids[:, 1:].tolist():
        if 2 in row:
            text = tokenizer.decode(row[: row.index(2)])
            # A colon may be part of a label, as in some data sets, whose labels are known when answers are read.
            labels = [piece.rsplit(": ", 1)[0] for piece in text.partition(" | ")[2].split("; ")]
            output = parse_slots(text, words, style="intent_slots", labels=labels)
            assert output.parsed, text
            assert len(match_items(words, output.items)) == len(output.items)
            for _, phrase in output.items:
                assert FoldedSentence(words).occurrences(phrase), (text, words)


def test_a_random_models_slots_are_words_of_the_sentence_each_item_its_own():
    model, tokenizer = closing("llama", 1)
    options = dict(answer_format=AnswerFormat("intent_slots", "", "slots"), max_new_tokens=90)
    held = generate(model, tokenizer, SENTENCES, **options)
    alone = [generate(model, tokenizer, [e], **options)[0] for e in SENTENCES]
    assert held == alone
    with pytest.raises(DataError, match="constrained: slots is for the task slots; the answers of extraction"):
        generate(model, tokenizer, EXAMPLES, **options)
