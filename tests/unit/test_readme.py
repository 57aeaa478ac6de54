"""The README's tree is the real one: its folders and common modules, each with the first sentence of its docstring."""

import ast
import importlib.util
import re

import pytest

from tests.conftest import ROOT

SOURCE = ROOT / "src" / "midalign"
WITHOUT_CODE = {"recipes": "Recipes that come with midalign, as YAML files (in a checkout also as `recipes/`)."}
WIDTH = 16


def sentence(path):
    """The first paragraph of a module's docstring, in Markdown."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return " ".join(text.partition("\n\n")[0].split()).replace("``", "`")


def tree():
    common = [path for path in sorted(SOURCE.glob("*.py")) if not path.name.startswith("__")]
    lines = ["src/midalign/", *(f"  {path.name:{WIDTH}}{sentence(path)}" for path in common)]
    for folder in sorted(path for path in SOURCE.rglob("*") if path.is_dir()):
        if (folder / "__init__.py").exists():
            indent = "  " * len(folder.relative_to(SOURCE).parts)
            lines.append(f"{indent + folder.name + '/':{WIDTH + 2}}{sentence(folder / '__init__.py')}")
        elif folder.name in WITHOUT_CODE:
            lines.append(f"  {folder.name + '/':{WIDTH}}{WITHOUT_CODE[folder.name]}")
    return lines


def test_the_tree_is_the_real_one():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"^```\n(src/midalign/\n.*?)^```$", text, re.DOTALL | re.MULTILINE)
    *shown, last = block.group(1).splitlines()
    assert shown == tree(), "write into README.md:\n" + "\n".join(tree())
    others = re.findall(r"[\w.]+/?", last.partition("(")[0])
    assert all((ROOT / name).exists() for name in others), others
    assert max(map(len, shown)) <= 120


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACES = ("src", "tests", "benchmarks", "experiments", "examples")
FILES = [f"/{path.relative_to(ROOT)}" for place in PLACES for path in (ROOT / place).rglob("*.*")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_names_that_a_page_mentions_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`([\w/]+\.(?:py|yaml|sh|css|in))`", text):
        in_a_command = re.search(rf"^(midalign|  ).*{re.escape(name)}", text, re.MULTILINE)
        assert in_a_command or any(path.endswith(f"/{name}") for path in FILES), name
    for name in re.findall(r"`(midalign\.[\w.]+)[`(]", text):
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute) or importlib.util.find_spec(name), name
    for link in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (page.parent / link).exists(), link
