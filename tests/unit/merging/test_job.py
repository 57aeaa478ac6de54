"""Tuning merge weights: live adapters give the scores of the exported merge, and ties go to less alignment."""

import json
import sys

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from midalign.answers.format import AnswerFormat
from midalign.cli.main import main
from midalign.data.prompt_tokens import training_rows
from midalign.errors import DataError, ModelError, RecipeError, RunError
from midalign.evaluation.score import score
from midalign.generation.answer_loss import answer_losses
from midalign.generation.generate import generate
from midalign.merging import tune
from midalign.merging.export import merge_adapters
from midalign.merging.folding import Folded
from midalign.merging.job import MergeJob
from midalign.merging.live_adapters import LiveAdapters
from midalign.merging.tune import tune_weights
from midalign.models.adapters import attach_adapter
from midalign.models.source import ModelSource
from midalign.recipe.data import read_task_data
from midalign.recipe.file import build_recipe
from tests.conftest import build_model, build_tokenizer
from tests.tiny_adapter import save_adapter
from tests.tiny_world import recipe_content, write_lines, write_slots

GRID = ["merge.task_weights=[0.5, 1.0]", "merge.alignment_weights=[0.0, 0.7, 2.0]"]


@pytest.fixture
def adapters(tmp_path):
    """Two adapters with strong random updates, of unequal rank and alpha."""
    folders = {}
    for number, (name, rank) in enumerate((("task", 4), ("alignment", 2))):
        config = LoraConfig(
            r=rank, lora_alpha=3 * rank + number, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM",
            layers_to_transform=[0, 1] if name == "alignment" else None,
        )  # fmt: skip
        model = get_peft_model(build_model("llama", max_position_embeddings=256), config)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in (p for p in model.parameters() if p.requires_grad):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
        model.save_pretrained(tmp_path / name)
        folders[name] = tmp_path / name
    return folders


@pytest.fixture
def recipe(tmp_path):
    write_slots(tmp_path / "slots")
    write_lines(tmp_path / "lines")
    write_lines(tmp_path / "probe", "again")
    return build_recipe(recipe_content(tmp_path), GRID)


