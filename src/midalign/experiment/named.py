"""Named models and data: ``testbed``, ``testbed:<folder>`` and ``smollm2``, which are made if needed."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import torch

from midalign.errors import ModelError
from midalign.files import hash_paths
from midalign.models.smollm2 import NAME, build_smollm2, cached_smollm2
from midalign.progress import Progress
from midalign.recipe.sections import Recipe
from midalign.runs import cache_folder, fingerprint

TESTBED = "testbed"


def model_folder(name: str) -> str:
    """Folder of a named model, downloaded if needed (`midalign.models.smollm2`); any other name unchanged.

    Raises:
        ModelError: If it cannot be downloaded.
    """
    if name == NAME:
        return str(build_smollm2(cached_smollm2()))
    if name != TESTBED:
        return name
    from midalign.testbed.workspace import shipped_base

    folder = shipped_base()
    if folder is None:
        raise ModelError("this installation lacks the model testbed; name another model, or install midalign again")
    return str(folder)


def ready_model(name: str) -> str | None:
    """As `model_folder`, but None if it would have to be made first."""
    if name == NAME and not cached_smollm2().is_dir():
        return None
    return model_folder(name) if name != TESTBED else None


def resolve_names(recipe: Recipe, progress: Progress | None = None) -> Recipe:
    """Replace the names in a recipe's paths by folders.

    Raises:
        MissingExtraError: If the demo's data are named and the extra ``demo`` is not installed.
        ModelError: If a named model cannot be downloaded.
    """
    paths = [recipe.model.path, recipe.task.data, recipe.parallel.data, recipe.probe.data]
    folders: dict[str, Path] = {}
    if any(path.partition(":")[0] == TESTBED for path in paths):
        folders = _testbed(progress)
    if recipe.model.path == NAME:
        folders[NAME] = Path(model_folder(NAME))
    if not folders:
        return recipe

    def path_of(name: str) -> str:
        return str(folders.get(name, name))

    return recipe.model_copy(
        update={
            "model": recipe.model.model_copy(update={"path": path_of(recipe.model.path)}),
            "task": recipe.task.model_copy(update={"data": path_of(recipe.task.data)}),
            "parallel": recipe.parallel.model_copy(update={"data": path_of(recipe.parallel.data)}),
            "probe": recipe.probe.model_copy(update={"data": path_of(recipe.probe.data)}),
        }
    )


def _testbed(progress: Progress | None) -> dict[str, Path]:
    """The demo's model and data sets by name."""
    from midalign.testbed.workspace import demo_workspace

    sources = [path for path in Path(str(files("midalign.testbed"))).iterdir() if path.suffix in (".py", ".txt")]
    folder = cache_folder() / f"testbed-{fingerprint(hash_paths(sources))}"  # another version makes its data anew
    workspace = demo_workspace(folder, profile="base", threads=torch.get_num_threads(), progress=progress)
    return {TESTBED: workspace.base} | {
        f"{TESTBED}:{folder.name}": folder for folder in workspace.data.iterdir() if folder.is_dir()
    }
