"""Generation by vLLM (extra ``vllm``), for models and test sets where transformers is too slow.

It is greedy, with the same prompt token ids and the same end tokens. Adapters go through vLLM's own LoRA and are not
merged.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from midalign.errors import MissingExtraError, ModelError
from midalign.generation.engine import Engine, end_tokens
from midalign.models.adapter_files import read_adapter
from midalign.models.loading import load_config, load_end_tokens

# What vLLM's `max_lora_rank` may be (its LoRAConfig).
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
NO_CONSTRAINT = (
    "generation.constrained is for generation.backend 'transformers'; with 'vllm', leave it out: the share of answers "
    "that fit the form is among the scores"
)


class VllmEngine(Engine):
    """Generation by vLLM.

    Args:
        model: Hub name or local folder.
        tokenizer: Its tokenizer.
        adapters: All adapters that `use_adapter` will be called with; vLLM needs the largest rank.
        dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
        revision: Hub branch, tag or commit.
        trust_remote_code: Whether code from the model's repository may run here.

    Raises:
        MissingExtraError: If vLLM is not installed.
        MissingFileError: If the model or an adapter is not there.
        ModelError: If an adapter's rank is larger than vLLM allows, or its modules have scales of their own.
    """

    batch_factor = 64  # vLLM forms batches itself; ours decide only how often answers are saved

    def __init__(
        self,
        model: str,
        tokenizer: PreTrainedTokenizerBase,
        *,
        adapters: Sequence[Path] = (),
        dtype: str = "auto",
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        check_vllm()
        import vllm

        self._vllm = vllm
        self._adapters: dict[Path, int] = {path: number for number, path in enumerate(adapters, start=1)}
        self._request: Any = None
        self.config = load_config(model, revision=revision, trust_remote_code=trust_remote_code)
        stops = load_end_tokens(model, self.config, revision=revision)
        self.stops = end_tokens(stops, tokenizer)
        lora: dict[str, Any] = {}
        if adapters:
            lora = {"enable_lora": True, "max_loras": 1, "max_lora_rank": _rank(adapters)}
        self._llm = vllm.LLM(
            model=model,
            dtype=dtype,
            revision=revision,
            trust_remote_code=trust_remote_code,
            generation_config="vllm",  # not the model's own, such as Qwen 2.5's repetition penalty
            **lora,
        )

    def use_adapter(self, path: Path, rows: Sequence[list[int]]) -> None:  # noqa: ARG002 - nothing is merged
        """Answer with one of the adapters named at the start.

        Raises:
            ModelError: If it was not.
        """
        if path not in self._adapters:
            raise ModelError(f"adapter {str(path)!r} was not named when the vLLM engine was made; name it there")
        from vllm.lora.request import LoRARequest

        self._request = LoRARequest(f"adapter-{self._adapters[path]}", self._adapters[path], str(path))

    def losses(self, _rows: Sequence[Mapping[str, list[int]]], _batch_tokens: int) -> None:
        """None: vLLM is here for answers only."""

    def answer(
        self, rows: Sequence[list[int]], max_new_tokens: int, grammars: Sequence[str] | None = None
    ) -> list[list[int]]:
        """Generate all rows.

        Raises:
            ModelError: If there are grammars; constrained decoding of vLLM is not supported here.
        """
        if grammars is not None:
            raise ModelError(NO_CONSTRAINT)
        sampling = self._vllm.SamplingParams(
            temperature=0.0, max_tokens=max_new_tokens, stop_token_ids=self.stops, detokenize=False
        )
        outputs = self._llm.generate(
            [{"prompt_token_ids": row} for row in rows], sampling, lora_request=self._request, use_tqdm=False
        )
        answers = [list(output.outputs[0].token_ids) for output in outputs]
        return [answer[:-1] if answer and answer[-1] in self.stops else answer for answer in answers]


def check_vllm() -> None:
    """Check that vLLM is installed, without the seconds that its import takes.

    Raises:
        MissingExtraError: If it is not installed.
    """
    if importlib.util.find_spec("vllm") is None:
        raise MissingExtraError("vllm", "vllm", "generation.backend 'vllm'")


def _rank(adapters: Sequence[Path]) -> int:
    """The rank that vLLM must be made for, which also applies one scale to a whole adapter.

    Raises:
        ModelError: If an adapter has a larger rank than vLLM takes, or modules with scales of their own.
    """
    found = {path: read_adapter(path) for path in adapters}
    for path, adapter in found.items():
        config = adapter.config
        scale = config.lora_alpha / (math.sqrt(config.r) if config.use_rslora else config.r)
        if odd := [name for name, factors in adapter.factors.items() if not math.isclose(factors.scale, scale)]:
            raise ModelError(
                f"adapter {str(path)!r} scales {odd[0]!r} by {adapter.factors[odd[0]].scale:g} (rank_pattern, "
                f"alpha_pattern), and vLLM would scale it by {scale:g} like all others. Use generation.backend "
                "'transformers', or write the adapter anew with midalign merge --weights task=1"
            )
    ranks = {path: max(f.rank for f in adapter.factors.values()) for path, adapter in found.items()}
    widest = max(ranks, key=lambda path: ranks[path])
    if ranks[widest] > RANKS[-1]:
        raise ModelError(
            f"adapter {str(widest)!r} has rank {ranks[widest]}, and vLLM takes at most {RANKS[-1]}. Use "
            "generation.backend 'transformers', or merge by svd to a smaller rank."
        )
    return next(rank for rank in RANKS if rank >= ranks[widest])