def test_every_candidate_scores_as_the_exported_merge_does(tmp_path, adapters, recipe, monkeypatch):
    """The answers themselves are compared: random models score 0, which would hide any difference."""
    dev, tokenizer = read_task_data(recipe).dev, build_tokenizer()
    seen = []

    def spy(*args, **kwargs):
        seen.append(generate(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(tune, "generate", spy)
    base = build_model("llama", max_position_embeddings=256)
    found = tune_weights(base, tokenizer, adapters, recipe, dev)
    assert [row["weights"] for row in found["table"]] == [
        {"task": t, "alignment": a} for t in (0.5, 1.0) for a in (0.0, 0.7, 2.0)
    ]
    assert found["n"] == len(dev)
    for number, row in enumerate(found["table"]):
        out = tmp_path / f"merged-{number}"
        merge_adapters(adapters, row["weights"], "sum", out=out, base_model=base)
        merged = attach_adapter(build_model("llama", max_position_embeddings=256), out)
        answers = generate(merged, tokenizer, dev, AnswerFormat(system=""), max_new_tokens=4)
        assert answers == seen[number]
        scores = score(dev, answers, resamples=100)
        (expected,) = [s for s in scores if (s.metric, s.group) == ("slot_f1", "all")]
        assert (row["score"], row["low"], row["high"]) == (expected.value, expected.low, expected.high)
    assert len({tuple(a.prediction for a in answers) for answers in seen}) > 3, "the weights matter here"
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        untouched = build_model("llama", max_position_embeddings=256)(ids).logits
        assert torch.equal(base(ids).logits, untouched), "the base model is as it was"


def test_the_loss_is_that_of_transformers_row_by_row(recipe):
    """Padding, batches and the logits that are left out change nothing."""
    dev, tokenizer = read_task_data(recipe).dev, build_tokenizer()
    rows = training_rows(dev, tokenizer, AnswerFormat(system=""))
    rows += [{"input_ids": [1, 7, 9], "labels": [1, 7, 9]}]  # no prompt: the first token has nothing before it
    for family in ("llama", "gpt2", "gemma3"):
        model = build_model(family, max_position_embeddings=256, **({"n_positions": 256} if family == "gpt2" else {}))
        found = answer_losses(model, rows, batch_tokens=200)
        for row, (total, count) in zip(rows, found, strict=True):
            with torch.no_grad():
                loss = model(input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([row["labels"]])).loss
            assert count == sum(label != -100 for label in row["labels"][1:])
            assert total == pytest.approx(float(loss) * count, rel=1e-4)


def test_tuning_on_the_loss_gives_the_loss_of_the_exported_merge(tmp_path, adapters, recipe):
    dev, tokenizer = read_task_data(recipe).dev, build_tokenizer()
    section = recipe.merge.model_copy(update={"objective": "loss", "search": "coordinate", "bands": 2})
    base, calls = build_model("llama", max_position_embeddings=256), []
    found = tune_weights(
        base, tokenizer, adapters, recipe.model_copy(update={"merge": section}), dev,
        progress=lambda *words: calls.append(words),
    )  # fmt: skip
    assert found["evaluations"] == len(found["table"]) == len({str(row["weights"]) for row in found["table"]})
    assert calls[-1][1] == calls[-1][2]
    lowest = min(found["table"], key=lambda row: row["score"])
    assert next(row["score"] for row in found["table"] if row["weights"] == found["chosen"]) == lowest["score"]
    assert found["chosen"]["alignment"][1] == 0.0, "the adapter touches nothing in the upper band, so less is as good"
    assert found["metric"] == "loss"
    rows = training_rows(dev, tokenizer, AnswerFormat(system=""))
    for number, row in enumerate(found["table"][:4]):
        out = tmp_path / f"merged-{number}"
        merge_adapters(adapters, row["weights"], "sum", out=out, base_model=base)
        merged = attach_adapter(build_model("llama", max_position_embeddings=256), out)
        total = count = 0.0
        for item in rows:
            with torch.no_grad():
                loss = merged(input_ids=torch.tensor([item["input_ids"]]), labels=torch.tensor([item["labels"]])).loss
            n = sum(label != -100 for label in item["labels"])
            total, count = total + float(loss) * n, count + n
        assert row["score"] == pytest.approx(total / count, rel=1e-4)
        assert row["low"] <= row["score"] <= row["high"]
        assert row["difference"] == pytest.approx(row["score"] - lowest["score"])


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_folded_adapters_give_the_logits_of_live_ones_and_leave_no_trace(tmp_path, family):
    base = build_model(family)
    before = {name: parameter.detach().clone() for name, parameter in base.named_parameters()}
    folders = {}
    for seed, name in enumerate(("task", "alignment")):
        config = LoraConfig(r=2 + seed, lora_alpha=7, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(build_model(family), config)
        torch.manual_seed(seed)
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                parameter.data = torch.randn_like(parameter) * 0.1
        model.save_pretrained(tmp_path / name)
        folders[name] = tmp_path / name
    ids = torch.tensor([[5, 9, 200, 31]])
    with torch.no_grad(), LiveAdapters(base, folders) as live:
        plain = {}
        for alignment in (0.0, [0.3, -1.0]):
            live.set_weights({"task": 1.0, "alignment": alignment})
            plain[str(alignment)] = live.model(ids).logits
        with Folded(live.model) as folded:
            assert folded.possible
            for alignment in (0.0, [0.3, -1.0], 0.0):
                live.set_weights({"task": 1.0, "alignment": alignment})
                folded.refresh()
                assert torch.allclose(live.model(ids).logits, plain[str(alignment)], atol=1e-5)
        assert torch.equal(live.model(ids).logits, plain["0.0"]), "live again"
    assert not torch.allclose(plain["0.0"], plain["[0.3, -1.0]"], atol=1e-2), "the weights matter here"
    assert all(torch.equal(parameter, before[name]) for name, parameter in base.named_parameters())


@pytest.mark.parametrize(
    ("target", "changes"), [("lm_head", {"tie_word_embeddings": True}), ("q_proj", {"dtype": torch.bfloat16})]
)
def test_adapters_on_a_tied_or_half_precision_weight_stay_live(tmp_path, target, changes):
    dtype = changes.pop("dtype", torch.float32)
    base = build_model("llama", **changes).to(dtype)
    config = LoraConfig(r=2, target_modules=[target], task_type="CAUSAL_LM", init_lora_weights=False)
    folder = tmp_path / "adapter"
    get_peft_model(build_model("llama", **changes), config).save_pretrained(folder, save_embedding_layers=False)
    ids = torch.tensor([[5, 9]])
    with torch.no_grad(), LiveAdapters(base, {"one": folder}) as live:
        before = live.model(ids).logits
        with Folded(live.model) as folded:
            folded.refresh()
            assert not folded.possible
            assert torch.equal(live.model(ids).logits, before)


def test_no_dev_items_are_refused(adapters, recipe):
    with pytest.raises(DataError, match="no dev items"):
        tune_weights(build_model("llama"), None, adapters, recipe, [])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["merge.bands=2"], "search: coordinate"),
        (["merge.search=golden", "merge.task_weights=[0.5, 1.0]"], "one task weight"),
        (["merge.search=golden", "merge.alignment_weights=[0.5]"], "the two ends"),
    ],
)
def test_searches_that_could_not_use_the_settings_are_refused(tmp_path, changes, words):
    with pytest.raises(RecipeError, match=words):
        build_recipe(recipe_content(tmp_path), changes)


