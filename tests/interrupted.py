"""Trainings in tests: without a progress bar, interrupted after some updates, and the adapters they leave."""

import pytest
import torch
from safetensors.torch import load_file

from midalign.training.train import train


def quiet(*_):
    pass


def adapter(out):
    return load_file(out / "adapter" / "adapter_model.safetensors")


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class KilledError(Exception):
    pass


def interrupted(recipe, out, after, **options):
    """Train and be interrupted after so many updates."""

    def progress(_description, done, _total):
        if done >= after:
            raise KilledError

    with pytest.raises(KilledError):
        train(recipe, out, progress=progress, **options)
