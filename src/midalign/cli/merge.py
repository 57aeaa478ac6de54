"""``midalign merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midalign.cli.console import console, do, say_where
from midalign.cli.options import (
    Dtype,
    GgufFile,
    Out,
    Revision,
    TrustRemoteCode,
    choice,
    model_of,
    named,
    recipe_of,
    weights_of,
)
from midalign.errors import listed
from midalign.functional.names import MERGE_METHODS


def merge(
    base: Annotated[str, typer.Option(help="The base model that the adapters were trained on.")],
    adapter: Annotated[list[str], typer.Option(help="name=PATH of an adapter; give the option once per adapter.")],
    out: Out,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weights by name, such as task=1.0,alignment=0.5; 0.2/0.5/0.8 is one weight per band of layers."
        ),
    ] = None,
    tune: Annotated[Path | None, typer.Option(help="Recipe whose dev data the weights are tuned on.")] = None,
    method: Annotated[str, typer.Option(help=f"{listed(MERGE_METHODS)}; sum is exact.")] = "sum",
    rank: Annotated[int | None, typer.Option(help="Rank to truncate to, for svd, ties and dare.")] = None,
    gguf_file: GgufFile = None,
    revision: Revision = None,
    dtype: Dtype = "auto",
    export: Annotated[str, typer.Option(help="adapter; or base, to write the merged model too.")] = "adapter",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Merge a separately trained alignment adapter into a task adapter."""
    from midalign.experiment.named import resolve_names
    from midalign.merging.job import ADAPTER, MODEL, MergeJob

    choice("export", export, ("adapter", "base"))
    job = MergeJob(
        model_of(base, revision=revision, dtype=dtype, trust_remote_code=trust_remote_code, gguf_file=gguf_file),
        named("adapter", adapter),
        weights=weights_of(weights) if weights is not None else None,
        recipe=resolve_names(recipe_of(tune)) if tune is not None else None,
        method=method,
        rank=rank,
        export=export,
    )
    merged = do(job, out)
    if merged is not None:
        console.print(", ".join(f"{name} {weight}" for name, weight in merged.items()), f"by {method}")
        say_where(out / (MODEL if export == "base" else ADAPTER))
