"""A plain folder of any model: of a GGUF, of a checkpoint of a wrapped model, in the type that is asked for."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from midalign.cli.main import app
from midalign.models.loading import load_model, load_tokenizer
from tests.conftest import build_model, build_tokenizer


@pytest.fixture
def source(tmp_path):
    """A tiny model in bfloat16, saved through torch.compile."""
    folder = tmp_path / "source"
    build_model("llama").to(torch.bfloat16).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    file = folder / "model.safetensors"
    save_file({f"_orig_mod.{n}": t for n, t in load_file(file).items()}, file, metadata={"format": "pt"})
    return folder


def call(*words):
    return CliRunner().invoke(app, ["model", *map(str, words)])


def check(folder, dtype):
    saved = load_file(folder / "model.safetensors")
    original = build_model("llama").to(torch.bfloat16).to(dtype).state_dict()
    assert saved.keys() == original.keys()
    assert all(torch.equal(tensor, original[name]) and tensor.dtype == dtype for name, tensor in saved.items())
    load_model(str(folder))
    load_tokenizer(str(folder))


@pytest.mark.parametrize(("options", "dtype"), [([], torch.bfloat16), (["--dtype", "float32"], torch.float32)])
def test_a_wrapped_checkpoint_becomes_a_plain_folder_in_its_own_type_or_the_one_asked_for(
    source, tmp_path, options, dtype
):
    for _ in range(2):  # the second call finds the work done
        done = call(source, "--out", tmp_path / "plain", *options)
        assert done.exit_code == 0, done.output
        check(tmp_path / "plain", dtype)
    assert "with other inputs" in str(call(source, "--out", tmp_path / "plain", "--dtype", "float16").exception)


def test_a_gguf_becomes_a_plain_folder_in_bfloat16(tmp_path):
    pytest.importorskip("gguf", reason="reading a GGUF needs the extra gguf")
    from tests.tiny_gguf import write_gguf

    (tmp_path / "source").mkdir()
    write_gguf(tmp_path / "source" / "tiny.gguf", build_model("llama"), build_tokenizer())
    done = call(tmp_path / "source", "--gguf-file", "tiny.gguf", "--out", tmp_path / "plain")
    assert done.exit_code == 0, done.output
    check(tmp_path / "plain", torch.bfloat16)


def test_a_model_that_cannot_be_read_leaves_nothing(source, tmp_path):
    (source / "tokenizer.json").unlink()
    (source / "tokenizer_config.json").unlink()
    assert "tokenizer" in str(call(source, "--out", tmp_path / "plain").exception)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
