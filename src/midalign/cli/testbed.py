"""``midalign testbed``: the small artificial world of the demo: data sets, and base models pretrained on its text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midalign.cli.console import console, progress_bars, say_where

app = typer.Typer(
    no_args_is_help=True, help="The small artificial world of the demo: build its data sets or a base model."
)

Seed = Annotated[int, typer.Option(help="Seed of the world (what is held out), the text, and the initial weights.")]


@app.command()
def build(
    out: Annotated[Path, typer.Option(help="Folder for the model; an unfinished run in it is resumed.")],
    seed: Seed = 0,
    bilingual: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Share of bilingual documents; by default that of the shipped model."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Updates of the main phase, 2,048 tokens each.")] = None,
    profile: Annotated[
        str, typer.Option(help="base (18 languages, as shipped) or demo (9 languages, takes minutes).")
    ] = "base",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch; all by default.")] = None,
    compiled: Annotated[
        bool, typer.Option(help="Compile the model: almost twice as fast, but needs a C++ compiler.")
    ] = False,
    snapshots: Annotated[
        int, typer.Option(min=0, help="Number of updates between two snapshots of the weights; 0 keeps none.")
    ] = 0,
) -> None:
    """Pretrain a base model from scratch: half an hour to hours on a CPU, resumable; seed 2 is the shipped model."""
    from dataclasses import replace

    from midalign.testbed.base import build_base
    from midalign.testbed.workspace import find_profile

    chosen = find_profile(profile)
    chosen = replace(
        chosen, bilingual=chosen.bilingual if bilingual is None else bilingual, steps=steps or chosen.steps
    )
    with progress_bars() as progress:
        build_base(
            out,
            seed=seed,
            profile=chosen,
            threads=threads,
            compiled=compiled,
            snapshot_steps=snapshots,
            progress=progress,
        )
    say_where(out)


@app.command()
def data(
    out: Annotated[Path, typer.Option(help="Folder for the data sets.")],
    seed: Seed = 0,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs with English for each aligned language.")] = 1000,
) -> None:
    """Write the data sets of the world: slot filling, translation, pairs, and two corpora for probing."""
    from midalign.testbed.tasks import build_data

    card = build_data(out, seed=seed, pairs=pairs)
    console.print(f"{len(card['languages'])} languages, seed {seed}; data_card.json says what is held out")
    say_where(out)
