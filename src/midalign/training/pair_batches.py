"""Batches of parallel pairs as token ids, with keys that find false negatives."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from midalign.data.prompt_tokens import IGNORED
from midalign.errors import DataError
from midalign.records import ParallelPair

logger = logging.getLogger(__name__)

Row = dict[str, list[int]]

PAIR_KEYS = "pair_keys"
"""The entry of a batch that tells a batch of pairs from a task batch."""


class PairDataset(Dataset[dict[str, Any]]):
    """Tokenized pairs.

    Args:
        pairs: The pairs. A pair with a side of more than `max_length` tokens is left out, counted and logged:
            truncated, it would no longer be a translation.
        tokenizer: A tokenizer, which adds its usual special tokens; or `midalign.data.prompt_tokens.InTaskPrompt`,
            which puts each sentence into the task's prompt.
        max_length: Largest number of tokens of a side, prompt included; None for no limit.

    Attributes:
        pairs: The pairs that are left.
        groups: For each pair the number of its pair of languages, from 0 without gaps.

    Raises:
        DataError: If no pair is left, or no pair of some two languages.
    """

    def __init__(self, pairs: Sequence[ParallelPair], tokenizer: Any, max_length: int | None = None) -> None:
        self.tokens: list[tuple[Row, Row]] = []
        self.pairs: list[ParallelPair] = []
        for pair in pairs:
            sides = [_plain(tokenizer(text, return_special_tokens_mask=True)) for text in (pair.source, pair.target)]
            if max_length is not None and max(len(side["input_ids"]) for side in sides) > max_length:
                continue
            self.pairs.append(pair)
            self.tokens.append((sides[0], sides[1]))
        if len(self.pairs) < len(pairs):
            logger.warning(
                "left out %d of %d pairs with a side of more than %s tokens",
                len(pairs) - len(self.pairs),
                len(pairs),
                max_length,
            )
        if not self.pairs:
            raise DataError(
                f"no parallel pair is left to align on: there were {len(pairs)}, and each has a side of more than "
                f"{max_length} tokens (with alignment.prompt: task, those of the prompt count too). Raise "
                "training.max_length, or give shorter sentences."
            )
        names = [_languages(pair) for pair in self.pairs]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        if lost := [name for name in dict.fromkeys(map(_languages, pairs)) if name not in numbers]:
            raise DataError(
                f"no pair of {', '.join(lost)} is left: each has a side of more than {max_length} tokens, and the "
                "language would silently not be aligned. Raise training.max_length, give shorter sentences "
                "(parallel.chunks), hold out more (parallel.held_out), or take the language out of languages.aligned."
            )
        self.groups = [numbers[name] for name in names]

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One pair with its tokens."""
        return {"pair": self.pairs[index], "tokens": self.tokens[index]}


def _plain(row: Mapping[str, Any]) -> Row:
    """The lists of a row alone: what a tokenizer returns holds offsets and strings of each token as well."""
    return {name: list(row[name]) for name in ("input_ids", "special_tokens_mask", "pooled_mask") if name in row}


def _languages(pair: ParallelPair) -> str:
    return f"{pair.source_language} and {pair.target_language}"


class PairCollator:
    """Batches of n pairs: n source rows, then n target rows, right-padded together.

    Args:
        pad_token_id: What to pad with; masked everywhere.
        with_labels: Add ``labels`` that are all ignored, for accumulation windows with both objectives. The Trainer
            counts the label tokens of every batch in a window whose first batch has labels.
    """

    def __init__(self, pad_token_id: int, with_labels: bool = False) -> None:
        self.pad_token_id = pad_token_id
        self.with_labels = with_labels

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Make one batch.

        Returns:
            ``input_ids``, ``attention_mask``, ``special_tokens_mask`` and ``pooled_mask`` (1 at the tokens that a
            sentence vector is made of: all real ones, unless the tokenizer says otherwise), each ``(2 n, seq)``, and
            ``pair_keys``, int64 ``(n, 3)``: hashes of the source text, the target text and the id.
        """
        rows = [example["tokens"][side] for side in (0, 1) for example in examples]
        width = max(len(row["input_ids"]) for row in rows)
        batch = {
            "input_ids": torch.full((len(rows), width), self.pad_token_id),
            "attention_mask": torch.zeros(len(rows), width, dtype=torch.long),
            "special_tokens_mask": torch.zeros(len(rows), width, dtype=torch.long),
            "pooled_mask": torch.zeros(len(rows), width, dtype=torch.long),
        }
        for number, row in enumerate(rows):
            length = len(row["input_ids"])
            batch["input_ids"][number, :length] = torch.tensor(row["input_ids"])
            batch["attention_mask"][number, :length] = 1
            batch["special_tokens_mask"][number, :length] = torch.tensor(row["special_tokens_mask"])
            batch["pooled_mask"][number, :length] = torch.tensor(row.get("pooled_mask", [1] * length))
        pairs = [example["pair"] for example in examples]
        keys = [[_key(pair.source), _key(pair.target), _key(pair.id)] for pair in pairs]
        if self.with_labels:
            batch["labels"] = torch.full_like(batch["input_ids"], IGNORED)
        return batch | {PAIR_KEYS: torch.tensor(keys, dtype=torch.long)}


def false_negatives(pair_keys: torch.Tensor) -> torch.Tensor:
    """False negatives: pairs of a batch that mean the same although they are different pairs.

    Args:
        pair_keys: ``(n, 3)``, see `PairCollator`.

    Returns:
        Boolean ``(n, n)``: True at (i, j), i != j, where the pairs share their source text, their target text, or their
        id (the same row of a corpus that is parallel across many languages).
    """
    same = (pair_keys[:, None, :] == pair_keys[None, :, :]).any(dim=-1)
    return same & ~torch.eye(len(pair_keys), dtype=torch.bool, device=pair_keys.device)


def _key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


class CollateEither:
    """Collator that gives task examples to the trainer's collator and pairs to ours; a batch holds only one kind."""

    def __init__(self, collate_task: Any, collate_pairs: PairCollator) -> None:
        self.collate_task = collate_task
        self.collate_pairs = collate_pairs

    def __call__(self, examples: list[dict[str, Any]]) -> Any:
        """One batch, by the collator of its objective."""
        return self.collate_pairs(examples) if "pair" in examples[0] else self.collate_task(examples)
