"""The documentation: every page has its place, every public name is in the reference, the site builds strictly."""

import re
import subprocess
import sys

import pytest
import yaml

import midalign
from tests.conftest import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))


def places(nav):
    """The files of a navigation, in order."""
    for entry in nav:
        for place in entry.values():
            yield from places(place) if isinstance(place, list) else [place]


def test_every_page_has_a_place_in_the_navigation_and_on_the_first_page():
    nav = list(places(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    assert sorted(nav) == [page.name for page in PAGES]
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
