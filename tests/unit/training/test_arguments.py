"""What trl, transformers and peft make of a recipe's arguments, and what they would take without a word."""

import pytest
import torch

from midalign.errors import RecipeError
from midalign.models.hidden import find_decoder
from midalign.recipe.file import build_recipe
from midalign.training.arguments import check_arguments, check_lora, linear_names, lora_config, training_arguments
from tests.conftest import build_model
from tests.tiny_world import recipe_content


@pytest.fixture
def recipe(tmp_path):
    """A factory of recipes without arguments of their own."""

    def made(*overrides):
        return build_recipe(recipe_content(tmp_path) | {"lora": {}, "training": {}}, overrides)

    return made


def refused(recipe):
    with pytest.raises(RecipeError) as caught:
        check_arguments(recipe, "r.yaml")
    return str(caught.value)


def test_defaults_are_the_papers_and_a_recipe_wins_over_them(recipe, tmp_path):
    paper = recipe()
    lora, arguments = lora_config(paper, build_model("llama")), training_arguments(paper, tmp_path)
    assert (lora.r, lora.lora_alpha, lora.lora_dropout) == (8, 16, 0.1)
    assert arguments.learning_rate == 5e-4
    assert arguments.lr_scheduler_type == "inverse_sqrt"
    assert arguments.get_warmup_steps(200) == 6, "3 %"
    assert arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps == 128
    assert arguments.seed == 3
    assert not (tmp_path / "checkpoints").exists()
    other = recipe("training.learning_rate=1e-3", "training.save_total_limit=7", "lora.r=5")
    assert training_arguments(other, tmp_path).learning_rate == 1e-3
    assert training_arguments(other, tmp_path).save_total_limit == 7
    assert lora_config(other, build_model("llama")).r == 5
    assert lora_config(other, build_model("llama"), layers=3).layers_to_transform == [0, 1, 2]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], True), (["training.bf16=false"], False), (["training.fp16=true"], False), (["model.dtype=float32"], False),
    ],
)  # fmt: skip
def test_a_cpu_trains_in_bfloat16_where_it_has_instructions_for_it(
    recipe, tmp_path, monkeypatch, caplog, overrides, expected
):
    caplog.set_level("INFO")
    for has, wanted in ((True, expected), (False, False)):
        caplog.clear()
        monkeypatch.setattr("midalign.training.arguments.cpu_computes_in_bfloat16", lambda has=has: has)
        assert training_arguments(recipe(*overrides), tmp_path).bf16 is wanted
        assert ("training computes in bfloat16" in caplog.text) == wanted


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("training.lr_scheduler_type=inverse", "inverse_sqrt"),
        ("training.optim=adam", "adamw_torch"),
        ("training.optim=galore_adamw", "optim = 'galore_adamw' cannot be used here"),
        ("training.optim=lomo", "optim = 'lomo' cannot be used here"),
        ("training.optim_args=momentum", "cannot be used here"),
        ("training.optim_args='momentum=0.9'", "optim_args = 'momentum=0.9' has no effect on optim: adamw_torch"),
        ("training.lr_scheduler_kwargs={cycles: 2}", "lr_scheduler_kwargs = {'cycles': 2} does not fit inverse_sqrt"),
        ("training.load_best_model_at_end=true", "load_best_model_at_end"),
        ("training.lr_scheduler_kwargs={timescale: long}", "{'timescale': 'long'} does not fit inverse_sqrt"),
        ("training.gradient_checkpointing_kwargs={reentrant: true}", "Did you mean 'use_reentrant'"),
        ("training.activation_checkpointing_kwargs={a: 1}", "activation_checkpointing_kwargs"),
        ("training.torch_compile_backend=inductr", "is none. Did you mean 'inductor'"),
        ("training.tf32=true", "tf32"),
        ("training.activation_offloading=true", "moves activations off a GPU"),
        ("lora.layers_pattern=layers", "layers_to_transform"),
    ],
)
def test_what_the_libraries_refuse_is_found_without_data_and_model(recipe, override, says):
    beside = ["training.eval_strategy=epoch"] if "load_best" in override else []
    message = refused(recipe(*beside, override))
    assert message.startswith("r.yaml has 1 fault")
    assert says in message


def test_arguments_of_adam_have_no_effect_on_another_optimizer(recipe):
    assert "adam_beta1 = 0.5 has no effect on optim: sgd" in refused(
        recipe("training.optim=sgd", "training.adam_beta1=0.5")
    )
    check_arguments(recipe("training.optim=sgd", "training.optim_args='momentum=0.9'"))
    check_arguments(recipe("training.adam_beta1=0.5"))


def test_faults_of_both_libraries_come_at_once(recipe):
    message = refused(recipe("training.optim=adam", "lora.layers_pattern=layers"))
    assert "r.yaml has 2 faults" in message


