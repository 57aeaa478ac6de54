"""Another chat template and another end token than the tokenizer's own, and adapters that were trained with them."""

import pytest

from midalign.errors import MissingFileError, ModelError
from midalign.models.chat import choose, fix_arguments, take_over
from midalign.models.source import ModelSource
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
    with pytest.raises(ModelError, match="trained with different templates"):
        take_over(tokenizer, folders)
    folders = [folders[0], saved(build_with_chatml(), tmp_path / "c", end_token="</s>")]
    with pytest.raises(ModelError, match="trained with different end tokens"):
        take_over(tokenizer, folders)


def test_an_adapter_whose_end_token_the_model_lacks_is_refused(tmp_path):
    folder = saved(build_with_chatml(), tmp_path / "adapter")
    with pytest.raises(ModelError, match="no token"):
        take_over(build_tokenizer(), [folder])


# ---- arguments of the template

THINKING = (
    "\n  {% if depth is not defined %}{% set depth = 3 %}{% endif %}\n{{ messages[0]['content'] }}"
    "{% if enable_thinking is defined and enable_thinking is false %}, at once{% endif %} {{ depth }} {{ name }}"
)


def written(tokenizer, **arguments):
    return tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False, **arguments)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "hi 3 "),
        ({"enable_thinking": False}, "hi, at once 3 "),
        ({"enable_thinking": True, "depth": 4}, "hi 4 "),
        ({"name": 'a "b" %} é \\ 26 Jul', "depth": 0.5}, 'hi 0.5 a "b" %} é \\ 26 Jul'),
    ],
)
def test_an_argument_is_written_into_the_template_as_if_it_were_given_each_time(tokenizer, given, expected):
    tokenizer.chat_template = THINKING
    own = written(tokenizer, **given)
    assert own.split() == expected.split()
    fix_arguments(tokenizer, given)
    assert written(tokenizer) == own
    fix_arguments(tokenizer, given)
    assert written(tokenizer) == own
    asked = {"enable_thinking": False, "depth": 7}
    assert ", at once 7" in written(tokenizer, **asked), "a caller who gives it wins"


@pytest.mark.parametrize("name", ["enable_thinkin", "user", "if", "messages[0]"])
def test_an_argument_that_the_template_does_not_read_is_refused(tokenizer, name):
    tokenizer.chat_template = THINKING
    with pytest.raises(ModelError, match=r"which the tokenizer's chat template does not read, so") as caught:
        fix_arguments(tokenizer, {name: True})
    assert ("Did you mean 'enable_thinking'" in str(caught.value)) == (name == "enable_thinkin")
    assert tokenizer.chat_template == THINKING
    with pytest.raises(ModelError, match="does not read, as it has none"):
        fix_arguments(build_tokenizer(), {"enable_thinking": False})


def test_of_several_templates_all_get_the_argument(tokenizer):
    tokenizer.chat_template = {"default": THINKING, "tool_use": THINKING + "!"}
    fix_arguments(tokenizer, {"enable_thinking": False})
    assert "at once" in written(tokenizer)
    assert "at once" in tokenizer.chat_template["tool_use"]
    assert tokenizer.chat_template["tool_use"].endswith("!")


def test_an_argument_that_is_given_wins_over_that_of_an_adapter(model_folder, tmp_path):
    trained = build_tokenizer()
    trained.chat_template = THINKING
    fix_arguments(trained, {"enable_thinking": False})
    trained.save_pretrained(tmp_path)
    assert "at once" in written(ModelSource(str(model_folder)).tokenizer([tmp_path]))
    other = ModelSource(str(model_folder), chat_template_kwargs={"enable_thinking": True})
    assert "at once" not in written(other.tokenizer([tmp_path]))
