"""The recipes for today's models: each is run on a tiny model of its architecture, with a chat template of its kind.

The prompt is checked trap by trap, and the table in docs/models.md against the sizes of the published models.
"""

import datetime
import re
from pathlib import Path

import pytest
from peft.tuners.lora import LoraLayer
from transformers import AutoTokenizer
from transformers.utils import chat_template_utils
from typer.testing import CliRunner

from midalign.cli.main import app
from midalign.data.prompt_check import check_prompt
from midalign.data.prompt_tokens import prompt_ids, training_rows
from midalign.data.prompts import PROMPT_DATE, render
from midalign.experiment.validate import ValidateJob
from midalign.generation.generate import generate
from midalign.models.adapters import attach_adapter
from midalign.models.chat import fix_arguments
from midalign.models.source import ModelSource
from midalign.models.tokens import sentence_tokenizer
from midalign.recipe.data import read_task_data
from midalign.recipe.file import load_recipe
from midalign.recipe.memory import training_memory
from midalign.recipe.shipped import shipped
from midalign.records import Span, TaskExample
from midalign.training.arguments import as_chosen
from midalign.training.train import train
from tests.conftest import ROOT
from tests.tiny_world import write_lines, write_slots
from tests.todays_models import MODELS, weights

EXAMPLE = TaskExample("x:0", "slots", "eng_Latn", "wake me at 9", ("wake", "me", "at", "9"), (Span("time", 3, 4),))
BY_NAME = {model.name.rpartition("/")[2]: model for model in MODELS}
IDS = list(BY_NAME)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with commands, pairs and a probe."""
    folder = tmp_path_factory.mktemp("data")
    write_slots(folder / "slots")
    write_lines(folder / "lines")
    write_lines(folder / "probe", "again")
    return folder


def short(folder):
    """What to write in place of a recipe's data and sizes."""
    return [
        "languages.supervised=[en]", "languages.aligned=[de]", "languages.unseen=[ru]", "languages.low_resource=[ru]",
        f"task.data={folder / 'slots'}", "task.format=xsid", f"parallel.data={folder / 'lines'}", "parallel.held_out=3",
        f"probe.data={folder / 'probe'}", "probe.format=auto", "probe.split=null", "alignment.batch_size=4",
        "training.max_steps=1", "training.per_device_train_batch_size=2", "training.gradient_accumulation_steps=1",
        "training.eval_steps=2", "training.save_steps=2",
    ]  # fmt: skip


KINDS = {(model.family, model.template): model for model in MODELS}  # sizes of a family are the same, tiny


@pytest.mark.parametrize("model", KINDS.values(), ids=lambda model: model.name.rpartition("/")[2])
def test_a_recipe_validates_trains_both_objectives_and_answers(model, data, tmp_path):
    model.tiny().save_pretrained(tmp_path / "model")
    model.tokenizer().save_pretrained(tmp_path / "model")
    recipe = load_recipe(model.recipe, [*short(data), f"model.path={tmp_path / 'model'}", *model.overrides])
    assert ValidateJob(recipe).check()["parallel"].startswith("17 train")

    summary = train(recipe, tmp_path / "out", progress=lambda *_: None)
    assert (summary["updates"], summary["layer"]) == (2, 2), "one of each objective, in the middle of four blocks"
    source, adapter = ModelSource.of(recipe.model), tmp_path / "out" / "adapter"
    tuned = attach_adapter(source.load(), adapter)
    adapted = {name for name, module in tuned.named_modules() if isinstance(module, LoraLayer)}
    assert len(adapted) == 4 * 7, "all linear layers of the four blocks, and nothing else"
    assert not any("vision" in name for name in adapted)
    test = read_task_data(recipe).test
    tokenizer = ModelSource(source.path).tokenizer([adapter])  # as a verb that does not have the recipe
    answers = generate(tuned, tokenizer, test, recipe.answer_format, max_new_tokens=3)
    assert [answer.id for answer in answers] == [example.id for example in test]

    (row,) = training_rows([EXAMPLE], as_chosen(source.tokenizer(), recipe), recipe.answer_format)
    asked = prompt_ids(render(EXAMPLE, tokenizer, recipe.answer_format), tokenizer)
    assert row["input_ids"][: len(asked)] == asked, "training and generation ask the same"
    assert tokenizer.convert_ids_to_tokens(row["input_ids"][-1]) == model.end, "as the chat model ends a turn"


