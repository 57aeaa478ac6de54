"""The house: which package may import which, and how large its rooms may be.

`ALLOWED` is the whole rule. Every package may use the common modules as well; nothing else is allowed, so a new
import between packages is a decision that is written down here.
"""

import ast
import subprocess
import sys

import pytest

from tests.conftest import ROOT

SOURCE = ROOT / "src" / "midalign"
COMMON = {
    "errors": set(),
    "languages": {"errors"},
    "records": set(),
    "progress": set(),
    "files": {"errors"},
    "runs": {"errors", "files", "progress"},
}
ALLOWED = {
    "functional": set(),
    "answers": set(),
    "data": {"answers"},
    "models": {"functional"},
    "metrics": {"answers", "functional"},
    "recipe": {"answers", "data", "functional"},
    "probing": {"data", "models", "functional"},
    "generation": {"data", "models", "answers"},
    "evaluation": {"metrics", "answers", "functional", "data"},
    "training": {"data", "models", "functional", "recipe"},
    "merging": {"generation", "evaluation", "metrics", "recipe", "data", "models", "functional"},
    "report": {"functional"},
    "testbed": {"models", "functional", "recipe"},
    "experiment": {
        "answers", "data", "evaluation", "functional", "generation", "merging", "metrics", "models", "probing",
        "recipe", "report", "testbed", "training",
    },
}  # fmt: skip
ALLOWED["cli"] = set(ALLOWED)
MODULES = {
    ".".join(("midalign", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}
MOST_LINES, MOST_LINES_OF_A_FUNCTION, MOST_COMPLEX = 450, 80, 20
BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.comprehension, ast.match_case)


def package_of(module):
    """The package of a module, the module itself where it is a common one, or the empty string for the face."""
    return module.removeprefix("midalign").lstrip(".").partition(".")[0].removeprefix("__main__")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("midalign"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("midalign"))


def test_every_module_belongs_to_a_package_or_is_a_common_one():
    assert {package_of(module) for module in MODULES} == {"", *COMMON, *ALLOWED}
    assert len([path for path in SOURCE.iterdir() if path.is_file()]) <= 10


@pytest.mark.parametrize("module", [m for m in MODULES if package_of(m)])
def test_a_package_imports_only_what_the_table_allows(module):
    package = package_of(module)
    allowed = COMMON[package] if package in COMMON else ALLOWED[package] | set(COMMON)
    for imported in imports(MODULES[module]):
        assert package_of(imported) in allowed | {package, ""}, f"{module} imports {imported}"


def test_the_table_has_no_cycle():
    order = []
    while len(order) < len(ALLOWED):
        free = [name for name, uses in ALLOWED.items() if name not in order and uses <= {*order, name}]
        assert free, f"a cycle among {set(ALLOWED) - set(order)}"
        order += free


def complexity(function):
    """Cyclomatic complexity as radon counts it, conditions within expressions included; asserts are no branches.

    radon's grade D begins at 21. Ruff's C901 (pyproject.toml) counts statements only.
    """
    nodes = list(ast.walk(function))
    branches = sum(isinstance(node, BRANCHES) for node in nodes)
    conditions = sum(len(node.values) - 1 for node in nodes if isinstance(node, ast.BoolOp))
    filters = sum(len(node.ifs) for node in nodes if isinstance(node, ast.comprehension))
    return 1 + branches + conditions + filters


def test_complexity_is_that_of_radon():
    code = "def f(x):\n if x and x > 1 or x:\n  return [y for y in x if y]\n for y in x:\n  pass\n return 1 if x else 2"
    assert complexity(ast.parse(code).body[0]) == 8


@pytest.mark.parametrize(
    "path",
    [p for part in ("src", "tests", "experiments", "benchmarks", "examples") for p in (ROOT / part).rglob("*.py")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_files_and_functions_stay_small_and_flat(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < MOST_LINES_OF_A_FUNCTION, node.name
            assert complexity(node) <= MOST_COMPLEX, node.name


def test_no_module_is_named_after_nothing():
    assert not {"utils", "common", "helpers"} & {name.rpartition(".")[2] for name in MODULES}


def test_importing_the_package_or_its_command_line_does_not_import_torch():
    code = "import sys, midalign, midalign.cli.main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_resolves():
    import midalign

    for name in midalign.__all__:
        assert getattr(midalign, name) is not None