def test_half_precision_is_one_or_the_other(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("midalign.training.arguments.default_device", lambda: torch.device("cuda"))
    monkeypatch.setattr("transformers.training_args.is_torch_bf16_gpu_available", lambda: True)
    arguments = training_arguments(recipe("training.fp16=true"), tmp_path)
    assert (arguments.fp16, arguments.bf16) == (True, False)
    assert training_arguments(recipe(), tmp_path).bf16


def test_one_process_uses_one_gpu(recipe, tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with caplog.at_level("INFO"):
        arguments = training_arguments(recipe(), tmp_path)
    assert (arguments.device.type, arguments.n_gpu) == ("cpu", 1)
    assert "one of 2 GPUs is used; accelerate launch uses all" in caplog.text


def test_the_baseline_chooses_by_what_it_measures(recipe, tmp_path):
    made = recipe(
        "training.eval_strategy=steps", "training.eval_steps=10", "training.save_steps=10",
        "training.load_best_model_at_end=true", "training.metric_for_best_model=eval_retrieval",
    )  # fmt: skip
    joint, alone = (training_arguments(made, tmp_path, objective=which) for which in ("joint", "task"))
    assert (joint.metric_for_best_model, joint.greater_is_better) == ("eval_retrieval", True)
    assert (alone.metric_for_best_model, alone.greater_is_better) == ("eval_loss", False)
    by_loss = made.model_copy(
        update={"training": made.training.model_copy(update={"metric_for_best_model": "eval_loss"})}
    )
    found = {which: training_arguments(by_loss, tmp_path, objective=which) for which in ("joint", "task", "align")}
    assert {which: arguments.metric_for_best_model for which, arguments in found.items()} == {
        "joint": "eval_loss", "task": "eval_loss", "align": "eval_alignment_loss",
    }  # fmt: skip


# ---- adapters


def names_of(config, model):
    from peft import get_peft_model

    return sorted(name for name, _ in get_peft_model(model, config).named_modules() if name.endswith("lora_A"))


@pytest.mark.parametrize(
    ("overrides", "modules"),
    [
        ([], 7 * 2),
        (["lora.target_modules=[q_proj, v_proj]"], 2 * 2),
        (["lora.target_modules='.*self_attn.*proj'"], 4 * 2),
        (["lora.target_modules='model.layers.(1|3).mlp.up_proj'"], 1),
        (["lora.layers_to_transform=[1, 3]"], 7),
        (["lora.layers_to_transform=0", "lora.target_modules=[q_proj]"], 1),
        (["lora.exclude_modules=[q_proj]"], 6 * 2),
    ],
)
def test_an_alignment_adapter_is_on_the_modules_asked_for_in_the_lowest_blocks(recipe, overrides, modules):
    model = build_model("llama")
    whole = names_of(lora_config(recipe(*overrides), model), build_model("llama"))
    low = names_of(lora_config(recipe(*overrides), model, layers=2), build_model("llama"))
    assert low == [name for name in whole if int(name.split(".layers.")[1].split(".")[0]) < 2]
    assert len(low) == modules


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("lora.target_modules=[q_proj, qproj]", "lora.target_modules names 'qproj', which is not a module"),
        ("lora.target_modules='nothing'", "leave no module"),
        ("lora.target_modules='('", "is not a regular expression"),
        ("lora.target_modules=[embed_tokens]", "'model.embed_tokens', which is a Embedding; only linear layers"),
        ("lora.target_modules=[q_proj, lm_head]", "the LM head"),
        ("lora.target_modules=[mlp]", "only linear layers"),
        ("lora.exclude_modules=[k]", "excludes no module"),
        ("lora.rank_pattern={qproj: 3}", "rank_pattern names 'qproj'"),
        ("lora.alpha_pattern={embed_tokens: 3}", "alpha_pattern names 'embed_tokens'"),
        ("lora.layers_to_transform=[0, 9]", "layers_to_transform names block 9"),
    ],
)
def test_a_name_that_changes_nothing_is_refused_before_training(recipe, override, says):
    with pytest.raises(RecipeError) as caught:
        lora_config(recipe(override), build_model("llama"))
    assert says in str(caught.value)
    assert "q_proj" in str(caught.value) or "regular" in says


def test_the_weight_of_a_routers_loss_needs_a_router(recipe):
    check_lora(recipe("training.router_aux_loss_coef=0.1"), build_model("mixtral").config)
    with pytest.raises(RecipeError, match="LlamaForCausalLM is no mixture of experts"):
        check_lora(recipe("training.router_aux_loss_coef=0.1"), build_model("llama").config)


def test_an_alignment_adapter_without_any_module_is_refused(recipe):
    with pytest.raises(RecipeError, match="no module that gets an adapter is in blocks 1 to 2"):
        lora_config(recipe("lora.layers_to_transform=[3]"), build_model("llama"), layers=2)


def test_the_papers_modules_are_the_linear_layers_of_a_llama_block():
    paper = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert set(linear_names(build_model("llama"))) == paper
    assert set(linear_names(build_model("gpt2"))) == {"c_attn", "c_proj", "c_fc"}
    assert "lm_head" not in linear_names(build_model("qwen2"))
    assert find_decoder(build_model("llama")).depth == 4


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["lora.target_modules=[q_proj, v_proj]"],
        ["lora.target_modules='.*(q|v)_proj'"],
        ["lora.exclude_modules=[k_proj]"],
        ["lora.exclude_modules='.*k_proj'"],
        ["lora.layers_to_transform=[0, 2]"],
    ],
)
@pytest.mark.parametrize("layers", [None, 2])
def test_a_vision_tower_gets_no_adapter_though_its_layers_have_the_same_names(recipe, overrides, layers):
    text, images = build_model("gemma3"), build_model("gemma3_images")
    assert any("vision_tower" in name and name.endswith("q_proj") for name, _ in images.named_modules())
    found = names_of(lora_config(recipe(*overrides), images, layers), build_model("gemma3_images"))
    expected = names_of(lora_config(recipe(*overrides), text, layers), build_model("gemma3"))
    assert found == [name.replace("model.layers", "model.language_model.layers") for name in expected]


def test_a_name_of_the_vision_tower_alone_is_no_module_to_train(recipe):
    with pytest.raises(RecipeError, match=r"target_modules names 'out_proj', which is not a module.*'o_proj'"):
        lora_config(recipe("lora.target_modules=[q_proj, out_proj]"), build_model("gemma3_images"))
