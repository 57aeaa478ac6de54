"""The arguments of a recipe's ``training:`` and ``lora:``, which are trl's and peft's own."""

from __future__ import annotations

from typing import Any

from midalign.errors import RecipeError, did_you_mean
from midalign.recipe.file import all_faults
from midalign.recipe.sections import Recipe

# The settings of the paper and its reference implementation, for whatever a recipe leaves out.
LORA_DEFAULTS: dict[str, Any] = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.1, "target_modules": "all-linear"}
TRAINING_DEFAULTS: dict[str, Any] = {
    "learning_rate": 5e-4,
    "lr_scheduler_type": "inverse_sqrt",
    "warmup_steps": 0.03,
    "per_device_train_batch_size": 32,
    "gradient_accumulation_steps": 4,
    "num_train_epochs": 5,
}


def check_arguments(recipe: Recipe, where: str = "recipe") -> None:
    """Check the keys of ``lora:`` and ``training:`` against peft and trl, which takes seconds to import.

    Raises:
        RecipeError: With every unknown key and the nearest names.
    """
    import dataclasses

    from peft import LoraConfig
    from trl import SFTConfig

    faults = []
    for section, given, owner in (("lora", recipe.lora, LoraConfig), ("training", recipe.training, SFTConfig)):
        known = [field.name for field in dataclasses.fields(owner)]
        for key, value in given.items():
            if key not in known:
                faults.append(
                    f"{section}.{key} = {value!r}: {owner.__name__} has no such argument.{did_you_mean(key, known)}"
                )
    if recipe.early_stopping_patience and not {"eval_strategy", "metric_for_best_model"} <= recipe.training.keys():
        faults.append(
            f"early_stopping_patience = {recipe.early_stopping_patience}: it counts evaluations that bring no gain, so "
            "it needs training.eval_strategy (such as steps) and training.metric_for_best_model (such as eval_loss)"
        )
    faults += [
        f"training.{key}: midalign sets it itself (from --out, the recipe's seed, its schedule); leave it out"
        for key in ("output_dir", "seed", "data_seed", "ignore_data_skip", "dataloader_drop_last")
        if key in recipe.training
    ]
    if faults:
        raise RecipeError(all_faults(where, faults))
