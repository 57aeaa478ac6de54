"""Pairs as batches: what is left out, how rows stand, which pairs are no negatives of each other."""

import pytest
import torch

from midalign.answers.format import AnswerFormat
from midalign.data.prompt_tokens import InTaskPrompt
from midalign.errors import DataError
from midalign.records import ParallelPair
from midalign.training.pair_batches import PAIR_KEYS, PairCollator, PairDataset, false_negatives
from tests.conftest import build_tokenizer

PAIRS = [
    ParallelPair(f"turn on light {i}", f"licht {i} anmachen", "eng_Latn", "deu_Latn", f"de:{i}") for i in range(12)
] + [ParallelPair(f"wake me at {i}", f"разбуди в {i}", "eng_Latn", "rus_Cyrl", f"ru:{i}") for i in range(5)]


def test_pairs_that_share_a_text_or_an_id_are_no_negatives_of_each_other():
    pairs = [
        ParallelPair("hello", "hallo", "eng_Latn", "deu_Latn", "a:1"),
        ParallelPair("hello", "привет", "eng_Latn", "rus_Cyrl", "b:1"),
        ParallelPair("bye", "пока", "eng_Latn", "rus_Cyrl", "b:2"),
        ParallelPair("tschüs", "пока пока", "deu_Latn", "rus_Cyrl", "b:2"),
    ]
    data = PairDataset(pairs, build_tokenizer())
    mask = false_negatives(PairCollator(0)([data[i] for i in range(4)])[PAIR_KEYS])
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[0, 1] = expected[1, 0] = expected[2, 3] = expected[3, 2] = True
    assert torch.equal(mask, expected)


def test_groups_number_the_pairs_of_languages():
    assert PairDataset(PAIRS, build_tokenizer()).groups == [0] * 12 + [1] * 5


def test_a_pair_longer_than_the_limit_is_left_out_and_counted(caplog):
    long = ParallelPair("light " * 50, "licht", "eng_Latn", "deu_Latn", "x")
    pairs = PairDataset([*PAIRS, long], build_tokenizer(), max_length=40)
    assert len(pairs) == len(PAIRS)
    assert "left out 1 of 18 pairs" in caplog.text
    with pytest.raises(DataError, match="no parallel pair is left"):
        PairDataset([long], build_tokenizer(), max_length=40)


def test_languages_none_of_whose_pairs_is_short_enough_are_refused_by_name():
    long = [ParallelPair(f"wake {i}", "разбуди " * 50, "eng_Latn", "rus_Cyrl", f"ru:{i}") for i in range(3)]
    with pytest.raises(DataError, match="no pair of eng_Latn and rus_Cyrl is left: each has a side of more than 40"):
        PairDataset([*PAIRS[:12], *long], build_tokenizer(), max_length=40)


def test_collated_rows_are_sources_then_targets():
    data = PairDataset(PAIRS, build_tokenizer())
    batch = PairCollator(0)([data[0], data[1]])
    tokenizer = build_tokenizer()
    texts = tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
    assert texts == [PAIRS[0].source, PAIRS[1].source, PAIRS[0].target, PAIRS[1].target]
    assert batch["special_tokens_mask"][:, 0].tolist() == [1, 1, 1, 1]
    assert torch.equal(batch["pooled_mask"], batch["attention_mask"])


def test_in_the_task_prompt_the_tokens_before_the_sentence_do_not_count():
    tokenizer = build_tokenizer()
    data = PairDataset(PAIRS[:2], InTaskPrompt(tokenizer, "slots", AnswerFormat(system="tell what is asked")))
    batch = PairCollator(0)([data[0], data[1]])
    texts = [
        tokenizer.decode(ids[mask.bool()]) for ids, mask in zip(batch["input_ids"], batch["pooled_mask"], strict=True)
    ]
    sentences = [PAIRS[0].source, PAIRS[1].source, PAIRS[0].target, PAIRS[1].target]
    assert texts == [f"{sentence}\nAnswer:\n" for sentence in sentences]
    assert (batch["pooled_mask"] <= batch["attention_mask"]).all()
