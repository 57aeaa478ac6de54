"""Every argument of trl's SFTConfig: applied with the value that the recipe gives, or refused with a reason."""

import dataclasses

import pytest
from transformers.trainer_utils import IntervalStrategy, SaveStrategy
from trl import SFTConfig

from midalign.errors import RecipeError
from midalign.recipe.file import build_recipe
from midalign.recipe.training import _NEEDS, REFUSED, SftArguments, TrainingSection
from midalign.training.arguments import training_arguments
from tests.tiny_world import recipe_content

# What is written in the recipe, and what the trainer's configuration then holds (the same, where nothing is said).
APPLIED = {
    "max_steps": "7",
    "num_train_epochs": "1.5",
    "per_device_train_batch_size": "3",
    "gradient_accumulation_steps": "5",
    "max_length": "99",
    "learning_rate": "1e-3",
    "lr_scheduler_type": "cosine_with_restarts",
    "lr_scheduler_kwargs": "{num_cycles: 2}",
    "warmup_steps": "4",
    "train_sampling_strategy": "sequential",
    "optim": "sgd",
    "optim_args": "momentum=0.5",
    "weight_decay": "0.1",
    "adam_beta1": "0.8",
    "adam_beta2": "0.98",
    "adam_epsilon": "1e-6",
    "max_grad_norm": "0.5",
    "loss_type": "dft",
    "label_smoothing_factor": "0.1",
    "neftune_noise_alpha": "5",
    "router_aux_loss_coef": "0.01",
    "average_tokens_across_devices": "false",
    "packing": "true",
    "packing_strategy": "bfd_split",
    "eval_packing": "true",
    "eval_strategy": ("epoch", IntervalStrategy.EPOCH),
    "eval_steps": "3",
    "eval_delay": "2",
    "eval_on_start": "true",
    "per_device_eval_batch_size": "6",
    "save_strategy": ("no", SaveStrategy.NO),
    "save_steps": "11",
    "save_total_limit": "4",
    "load_best_model_at_end": "true",
    "metric_for_best_model": "eval_retrieval",
    "greater_is_better": "true",
    "bf16": "true",
    "fp16": "true",
    "tf32": "false",
    "use_cpu": "true",
    "gradient_checkpointing": "true",
    "gradient_checkpointing_kwargs": "{use_reentrant: false}",
    "activation_checkpointing": "true",
    "activation_checkpointing_kwargs": "{use_reentrant: false}",
    "torch_compile": "true",
    "torch_compile_backend": "eager",
    "torch_compile_mode": "default",
    "torch_empty_cache_steps": "5",
    "pad_to_multiple_of": "8",
    "dataloader_num_workers": "2",
    "dataloader_pin_memory": ("false", False),
    "dataloader_persistent_workers": "true",
    "dataloader_prefetch_factor": "3",
    "dataloader_multiprocessing_context": "spawn",
    "ddp_bucket_cap_mb": "10",
    "ddp_broadcast_buffers": "false",
    "ddp_timeout": "60",
    "full_determinism": "true",
    "debug": ("underflow_overflow", ["underflow_overflow"]),
    "logging_strategy": ("epoch", IntervalStrategy.EPOCH),
    "logging_steps": "2",
    "logging_first_step": "true",
    "log_level": "error",
    "log_level_replica": "error",
    "log_on_each_node": "false",
    "include_num_input_tokens_seen": "non_padding",
    "skip_memory_metrics": "false",
    "report_to": ("tensorboard", ["tensorboard"]),
    "run_name": "off",
    "project": "mine",
    "trackio_space_id": "me/space",
    "trackio_bucket_id": "me/bucket",
    "trackio_static_space_id": "false",
    "eos_token": "<|im_end|>",
}
# Came with a release after the lowest that pyproject.toml allows; before it, SFTConfig refuses them by name.
NEWER = {"activation_checkpointing", "activation_checkpointing_kwargs"}
KNOWN = {field.name for field in dataclasses.fields(SFTConfig)}
# Not to be seen here: of the tokenizer (test_effects.py), of several processes, of a GPU.
ELSEWHERE = {"chat_template_path", "ddp_backend", "activation_offloading"}
# What the value of some needs beside what `_NEEDS` says.
BESIDE = {
    "optim_args": ["training.optim=sgd"],
    "fp16": ["training.bf16=false"],
    "load_best_model_at_end": [
        "training.save_strategy=steps",
        "training.eval_strategy=steps",
        "training.eval_steps=11",
    ],
    "lr_scheduler_kwargs": ["training.lr_scheduler_type=cosine_with_restarts"],
    "eval_steps": ["training.eval_strategy=steps"],
    "eval_packing": ["training.eval_strategy=steps"],
    "per_device_eval_batch_size": ["training.eval_on_start=true"],
}
NEEDED = {
    "eval_strategy": "steps", "metric_for_best_model": "loss", "packing": "true", "report_to": "trackio",
    "dataloader_num_workers": "1",
}  # fmt: skip


