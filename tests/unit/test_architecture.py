"""The layers of the package: imports point down, files stay small, the package imports without torch.

Layers, low to high (see README, "The tree"): errors, languages, records | tensors and metrics | data, models |
workflows | command line. A module may import from lower layers and from its own, except that data and models do not
import each other.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "midalign"
MODULES = {
    ".".join(("midalign", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}
LOWEST = {"errors", "languages", "records"}
PURE = {"pooling", "losses", "margin", "retrieval", "merging", "metrics"}
HIGHEST = {"cli", "cli_comet", "cli_evaluate", "cli_testbed", "console", "__main__"}


def layer(module):
    part = module.removeprefix("midalign").lstrip(".").partition(".")[0]
    if part == "" or part in LOWEST:
        return 0
    if part in PURE:
        return 1
    if part in ("data", "models"):
        return {"data": 2, "models": 3}[part]
    return 5 if part in HIGHEST else 4


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("midalign"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("midalign"))


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    for imported in imports(MODULES[module]):
        assert layer(imported) <= layer(module), f"{module} imports {imported}, which lies above it"
        assert {layer(imported), layer(module)} != {2, 3}, f"{module} imports {imported}: data and models are apart"


@pytest.mark.parametrize("module", MODULES)
def test_files_and_functions_stay_small(module):
    text = MODULES[module].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 500
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 80, f"{module}.{node.name}"


def test_no_module_is_named_after_nothing():
    assert not {"utils", "common", "helpers"} & {name.rpartition(".")[2] for name in MODULES}


def test_importing_the_package_or_its_command_line_does_not_import_torch():
    code = "import sys, midalign, midalign.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_resolves():
    import midalign

    for name in midalign.__all__:
        assert getattr(midalign, name) is not None