# ---- what is hard about each of them


def prompt_of(model):
    """The tokenizer as the model's recipe has it, and its prompt."""
    recipe = load_recipe(model.recipe, model.overrides)
    tokenizer = model.tokenizer()
    fix_arguments(tokenizer, recipe.model.chat_template_kwargs)
    check_prompt(EXAMPLE, tokenizer)
    return tokenizer, render(EXAMPLE, tokenizer).text


@pytest.mark.parametrize("model", MODELS, ids=IDS)
def test_the_first_token_of_a_sentence_is_an_attention_sink_and_left_out(model):
    pooling = load_recipe(model.recipe).alignment.pooling
    assert load_recipe(model.recipe).probe.pooling == pooling
    tokenizer = model.tokenizer()
    row = sentence_tokenizer(tokenizer, pooling)("wake me", return_special_tokens_mask=True)
    assert row["special_tokens_mask"][0] == 1
    assert sum(row["special_tokens_mask"]) == 1
    assert tokenizer.decode(row["input_ids"][1:]) == "wake me"
    assert tokenizer.decode(row["input_ids"][:1]) == ("<s>" if model.bos else "\n")


def test_a_model_that_thinks_is_asked_for_answers_at_once(caplog):
    thinking = [model for model in MODELS if "enable_thinking" in model.template]
    assert {model.recipe for model in thinking} == {"reference_qwen3_4b", "reference_smollm3_3b"}
    for model in thinking:
        assert prompt_of(model)[1].endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
        assert "lets the model think" not in caplog.text
        own = model.tokenizer()
        assert render(EXAMPLE, own).text.endswith("<|im_start|>assistant\n")
        check_prompt(EXAMPLE, own)
        assert "lets the model think before it answers" in caplog.text
        caplog.clear()


