"""Fixtures of the tests of models."""

import pytest

from tests.tiny_adapter import edit_config, save_adapter


@pytest.fixture
def save(tiny_model, tmp_path):
    """A factory of adapters of tiny models, saved by PEFT, with all factors random."""

    def make(name="adapter", family="llama", base=None, **options):
        folder = save_adapter(tmp_path / name, tiny_model(family), **options)
        if base is not None:
            edit_config(folder, base_model_name_or_path=str(base))
        return folder

    return make
