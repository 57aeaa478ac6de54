"""Adapters on tiny models: live weights, merges and exports against updates added by hand, and against PEFT itself."""

from __future__ import annotations

import contextlib
import json
import math

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer

from midalign.errors import MissingFileError, ModelError, RunError
from midalign.functional.merge_methods import METHODS, OPTIONS, merge
from midalign.merging.export import MERGE_RECORD, export_merged_base, merge_adapters
from midalign.merging.live_adapters import LiveAdapters
from midalign.models.adapter_files import CONFIG_FILE, WEIGHTS_FILE, read_adapter
from midalign.models.adapters import attach_adapter, merge_into_base, without_adapters
from tests.conftest import build_model

IDS = torch.tensor([[1, 7, 30, 200, 5, 9], [1, 99, 3, 17, 250, 4]])
LLAMA = ("q_proj", "v_proj", "up_proj")
PLAIN = dict(r=4, lora_alpha=8, target_modules=list(LLAMA))


def save_adapter(build, folder, seed, family="llama", **options):
    """A PEFT adapter with random factors, saved by PEFT."""
    model = get_peft_model(build(family), LoraConfig(task_type="CAUSAL_LM", **options))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def logits_by_hand(build, family, folders, weights):
    """The base model with every ``w * alpha / r * B @ A`` added to its weight by hand, the product in float64."""
    from safetensors.torch import load_file

    model = build(family)
    for folder, weight in zip(folders, weights, strict=True):
        config = json.loads((folder / CONFIG_FILE).read_text())
        tensors = load_file(folder / WEIGHTS_FILE)
        for key in tensors:
            if key.endswith("lora_A.weight"):
                a, b = tensors[key].double(), tensors[key.replace("lora_A", "lora_B")].double()
                module = model.get_submodule(key.removeprefix("base_model.model.").removesuffix(".lora_A.weight"))
                rank = a.shape[0]
                ends = [p for p in config["alpha_pattern"] if f".{p}.lora_A" in key]
                alpha = config["alpha_pattern"][ends[0]] if ends else config["lora_alpha"]
                scale = alpha / (math.sqrt(rank) if config["use_rslora"] else rank)
                update = weight * scale * b @ a
                module.weight.data += (update.T if family == "gpt2" else update).float()
    return logits(model)


CASES = {
    "plain": ("llama", PLAIN, PLAIN),
    "unequal rank and alpha": ("llama", PLAIN, {**PLAIN, "r": 7, "lora_alpha": 3}),
    "unequal modules": ("llama", PLAIN, {**PLAIN, "target_modules": ["q_proj", "down_proj"]}),
    "disjoint modules": ("llama", PLAIN, {**PLAIN, "r": 2, "target_modules": ["k_proj"]}),
    "rslora": ("llama", {**PLAIN, "use_rslora": True}, {**PLAIN, "r": 3}),
    "both rslora": ("llama", {**PLAIN, "use_rslora": True}, {**PLAIN, "use_rslora": True, "r": 6}),
    "lower layers only": ("llama", PLAIN, {**PLAIN, "r": 3, "layers_to_transform": [0, 1]}),
    "regex and head": ("llama", PLAIN, {**PLAIN, "target_modules": r"lm_head|.*\.[13]\..*o_proj"}),
    "patterns": (
        "llama",
        {**PLAIN, "rank_pattern": {"up_proj": 2}, "alpha_pattern": {"q_proj": 5, "layers.1.mlp.up_proj": 9}},
        {**PLAIN, "r": 3},
    ),
    "gpt2 (fan in, fan out)": (
        "gpt2",
        dict(r=4, lora_alpha=8, target_modules=["c_attn", "c_proj"]),
        dict(r=2, lora_alpha=8, target_modules=["c_fc", "c_proj"], fan_in_fan_out=True),
    ),
    "qwen3": ("qwen3", PLAIN, {**PLAIN, "r": 3, "target_modules": "all-linear"}),
    "mixtral": ("mixtral", {**PLAIN, "target_modules": ["q_proj", "o_proj"]}, {**PLAIN, "r": 2}),
    "gemma3": ("gemma3", PLAIN, {**PLAIN, "r": 3, "layers_to_transform": [0, 1]}),
    "phi3": (
        "phi3",
        {**PLAIN, "target_modules": ["qkv_proj", "gate_up_proj"]},
        {**PLAIN, "target_modules": ["o_proj"]},
    ),
    "gpt_neox": ("gpt_neox", {**PLAIN, "target_modules": ["query_key_value"]}, {**PLAIN, "target_modules": ["dense"]}),
}


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
@pytest.mark.parametrize("case", CASES)
def test_sum_equals_the_live_adapters_and_the_updates_added_by_hand(case, tiny_model, tmp_path):
    family, *options = CASES[case]
    folders = [save_adapter(tiny_model, tmp_path / str(i), i, family, **o) for i, o in enumerate(options)]
    paths, weights = dict(zip("ab", folders, strict=True)), {"a": 0.8, "b": -0.6}
    expected = logits_by_hand(tiny_model, family, folders, weights.values())
    assert float((expected - logits(tiny_model(family))).abs().max()) > 1e-3, "the adapters change the model"

    summary = merge_adapters(paths, weights, out=tmp_path / "out", base_model=tiny_model(family))
    with LiveAdapters(tiny_model(family), paths) as live:
        live.set_weights(weights)
        torch.testing.assert_close(logits(live.model), expected, rtol=0, atol=1e-5)
    plain_peft = PeftModel.from_pretrained(tiny_model(family), str(tmp_path / "out")).eval()
    torch.testing.assert_close(logits(plain_peft), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits(plain_peft.merge_and_unload()), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        logits(attach_adapter(tiny_model(family), tmp_path / "out")), expected, rtol=0, atol=1e-5
    )
    base = tiny_model(family)
    merge_into_base(base, tmp_path / "out")
    torch.testing.assert_close(logits(base), expected, rtol=0, atol=1e-5)
    assert summary.distance_from_sum < 1e-6
    assert summary.truncation_error == 0.0


