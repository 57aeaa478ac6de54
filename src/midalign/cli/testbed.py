"""``midalign testbed``: the embedded small world, its data sets, and base models pretrained on its text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midalign.cli.console import console, progress_bars, say_where

app = typer.Typer(no_args_is_help=True, help="The embedded small world: build a base model or its data sets.")

Seed = Annotated[int, typer.Option(help="Seed of the world (what is held out), the text, and the initial weights.")]


@app.command()
def build(
    out: Annotated[Path, typer.Option(help="Folder for the model; an unfinished run in it is resumed.")],
    seed: Seed = 0,
    bilingual: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Share of bilingual documents; that of the shipped base.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Updates of the main phase, 2,048 tokens each.")] = None,
    profile: Annotated[str, typer.Option(help="base (18 languages, as shipped) or demo (9, minutes).")] = "base",
    threads: Annotated[int | None, typer.Option(help="Threads of torch; all by default.")] = None,
    compiled: Annotated[
        bool, typer.Option(help="Compile the model: nearly twice as fast, but needs a C++ compiler.")
    ] = False,
    snapshots: Annotated[
        int, typer.Option(help="Number of updates between two snapshots of the weights; 0 keeps none.")
    ] = 0,
) -> None:
    """Pretrain a base from scratch: half an hour to hours on a CPU, resumable; seed 2 is the one that ships."""
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
    console.print(f"{len(card['languages'])} languages, seed {seed}; what is held out stands in data_card.json")
    say_where(out)