@pytest.fixture
def base_folder(tmp_path):
    build_model("llama", max_position_embeddings=256).save_pretrained(tmp_path / "base")
    build_tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_the_exported_base_answers_as_the_adapter_in_plain_peft_does(tmp_path, adapters, base_folder, recipe):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    paths = {name: str(path) for name, path in adapters.items()}
    job = MergeJob(ModelSource(str(base_folder)), paths, {"task": 1.0, "alignment": 0.7}, export="base")
    out = tmp_path / "out"
    assert job.finish(job.start(out)) == {"task": 1.0, "alignment": 0.7}
    whole = AutoModelForCausalLM.from_pretrained(out / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_folder), out / "adapter").eval()
    ids = torch.tensor([tokenizer("turn on the light")["input_ids"]])
    with torch.no_grad():
        assert torch.allclose(whole(ids).logits, plain(ids).logits, atol=1e-4)
    dev = read_task_data(recipe).dev
    answers = [generate(model, tokenizer, dev, AnswerFormat(system=""), max_new_tokens=6) for model in (whole, plain)]
    assert answers[0] == answers[1]
    assert job.start(out).was_done
    with pytest.raises(RunError, match="other inputs"):
        MergeJob(ModelSource(str(base_folder)), paths, {"task": 1.0, "alignment": 0.7}).start(out)


@pytest.mark.parametrize("own_end", [1, 2])
def test_a_base_whose_settings_transformers_would_not_write_anew_is_exported_with_them(tmp_path, own_end, base_folder):
    """Sampling settings without do_sample, as several published models have them."""
    settings = {"eos_token_id": own_end, "temperature": 0.9, "top_p": 0.6}
    (base_folder / "generation_config.json").write_text(json.dumps(settings))
    one = str(save_adapter(tmp_path / "one", build_model("llama")))
    job, out = MergeJob(ModelSource(str(base_folder)), {"one": one}, {"one": 1.0}, export="base"), tmp_path / "out"
    job.finish(job.start(out))
    written = json.loads((out / "model" / "generation_config.json").read_text())
    assert {name: written[name] for name in ("temperature", "top_p")} == {"temperature": 0.9, "top_p": 0.6}
    assert written["eos_token_id"] == (2 if own_end == 2 else [1, 2])


