"""Loss of given answers: the cross-entropy of each under a model, without generating anything."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from midalign.data.prompt_tokens import IGNORED
from midalign.generation.shared_prompt import shared_prompt
from midalign.models.hidden import unwrap
from midalign.models.memory import in_halves


def answer_losses(model: Any, rows: Sequence[Mapping[str, list[int]]], batch_tokens: int = 8192) -> NDArray[np.float64]:
    """Cross-entropy of every answer: ``(items, 2)``, nats summed over its tokens, and how many tokens it has.

    Args:
        model: A causal language model, plain or with adapters.
        rows: ``input_ids`` and ``labels``, as `midalign.data.prompt_tokens.training_rows` gives them; a token whose
            label is ignored counts nothing.
        batch_tokens: Padded tokens of a batch. Rows are padded on the right, and the padding is masked. The tokens that
            all rows of a batch begin with are computed once. Where memory runs out, a batch is computed in halves.

    Raises:
        RunError: If a single row does not fit into memory.
    """
    inner = unwrap(model)
    found = np.zeros((len(rows), 2))
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]["input_ids"]))  # little padding
    while order:
        size = max(1, batch_tokens // len(rows[order[0]]["input_ids"]))
        batch, order = order[:size], order[size:]
        found[batch] = in_halves(lambda part: list(_losses_of_batch(inner, part)), [rows[i] for i in batch], "answer")
    return found


@torch.inference_mode()
def _losses_of_batch(model: Any, rows: Sequence[Mapping[str, list[int]]]) -> NDArray[np.float64]:
    width = max(len(row["input_ids"]) for row in rows)
    ids, labels = torch.zeros(len(rows), width, dtype=torch.long), torch.full((len(rows), width), IGNORED)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        length = len(row["input_ids"])
        ids[number, :length] = torch.tensor(row["input_ids"])
        labels[number, :length] = torch.tensor(row["labels"])
        mask[number, :length] = 1
    labels[:, 0] = IGNORED  # nothing comes before the first token
    first = int((labels != IGNORED).any(0).nonzero().min())
    device = next(model.parameters()).device
    options: dict[str, Any] = {"use_cache": False}
    shared = 0
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        # The prompts, longest by far, need no logits: a row of them is as wide as the vocabulary.
        options["logits_to_keep"] = width - first + 1
        cache, shared = shared_prompt(model, model.config, [row["input_ids"] for row in rows], most=first - 1)
        if shared:
            options |= {"past_key_values": cache, "use_cache": True}
    logits = model(input_ids=ids[:, shared:].to(device), attention_mask=mask.to(device), **options).logits
    kept = logits[:, -(width - first + 1) : -1]
    losses = [  # a row at a time: in float32 all of them would need several times the memory of the logits
        torch.nn.functional.cross_entropy(row.float(), gold, ignore_index=IGNORED, reduction="none").double().sum()
        for row, gold in zip(kept, labels[:, first:].to(device), strict=True)
    ]
    return np.stack([torch.stack(losses).cpu().numpy(), (labels != IGNORED).sum(1).numpy()], axis=1)
