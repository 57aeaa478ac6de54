"""Generation engines: the interface, and the engine on transformers.

1. the shared beginning of a batch's prompts (the system text) is computed once, and its key-value cache is repeated;
2. the rest is padded on the left, and answers are generated greedily in rounds of a few tokens;
3. after each round, finished rows leave the batch and its key-value cache, so that short answers do not wait for a long
   one;
4. each answer may be constrained by a grammar (`midalign.generation.constraint`);
5. an adapter is merged into the base weights if that gives the same logits (`midalign.models.inference`).

The other engine is `midalign.generation.vllm.VllmEngine`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, LogitsProcessorList, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from midalign.generation.answer_loss import answer_losses
from midalign.generation.constraint import ConstrainedRows, Constraint
from midalign.generation.shared_prompt import shared_prompt
from midalign.models.hidden import unwrap
from midalign.models.inference import with_adapter

# Tokens per round: a round costs a copy of the cache, and a row that ends in it at most so many idle steps. On the
# embedded model, answers of 4 to 28 tokens take 2.33 s with 4, 2.35 s with 8 and 2.53 s with 16 (96 items, one thread).
ROUND = 8
# Rows of the first batch (the longest) whose logits a merged adapter is checked on: three forward passes.
CHECKED = 4


class Engine(ABC):
    """Generation engine: answers prompts greedily.

    Attributes:
        config: The model's configuration.
        batch_factor: Multiplies the number of tokens that it is given in one batch.
    """

    config: Any
    batch_factor: int = 1

    @abstractmethod
    def use_adapter(self, path: Path, rows: Sequence[list[int]]) -> None:
        """Answer with an adapter from now on; `rows` are the prompts of the first batch, for a check of its logits."""

    @abstractmethod
    def answer(
        self, rows: Sequence[list[int]], max_new_tokens: int, grammars: Sequence[str] | None = None
    ) -> list[list[int]]:
        """Token ids of the answer to each prompt, without its end token; constrained by one grammar each, if given.

        Raises:
            MissingExtraError: If there are grammars, and llguidance is not installed.
            ModelError: If this engine or the tokenizer does not support them.
        """

    @abstractmethod
    def losses(self, rows: Sequence[Mapping[str, list[int]]], batch_tokens: int) -> NDArray[np.float64] | None:
        """Losses of given answers, as of `midalign.generation.answer_loss.answer_losses`; None without logits."""


class _Batch:
    """The rows of a batch that have not ended yet, and the answers of all.

    Args:
        ids: Token ids so far, ``(rows, tokens)``.
        mask: Attention mask of the same shape.
        cache: Key-value cache; None where ``generate`` keeps its own.
        constrained: Logits processor that constrains the rows, if any.
    """

    def __init__(
        self, ids: Tensor, mask: Tensor, cache: DynamicCache | None, constrained: ConstrainedRows | None
    ) -> None:
        self.ids = ids
        self.mask = mask
        self.cache = cache
        self.answers: list[list[int]] = [[] for _ in ids]
        self.open = list(range(len(ids)))
        self._constrained = constrained

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of transformers' ``generate``."""
        options: dict[str, Any] = {} if self.cache is None else {"past_key_values": self.cache}
        if self._constrained is not None:
            options["logits_processor"] = LogitsProcessorList([self._constrained])
        return options

    def take(self, output: Tensor, stops: Sequence[int]) -> list[int]:
        """Add the new tokens of ``output`` to the answers; returns the places of the rows that have not ended."""
        unfinished = []
        for place, tokens in enumerate(output[:, self.ids.shape[1] :].tolist()):
            end = next((at for at, token in enumerate(tokens) if token in stops), None)
            self.answers[self.open[place]] += tokens[:end]
            if end is None:
                unfinished.append(place)
        return unfinished

    def keep(self, places: Sequence[int], output: Tensor) -> None:
        """Continue from ``output`` with only the rows at these places."""
        mask = torch.cat([self.mask, self.mask.new_ones(len(output), output.shape[1] - self.ids.shape[1])], dim=1)
        if 0 < len(places) < len(self.open):
            selected = torch.tensor(places, device=output.device)
            if self.cache is not None:
                self.cache.batch_select_indices(selected)
            output, mask = output[selected], mask[selected]
        if self._constrained is not None:
            self._constrained.keep(places)
        self.ids, self.mask, self.open = output, mask, [self.open[place] for place in places]


