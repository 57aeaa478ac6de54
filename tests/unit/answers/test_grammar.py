"""Grammars of answers: gold answers can be written, and whatever can be written reads back."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from midalign.answers.matching import FoldedSentence, match_items
from midalign.answers.parse import ENTITY_SCHEMA, parse_entities, parse_slots
from midalign.answers.write import completion
from midalign.records import Span, TaskExample
from tests.conftest import build_tokenizer
from tests.slot_sentences import SENTENCES, slots_of

pytest.importorskip("llguidance", reason="needs the extra 'constrained'")
from midalign.answers.grammar import json_grammar, slot_grammar
from midalign.generation.constraint import Constraint

GOLD = '{"Results": [{"TypeName": "LOC", "Text": "K\\u00fcche \\" 闹钟 { ] в"}, {"TypeName": "", "Text": "x"}]}'


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
