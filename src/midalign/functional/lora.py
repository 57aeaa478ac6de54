"""LoRA factors: the low-rank update of one weight, with its scale and norm; no files, no models.

A LoRA adapter changes a weight by the *update* ``dW = scale * B @ A``, where ``A`` is ``(rank, in)``, ``B``
is ``(out, rank)`` and ``scale`` is ``alpha / rank`` (``alpha / sqrt(rank)`` for rsLoRA).
`midalign.functional.merge_methods` merges several updates into one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from midalign.errors import ModelError


@dataclass(frozen=True, slots=True)
class LoraFactors:
    """The low-rank update of one weight, ``scale * b @ a``.

    Attributes:
        a: Factor applied first, ``(rank, in)``; PEFT's ``lora_A.weight``.
        b: Factor applied second, ``(out, rank)``; PEFT's ``lora_B.weight``.
        scale: What the product is multiplied by.

    Raises:
        ModelError: If the shapes are not those of a factor pair.
    """

    a: Tensor
    b: Tensor
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.a.ndim != 2 or self.b.ndim != 2 or self.a.shape[0] != self.b.shape[1]:
            raise ModelError(
                f"A of shape {tuple(self.a.shape)} and B of shape {tuple(self.b.shape)} are not the factors of a "
                "linear LoRA update: A must be (rank, in) and B (out, rank). LoRA on convolutions is not supported."
            )

    @property
    def rank(self) -> int:
        """The inner dimension of the product."""
        return self.a.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the update, ``(out, in)``."""
        return self.b.shape[0], self.a.shape[1]

    def update(self) -> Tensor:
        """The dense update ``scale * b @ a``, ``(out, in)``, in float32 (float64 where the factors are)."""
        return exact(self.b) @ exact(self.a) * self.scale

    def norm(self) -> float:
        """Frobenius norm of the update, without forming it."""
        return float(torch.linalg.matrix_norm(core(exact(self.b), exact(self.a))[1])) * abs(self.scale)


def exact(tensor: Tensor) -> Tensor:
    """The tensor in the precision that merges compute in."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def core(b: Tensor, a: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Orthonormal bases ``(q_b, q_a)`` and the small core with ``b @ a = q_b @ core @ q_a.T``."""
    q_b, r_b = torch.linalg.qr(b)
    q_a, r_a = torch.linalg.qr(a.T)
    return (q_b, q_a), r_b @ r_a.T