@pytest.fixture
def content(tmp_path):
    return recipe_content(tmp_path) | {"training": {"save_steps": 11}}


def needed_by(key):
    """Overrides without which a key is refused as having no effect."""
    needs = [need for need, dependent in _NEEDS.items() if key in dependent]
    return [
        f"training.{need}={NEEDED[need]}"
        for one in needs
        for need in [one, *[n for n, d in _NEEDS.items() if one in d]]
    ]


def test_every_argument_is_applied_or_refused():
    assert set(APPLIED) | ELSEWHERE == set(SftArguments.model_fields)
    assert set(SftArguments.model_fields) | set(REFUSED) == KNOWN | NEWER == set(TrainingSection.model_fields)
    assert not set(SftArguments.model_fields) & set(REFUSED)


@pytest.mark.parametrize("key", APPLIED)
def test_an_applied_argument_reaches_the_trainers_configuration(content, tmp_path, key):
    text, expected = APPLIED[key] if isinstance(APPLIED[key], tuple) else (APPLIED[key], None)
    overrides = [*needed_by(key), *BESIDE.get(key, []), f"training.{key}={text}"]
    recipe = build_recipe(content, overrides)
    if key in NEWER - KNOWN:
        with pytest.raises(RecipeError, match=f"SFTConfig refuses these arguments.*'{key}'"):
            training_arguments(recipe, tmp_path)
        return
    wanted = getattr(recipe.training, key) if expected is None else expected
    if key == "trackio_static_space_id":
        assert wanted is False
    found = getattr(training_arguments(recipe, tmp_path), key)
    assert found == wanted or getattr(found, "value", None) == wanted
    default = next(field for field in dataclasses.fields(SFTConfig) if field.name == key).default
    assert found != default or key in ("dataloader_pin_memory", "gradient_checkpointing"), (
        "a value that is the default shows nothing"
    )


@pytest.mark.parametrize("key", REFUSED)
def test_a_refused_argument_says_why_and_takes_only_what_is_done_anyway(content, key):
    for accepted in REFUSED[key].accepted:
        content["training"] = {key: accepted}
        build_recipe(content)
    content["training"] = {key: {"odd": [1]}}
    with pytest.raises(RecipeError, match="recipe has 1 fault") as caught:
        build_recipe(content)
    assert REFUSED[key].reason in str(caught.value)


def test_all_refused_arguments_are_named_at_once_beside_values_of_a_wrong_type(content):
    content["training"] = dict.fromkeys(REFUSED, "odd") | {"max_steps": "many", "learning_rate": float("nan")}
    with pytest.raises(RecipeError) as caught:
        build_recipe(content)
    assert f"recipe has {len(REFUSED) + 2} faults" in str(caught.value)


@pytest.mark.parametrize(("needed", "key"), [(need, key) for need, keys in _NEEDS.items() for key in keys])
def test_an_argument_without_effect_for_want_of_another_is_refused(content, needed, key):
    beside = [override for override in needed_by(key) if not override.startswith(f"training.{needed}=")]
    text = APPLIED[key] if isinstance(APPLIED[key], str) else APPLIED[key][0]
    with pytest.raises(RecipeError, match=f"{key} has no effect without {needed}"):
        build_recipe(content, [*beside, f"training.{key}={text}"])
    switched_off = {"eval_strategy": "no", "packing": "false", "report_to": "none", "dataloader_num_workers": "0"}
    off = switched_off.get(needed, NEEDED[needed])
    build_recipe(content, [*beside, f"training.{needed}={off}", f"training.{key}={text}"])


