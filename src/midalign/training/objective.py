"""The alignment objective: from a batch of pairs to the InfoNCE loss, or directly to gradients.

1. blocks 1 to k, and nothing above, give sentence vectors without computing padding (`midalign.training.pair_vectors`);
2. InfoNCE (`midalign.functional.info_nce`) over the batch, or over the batches of all processes (`gather_negatives`).

`cached_backward` trades time for memory (GradCache, Gao et al. 2021): some rows at a time are encoded without a graph,
the loss is computed over all of them, and each piece is encoded again with a graph to get its share of the gradient.
Value and gradient are those of the plain loss.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn

from midalign.functional.info_nce import info_nce
from midalign.functional.margin import retrieval_accuracy
from midalign.models.adapters import without_adapters
from midalign.recipe.alignment import AlignmentConfig
from midalign.training.pair_batches import PAIR_KEYS, PairCollator, PairDataset, false_negatives
from midalign.training.pair_vectors import Batch, Packing, Vectors, pair_vectors

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AlignmentObjective:
    """The loss of a batch of pairs.

    Attributes:
        config: Temperature, direction, pooling, ...
        layers: The aligned layers and their weights, which sum to 1.
        packing: How the model is given several rows at once; see `midalign.training.pair_vectors`.
    """

    config: AlignmentConfig
    layers: dict[int, float]
    packing: Packing = "mask"

    @classmethod
    def for_depth(cls, config: AlignmentConfig, depth: int, packing: Packing = "mask") -> AlignmentObjective:
        """The objective for a model of `depth` blocks.

        Raises:
            ModelError: If the model has no such layer.
        """
        layers = config.resolve_layers(depth)
        total = sum(layers.values())
        return cls(config, {layer: weight / total for layer, weight in layers.items()}, packing)

    @property
    def top(self) -> int:
        """The highest aligned layer; the model is run up to it."""
        return max(self.layers)

    def vectors(self, model: nn.Module, batch: Batch) -> Vectors:
        """Sentence vectors at each aligned layer, float32: n sources, then n targets.

        Returns:
            By layer ``(2 n, hidden)``, or ``(2 n, config.subspace)`` where only a subspace is aligned.
        """
        vectors = pair_vectors(model, batch, tuple(self.layers), self.config.pooling, self.packing)
        if self.config.subspace is None:
            return vectors
        basis = subspace(vectors[self.top].shape[-1], self.config.subspace, vectors[self.top].device)
        with torch.autocast(basis.device.type, enabled=False):  # which would run this product in half precision
            return {layer: found @ basis for layer, found in vectors.items()}

    def loss_of(self, vectors: Vectors, pair_keys: torch.Tensor) -> torch.Tensor:
        """InfoNCE of sentence vectors, averaged over the layers by their weights.

        Args:
            vectors: As from `vectors`.
            pair_keys: ``(n, 3)``, see `midalign.training.pair_batches.PairCollator`.
        """
        gather = self.config.gather_negatives and dist.is_available() and dist.is_initialized()
        keys = torch.cat(_gathered(pair_keys)) if gather else pair_keys
        losses = []
        for layer, weight in self.layers.items():
            sides = vectors[layer].chunk(2)
            source, target = (torch.cat(_gathered(side)) for side in sides) if gather else sides
            loss = info_nce(
                source,
                target,
                temperature=self.config.temperature,
                direction=self.config.direction,
                false_negatives=false_negatives(keys),
            )
            losses.append(weight * loss)
        return torch.stack(losses).sum()

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The loss of one batch; a mean over pairs, so that accumulation averages it."""
        frozen, trained = self._frozen_sources(model, batch)
        return self.loss_of(_joined(frozen, self.vectors(model, trained)), batch[PAIR_KEYS])

    def _frozen_sources(self, model: nn.Module, batch: Batch) -> tuple[Vectors, Batch]:
        """Vectors of the rows that the base model encodes, and the other rows; with ``frozen_source``, n of each."""
        if not self.config.frozen_source:
            return {}, batch
        sources, targets = torch.arange(len(batch["input_ids"]), device=batch["input_ids"].device).chunk(2)
        with torch.no_grad(), without_adapters(model):
            frozen = self.vectors(model, _rows_of(batch, sources))
        return frozen, _rows_of(batch, targets)

    def cached_backward(
        self,
        model: nn.Module,
        batch: Batch,
        backward: Callable[[torch.Tensor], None],
        scale: float = 1.0,
        no_sync: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> torch.Tensor:
        """Loss and gradients of a batch, with the memory of ``config.mini_batch_size`` pairs.

        Args:
            model: The wrapped model, in training mode.
            batch: A batch of pairs.
            backward: Backpropagates a scalar, such as ``accelerator.backward``.
            scale: Multiplies the gradients (1 / accumulation steps).
            no_sync: Context in which processes do not exchange gradients; entered for all but the last piece.

        Returns:
            The loss, detached and not scaled.
        """
        device = batch["input_ids"].device
        frozen, trained = self._frozen_sources(model, batch)
        pieces = self._pieces(trained)
        states = []
        parts: list[Vectors] = []
        with torch.no_grad():
            for rows in pieces:
                states.append(_random_state(device))
                parts.append(self.vectors(model, _rows_of(trained, rows)))
        order = torch.cat(pieces).argsort()
        leaves = {layer: torch.cat([p[layer] for p in parts])[order].requires_grad_() for layer in self.layers}
        loss = self.loss_of(_joined(frozen, leaves), batch[PAIR_KEYS])
        (loss * scale).backward()  # type: ignore[no-untyped-call]
        gradients = {layer: cast("torch.Tensor", leaf.grad) for layer, leaf in leaves.items()}
        for number, (rows, state) in enumerate(zip(pieces, states, strict=True)):
            last = number == len(pieces) - 1
            with contextlib.nullcontext() if last else no_sync():
                with _same_randomness(state, device):  # dropout as in the first encoding
                    vectors = self.vectors(model, _rows_of(trained, rows))
                products = [(vectors[layer] * gradients[layer][rows]).sum() for layer in self.layers]
                backward(torch.stack(products).sum())
        return loss.detach()

    def _pieces(self, batch: Batch) -> list[torch.Tensor]:
        """The rows that are encoded at a time, 2 x ``mini_batch_size`` at most; about as many tokens in each piece."""
        lengths = batch["attention_mask"].sum(dim=1)
        count = -(-len(lengths) // (2 * (self.config.mini_batch_size or len(lengths))))
        order = lengths.argsort(descending=True, stable=True)
        return [order[number::count] for number in range(count)]


@cache  # a decomposition of that size is not for every batch
@torch.inference_mode(False)
def subspace(hidden: int, dimensions: int, device: torch.device) -> torch.Tensor:
    """Orthonormal float32 basis ``(hidden, dimensions)`` of a random subspace; the same in every process and run.

    The alignment loss sees only the subspace. The other dimensions may keep what distinguishes a word from its
    translation. A rotation does not change cosines, so nothing else is lost.
    """
    normal = torch.randn(hidden, dimensions, generator=torch.Generator().manual_seed(0))
    basis: torch.Tensor = torch.linalg.qr(normal)[0].to(device)
    return basis


@torch.no_grad()
def held_out_metrics(
    objective: AlignmentObjective, model: nn.Module, held_out: PairDataset, collate: PairCollator, device: torch.device
) -> dict[str, float]:
    """Alignment loss and retrieval accuracy of held-out pairs.

    Returns:
        ``alignment_loss``, averaged over pairs, and ``retrieval``: the share of sentences whose nearest sentence is
        their translation (cosine, at the highest aligned layer), averaged over both directions and over the pairs of
        languages. ``retrieval_<language>`` is the same over the pairs that have the language on a side.
    """
    losses, counted = 0.0, 0
    accuracies: dict[tuple[str, str], float] = {}
    for group in sorted(set(held_out.groups)):
        members = [index for index, number in enumerate(held_out.groups) if number == group]
        sources, targets = [], []
        for start in range(0, len(members), objective.config.batch_size):
            chosen = members[start : start + objective.config.batch_size]
            batch = {k: v.to(device) for k, v in collate([held_out[index] for index in chosen]).items()}
            vectors = objective.vectors(model, batch)
            losses += objective.loss_of(vectors, batch[PAIR_KEYS]).item() * len(chosen)
            counted += len(chosen)
            source, target = vectors[objective.top].chunk(2)
            sources.append(source)
            targets.append(target)
        found = retrieval_accuracy(torch.cat(sources), torch.cat(targets), margin="cosine", k=1)
        pair = held_out.pairs[members[0]]
        accuracies[pair.source_language, pair.target_language] = sum(found) / 2
    by_language = {
        f"retrieval_{language}": fmean(value for pair, value in accuracies.items() if language in pair)
        for language in sorted({language for pair in accuracies for language in pair})
    }
    return {"alignment_loss": losses / counted, "retrieval": fmean(accuracies.values())} | by_language


def _rows_of(batch: Batch, rows: torch.Tensor) -> Batch:
    names = ("input_ids", "attention_mask", "special_tokens_mask", "pooled_mask")
    return {name: batch[name][rows] for name in names}


def _joined(frozen: Vectors, trained: Vectors) -> Vectors:
    return {layer: torch.cat([frozen[layer], found]) if frozen else found for layer, found in trained.items()}


def _gathered(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensors of all processes, through which gradients flow back to the process they came from."""
    if tensor.requires_grad:
        from torch.distributed.nn.functional import all_gather

        return list(all_gather(tensor))  # type: ignore[no-untyped-call]
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return parts


def _random_state(device: torch.device) -> list[torch.Tensor]:
    states = [torch.get_rng_state()]
    return states if device.type == "cpu" else [*states, torch.get_device_module(device).get_rng_state(device)]


@contextlib.contextmanager
def _same_randomness(states: list[torch.Tensor], device: torch.device) -> Iterator[None]:
    """Within this context random numbers repeat those drawn after `_random_state`; afterwards they go on as before."""
    now = _random_state(device)
    _set_random_state(states, device)
    try:
        yield
    finally:
        _set_random_state(now, device)


def _set_random_state(states: list[torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.get_device_module(device).set_rng_state(states[1], device)
