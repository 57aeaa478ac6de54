"""Loss of given answers: the cross-entropy of each under a model, without generating anything."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from midalign.data.prompt_tokens import IGNORED
from midalign.models.hidden import unwrap


def answer_losses(model: Any, rows: Sequence[Mapping[str, list[int]]], batch_tokens: int = 8192) -> NDArray[np.float64]:
    """Cross-entropy of every answer: ``(items, 2)``, nats summed over its tokens, and how many tokens it has.

    Args:
        model: A causal language model, plain or with adapters.
        rows: ``input_ids`` and ``labels``, as `midalign.data.prompt_tokens.training_rows` gives them; a token whose
            label is ignored counts nothing.
        batch_tokens: Padded tokens of a batch. Rows are padded on the right, and the padding is masked.
    """
    inner = unwrap(model)
    device = next(model.parameters()).device
    keeps = "logits_to_keep" in inspect.signature(inner.forward).parameters
    found = np.zeros((len(rows), 2))
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]["input_ids"]))  # little padding
    while order:
        width = len(rows[order[0]]["input_ids"])
        size = max(1, batch_tokens // width)
        batch, order = order[:size], order[size:]
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
        for number, index in enumerate(batch):
            length = len(rows[index]["input_ids"])
            ids[number, :length] = torch.tensor(rows[index]["input_ids"])
            labels[number, :length] = torch.tensor(rows[index]["labels"])
            mask[number, :length] = 1
        labels[:, 0] = IGNORED  # nothing comes before the first token
        first = int((labels != IGNORED).any(0).nonzero().min())
        # The prompts, longest by far, need no logits: a row of them is as wide as the vocabulary.
        options = {"logits_to_keep": width - first + 1} if keeps else {}
        with torch.inference_mode():
            logits = inner(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False, **options).logits
            losses = torch.nn.functional.cross_entropy(
                logits[:, -(width - first + 1) : -1].float().transpose(1, 2),
                labels[:, first:].to(device),
                ignore_index=IGNORED,
                reduction="none",
            )
        found[batch, 0] = losses.double().sum(1).cpu().numpy()
        found[batch, 1] = (labels != IGNORED).sum(1).numpy()
    return found