class Tomorrow(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime(2031, 2, 3)


def test_the_date_of_llama_is_fixed_for_every_program_and_that_of_smollm3_is_said(tmp_path, monkeypatch, caplog):
    llama, smollm3 = BY_NAME["Llama-3.2-3B-Instruct"], BY_NAME["SmolLM3-3B"]
    tokenizer, prompt = prompt_of(llama)
    assert f"Today Date: {PROMPT_DATE}\n" in prompt
    assert not caplog.records
    monkeypatch.setattr(chat_template_utils, "datetime", Tomorrow)
    tokenizer.save_pretrained(tmp_path)
    elsewhere = AutoTokenizer.from_pretrained(tmp_path)  # as another program reads it
    turn = [{"role": "user", "content": "hi"}]
    assert f"Today Date: {PROMPT_DATE}\n" in elsewhere.apply_chat_template(turn, tokenize=False)
    assert "Today Date: 1 May\n" in elsewhere.apply_chat_template(turn, tokenize=False, date_string="1 May")
    assert "03 Feb 2031" in llama.tokenizer().apply_chat_template(turn, tokenize=False)
    assert "Today Date: 26 July 2024\n" in prompt_of(smollm3)[1]
    assert f"prompts have {PROMPT_DATE} on every day" in caplog.text


@pytest.mark.parametrize("name", ["gemma-3-4b-it", "Mistral-7B-Instruct-v0.3"])
def test_without_a_system_turn_the_instruction_stands_before_the_users_words(name):
    model = BY_NAME[name]
    assert "system\n" not in (prompt := prompt_of(model)[1])
    assert re.search(r"(<start_of_turn>user\n|\[INST\] )The user gives a command[^<\[]*\n\nwake me at 9(<|\[)", prompt)


def test_the_system_turn_of_smollm2_is_midaligns():
    model = BY_NAME["SmolLM2-1.7B-Instruct"]
    prompt = prompt_of(model)[1]
    assert prompt.startswith("<|im_start|>system\nThe user gives a command")
    assert "small assistant" not in prompt
    assert "small assistant" in model.tokenizer().apply_chat_template(
        [{"role": "user", "content": "x"}], tokenize=False
    )


@pytest.mark.parametrize(
    ("name", "published"),
    [("Llama-3.2-3B-Instruct", "llama3_2"), ("Qwen3-4B", "qwen3"), ("gemma-3-4b-it", "gemma3")],
)
def test_our_templates_write_what_the_published_ones_write(name, published):
    """trl ships some of the published templates."""
    import trl

    path = Path(trl.__file__).parent / "chat_templates" / f"{published}.jinja"
    ours, theirs = BY_NAME[name].tokenizer(), BY_NAME[name].tokenizer()
    theirs.chat_template = path.read_text(encoding="utf-8")
    for arguments in ({}, load_recipe(BY_NAME[name].recipe).model.chat_template_kwargs):
        fix_arguments(ours, arguments)
        fix_arguments(theirs, arguments)
        assert render(EXAMPLE, ours) == render(EXAMPLE, theirs)


# ---- docs/models.md


def rows_of_the_table():
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| `([\w.-]+/[\w.-]+)` \| (\d.*) \|$", page, re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split(" | ")] for name, cells in found}


@pytest.mark.parametrize("model", MODELS, ids=IDS)
def test_the_table_of_models_is_right(model):
    whole, four_bits = (training_memory(*weights(model), four_bits=each) for each in (False, True))
    depth, layer, bos, _, memory, qlora, recipe = rows_of_the_table()[model.name]
    assert (depth, layer, bos) == (str(model.depth), str(model.depth // 2), "yes" if model.bos else "no")
    assert (memory, qlora) == (f"{whole:.0f}", f"{four_bits:.0f}")
    assert recipe == f"`{model.recipe}`"
    said = shipped()[model.recipe].read_text(encoding="utf-8")
    if load_recipe(model.recipe).model.path == model.name:
        assert f"GPU memory: about {whole:.0f} GB, with QLoRA {four_bits:.0f} GB;" in said
        assert f"the middle, {model.depth // 2} of {model.depth} blocks" in said
    else:
        assert f"model.path={model.name} " in said.replace("\n", " ")
        assert re.search(rf"{model.depth} blocks, layer {model.depth // 2}\b", said)


def test_the_table_has_no_other_models_and_every_recipe_is_for_one_of_them():
    assert list(rows_of_the_table()) == [model.name for model in MODELS]
    papers = {"reference_llama3_8b_massive", "reference_qwen25_7b_massive"}
    assert {name for name in shipped() if name.startswith("reference_")} - papers == {model.recipe for model in MODELS}
    assert {load_recipe(model.recipe).model.path for model in MODELS} <= {model.name for model in MODELS}


@pytest.mark.parametrize(
    ("name", "billions"),
    [("Qwen3-0.6B", 0.596), ("SmolLM2-1.7B-Instruct", 1.71), ("Mistral-7B-Instruct-v0.3", 7.25),
     ("EuroLLM-9B-Instruct", 9.15), ("gemma-3-4b-it", 4.30), ("Llama-3.2-1B-Instruct", 1.24)],
)  # fmt: skip
def test_the_sizes_give_the_published_number_of_weights(name, billions):
    assert sum(weights(BY_NAME[name])) == pytest.approx(billions, abs=0.005)


def test_a_published_model_can_be_named_to_recipe_new(data, tmp_path):
    for number, model in enumerate(MODELS):
        out = tmp_path / f"{number}.yaml"
        result = CliRunner().invoke(app, [
            "recipe", "new", "--model", model.name, "--task", "slots", "--data", str(data / "slots"),
            "--languages", "en", "--aligned", "de", "--parallel", str(data / "lines"), "--gpu-memory", "12",
            "--out", str(out),
        ])  # fmt: skip
        assert result.exit_code == 0, result.output
        assert "is valid" in result.output
        recipe = load_recipe(out)
        assert recipe.model.path == model.name
        whole = training_memory(*weights(model))
        assert (recipe.model.quantization == "4bit") == (whole > 12), (model.name, whole)


def test_the_list_of_recipes_stays_readable():
    listed = CliRunner().invoke(app, ["recipe", "list"], env={"COLUMNS": "120"}).stdout
    assert max(map(len, listed.splitlines())) <= 120
    assert listed.count("reference_") == 8, "a name for each family"