def test_the_weights_are_written_before_the_base_is_exported(tmp_path, adapters, base_folder, monkeypatch):
    def full(*_, **__):
        raise RunError("the disk is full")

    monkeypatch.setattr("midalign.merging.job.export_merged_base", full)
    job = MergeJob(ModelSource(str(base_folder)), adapters, {"task": 1.0, "alignment": 0.5}, export="base")
    with pytest.raises(RunError, match="full"):
        job.finish(job.start(tmp_path / "out"))
    written = json.loads((tmp_path / "out" / "merge.json").read_text())
    assert written["merge"]["weights"] == {"task": 1.0, "alignment": 0.5}


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_given_weights_are_merged_without_those_of_the_base(family, tmp_path, base_folder, monkeypatch):
    for name in ("model.safetensors", "generation_config.json", "config.json"):
        (base_folder / name).unlink(missing_ok=True)
    base = build_model(family, tie_word_embeddings=False)
    base.save_pretrained(base_folder)
    one = save_adapter(tmp_path / "one", base, target_modules="all-linear")
    job = MergeJob(ModelSource(str(base_folder)), {"one": str(one)}, {"one": [0.5, 2.0]})
    loaded = ModelSource(str(base_folder)).load()
    monkeypatch.setattr(ModelSource, "load", None)
    job.finish(job.start(tmp_path / "out"))
    merge_adapters({"one": one}, {"one": [0.5, 2.0]}, out=tmp_path / "again", base_model=loaded)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "out" / "adapter" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert json.loads((tmp_path / "again" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        base_folder
    )


def test_an_adapter_of_another_shape_is_refused_without_the_weights_of_the_base(tmp_path, base_folder):
    wide = str(save_adapter(tmp_path / "wide", build_model("llama", hidden_size=64)))
    job = MergeJob(ModelSource(str(base_folder)), {"wide": wide}, {"wide": 1.0})
    with pytest.raises(ModelError, match=r"the model's weight is \(\d+, 32\)"):
        job.finish(job.start(tmp_path / "out"))


def test_a_weight_per_band_can_be_given_and_moves_its_layers_only(tmp_path, adapters, base_folder, monkeypatch):
    """Against merges with one weight each: 4 blocks, one a band, of which the alignment adapter has the first two."""
    command = ["midalign", "merge", "--base", str(base_folder)]
    for name, path in adapters.items():
        command += ["--adapter", f"{name}={path}"]
    for out, weights in {
        "banded": "1.0,alignment=0.2/0.9/3/3",
        "low": "1.0,alignment=0.2",
        "high": "1,alignment=.9",
    }.items():
        monkeypatch.setattr(sys, "argv", [*command, "--weights", f"task={weights}", "--out", str(tmp_path / out)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
    banded, low, high = (
        load_file(tmp_path / out / "adapter" / "adapter_model.safetensors") for out in ("banded", "low", "high")
    )
    for name, found in banded.items():
        block = int(name.split("layers.")[1].split(".")[0])
        assert torch.equal(found, (high if block == 1 else low)[name])
    written = json.loads((tmp_path / "banded" / "merge.json").read_text(encoding="utf-8"))
    assert written["merge"]["weights"] == {"task": 1.0, "alignment": [0.2, 0.9, 3.0, 3.0]}
    assert any(not torch.equal(low[name], high[name]) for name in low)


def test_25_settings_load_the_base_once_and_the_merge_command_exports_the_best(
    tmp_path, adapters, base_folder, recipe, monkeypatch
):
    loads, load = [], ModelSource.load
    monkeypatch.setattr(ModelSource, "load", lambda *args, **kwargs: loads.append(args) or load(*args, **kwargs))
    values = {"task_weights": (0.2, 0.4, 0.6, 0.8, 1.0), "alignment_weights": (0.0, 0.2, 0.4, 0.6, 0.8)}
    section = recipe.merge.model_copy(update=values | {"objective": "loss"})
    job = MergeJob(ModelSource(str(base_folder)), adapters, recipe=recipe.model_copy(update={"merge": section}))
    out = tmp_path / "out"
    chosen = job.finish(job.start(out))
    written = json.loads((out / "merge.json").read_text(encoding="utf-8"))
    assert written["evaluations"] == len(written["table"]) == 25
    assert len(loads) == 1
    assert written["chosen"] == written["merge"]["weights"] == chosen
    merge_adapters(adapters, chosen, out=tmp_path / "again")
    first, second = (load_file(f / "adapter_model.safetensors") for f in (out / "adapter", tmp_path / "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("search", "objective"), [("grid", "score"), ("golden", "score"), ("coordinate", "score"), ("coordinate", "loss")]
)
def test_an_interrupted_tuning_continues_and_finds_what_an_uninterrupted_one_does(
    search, objective, tmp_path, adapters, base_folder, recipe, monkeypatch
):
    changes = {"search": search, "objective": objective, "bands": 2 if search == "coordinate" else 1, "tolerance": 0.3}
    if search == "golden":
        changes["task_weights"] = (1.0,)
    recipe = recipe.model_copy(update={"merge": recipe.merge.model_copy(update=changes)})
    work = "generate" if objective == "score" else "answer_losses"
    real, calls = getattr(tune, work), []

    def counted(*args, **kwargs):
        if len(calls) in stops[:1]:
            stops.pop(0)
            raise KeyboardInterrupt
        calls.append(work)
        return real(*args, **kwargs)

    monkeypatch.setattr(tune, work, counted)
    job, found = MergeJob(ModelSource(str(base_folder)), adapters, recipe=recipe), {}
    for name, stops in (("whole", []), ("cut", [2, 3])):
        calls.clear()
        while stops:
            with pytest.raises(KeyboardInterrupt):
                job.finish(job.start(tmp_path / name))
            with pytest.raises(RunError, match="other inputs"):
                MergeJob(ModelSource(str(base_folder)), adapters, {"task": 1.0, "alignment": 0.0}).start(
                    tmp_path / name
                )
        job.finish(job.start(tmp_path / name))
        written = json.loads((tmp_path / name / "merge.json").read_text())
        assert written["merge"].pop("out") == str(tmp_path / name / "adapter")
        found[name] = written, len(calls)
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == ["adapter", "manifest.json", "merge.json"]
    assert found["cut"] == found["whole"]
    assert found["whole"][1] == found["whole"][0]["evaluations"] > 3


def test_a_mistake_that_tuning_finds_leaves_nothing_behind(tmp_path, adapters, base_folder, recipe):
    job = MergeJob(ModelSource(str(base_folder)), adapters, recipe=recipe)
    with pytest.raises(DataError, match="no dev items"):
        job.finish(job.start(tmp_path / "out"), dev=[])
    assert not (tmp_path / "out").exists()


def test_what_a_killed_call_left_is_done_anew_and_what_is_the_users_is_kept(tmp_path, adapters, base_folder):
    job = MergeJob(ModelSource(str(base_folder)), adapters, {"task": 1.0, "alignment": 0.5}, export="base")
    out = tmp_path / "out"
    (out / "model").mkdir(parents=True)
    (out / "model" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(RunError, match="not an empty folder"):
        job.finish(job.start(out))
    assert (out / "model" / "mine.txt").read_text(encoding="utf-8") == "mine"
    (out / "model" / "mine.txt").unlink()
    job.finish(job.start(out))
    (out / "manifest.json").unlink()
    (out / "model" / "model.safetensors").write_bytes(b"half")
    job.finish(job.start(out))
    assert load_file(out / "model" / "model.safetensors")


def test_the_base_is_one_of_what_is_read():
    assert "base" in MergeJob(ModelSource("base"), {"task": "a"}, {"task": 1.0}).paths()


def test_ones_own_metric_is_one_of_what_is_read(recipe, tmp_path, monkeypatch):
    (tmp_path / "mine_merged.py").write_text("def score(prediction, reference):\n    return 1.0\n")
    monkeypatch.chdir(tmp_path)
    task = recipe.task.model_copy(update={"name": "chat", "metric": ("mine_merged:score",)})
    job = MergeJob(ModelSource("base"), {"task": "a", "alignment": "b"}, None, recipe.model_copy(update={"task": task}))
    assert str(tmp_path / "mine_merged.py") in job.paths()


def test_the_weights_are_given_or_tuned_and_not_both(recipe):
    for weights, checked in ((None, None), ({"task": 1.0}, recipe)):
        with pytest.raises(RunError, match="either --weights"):
            MergeJob("base", {"task": "a", "alignment": "b"}, weights, checked)
    with pytest.raises(RunError, match="task=PATH and alignment=PATH; got other"):
        MergeJob("base", {"other": "a"}, None, recipe)
