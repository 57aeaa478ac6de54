"""A folder in which the commands of the documentation run as they are written: each name that they mention is there, as
a tiny random model or a few made-up sentences."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import peft
import yaml

from tests.conftest import ROOT, build_model, build_tokenizer
from tests.tiny_gguf import write_gguf
from tests.tiny_world import recipe_content

MODELS = {"Qwen/Qwen2.5-7B-Instruct": 28, "Qwen/Qwen2.5-1.5B-Instruct": 4}
"""Depth of each: the shipped recipe for the first aligns block 14, as that of the real model."""
LARGE = "Qwen/Qwen2.5-7B-Instruct"
ADAPTERS = ("sft", "joint", "alignment")
ENVIRONMENT = {"MASSIVE": "massive/1.1/data", "PARALLEL": "pairs", "FLORES": "flores200_dataset"}
LOCALES = (
    "ar-SA", "en-US", "es-ES", "ru-RU", "zh-CN", "cy-GB", "ja-JP", "ka-GE", "sw-KE", "th-TH", "af-ZA", "az-AZ", "de-DE",
    "el-GR", "fr-FR", "hi-IN", "is-IS", "tr-TR", "ur-PK", "vi-VN",
)  # fmt: skip
CODES = (
    "arb_Arab", "eng_Latn", "spa_Latn", "rus_Cyrl", "zho_Hans", "cym_Latn", "jpn_Jpan", "kat_Geor", "swh_Latn",
    "tha_Thai", "afr_Latn", "azj_Latn", "deu_Latn", "ell_Grek", "fra_Latn", "hin_Deva", "isl_Latn", "tur_Latn",
    "urd_Arab", "vie_Latn",
)  # fmt: skip
LABELS = {"good": "nice", "bad": "poor"}


def write_docs_world(folder: Path) -> Path:
    """Models, data, recipes and adapters below `folder`."""
    for name, depth in MODELS.items():
        small = dict(hidden_size=16, intermediate_size=24, head_dim=4, max_position_embeddings=2048)
        model = build_model("qwen2", num_hidden_layers=depth, **small)
        model.save_pretrained(folder / name)
        build_tokenizer(chat=True).save_pretrained(folder / name)
    for name in ADAPTERS:
        _write_adapter(folder / "runs" / name / "adapter", folder / LARGE)
    write_gguf(_made(folder / "models" / "llama") / "llama-3.2-1b.Q8_0.gguf", build_model("llama"), build_tokenizer())
    _write_corpora(folder)
    _write_massive(folder / "massive" / "1.1" / "data")
    _write_mood(folder / "mood")
    shutil.copytree(ROOT / "recipes" / "accelerate", folder / "recipes" / "accelerate")
    recipe = recipe_content(folder) | {
        "model": {"path": LARGE},
        "languages": {"supervised": ["eng"], "aligned": ["swh"], "unseen": ["cym"]},
        "task": {"data": "massive/1.1/data", "format": "massive", "limit_dev": 3},
        "parallel": {"data": "pairs", "held_out": 3},
        "probe": {"data": "flores200_dataset", "split": "devtest", "k": 2},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return folder


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_adapter(folder: Path, base: Path) -> None:
    from transformers import AutoModelForCausalLM

    config = peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    wrapped = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    wrapped.peft_config["default"].base_model_name_or_path = LARGE
    wrapped.save_pretrained(folder)


def _write_corpora(folder: Path) -> None:
    """FLORES with both its parts, and pairs parallel by line; no sentence is in two of them."""
    for split in ("dev", "devtest"):
        for code in CODES:
            lines = [f"{code[:3]} {split} {'abcdefghij'[i]}\n" for i in range(10)]
            (_made(folder / "flores200_dataset" / split) / f"{code}.{split}").write_text("".join(lines))
    for code in CODES:
        lines = [f"{code[:3]} {'abcdefghij'[i % 10]} says {'x' * (1 + i // 10)}\n" for i in range(60)]
        (_made(folder / "pairs") / f"{code[:3]}.txt").write_text("".join(lines))


def _write_massive(folder: Path) -> None:
    sizes = {"train": 8, "dev": 4, "test": 4}
    ids = [(split, i) for split, size in sizes.items() for i in range(size)]
    for locale in LOCALES:
        rows = [
            {"id": str(n), "locale": locale, "partition": split, "scenario": "call", "intent": "call",
             "utt": f"{locale[:2]} {split}{i} call", "annot_utt": f"{locale[:2]} [who : {split}{i}] call"}
            for n, (split, i) in enumerate(ids)
        ]  # fmt: skip
        (_made(folder) / f"{locale}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for seed in (0, 1):  # answers of two seeds, to the test items of all languages
        answers = [
            {"id": f"{locale}:{n}", "prediction": f"who: test{i}" if (i + seed) % 2 else "None"}
            for locale in LOCALES
            for n, (split, i) in enumerate(ids)
            if split == "test"
        ]
        path = folder.parents[2] / f"seed{seed}.jsonl"
        path.write_text("".join(json.dumps(answer) + "\n" for answer in answers))


def _write_mood(folder: Path) -> None:
    """Good or bad, in messages."""
    for language in ("eng", "deu", "swh"):
        for split, size in (("train", 12), ("dev", 4), ("test", 4)):
            rows = [
                {"messages": [{"role": "user", "content": f"{language} {split} {word} {i}"},
                              {"role": "assistant", "content": label}]}
                for i in range(size // 2)
                for label, word in LABELS.items()
            ]  # fmt: skip
            (_made(folder) / f"{language}.{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
