"""The documentation: every page has its place, the site builds strictly, and every command does what it says.

A block of commands or Python runs as it is written, in the folder of `tests/docs_world.py`, page by page and in the
page's order. Where a comment in it says "needs a GPU" or "needs the network" it does not run; its options are checked
all the same. A block of YAML is part of a recipe. A block that begins with the name of a file (`# mine.py`) becomes
that file.
"""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

import midalign
from midalign.cli.main import app
from midalign.recipe.file import build_recipe
from tests.conftest import ROOT
from tests.docs_blocks import PAGES, blocks, outside
from tests.docs_world import ENVIRONMENT, LARGE, write_docs_world
from tests.tiny_world import recipe_content

DOCS = PAGES[1:]
BLOCKS = [block for page in PAGES for block in blocks(page)]
OPEN = "stays open until you stop it"
BEGINS_LATER = "begins where the [quick start](quick_start.md) ends"


def of(language):
    chosen = [block for block in BLOCKS if block.language == language]
    return pytest.mark.parametrize("block", chosen, ids=lambda block: f"{block.page}:{block.line}")


def places(nav):
    """The files of a navigation, in order."""
    for entry in nav:
        for place in entry.values():
            yield from places(place) if isinstance(place, list) else [place]


def test_every_page_has_a_place_in_the_navigation_and_on_the_first_page():
    nav = list(places(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    assert sorted(nav) == [page.name for page in DOCS]
    first = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[[^]]+\]\((\S+)\)", first, re.MULTILINE) == nav[1:]


def test_the_reference_has_every_public_name():
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    named = re.findall(r"^::: midalign\.(\w+)$", text, re.MULTILINE)
    assert sorted(named) == sorted(set(midalign.__all__) - {"__version__"})


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "midalign.probe" in (tmp_path / "api" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_stand_in_blocks_that_say_what_they_are(page):
    assert {block.language for block in blocks(page)} <= {"bash", "python", "yaml", "json", ""}
    unnamed = "\n".join(block.text for block in blocks(page) if block.language == "")
    programs = "(midalign|pip|python|accelerate|hf|make|[$]) .*$"
    assert not re.findall(rf"^{programs}", unnamed, re.MULTILINE)
    assert not re.findall(rf"^    {programs}", outside(page), re.MULTILINE)


def command_of(words):
    """The command of the line that midalign is given, its name, and the words after it."""
    found, name, words = typer.main.get_command(app), "midalign", list(words)
    while hasattr(found, "commands"):  # a group
        while words and words[0].startswith("-"):
            words.pop(0)
        name = words.pop(0)
        assert name in found.commands, f"midalign has no verb {name!r}"
        found = found.commands[name]
    return found, name, words


@of("bash")
def test_midalign_takes_the_options_of_every_command(block):
    for line in block.commands:
        words = shlex.split(line, comments=True)
        if "midalign" in words and words[0] in ("midalign", "accelerate"):
            found, name, rest = command_of(words[words.index("midalign") + 1 :])
            found.make_context(name, rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_midalign_has_the_verbs_and_options_that_the_text_mentions(page):
    for line in re.findall(r"`midalign ((?:-v )?[a-z][^`]*)`", outside(page)):
        found, _, words = command_of(shlex.split(line, comments=True))
        known = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= known, line


def merged(base, change):
    """Plain data with the values of `change` in it, section by section."""
    both = {key: merged(base[key], value) if isinstance(base.get(key), dict) and isinstance(value, dict) else value
            for key, value in change.items()}  # fmt: skip
    return base | both


@of("yaml")
def test_a_block_of_yaml_is_part_of_a_recipe(block, tmp_path):
    content = recipe_content(tmp_path)
    if "task" in (change := yaml.safe_load(block.text)):
        content["task"] = {}
    build_recipe(merged(content, change), [])


@of("json")
def test_a_block_of_json_is_json(block):
    for line in block.text.splitlines():
        json.loads(line)


def messages():
    """The texts of midalign's source, what is formatted into them as `…`."""
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_every_message_of_the_page_on_troubleshooting_is_one_of_midaligns():
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    titles, known = re.findall(r"^### `(.*)`$", page, re.MULTILINE), list(messages())
    assert len(titles) > 20
    for title in titles:
        assert any(title in text for text in known), title


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_docs_world(tmp_path_factory.mktemp("docs"))


@pytest.fixture
def here(world, tmp_path, monkeypatch):
    """A copy of the world to stand in, with the programs of this environment."""
    folder = shutil.copytree(world, tmp_path / "here")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(".")
    paths = [os.environ["PATH"], str(Path(sys.executable).parent)]
    for name, value in {**ENVIRONMENT, "PATH": ":".join(reversed(paths)), "PYTHONPATH": f"{ROOT / 'src'}:."}.items():
        monkeypatch.setenv(name, value)
    return folder


def run(line):
    """Run one line; midalign's own in this process, which saves the seconds of its start."""
    words = shlex.split(line, comments=True)
    if OPEN in line:
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as server:
            assert any("http://" in said for said in server.stderr), line
            server.terminate()
    elif words[0] == "midalign":
        result = CliRunner().invoke(app, words[1:])
        assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception}"
    else:
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr[-3000:]}"


def given_names():
    """What a Python block may take for granted."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig

    names = {
        "model": AutoModelForCausalLM.from_pretrained(LARGE),
        "tokenizer": AutoTokenizer.from_pretrained(LARGE),
        "english": [f"one {i}" for i in range(8)],
        "german": [f"eins {i}" for i in range(8)],
        "sft_config": SFTConfig("trained", max_steps=1, bf16=False, report_to="none"),
        "dataset": Dataset.from_list([{"prompt": "wake me\n", "completion": "None"}] * 8),
        "lora_config": LoraConfig(target_modules="all-linear"),
        "pairs": midalign.read_parallel("pairs", languages=["eng", "deu"]).pairs(),
        "corpus": midalign.read_parallel("flores200_dataset", languages=["eng", "deu"]),
        "midalign": midalign,
    }
    trainer = midalign.AlignmentTrainer(
        names["model"], args=names["sft_config"], train_dataset=names["dataset"], processing_class=names["tokenizer"],
        peft_config=names["lora_config"], pairs=names["pairs"], alignment=midalign.AlignmentConfig(layer=2),
    )  # fmt: skip
    return names | {"trainer": trainer, "model": AutoModelForCausalLM.from_pretrained(LARGE)}


@pytest.fixture(scope="module")
def after_quick_start(world, tmp_path_factory):
    """The world after the commands of the quick start, the demo left out."""
    folder = shutil.copytree(world, tmp_path_factory.mktemp("later") / "world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in blocks(ROOT / "docs" / "quick_start.md"):
            for line in [] if block.marked else block.commands:
                if "demo" not in line:
                    run(line)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_a_page_does_what_it_says(page, here, request):
    if BEGINS_LATER in " ".join(outside(page).split()):
        later = request.getfixturevalue("after_quick_start")
        os.chdir(shutil.copytree(later, here.with_name("later")))
    names = None
    for block in blocks(page):
        if block.marked:
            continue
        if block.file is not None:
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "bash":
            for line in block.commands:
                run(line)
        elif block.language == "python":
            names = given_names() if names is None else names
            exec(compile(block.text, f"{block.page}:{block.line}", "exec"), names)