class TransformersEngine(Engine):
    """Generation by transformers.

    Args:
        model: A causal language model, plain or with an adapter; put into evaluation mode.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model = model.eval()
        self.config = unwrap(model).config
        self.stops = end_tokens(unwrap(model).generation_config.eos_token_id, tokenizer)
        self.padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.stops[0]
        self._tokenizer = tokenizer
        self._constraint: Constraint | None = None

    def use_adapter(self, path: Path, rows: Sequence[list[int]]) -> None:
        """Merge the adapter into the base weights, or put it beside them if merging would change the logits."""
        self.model = with_adapter(self.model, path, lambda model: self._first_logits(model, rows[:CHECKED]))

    @torch.inference_mode()
    def answer(
        self, rows: Sequence[list[int]], max_new_tokens: int, grammars: Sequence[str] | None = None
    ) -> list[list[int]]:
        """Generate one batch; each row until its own end."""
        batch = self._begin(rows, grammars)
        left = max_new_tokens
        while batch.open and left:
            # Other caches (recurrent states) do not know how to leave rows out: those batches take one round.
            steps = min(ROUND, left) if batch.cache is not None else left
            output = self._generate(self.model, batch.ids, batch.mask, steps, **batch.options).sequences
            unfinished = batch.take(output, self.stops)
            left -= steps
            if left:
                batch.keep(unfinished, output)
        return batch.answers

    def losses(self, rows: Sequence[Mapping[str, list[int]]], batch_tokens: int) -> NDArray[np.float64]:
        """The loss of each answer, by one forward pass over prompts and answers."""
        return answer_losses(self.model, rows, batch_tokens)

    def _begin(self, rows: Sequence[list[int]], grammars: Sequence[str] | None) -> _Batch:
        """A batch whose shared beginning is computed, where the model allows that."""
        cache, shared = shared_prompt(self.model, self.config, rows, most=min(map(len, rows)) - 1)
        ids, mask = self._padded(rows, shared)
        constrained = None
        if grammars is not None:
            self._constraint = self._constraint or Constraint(self._tokenizer, self.stops)
            constrained = self._constraint.rows(grammars)
        leaves_rows_out = {type(layer) for layer in cache.layers} <= {DynamicLayer, DynamicSlidingWindowLayer}
        return _Batch(ids, mask, cache if leaves_rows_out else None, constrained)

    def _padded(self, rows: Sequence[list[int]], shared: int = 0) -> tuple[Tensor, Tensor]:
        """Ids and attention mask ``(rows, longest)``; the padding stands between the shared beginning and the rest."""
        device = next(self.model.parameters()).device
        width = max(len(row) for row in rows)
        gaps = [width - len(row) for row in rows]
        filled = [row[:shared] + [self.padding] * gap + row[shared:] for row, gap in zip(rows, gaps, strict=True)]
        mask = [[1] * shared + [0] * gap + [1] * (width - gap - shared) for gap in gaps]
        return torch.tensor(filled, device=device), torch.tensor(mask, device=device)

    def _generate(
        self, model: Any, ids: Tensor, mask: Tensor, steps: int, *, logits: bool = False, **options: Any
    ) -> Any:
        config = GenerationConfig(
            max_new_tokens=steps,
            do_sample=False,
            num_beams=1,
            eos_token_id=self.stops,
            pad_token_id=self.padding,
            return_dict_in_generate=True,
            output_logits=logits,
        )
        with _own_settings_replaced(model, config):
            return model.generate(input_ids=ids, attention_mask=mask, generation_config=config, **options)

    @torch.inference_mode()
    def _first_logits(self, model: Any, rows: Sequence[list[int]]) -> Tensor:
        """Logits of the first token of each answer, ``(rows, vocabulary)``."""
        logits: Tensor = self._generate(model, *self._padded(rows), 1, logits=True).logits[0]
        return logits


def end_tokens(own: int | list[int] | None, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """End tokens of an answer: the model's own, and the tokenizer's, which training appended."""
    stops = [own] if isinstance(own, int) else list(own or [])
    if tokenizer.eos_token_id not in stops:
        stops.append(tokenizer.eos_token_id)
    return stops


@contextmanager
def _own_settings_replaced(model: Any, config: GenerationConfig) -> Iterator[None]:
    """Use `config` alone; ``generate`` would fill its gaps from the model's own (Qwen 2.5's repetition penalty)."""
    inner = unwrap(model)
    own = inner.generation_config
    inner.generation_config = config
    try:
        yield
    finally:
        inner.generation_config = own
