"""The recipes that come with midalign, by name; a command takes a name where it takes a file."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

SCHEMA = "recipe.schema.json"
"""The JSON schema beside the recipes; `midalign.recipe.reference` writes it."""


def folder() -> Path:
    """Where they are."""
    return Path(str(files("midalign") / "recipes"))


def shipped() -> dict[str, Path]:
    """File of each, by name."""
    return {path.stem: path for path in sorted(folder().glob("*.yaml"))}


def recipe_file(given: str | Path) -> Path:
    """The file that is meant: a path as it is, or the file of a shipped recipe where nothing else has that name."""
    path = Path(given)
    return path if path.exists() else shipped().get(str(given), path)


def summary(path: Path) -> str:
    """The first sentence of the comment that a recipe begins with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.lstrip("# ") for line in lines if line.startswith("#") and "$schema" not in line)
    return re.split(r"(?<=[\w)])\.\s", comment, maxsplit=1)[0].rstrip(".")
