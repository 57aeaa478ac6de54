"""Workspace: one folder with everything that ``midalign demo`` needs, the testbed's data sets and a base model."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from midalign.errors import DataError, did_you_mean
from midalign.progress import Progress
from midalign.testbed.base import PROFILES, Profile, build_base
from midalign.testbed.tasks import build_data

SHIPPED_SEED = 2
"""Seed of the base that comes with the package: `midalign testbed build --seed 2` builds it again."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """Paths of a workspace: the model, and the folder of data sets that `build_data` wrote."""

    base: Path
    data: Path


def find_profile(name: str) -> Profile:
    """The profile of that name.

    Raises:
        DataError: No profile has that name.
    """
    if name not in PROFILES:
        raise DataError(
            f"The testbed has no profile {name!r}, so there is no base to build; "
            f"write one of {', '.join(PROFILES)}.{did_you_mean(name, PROFILES)}"
        )
    return PROFILES[name]


def shipped_base() -> Path | None:
    """The base that comes with the package (profile ``"base"``, `SHIPPED_SEED`), or None if it is not included."""
    folder = Path(str(files("midalign.testbed"))) / "weights"
    return folder if (folder / "model.safetensors").exists() else None


def demo_workspace(
    out: Path,
    *,
    seed: int = SHIPPED_SEED,
    profile: str = "demo",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Workspace:
    """Writes the data sets and pretrains the base, unless an earlier call has done so.

    A base that comes with the package is not pretrained.

    Args:
        out: Folder to write to.
        seed: Seed of data and base.
        profile: ``"demo"`` (nine languages, minutes) or ``"base"`` (eighteen languages, hours).
        threads: Threads of torch; None leaves them as they are.
        progress: Called during pretraining.

    Returns:
        The paths.

    Raises:
        DataError: No profile has that name.
    """
    chosen = find_profile(profile)
    data, base = out / "data", out / "base"
    if not (data / "data_card.json").exists():
        build_data(data, seed=seed, languages=chosen.languages)
    shipped = shipped_base()
    if shipped is not None and profile == "base" and seed == SHIPPED_SEED:
        base = shipped
    elif not (base / "model.safetensors").exists():
        build_base(base, seed=seed, profile=chosen, threads=threads, progress=progress)
    return Workspace(base=base, data=data)