@pytest.mark.parametrize("scheduler", ["constant", "reduce_lr_on_plateau", "greedy"])
def test_a_warm_up_that_the_scheduler_does_not_have_is_refused(content, scheduler):
    with pytest.raises(RecipeError, match="warmup_steps has no effect"):
        build_recipe(content, [f"training.lr_scheduler_type={scheduler}", "training.warmup_steps=3"])
    build_recipe(content, [f"training.lr_scheduler_type={scheduler}"])


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ("eval_strategy=epoch eval_steps=3", "eval_steps has no effect with eval_strategy: epoch"),
        ("save_strategy=epoch", "save_steps has no effect with save_strategy: epoch"),
        (
            "save_strategy=best metric_for_best_model=loss eval_strategy=epoch",
            "save_steps has no effect with save_stra",
        ),
        ("logging_strategy=epoch logging_steps=3", "logging_steps has no effect with logging_strategy: epoch"),
        ("per_device_eval_batch_size=3", "per_device_eval_batch_size has no effect without eval_strategy"),
        ("eval_packing=true", "eval_packing has no effect without eval_strategy"),
        ("save_strategy=best", "save_strategy: best needs metric_for_best_model"),
        ("loss_type=dft label_smoothing_factor=0.1", "label_smoothing_factor has no effect with loss_type: dft"),
        ("gradient_checkpointing=true activation_checkpointing=false", "are two names of one setting"),
        ("report_to=tensorboard project=p", "project has no effect with report_to: tensorboard, as it is for trackio"),
        ("debug=[overflow]", "debug"),
        ("torch_compile_mode=fast", "'default', 'reduce-overhead', 'max-autotune'"),
    ],
)
def test_arguments_that_take_each_others_effect_are_refused(content, overrides, says):
    with pytest.raises(RecipeError) as caught:
        build_recipe(content, [f"training.{override}" for override in overrides.split()])
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    ["eval_strategy=no eval_steps=3", "save_strategy=no", "logging_strategy=no logging_steps=3",
     "gradient_checkpointing=true activation_checkpointing=true", "report_to=[tensorboard,trackio] project=p",
     "loss_type=dft label_smoothing_factor=0", "debug=[underflow_overflow]", "debug=underflow_overflow"],
)  # fmt: skip
def test_arguments_that_go_together_or_are_switched_off_are_taken(content, overrides):
    build_recipe(content, [f"training.{override}" for override in overrides.split()])


def test_a_backend_for_several_processes_is_no_fault_in_one(content, tmp_path):
    recipe = build_recipe(content, ["training.ddp_backend=nccl"])
    assert training_arguments(recipe, tmp_path).ddp_backend is None


@pytest.mark.parametrize("override", ["parallel.held_out=0", "alignment.schedule=task"])
def test_a_metric_of_pairs_needs_pairs_that_are_held_out(content, override):
    overrides = ["training.eval_strategy=steps", "training.metric_for_best_model=eval_retrieval"]
    build_recipe(content, overrides)
    with pytest.raises(RecipeError, match="eval_retrieval is measured on held-out pairs, and there are none"):
        build_recipe(content, [*overrides, override])
    build_recipe(content, [overrides[0], "training.metric_for_best_model=eval_loss", override])


def test_no_updates_are_not_taken_for_all_epochs(content):
    with pytest.raises(RecipeError, match="max_steps = 0 would train for num_train_epochs"):
        build_recipe(content, ["training.max_steps=0"])


def test_only_what_the_recipe_gives_is_kept_in_its_own_words(content):
    recipe = build_recipe(content, ["training.bf16=yes", "training.max_length=null"])
    assert recipe.as_dict()["training"] == {"max_length": None, "save_steps": 11.0, "bf16": True}
    assert recipe.training.given() == {"max_length": None, "save_steps": 11.0, "bf16": True}
    assert recipe.training.learning_rate is None


@pytest.mark.parametrize(("overrides", "longest"), [([], 4096), (["training.max_length=64"], 64)])
def test_rows_are_not_padded_to_more_than_the_longest(content, overrides, longest):
    build_recipe(content, [*overrides, f"training.pad_to_multiple_of={longest}"])
    with pytest.raises(
        RecipeError, match=f"pad_to_multiple_of = {longest + 1} would pad every row to more than {longest}"
    ):
        build_recipe(content, [*overrides, f"training.pad_to_multiple_of={longest + 1}"])
