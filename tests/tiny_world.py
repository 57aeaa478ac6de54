"""A whole small job in a folder: a tiny model, parallel lines, xSID-like commands, and the recipe that names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.conftest import build_model, build_tokenizer

SPLIT_SIZES = {"train": 12, "valid": 4, "test": 4}
LANGUAGES = {"en": "eng", "de": "deu", "ru": "rus"}
WORDS = {"en": "call at", "de": "ruf um", "ru": "звони в"}


def write_world(folder: Path, **sections: Any) -> Path:
    """Model, data and recipe below `folder`; keywords change the recipe's sections. Returns the recipe's path."""
    folder.mkdir(parents=True, exist_ok=True)
    build_model("llama", max_position_embeddings=256).save_pretrained(folder / "model")
    build_tokenizer().save_pretrained(folder / "model")
    write_slots(folder / "slots")
    write_lines(folder / "lines")
    write_lines(folder / "probe", "again")
    recipe = recipe_content(folder)
    for section, values in sections.items():
        recipe[section] = {**recipe[section], **values} if isinstance(values, dict) else values
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
    return path


def recipe_content(folder: Path) -> dict[str, Any]:
    """The recipe as plain data."""
    return {
        "name": "tiny",
        "seed": 3,
        "model": {"path": str(folder / "model")},
        "languages": {"supervised": ["en"], "aligned": ["de"], "unseen": ["ru"], "low_resource": ["ru"]},
        "task": {"data": str(folder / "slots"), "format": "xsid", "system": ""},
        "parallel": {"data": str(folder / "lines"), "held_out": 3},
        "probe": {"data": str(folder / "probe"), "k": 2},
        "alignment": {"batch_size": 4},
        "lora": {"r": 2, "lora_alpha": 4},
        "training": {
            "max_steps": 2,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 1,
            "learning_rate": 1e-2,
            "logging_steps": 1,
            "bf16": False,  # the same on every machine
        },
        "merge": {"alignment_weights": [0.0, 0.5]},
        "generation": {"max_new_tokens": 4},
        "evaluation": {"resamples": 100},
    }


def write_slots(folder: Path) -> None:
    """Commands with one slot each; sentence i of a split means the same in every language."""
    folder.mkdir(parents=True, exist_ok=True)
    for code, words in WORDS.items():
        first, second = words.split()
        for split, size in SPLIT_SIZES.items():
            blocks = [
                f"# id = {i}\n# text = {first} {second} {split}{i}\n# intent = call\n"
                f"1\t{first}\tcall\tO\n2\t{second}\tcall\tO\n3\t{split}{i}\tcall\tB-datetime\n\n"
                for i in range(size)
            ]
            (folder / f"{code}.{split}.conll").write_text("".join(blocks), encoding="utf-8")


def write_lines(folder: Path, ending: str = "", n: int = 20) -> None:
    """Sentences parallel by line, one file per language; another `ending` makes other sentences."""
    folder.mkdir(parents=True, exist_ok=True)
    for code, name in LANGUAGES.items():
        lines = [f"{WORDS[code]} {'abcdefghij'[i % 10] * (1 + i // 10)} {code}{ending}\n" for i in range(n)]
        (folder / f"{name}.txt").write_text("".join(lines), encoding="utf-8")
