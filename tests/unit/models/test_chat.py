"""Another chat template and another end token than the tokenizer's own, and adapters that were trained with them."""

import pytest

from midalign.errors import MissingFileError, ModelError
from midalign.models.chat import choose, take_over
from tests.conftest import build_tokenizer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}>"


@pytest.fixture
def tokenizer():
    """A tokenizer with the tokens of ChatML, and neither a template nor an end token of that kind."""
    return build_with_chatml()


def prompt(tokenizer):
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )


def test_an_end_token_is_one_of_the_vocabulary(tokenizer):
    choose(tokenizer, end_token="<|im_end|>")
    assert tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    with pytest.raises(ModelError, match=r"no token '<\|imend\|>'.*Did you mean '<\|im_end\|>'"):
        choose(tokenizer, end_token="<|imend|>")
    assert tokenizer.eos_token == "<|im_end|>"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_template_is_that_of_a_file_or_of_another_tokenizer(tokenizer, tmp_path, kind):
    path = tmp_path / "chat.jinja"
    path.write_text(CHATML)
    if kind == "folder":
        path = tmp_path / "other"
        other = build_tokenizer()
        other.chat_template = CHATML
        other.save_pretrained(path)
    choose(tokenizer, template_path=str(path))
    assert prompt(tokenizer) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("name", "text", "error", "says"),
    [
        ("absent.jinja", None, MissingFileError, "there is no such file"),
        ("absent", None, MissingFileError, "no tokenizer can be loaded"),
        ("template.txt", CHATML, ModelError, "neither a Jinja file"),
        ("broken.jinja", "{% for", ModelError, "cannot be used"),
        ("refusing.j2", "{{ raise_exception('no system') }}", ModelError, "no system"),
        (
            "foreign.jinja",
            "<|start_header_id|>{{ messages[0]['content'] }}",
            ModelError,
            r"<\|start_header_id\|>, which",
        ),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_and_the_tokenizer_left_alone(
    tokenizer, tmp_path, name, text, error, says
):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(error, match=says):
        choose(tokenizer, template_path=str(tmp_path / name))
    assert tokenizer.chat_template is None


def test_a_tokenizer_without_a_template_gives_none(tokenizer, tmp_path):
    build_tokenizer().save_pretrained(tmp_path / "plain")
    with pytest.raises(ModelError, match="has no chat template"):
        choose(tokenizer, template_path=str(tmp_path / "plain"))


def saved(tokenizer, folder, template=CHATML, end_token="<|im_end|>"):
    tokenizer.chat_template = template
    tokenizer.eos_token = end_token
    tokenizer.save_pretrained(folder)
    return folder


def test_an_adapters_choice_is_taken_over_from_its_folder(tokenizer, tmp_path):
    folder = saved(build_with_chatml(), tmp_path / "adapter")
    (tmp_path / "bare").mkdir()
    take_over(tokenizer, [tmp_path / "bare", folder])
    assert (tokenizer.eos_token, tokenizer.chat_template) == ("<|im_end|>", CHATML)
    before = dict(tokenizer.get_vocab())
    take_over(tokenizer, [folder])
    assert tokenizer.get_vocab() == before


def build_with_chatml():
    made = build_tokenizer()
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return made


def test_adapters_of_different_prompts_do_not_go_together(tokenizer, tmp_path):
    folders = [saved(build_with_chatml(), tmp_path / "a"), saved(build_with_chatml(), tmp_path / "b", PLAIN)]
    with pytest.raises(ModelError, match="trained with another template each"):
        take_over(tokenizer, folders)
    folders = [folders[0], saved(build_with_chatml(), tmp_path / "c", end_token="</s>")]
    with pytest.raises(ModelError, match="trained with another end token each"):
        take_over(tokenizer, folders)


def test_an_adapter_whose_end_token_the_model_lacks_is_refused(tmp_path):
    folder = saved(build_with_chatml(), tmp_path / "adapter")
    with pytest.raises(ModelError, match="no token"):
        take_over(build_tokenizer(), [folder])
