"""KL self-distillation that keeps the model able to copy words while it is aligned.

Alignment makes the states of a word and of its translation alike. A model that copies a value through those states may
then write it in another language. The loss trains against that. It needs no task data, only the sentences of the pairs:

1. each sentence is written twice in a row, as token ids: ``<s> a b c a b c``;
2. the base model (adapters switched off) predicts each token of the second copy;
3. the loss is the Kullback-Leibler divergence of the adapted model's prediction from the base model's, in nats per
   token. It is 0 at the start of training.

Self-distillation teaches nothing new: the model can at best copy as well as the base model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import nn

from midalign.errors import ModelError


def doubled_sentences(
    input_ids: torch.Tensor, attention_mask: torch.Tensor, special_tokens_mask: torch.Tensor, pad_token_id: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows with each sentence written twice in a row.

    Args:
        input_ids: ``(batch, seq)``, right-padded; special tokens stay in the first copy only.
        attention_mask: ``(batch, seq)``, non-zero at real tokens.
        special_tokens_mask: ``(batch, seq)``, non-zero at special tokens.
        pad_token_id: What to pad with.

    Returns:
        Token ids and attention mask ``(batch, seq')``, and a boolean mask ``(batch, seq')`` of the positions whose next
        token belongs to the second copy.
    """
    rows, asked = [], []
    for ids, real, special in zip(input_ids, attention_mask.bool(), special_tokens_mask.bool(), strict=True):
        trailing = torch.cumsum((real & ~special).flip(0), 0).flip(0) == 0  # an </s> after the sentence
        first, again = ids[real & ~trailing], ids[real & ~special]
        rows.append(torch.cat([first, again]))
        asked.append((len(first) - 1, len(first) + len(again) - 1))
    width = max(map(len, rows))
    places = torch.arange(width, device=input_ids.device)
    doubled = input_ids.new_full((len(rows), width), pad_token_id)
    for row, ids in enumerate(rows):
        doubled[row, : len(ids)] = ids
    mask = torch.stack([places < len(ids) for ids in rows]).to(attention_mask.dtype)
    return doubled, mask, torch.stack([(places >= start) & (places < end) for start, end in asked])


def preservation_loss(
    model: nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor, asked: torch.Tensor
) -> torch.Tensor:
    """KL(base || adapted), the mean over the asked positions of all rows; a differentiable float32 scalar.

    Args:
        model: The outermost wrapped model; a `PeftModel` is at its core.
        input_ids: ``(batch, seq)``.
        attention_mask: ``(batch, seq)``.
        asked: Boolean ``(batch, seq)``: the positions whose predictions are compared.

    Raises:
        ModelError: If there is no adapter that could be switched off.
    """
    with torch.no_grad(), without_adapters(model):
        base = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits[asked]
    adapted = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits[asked]
    with torch.autocast(adapted.device.type, enabled=False):
        return F.kl_div(
            F.log_softmax(adapted.float(), dim=-1),
            F.log_softmax(base.float(), dim=-1),
            log_target=True,
            reduction="batchmean",
        )


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Switch the adapters and dropout off within this context; which weights are trained stays unchanged.

    Raises:
        ModelError: If there is no adapter that could be switched off.
    """
    adapted = next((module for module in model.modules() if isinstance(module, PeftModel)), None)
    if adapted is None:
        raise ModelError(
            "alignment.preserve and alignment.frozen_source compare with the model without its adapter, but this model "
            "has none; train with LoRA, or leave them out"
        )
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]  # PEFT forgets it on the way
    training = model.training
    model.eval()
    try:
        with adapted.disable_adapter():
            yield
    finally:
        model.train(training)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