@pytest.mark.parametrize("options", [PLAIN, {**PLAIN, "use_rslora": True}])
@pytest.mark.parametrize("method", METHODS)
def test_one_adapter_at_weight_1_merges_to_itself(method, options, tiny_model, tmp_path):
    one = save_adapter(tiny_model, tmp_path / "one", 1, **options)
    density = {"density": 1.0} if "density" in OPTIONS[method] else {}
    merge_adapters({"one": one}, {"one": 1.0}, method, out=tmp_path / "out", **density)
    with_peft = PeftModel.from_pretrained(tiny_model("llama"), str(one)).eval()
    merged = attach_adapter(tiny_model("llama"), tmp_path / "out")
    torch.testing.assert_close(logits(merged), logits(with_peft), rtol=0, atol=1e-5)


PEFT_NAMES = {"sum": "cat", "peft_linear": "linear", "svd": "svd"}


@pytest.mark.parametrize("weights", [(0.8, 0.5), (1.0, -0.4), (1.0, 0.0)])
@pytest.mark.parametrize("method", PEFT_NAMES)
def test_methods_that_peft_has_give_pefts_updates_on_plain_lora(method, weights, tiny_model, tmp_path):
    folders = [save_adapter(tiny_model, tmp_path / name, i, **PLAIN) for i, name in enumerate("ab")]
    peft_model = PeftModel.from_pretrained(tiny_model("llama"), str(folders[0]), adapter_name="first")
    peft_model.load_adapter(str(folders[1]), adapter_name="second")
    peft_model.add_weighted_adapter(
        ["first", "second"], list(weights), "merged", combination_type=PEFT_NAMES[method], svd_rank=4
    )
    paths = dict(zip("ab", folders, strict=True))
    merge_adapters(paths, dict(zip("ab", weights, strict=True)), method, out=tmp_path / "out")
    ours = read_adapter(tmp_path / "out").factors
    for name, layer in peft_model.get_base_model().named_modules():
        if isinstance(layer, LoraLayer):
            theirs = layer.get_delta_weight("merged")
            torch.testing.assert_close(ours[name].update(), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_the_file_holds_what_the_method_gives_for_every_module(method, tiny_model, tmp_path):
    paths = {name: save_adapter(tiny_model, tmp_path / name, i, **PLAIN) for i, name in enumerate("abc")}
    weights = {"a": 0.7, "b": 0.4, "c": -0.2}
    # Weights are by name: the order of the two mappings must not matter.
    summary = merge_adapters(paths, dict(reversed(weights.items())), method, out=tmp_path / "out")
    merged = read_adapter(tmp_path / "out").factors
    read = {name: read_adapter(path).factors for name, path in paths.items()}
    lost = whole = distance = exact_norm = 0.0
    for module, factors in merged.items():
        parts = [read[name][module] for name in "abc"]
        exact = sum(w * f.update() for f, w in zip(parts, weights.values(), strict=True))
        if method != "dare":  # its seed differs by module
            expected = merge(method, parts, list(weights.values()))
            torch.testing.assert_close(factors.update(), expected.factors.update(), rtol=0, atol=1e-6)
            lost += expected.lost**2
            whole += float(expected.factors.update().norm()) ** 2 + expected.lost**2
        distance += float((factors.update() - exact).norm()) ** 2
        exact_norm += float(exact.norm()) ** 2
    assert summary.distance_from_sum == pytest.approx(math.sqrt(distance / exact_norm), rel=1e-3, abs=1e-5)
    if method != "dare":
        assert summary.truncation_error == pytest.approx(math.sqrt(lost / whole), rel=1e-3, abs=1e-6)
    assert json.loads((tmp_path / "out" / MERGE_RECORD).read_text())["weights"] == weights


def test_dare_drops_other_entries_in_every_module_and_the_same_ones_every_time(tiny_model, tmp_path):
    one = save_adapter(tiny_model, tmp_path / "one", 1, **PLAIN)
    for out, seed in (("x", 0), ("y", 0), ("z", 1)):
        merge_adapters({"one": one}, {"one": 1.0}, "dare", out=tmp_path / out, seed=seed, rank=64)
    files = [(tmp_path / out / WEIGHTS_FILE).read_bytes() for out in "xyz"]
    assert files[0] == files[1]
    assert files[0] != files[2]
    merged = read_adapter(tmp_path / "x").factors
    zeros = [merged[f"model.layers.{i}.self_attn.q_proj"].update().abs() < 1e-7 for i in range(2)]
    assert 0.3 < float(zeros[0].float().mean()) < 0.7
    assert not torch.equal(zeros[0], zeros[1])


def test_a_merge_is_the_same_bytes_every_time(tiny_model, tmp_path):
    paths = {name: save_adapter(tiny_model, tmp_path / name, i, **PLAIN) for i, name in enumerate("ab")}
    for out in "xy":
        merge_adapters(paths, {"a": 1.0, "b": 0.5}, out=tmp_path / out)
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        assert (tmp_path / "x" / file).read_bytes() == (tmp_path / "y" / file).read_bytes()


@pytest.mark.parametrize("bands", [[0.2, 0.9], [0.1, 0.5, -0.3, 1.0], [0.7]])
def test_weights_per_band_are_the_same_live_merged_and_by_hand(bands, tiny_model, tmp_path):
    paths = {
        "task": save_adapter(tiny_model, tmp_path / "task", 1, **PLAIN),
        "align": save_adapter(tiny_model, tmp_path / "align", 2, **{**PLAIN, "r": 3}),
    }
    weights = {"task": 1.0, "align": bands}
    by_hand = tiny_model("llama")
    for name, path in paths.items():
        for module, factors in read_adapter(path).factors.items():
            layer = int(module.split(".")[2])
            weight = 1.0 if name == "task" else bands[layer * len(bands) // 4]
            by_hand.get_submodule(module).weight.data += weight * factors.update()
    merge_adapters(paths, weights, out=tmp_path / "out", base_model=tiny_model("llama"))
    merged = attach_adapter(tiny_model("llama"), tmp_path / "out")
    torch.testing.assert_close(logits(merged), logits(by_hand), rtol=0, atol=1e-5)
    with LiveAdapters(tiny_model("llama"), paths) as live:
        live.set_weights(weights)
        torch.testing.assert_close(logits(live.model), logits(by_hand), rtol=0, atol=1e-5)


def test_live_weights_follow_every_setting_and_the_model_comes_back_as_it_was(tiny_model, tmp_path):
    paths = {name: save_adapter(tiny_model, tmp_path / name, i, **PLAIN) for i, name in enumerate(("v1.0", "items"))}
    model = tiny_model("llama").train()
    model.lm_head.weight.requires_grad_(False)
    before = logits(model.eval())
    model.train()
    model.model.layers[2].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with LiveAdapters(model, paths) as live:
        assert not live.model.training
        for first, second in [(1.0, 0.0), (0.0, 0.0), (0.3, 0.7), (1.0, -1.0)]:
            live.set_weights({"v1.0": first, "items": second})
            expected = logits_by_hand(tiny_model, "llama", paths.values(), (first, second))
            torch.testing.assert_close(logits(live.model), expected, rtol=0, atol=1e-5)
    assert {name.split(".")[2] for name, module in model.named_modules() if not module.training} == {"2"}
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["lm_head.weight"]
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(logits(model.eval()), before)
    assert not hasattr(model, "peft_config")


def test_live_adapters_start_at_weight_1_and_leave_on_an_error(tiny_model, tmp_path):
    paths = {name: save_adapter(tiny_model, tmp_path / name, i, **PLAIN) for i, name in enumerate("ab")}
    model = tiny_model("llama")
    before = logits(model)
    expected = logits_by_hand(tiny_model, "llama", paths.values(), (1.0, 1.0))
    with contextlib.suppress(ZeroDivisionError), LiveAdapters(model, paths) as live:
        torch.testing.assert_close(logits(live.model), expected, rtol=0, atol=1e-5)
        raise ZeroDivisionError
    assert torch.equal(logits(model), before)


def test_live_adapters_read_no_file_when_weights_change(tiny_model, tmp_path, monkeypatch):
    paths = {name: save_adapter(tiny_model, tmp_path / name, i, **PLAIN) for i, name in enumerate("ab")}
    with LiveAdapters(tiny_model("llama"), paths) as live:
        for path in paths.values():
            (path / WEIGHTS_FILE).unlink()
        live.set_weights({"a": 0.5, "b": 0.5})
        logits(live.model)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_exported_base_loads_in_plain_transformers(family, tiny_model, tmp_path):
    from transformers import AutoModelForCausalLM

    modules = ["c_attn"] if family == "gpt2" else list(LLAMA)
    one = save_adapter(tiny_model, tmp_path / "one", 1, family, **{**PLAIN, "target_modules": modules})
    export_merged_base(tiny_model(family), one, out=tmp_path / "deep" / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "deep" / "out", dtype=torch.float32).eval()
    expected = logits_by_hand(tiny_model, family, [one], [1.0])
    torch.testing.assert_close(logits(loaded), expected, rtol=0, atol=1e-5)


def test_a_bfloat16_base_is_rounded_once(tiny_model, tmp_path):
    one = save_adapter(tiny_model, tmp_path / "one", 1, **PLAIN)
    model = tiny_model("llama").to(torch.bfloat16)
    weight = {name: value.clone() for name, value in model.state_dict().items()}
    merge_into_base(model, one)
    for name, factors in read_adapter(one).factors.items():
        exact = weight[f"{name}.weight"].double() + factors.update().double()
        error = (model.get_submodule(name).weight.double() - exact).abs()
        assert bool((error <= exact.abs() * 2**-8 + 1e-7).all()), "half a unit in the last place of bfloat16"


def other_file(folder, edit):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / WEIGHTS_FILE)
    save_file(edit(tensors), folder / WEIGHTS_FILE)


def test_attach_refuses_what_peft_would_only_warn_of(tiny_model, tmp_path):
    one = save_adapter(tiny_model, tmp_path / "one", 1, **PLAIN)
    other_file(one, lambda tensors: {k: v for k, v in tensors.items() if "layers.3" not in k})
    model = tiny_model("llama")
    before = logits(model)
    with pytest.raises(ModelError, match=r"no weights for, such as 'model\.layers\.3"):
        attach_adapter(model, one)
    assert torch.equal(logits(model), before)
    assert not any(isinstance(module, LoraLayer) for module in model.modules())


def test_attach_refuses_weights_that_the_configuration_does_not_name(tiny_model, tmp_path):
    one = save_adapter(tiny_model, tmp_path / "one", 1, **PLAIN)
    config = json.loads((one / CONFIG_FILE).read_text())
    (one / CONFIG_FILE).write_text(json.dumps({**config, "target_modules": ["q_proj"]}))
    with pytest.raises(ModelError, match="does not name, such as"):
        attach_adapter(tiny_model("llama"), one)


def test_attach_refuses_an_adapter_of_another_model(tiny_model, tmp_path):
    one = save_adapter(tiny_model, tmp_path / "one", 1, **PLAIN)
    with pytest.raises(ModelError, match="which the model does not have"):
        attach_adapter(tiny_model("gpt2"), one)
    with pytest.raises(ModelError, match=r"update of shape \(48, 32\), but the model's weight is \(48, 40\)"):
        attach_adapter(tiny_model("llama", hidden_size=40, head_dim=10), one)
    with pytest.raises(ModelError, match=r"layers\.2\..* which the model does not have"):
        attach_adapter(tiny_model("llama", num_hidden_layers=2), one)


def test_attach_refuses_a_model_that_carries_an_adapter(tiny_model, tmp_path):
    one = save_adapter(tiny_model, tmp_path / "one", 1, **PLAIN)
    model = tiny_model("llama")
    attach_adapter(model, one)
    with pytest.raises(ModelError, match="already carries"):
        attach_adapter(model, one)


def test_merge_refuses_bad_weights_methods_and_targets_and_writes_nothing(tiny_model, tmp_path):
    paths = {name: save_adapter(tiny_model, tmp_path / name, i, **PLAIN) for i, name in enumerate(("task", "align"))}
    good = {"task": 1.0, "align": 0.5}
    wide = save_adapter(lambda family: tiny_model(family, hidden_size=40, head_dim=10), tmp_path / "w", 3, **PLAIN)
    ranks = save_adapter(tiny_model, tmp_path / "r5", 3, **{**PLAIN, "r": 5})
    faults = [
        (lambda out: merge_adapters(paths, {"task": 1.0, "algn": 0.5}, out=out), "Did you mean 'align'"),
        (lambda out: merge_adapters(paths, {"task": 1.0}, out=out), "'align' has no weight"),
        (lambda out: merge_adapters(paths, {**good, "task": math.inf}, out=out), "not a finite number"),
        (lambda out: merge_adapters(paths, {**good, "task": [1.0, 0.5]}, out=out), "need the base model"),
        (
            lambda out: merge_adapters(paths, {**good, "task": [1.0] * 5}, out=out, base_model=tiny_model("llama")),
            "5 weights",
        ),
        (lambda out: merge_adapters(paths, good, "linear", out=out), "Did you mean 'peft_linear'"),
        (lambda out: merge_adapters(paths, good, "sum", out=out, density=0.5), "no option 'density'"),
        (lambda out: merge_adapters({}, {}, out=out), "No adapter"),
        (lambda out: merge_adapters(paths, good, out=out, base_model=tiny_model("gpt2")), "does not have"),
        (lambda out: merge_adapters({"a": paths["task"], "w": wide}, {"a": 1, "w": 1}, out=out), "layers.0.*different"),
        (
            lambda out: merge_adapters({"a": paths["task"], "r": ranks}, {"a": 1, "r": 1}, "parameters", out=out),
            "needs equal ranks",
        ),
        (lambda out: merge_adapters(paths, good, out=paths["task"]), "is not an empty folder"),
        (lambda out: export_merged_base(tiny_model("llama"), paths["task"], out=paths["task"]), "is not an empty"),
    ]
    before = sorted(tmp_path.rglob("*"))
    for fault, message in faults:
        with pytest.raises((ModelError, RunError), match=message):
            fault(tmp_path / "out")
    with pytest.raises(MissingFileError, match="does not exist"):
        merge_adapters({"a": tmp_path / "nowhere"}, {"a": 1.0}, out=tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_merge_that_fails_while_writing_leaves_nothing_behind(tiny_model, tmp_path, monkeypatch):
    one = save_adapter(tiny_model, tmp_path / "one", 1, **PLAIN)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr("midalign.models.adapter_files.save_file", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        merge_adapters({"one": one}, {"one": 1.0}, out=tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_merging_into_the_base_refuses_tied_quantised_and_overflowing_weights_and_changes_nothing(tiny_model, tmp_path):
    head = save_adapter(tiny_model, tmp_path / "head", 1, **{**PLAIN, "target_modules": ["q_proj", "lm_head"]})
    tied = tiny_model("llama", tie_word_embeddings=True)
    before = {name: value.clone() for name, value in tied.state_dict().items()}
    with pytest.raises(ModelError, match="'lm_head' is tied"):
        merge_into_base(tied, head)
    assert all(torch.equal(value, before[name]) for name, value in tied.state_dict().items())

    small = save_adapter(tiny_model, tmp_path / "small", 1, **{**PLAIN, "lora_alpha": 10**7})
    with pytest.raises(ModelError, match=r"leaves the range of torch\.float16"):
        merge_into_base(tiny_model("llama").half(), small)

    quantised = tiny_model("llama")
    layer = quantised.model.layers[0].self_attn.q_proj
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.uint8).reshape(-1, 1), requires_grad=False)
    with pytest.raises(ModelError, match=r"is quantised \(torch.uint8\)"):
        merge_into_base(quantised, save_adapter(tiny_model, tmp_path / "plain", 1, **PLAIN))


def test_switching_adapters_off_leaves_dropout_and_what_is_trained_as_they_were():
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, lora_dropout=0.5)
    base = build_model("llama")
    ids = torch.tensor([[1, 7, 8, 9]])
    expected = base.eval()(ids).logits
    model = get_peft_model(base, config).train()
    frozen = next(p for n, p in model.named_parameters() if "lora" in n)
    frozen.requires_grad_(False)
    before = [p.requires_grad for p in model.parameters()]
    with without_adapters(model):
        assert not model.training
        assert torch.equal(model(ids).logits, expected)
    assert [p.requires_grad for p in model.parameters()] == before
    assert model.training


def test_a_model_without_adapter_has_none_to_switch_off():
    with pytest.raises(ModelError, match="has none"), without_adapters(build_model("llama")):
        pass
