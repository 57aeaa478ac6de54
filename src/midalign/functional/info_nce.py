"""InfoNCE, the contrastive alignment loss: tensors in, scalar out.

InfoNCE over a batch of n translation pairs (arXiv 2502.14830, eq. 2):

1. unit-normalise both sides in float32 (in bfloat16, cosines near 0.97 keep only a handful of distinct values);
2. logits = cosine matrix / temperature, row i holds s_i against every t_j;
3. mask what is not really a negative (`false_negatives`);
4. cross-entropy towards the diagonal, over rows (`forward`) or over rows and columns (`symmetric`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from midalign.errors import listed
from midalign.functional.names import DIRECTIONS, Direction


def info_nce(
    source: torch.Tensor,
    target: torch.Tensor,
    *,
    temperature: float | torch.Tensor = 0.1,
    direction: Direction = "symmetric",
    false_negatives: torch.Tensor | None = None,
) -> torch.Tensor:
    """InfoNCE loss of n translation pairs; the negatives of each pair are the other pairs of the batch.

    Args:
        source: Sentence vectors of the source side, ``(n, hidden)``, any floating dtype.
        target: Sentence vectors of their translations, ``(n, hidden)``; row i belongs to row i of `source`.
        temperature: Divides the cosines; positive. 0.1 is the paper's value for Llama 3 (its section 4.1).
        direction: ``"forward"`` retrieves targets for sources only, as the reference implementation does;
            ``"symmetric"`` averages both directions.
        false_negatives: Boolean ``(n, n)``; True at (i, j) where t_j is a right answer for s_i although j != i, for
            instance because the texts are equal. Those entries are left out. The diagonal is ignored.

    Returns:
        Scalar float32 tensor, the mean over pairs. 0 for a single pair, which has no negatives.

    Raises:
        ValueError: If the shapes differ, or `direction` is unknown, or `temperature` is not positive.

    Examples:
        >>> vectors = torch.eye(4)  # four sentences, each unlike the others
        >>> midalign.info_nce(vectors, vectors).item() < 0.001  # aligned with their translations
        True
        >>> midalign.info_nce(vectors, vectors.roll(1, dims=0)).item() > 9  # aligned with another sentence's
        True
    """
    if source.shape != target.shape or source.ndim != 2:
        raise ValueError(
            f"source and target must both be (n, hidden); got {tuple(source.shape)} and {tuple(target.shape)}"
        )
    if direction not in DIRECTIONS:
        raise ValueError(f"unknown direction {direction!r}; choose {listed(DIRECTIONS)}")
    if not isinstance(temperature, torch.Tensor) and not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")

    # Autocast would run this product in half precision.
    with torch.autocast(device_type=source.device.type, enabled=False):
        cosines = F.normalize(source.float(), dim=-1) @ F.normalize(target.float(), dim=-1).T
        logits = cosines / temperature
    if false_negatives is not None:
        positives = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(false_negatives.to(logits.device) & ~positives, float("-inf"))
    answers = torch.arange(len(logits), device=logits.device)
    forward = F.cross_entropy(logits, answers)
    if direction == "forward":
        return forward
    return (forward + F.cross_entropy(logits.T, answers)) / 2
