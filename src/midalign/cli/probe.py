"""``midalign probe``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midalign.cli.console import do, say_probe, say_where
from midalign.cli.options import (
    AdapterPath,
    Columns,
    Dtype,
    Format,
    GgufFile,
    Languages,
    ModelName,
    Out,
    Revision,
    TrustRemoteCode,
    choice,
    codes,
    columns_of,
    model_of,
)
from midalign.data.parallel.corpus import ON_EMPTY
from midalign.errors import listed
from midalign.functional.names import CANDIDATES, MARGINS, POOLINGS


def probe(
    model: ModelName,
    data: Annotated[
        str, typer.Option(help="Corpus that is parallel across all languages: FLORES, NTREX, folder, TSV.")
    ],
    out: Out,
    languages: Languages = None,
    format: Format = "auto",  # noqa: A002
    split: Annotated[str | None, typer.Option(help="Split, if the corpus has several.")] = None,
    columns: Columns = None,
    on_empty: Annotated[
        str, typer.Option(help=f"What to do with a row that has an empty sentence: {listed(ON_EMPTY)}.")
    ] = "error",
    adapter: AdapterPath = None,
    gguf_file: GgufFile = None,
    revision: Revision = None,
    pooling: Annotated[
        str, typer.Option(help=f"How token states become a sentence vector: {listed(POOLINGS)}.")
    ] = "mean",
    margin: Annotated[str, typer.Option(help=f"How a candidate translation is scored: {listed(MARGINS)}.")] = "ratio",
    k: Annotated[int, typer.Option(help="Number of nearest neighbours in the margin.")] = 4,
    candidates: Annotated[
        str, typer.Option(help=f"Sentences to retrieve from: {listed(CANDIDATES)}, as LASER's xsim does.")
    ] = "all",
    limit: Annotated[int | None, typer.Option(help="Only the first N sentences.")] = None,
    dtype: Dtype = "auto",
    compare: Annotated[
        Path | None, typer.Option(help="probe.json of another model on the same data, to compare this model with.")
    ] = None,
    transfer: Annotated[Path | None, typer.Option(help="scores.json by language, to correlate retrieval with.")] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder to keep sentence vectors in; a later probe then costs only the retrieval."),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Measure translation retrieval at every layer: where and how well a model aligns languages."""
    from midalign.probing.job import ProbeJob

    job = ProbeJob(
        model_of(model, revision=revision, dtype=dtype, trust_remote_code=trust_remote_code, gguf_file=gguf_file),
        data,
        adapter=None if adapter is None else str(adapter),
        format=format,
        languages=codes(languages),
        split=split,
        columns=columns_of(columns),
        on_empty=choice("on-empty", on_empty, ON_EMPTY),
        limit=limit,
        pooling=pooling,
        margin=margin,
        k=k,
        candidates=candidates,
        compare=None if compare is None else str(compare),
        transfer=None if transfer is None else str(transfer),
        cache=None if cache is None else str(cache),
    )
    result = do(job, out)
    if result is not None:
        say_probe(result.as_dict())
        say_where(out / job.result)
