"""The number format of the weights on a CPU: which one `auto` is, and that retrieval does not suffer."""

import logging
import platform
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from midalign.models import loading
from midalign.models.loading import cpu_computes_in_bfloat16, load_model, load_tokenizer
from midalign.models.source import ModelSource
from midalign.probing.probe import probe
from tests.conftest import build_model

LANGUAGES = ("eng_Latn", "deu_Latn", "ell_Grek", "rus_Cyrl", "zho_Hans")


@pytest.fixture
def folder(model_folder, tmp_path):
    """A copy of the model to save anew."""
    return shutil.copytree(model_folder, tmp_path / "model")


@pytest.mark.parametrize(
    ("saved", "asked", "able", "expected"),
    [
        ("bfloat16", "auto", True, torch.bfloat16),
        ("bfloat16", "auto", False, torch.float32),
        ("float16", "auto", True, torch.float32),  # in bfloat16 it would lose three bits
        ("float32", "auto", True, torch.float32),
        ("bfloat16", "float32", True, torch.float32),
        ("float32", "bfloat16", False, torch.bfloat16),
    ],
)
def test_auto_on_a_cpu_is_the_saved_bfloat16_where_there_are_instructions_for_it(
    folder, monkeypatch, caplog, saved, asked, able, expected
):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(loading, "cpu_computes_in_bfloat16", lambda: able)
    build_model("llama").to(getattr(torch, saved)).save_pretrained(folder)
    assert load_model(str(folder), dtype=asked, device="cpu").dtype == expected
    assert ("is loaded in bfloat16" in caplog.text) == (asked == "auto" and expected == torch.bfloat16)


def test_training_and_merging_keep_float32_on_a_cpu_unless_something_else_is_asked_for(folder, monkeypatch):
    monkeypatch.setattr(loading, "cpu_computes_in_bfloat16", lambda: True)
    build_model("llama").to(torch.bfloat16).save_pretrained(folder)
    assert ModelSource(str(folder)).load().dtype == torch.bfloat16
    assert ModelSource(str(folder)).load_exact().dtype == torch.float32
    assert ModelSource(str(folder), dtype="bfloat16").load_exact().dtype == torch.bfloat16


def test_the_question_for_instructions_is_answered_as_the_kernel_does():
    flags = Path("/proc/cpuinfo")
    if not flags.exists() or platform.machine() != "x86_64":
        pytest.skip("no x86 Linux")
    words = flags.read_text().split()
    assert cpu_computes_in_bfloat16() == ("avx512_bf16" in words or "amx_tile" in words)


@pytest.mark.skipif(not cpu_computes_in_bfloat16(), reason="needs a CPU with instructions for bfloat16")
def test_the_embedded_model_retrieves_as_well_in_bfloat16_as_in_float32():
    """To half a point at every layer, on sentences of its own world."""
    pytest.importorskip("hassil")
    pytest.importorskip("home_assistant_intents")
    from midalign.testbed.chance import chance
    from midalign.testbed.tasks import parallel_rows
    from midalign.testbed.workspace import SHIPPED_SEED, shipped_base
    from midalign.testbed.world import World

    folder = shipped_base()
    if folder is None:
        pytest.skip("this checkout has no embedded model")
    world = World(SHIPPED_SEED, LANGUAGES)
    rows = parallel_rows(world, LANGUAGES, 200, chance("bfloat16"), lambda _: True)
    corpus = {code: [row[place].text for row in rows] for place, code in enumerate(LANGUAGES)}
    tokenizer = load_tokenizer(str(folder))
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = load_model(str(folder), dtype="auto" if dtype == torch.bfloat16 else "float32", device="cpu")
        assert model.dtype == dtype
        found[dtype] = probe(model, tokenizer, corpus)
    exact, fast = found.values()
    assert np.abs(fast.accuracy - exact.accuracy).max() <= 0.005
    assert not np.array_equal(fast.hits, exact.hits)  # else nothing was compared
    assert fast.best_layer == exact.best_layer
