"""Which attention kernel is faster on this CPU, forward and backward, for rows of several lengths; half a minute.

    python benchmarks/cpu_attention.py

Shapes are those of SmolLM2-135M (9 heads of 64), 2,048 tokens in all, causal. ``eager`` is what transformers computes
under that name: two matrix products and a softmax in float32. Each ratio is the median over rounds in which both run in
turn. It is why `model.attn_implementation: eager` stands in recipes for short rows on a CPU.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

HEADS, WIDTH, TOKENS, ROUNDS = 9, 64, 2048, 7


def eager(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    length = query.shape[2]
    scores = (query @ key.transpose(2, 3)) * WIDTH**-0.5
    hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
    scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype) @ value


def sdpa(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value, is_causal=True)


def seconds(attention: Callable[[Tensor, Tensor, Tensor], Tensor], tensors: tuple[Tensor, Tensor, Tensor]) -> float:
    start = time.perf_counter()
    attention(*tensors).sum().backward()  # type: ignore[no-untyped-call]
    return time.perf_counter() - start


def main() -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; sdpa / eager, in time")
    for dtype in (torch.float32, torch.bfloat16):
        for length in (32, 64, 128, 256, 512):
            shape = (TOKENS // length, HEADS, length, WIDTH)
            query, key, value = (torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3))
            rounds = [[seconds(way, (query, key, value)) for way in (sdpa, eager)] for _ in range(ROUNDS + 1)][1:]
            ratio = statistics.median(first / second for first, second in rounds)
            print(f"  {dtype}, rows of {length:4}: {ratio:.2f}")


if __name__ == "__main__":
    main()
