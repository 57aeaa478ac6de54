"""What a merge could not do is found before its weights are tuned, and before anything is written."""

import pytest

from midalign.errors import MissingFileError, ModelError
from midalign.merging import job
from midalign.merging.job import MergeJob
from midalign.models.source import ModelSource
from midalign.recipe.file import build_recipe
from tests.conftest import build_model
from tests.tiny_adapter import save_adapter
from tests.tiny_world import recipe_content


@pytest.fixture
def merge(tmp_path, monkeypatch):
    """Starts a merge with adapters of these ranks; loading a model or tuning would fail with something else."""

    def call(ranks=(4, 4), **options):
        paths = {}
        for name, rank in zip(("task", "alignment"), ranks, strict=True):
            folder = tmp_path / name
            if rank is not None:
                save_adapter(folder, build_model("llama"), r=rank)
            paths[name] = str(folder)
        monkeypatch.setattr(job, "tune_weights", None)
        recipe = build_recipe(recipe_content(tmp_path))
        job_of = MergeJob(ModelSource("/no/model"), paths, recipe=recipe, **options)
        return job_of.finish(job_of.start(tmp_path / "out"), dev=[])

    return call


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(method="svdd"), "Unknown merge method 'svdd'.* Did you mean 'svd'"),
        (dict(method="sum", rank=4), "'sum' has no option 'rank'"),
        (dict(method="svd", rank=0), "rank 0 leaves nothing"),
        (dict(method="ties", rank=-1), "rank -1 leaves nothing"),
        (dict(method="parameters", ranks=(4, 2)), r"Module 'model.layers.0.mlp.up_proj': .*needs equal ranks"),
        (dict(method="peft_linear", ranks=(4, 2)), r"needs equal ranks, but these are \[2, 4\]"),
    ],
)
def test_a_method_or_rank_that_does_not_go_with_the_adapters_is_refused_at_once(merge, tmp_path, options, says):
    with pytest.raises(ModelError, match=says):
        merge(**options)
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_is_not_there_is_named_before_the_model_is_loaded(merge):
    with pytest.raises(MissingFileError, match="alignment"):
        merge(ranks=(4, None))


def test_what_goes_together_goes_on_to_the_model(merge):
    with pytest.raises(MissingFileError, match="/no/model"):
        merge(method="svd", rank=3, ranks=(4, 2))
