"""Sentence vectors of whole corpora: every layer and pooling in one pass over the text.

1. `midalign.models.tokens.tokenize` turns sentences into token ids, cut at the model's window.
2. Sentences are sorted by length, longest first, and batched up to a budget of padded tokens.
3. `midalign.models.hidden.pooled_states` pools each layer while the forward pass runs.
4. When memory runs out, the budget is halved, for the rest of the corpus too.
5. The vectors of each finished language are kept in memory, or in a cache folder that a later or resumed run reads.
   Batches never mix languages, so a resumed run gives the same bits as an uninterrupted one.

Under ``accelerate launch`` (or any initialised ``torch.distributed``) each process encodes its share of every
language's sentences, and the first process gathers and keeps them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from midalign.errors import ModelError
from midalign.functional.pooling import check_pooling
from midalign.models.hidden import find_decoder, pooled_states
from midalign.models.memory import free_memory, is_out_of_memory
from midalign.models.tokens import Tokens
from midalign.models.vector_cache import cache_path, is_intact, read_layer, write_vectors
from midalign.progress import Progress

logger = logging.getLogger(__name__)


# Padded tokens in a batch. A CPU works best while a block's intermediate results stay in its caches: 1,024 took half
# the time of 16,384 and a tenth less than 2,048 (benchmarks/probe_encode.py). An accelerator wants to be filled.
BATCH_TOKENS = {"cpu": 1024, "accelerator": 16384}

# What allocators say; CUDA's own class is torch.OutOfMemoryError.


@dataclass
class SentenceVectors:
    """Sentence vectors of every language, pooling and layer, in memory or on disk.

    Attributes:
        languages: In the order of the corpus.
        layers: Numbers of the layers.
        poolings: Names of the poolings.
        n: Number of sentences of each language.
    """

    languages: tuple[str, ...]
    layers: tuple[int, ...]
    poolings: tuple[str, ...]
    n: int
    _kept: dict[tuple[str, str], Tensor | Path] = field(default_factory=dict, repr=False)

    def layer(self, layer: int, pooling: str = "mean") -> dict[str, Tensor]:
        """The vectors ``(n, hidden)`` float32 of each language at one layer, on the CPU."""
        found = {}
        for language in self.languages:
            kept = self._kept[language, pooling]
            found[language] = read_layer(kept, layer) if isinstance(kept, Path) else kept[self.layers.index(layer)]
        return found

    def files(self, pooling: str) -> list[Path]:
        """The file of each language, in the order of `languages`; empty where the vectors are in memory."""
        kept = [self._kept[language, pooling] for language in self.languages]
        return [file for file in kept if isinstance(file, Path)]


class Encoder:
    """Encodes tokenised sentences with one model.

    Args:
        model: A causal language model, plain or with an adapter; used in evaluation mode and put back afterwards.
        poolings: Names from `midalign.functional.names.POOLINGS`; several cost little more than one.
        layers: Which layers, 0 to depth; all by default. Blocks above the highest are not run.
        batch_tokens: Padded tokens in a batch, at most; halved whenever memory runs out. None: `BATCH_TOKENS`.
        pad_id: Token id at padded positions; no result depends on it.

    Raises:
        OptionError: If a pooling is unknown.
        ModelError: If the decoder cannot be found or has no such layer.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        poolings: Sequence[str] = ("mean",),
        layers: Sequence[int] | None = None,
        batch_tokens: int | None = None,
        pad_id: int = 0,
    ) -> None:
        for pooling in poolings:
            check_pooling(pooling)
        depth = find_decoder(model).depth
        self.layers = tuple(range(depth + 1)) if layers is None else tuple(dict.fromkeys(layers))
        outside = [layer for layer in self.layers if not 0 <= layer <= depth]
        if outside or not self.layers:
            raise ModelError(
                f"layers are {list(self.layers)}, but this model has {depth} blocks: write layers from 0 (embeddings) "
                f"to {depth}."
            )
        if batch_tokens is None:
            batch_tokens = BATCH_TOKENS["cpu" if next(model.parameters()).device.type == "cpu" else "accelerator"]
        if batch_tokens < 1:
            raise ValueError(f"batch_tokens is {batch_tokens}: a batch needs at least one token")
        self.model = model
        self.poolings = tuple(dict.fromkeys(poolings))
        self.batch_tokens = batch_tokens
        self.pad_id = pad_id
        self.rank, self.world = processes()

    def encode(self, tokens: Tokens, progress: Progress | None = None) -> dict[str, Tensor]:
        """Vectors of one language.

        Args:
            tokens: The sentences.
            progress: Called after each batch with the number of this process's sentences done, and their total.

        Returns:
            For each pooling ``(layers, n, hidden)`` float32 on the CPU. Where several processes share the work only
            the first one gets it; the others get an empty dict.

        Raises:
            ModelError: If a single sentence does not fit into memory.
        """
        order = sorted(range(len(tokens.ids)), key=lambda index: (-len(tokens.ids[index]), index))
        mine = order[self.rank :: self.world]
        vectors: dict[str, Tensor] = {}
        done = 0
        with evaluating(self.model):
            while done < len(mine):
                rows = mine[done : done + max(1, self.batch_tokens // len(tokens.ids[mine[done]]))]
                pooled = self._try(tokens, rows)
                if pooled is None:
                    continue  # the budget has shrunk
                for pooling, values in pooled.items():
                    if pooling not in vectors:
                        vectors[pooling] = _room(len(self.layers), len(order), values)
                    vectors[pooling][:, rows] = values.to(vectors[pooling].device)
                done += len(rows)
                if progress is not None:
                    progress("encode", done, len(mine))
        return self._collect(vectors, order)

    def _try(self, tokens: Tokens, rows: Sequence[int]) -> dict[str, Tensor] | None:
        """One batch; None if memory ran out and the budget was halved instead."""
        longest = len(tokens.ids[rows[0]])
        try:
            return self._forward(tokens, rows, longest)
        except (RuntimeError, MemoryError) as fault:
            if not is_out_of_memory(fault):
                raise
            if len(rows) == 1:
                raise ModelError(
                    f"one sentence of {longest} tokens does not fit into memory beside the model. Use a device with "
                    "more memory, a smaller dtype, or remove such sentences."
                ) from fault
        # Outside the handler: the exception's traceback would keep the batch's tensors alive.
        self.batch_tokens = max(1, len(rows) * longest // 2)
        logger.warning("out of memory: continuing with at most %d tokens in a batch", self.batch_tokens)
        free_memory()
        return None

    def _forward(self, tokens: Tokens, rows: Sequence[int], longest: int) -> dict[str, Tensor]:
        ids = torch.full((len(rows), longest), self.pad_id)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        special = torch.zeros_like(mask)
        for place, row in enumerate(rows):
            length = len(tokens.ids[row])
            ids[place, :length] = torch.tensor(tokens.ids[row])
            special[place, :length] = torch.tensor(tokens.special[row])
            mask[place, :length] = 1
        device = next(self.model.parameters()).device
        return pooled_states(
            self.model,
            ids.to(device),
            mask.to(device),
            poolings=self.poolings,
            special_tokens_mask=special.to(device),
            layers=self.layers,
        )

    def _collect(self, vectors: dict[str, Tensor], order: Sequence[int]) -> dict[str, Tensor]:
        """All processes' sentences on the first process, on the CPU."""
        if self.world == 1:
            return {pooling: values.cpu() for pooling, values in vectors.items()}
        share = {pooling: values[:, order[self.rank :: self.world]].cpu() for pooling, values in vectors.items()}
        shares: list[dict[str, Tensor]] = [share] * self.world
        dist.gather_object(share, shares if self.rank == 0 else None)
        if self.rank > 0:
            return {}
        back = torch.tensor([row for rank in range(self.world) for row in order[rank :: self.world]]).argsort()
        return {pooling: torch.cat([part[pooling] for part in shares if part], dim=1)[:, back] for pooling in share}


def _room(layers: int, n: int, like: Tensor) -> Tensor:
    """Memory for ``(layers, n, hidden)``: on the model's device if it fits, so that vectors are copied only once."""
    try:
        return like.new_empty(layers, n, like.shape[-1])
    except RuntimeError as fault:
        if not is_out_of_memory(fault):
            raise
    return torch.empty(layers, n, like.shape[-1])


def encode_corpus(
    encoder: Encoder,
    corpus: Mapping[str, Tokens],
    *,
    cache: Path | None = None,
    model_key: str = "",
    progress: Progress | None = None,
) -> SentenceVectors:
    """Sentence vectors of all languages. With a cache, only languages that are not in it are encoded.

    Args:
        encoder: Model, poolings, layers and batch size.
        corpus: The tokens of each language; all languages have the same number of sentences.
        cache: Folder of the first process to keep finished languages in, so that memory holds one language at a time.
            All vectors take 4 x languages x sentences x layers x hidden bytes, there or in memory.
        model_key: Identifies weights and adapter, for example `midalign.models.vector_cache.weights_key`.
        progress: Called with the number of sentences done, cached ones included, and the total.

    Returns:
        The vectors; with several processes, only the first one gets them.

    Raises:
        RunError: If the cache cannot be written to.
        ModelError: As `Encoder.encode`.
    """
    n = len(next(iter(corpus.values())).ids)
    vectors = SentenceVectors(tuple(corpus), encoder.layers, encoder.poolings, n)
    wanted = encoder.poolings
    for place, (language, tokens) in enumerate(corpus.items()):
        paths = (
            {p: cache_path(cache, language, p, encoder.layers, model_key, tokens.sha256) for p in wanted}
            if cache is not None
            else {}
        )
        kept = bool(paths) and all(is_intact(path, encoder.layers, n) for path in paths.values())
        if not _agreed(kept, encoder.world):

            def report(stage: str, done: int, total: int, before: int = place * n) -> None:
                if progress is not None:
                    progress(stage, before + done * n // total, len(corpus) * n)

            for pooling, values in encoder.encode(tokens, report).items():
                if paths:
                    write_vectors(paths[pooling], values, encoder.layers)
                else:
                    vectors._kept[language, pooling] = values
        elif progress is not None:
            progress("encode", (place + 1) * n, len(corpus) * n)
        vectors._kept.update({(language, pooling): path for pooling, path in paths.items()})
    return vectors


def _agreed(kept: bool, world: int) -> bool:
    """What the first process found in its cache, sent to all: either all processes encode a language, or none."""
    if world == 1:
        return kept
    decision = [kept]
    dist.broadcast_object_list(decision)
    return decision[0]


def processes() -> tuple[int, int]:
    """This process's rank and the number of processes; joins the process group of ``accelerate launch``."""
    if not dist.is_available():
        return 0, 1
    if not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from accelerate import PartialState

        PartialState()
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode within this context; each module's own mode is restored afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
