"""GGUF files: read into a plain model, or refused with a word about what is wrong."""

import builtins
import json

import pytest
import torch

from midalign.errors import MissingExtraError, MissingFileError, ModelError
from midalign.models.loading import check_model_path, load_config, load_model, load_tokenizer
from tests.conftest import build_model, build_tokenizer

pytest.importorskip("gguf", reason="reading a GGUF needs the extra gguf")
FILE = "tiny.gguf"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from tests.tiny_gguf import write_gguf

    folder = tmp_path_factory.mktemp("gguf")
    write_gguf(folder / FILE, build_model("llama"), build_tokenizer(chat=True))
    return folder


def test_weights_are_those_that_were_written(folder):
    model = load_model(str(folder), gguf_file=FILE)
    written = build_model("llama").state_dict()
    assert all(torch.equal(tensor, written[name]) for name, tensor in model.state_dict().items())
    assert not model.training
    assert model.dtype == torch.float32


def test_the_model_can_be_saved_and_read_as_any_other(folder, tmp_path):
    load_model(str(folder), gguf_file=FILE).to(torch.bfloat16).save_pretrained(tmp_path)
    tensors = load_model(str(tmp_path), dtype="bfloat16").state_dict()
    assert all(torch.equal(t, tensors[n]) for n, t in build_model("llama").to(torch.bfloat16).state_dict().items())


def test_configuration_and_tokenizer_come_from_the_file(folder):
    assert load_config(str(folder), gguf_file=FILE).num_hidden_layers == build_model("llama").config.num_hidden_layers
    tokenizer, original = load_tokenizer(str(folder), gguf_file=FILE), build_tokenizer(chat=True)
    text = "wake me up at nine\nam"
    assert tokenizer(text)["input_ids"] == original(text, add_special_tokens=False)["input_ids"]
    assert (tokenizer.eos_token, tokenizer.pad_token) == (original.eos_token, original.pad_token)
    messages = [{"role": "user", "content": "hello"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == original.apply_chat_template(
        messages, tokenize=False
    )


def test_digits_stand_alone_where_the_file_says_that_it_is_smollms_tokenizer(tmp_path):
    """transformers cuts as GPT-2 does: of two blanks before a digit one would go to the digit."""
    from tests.tiny_gguf import write_gguf

    write_gguf(tmp_path / FILE, build_model("llama"), build_tokenizer(), pre="smollm")
    cut = load_tokenizer(str(tmp_path), gguf_file=FILE).backend_tokenizer.pre_tokenizer
    assert [piece for piece, _ in cut.pre_tokenize_str("at  42")] == ["at", "ĠĠ", "4", "2"]


@pytest.mark.parametrize(("pre", "refused"), [("llama-bpe", False), ("olmo", False), ("command-r", True)])
def test_a_file_whose_cutting_of_text_is_not_known_here_is_refused(pre, refused, tmp_path):
    """transformers would cut as GPT-2 does, and the model be given other tokens than it was trained on."""
    from tests.tiny_gguf import write_gguf

    write_gguf(tmp_path / FILE, build_model("llama"), build_tokenizer(), pre=pre)
    if not refused:
        assert load_tokenizer(str(tmp_path), gguf_file=FILE)("at 42")["input_ids"]
        return
    with pytest.raises(ModelError, match=r"'command-r' \(tokenizer.ggml.pre\).*safetensors"):
        load_tokenizer(str(tmp_path), gguf_file=FILE)


def test_a_file_that_is_not_there_is_named_with_those_that_are(folder):
    for load in (load_config, load_tokenizer, load_model):
        with pytest.raises(MissingFileError, match=r"'tiny.guff'. It holds tiny.gguf. Did you mean 'tiny.gguf'"):
            load(str(folder), gguf_file="tiny.guff")


def test_a_folder_with_a_gguf_alone_says_how_to_name_it(folder):
    for name in (folder, folder / FILE):
        with pytest.raises(ModelError, match=r"--gguf-file tiny.gguf \(model.gguf_file\)"):
            check_model_path(str(name))


def test_without_the_package_the_extra_is_named(folder, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **options):
        if name == "gguf":
            raise ImportError
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"'gguf', which is not installed.*midalign\[gguf\]"):
        load_model(str(folder), gguf_file=FILE)


@pytest.mark.parametrize("size", [0, 3, 30, 3_000, 9_000])
def test_a_file_cut_short_is_a_clear_error(folder, tmp_path, size):
    (tmp_path / FILE).write_bytes((folder / FILE).read_bytes()[:size])
    for load in (load_config, load_tokenizer, load_model):
        with pytest.raises(ModelError, match="cannot "):
            load(str(tmp_path), gguf_file=FILE)


def test_weights_cut_short_are_a_clear_error(folder, tmp_path):
    content = (folder / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content[: len(content) * 9 // 10])
    with pytest.raises(ModelError, match="cannot load the model"):
        load_model(str(tmp_path), gguf_file=FILE)


def test_four_bits_of_a_gguf_are_refused(folder):
    with pytest.raises(ModelError, match="leave one of them out"):
        load_model(str(folder), gguf_file=FILE, quantization="4bit")


def test_a_recipe_names_the_file(tmp_path):
    from midalign.errors import RecipeError
    from midalign.models.source import ModelSource
    from midalign.recipe.sections import ModelSection

    section = ModelSection(path="p", gguf_file=FILE)
    assert ModelSource.of(section) == ModelSource("p", gguf_file=FILE)
    from midalign.recipe.file import build_recipe
    from tests.tiny_world import recipe_content

    content = recipe_content(tmp_path)
    for changes, words in (
        ({"model": {"path": "p", "gguf_file": FILE, "quantization": "4bit"}}, "leave one of them out"),
        ({"model": {"path": "p", "gguf_file": FILE}, "generation": {"backend": "vllm"}}, "backend: transformers"),
        ({"model": {"path": "p", "quantization": "4bit"}, "generation": {"backend": "vllm"}}, "full weights"),
    ):
        with pytest.raises(RecipeError, match=words):
            build_recipe(json.loads(json.dumps(content)) | changes)
