"""Tuning merge weights: live adapters give the scores of the exported merge, and ties go to less alignment."""

import itertools
import json
import sys

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from midalign.answers.format import AnswerFormat
from midalign.cli.main import main
from midalign.data.prompt_tokens import training_rows
from midalign.errors import DataError, RecipeError, RunError
from midalign.evaluation.score import score
from midalign.generation.answer_loss import answer_losses
from midalign.generation.generate import generate
from midalign.merging import tune
from midalign.merging.export import merge_adapters
from midalign.merging.folding import Folded
from midalign.merging.job import MergeJob
from midalign.merging.live_adapters import LiveAdapters
from midalign.merging.search import Memo, Outcome, choose, clearly_worse, coordinate, golden, golden_evaluations, grid
from midalign.merging.tune import tune_weights
from midalign.models.adapters import attach_adapter
from midalign.models.source import ModelSource
from midalign.recipe.data import read_task_data
from midalign.recipe.file import build_recipe
from tests.conftest import build_model, build_tokenizer
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


def outcome(value, alignment=0.0, task=1.0, draws=None):
    return Outcome({"task": task, "alignment": alignment}, value, np.full(50, value) if draws is None else draws)


def on_items(matrix, resamples=2000, seed=0):
    """Candidates whose score is the mean of their row of item scores, with paired bootstrap draws."""
    n = matrix.shape[1]
    drawn = np.random.default_rng(seed).integers(n, size=(resamples, n))
    return [outcome(float(row.mean()), float(i), draws=row[drawn].mean(axis=1)) for i, row in enumerate(matrix)]


def surface(function):
    """A memo of a score that is known exactly, and the list of the calls it makes."""
    calls = []

    def evaluate(weights):
        calls.append(weights)
        return outcome(function(weights["task"], weights["alignment"]), weights["alignment"], weights["task"])

    return Memo(evaluate), calls


@pytest.mark.parametrize(
    ("values", "chosen"),
    [
        ([0.1, 0.2, 0.9, 0.3, 0.4, 0.5], (0.5, 2.0)),
        ([0.5, 0.5, 0.5, 0.5, 0.5, 0.5], (0.5, 0.0)),
        ([0.1, 0.5, 0.5, 0.1, 0.5, 0.5], (0.5, 0.7)),
        ([0.50, 0.51, 0.52, 0.53, 0.54, 0.54], (1.0, 0.7)),
    ],
)
def test_the_best_wins_and_ties_go_to_less_alignment(values, chosen):
    scores = iter(values)
    memo, calls = surface(lambda *_: next(scores))
    grid(memo, (0.5, 1.0), (0.0, 0.7, 2.0))
    best = choose(memo.outcomes)
    assert (best.weights["task"], best.weights["alignment"]) == chosen
    assert [(c["task"], c["alignment"]) for c in calls] == [(t, a) for t in (0.5, 1.0) for a in (0.0, 0.7, 2.0)]


def test_bands_count_as_much_alignment_as_their_mean():
    first, second = outcome(0.5, [0.0, 0.9]), outcome(0.5, [0.4, 0.4])
    assert choose([first, second]) is second


@settings(deadline=None, max_examples=60)
@given(st.floats(0, 1), st.sampled_from([0.2, 0.05, 0.01]))
def test_golden_section_finds_a_peak_wherever_it_lies(peak, tolerance):
    memo, calls = surface(lambda _, a: -abs(a - peak))
    golden(memo, 1.0, 0.0, 1.0, tolerance)
    assert abs(choose(memo.outcomes).weights["alignment"] - peak) <= tolerance
    assert len(calls) == golden_evaluations(0.0, 1.0, tolerance)
    assert len({c["alignment"] for c in calls}) == len(calls)


def test_golden_section_on_a_plain_keeps_to_the_least_alignment():
    memo, _ = surface(lambda *_: 0.5)
    golden(memo, 1.0, 0.0, 1.0, 0.05)
    assert choose(memo.outcomes).weights["alignment"] == 0.0


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from([0.0, 0.2, 0.4, 0.8]), min_size=3, max_size=3), st.sampled_from([0.5, 1.0, 1.5]))
def test_coordinate_search_finds_a_peak_over_bands_and_task(peaks, task_peak):
    """Separable in the weights, so that one weight at a time is enough; full enumeration is the oracle."""
    values, tasks = (0.0, 0.2, 0.4, 0.8), (0.5, 1.0, 1.5)

    def score_of(task, bands):
        return -abs(task - task_peak) - sum(abs(a - p) for a, p in zip(bands, peaks, strict=True))

    memo, calls = surface(score_of)
    coordinate(memo, tasks, values, 3)
    best = choose(memo.outcomes)
    whole = max(score_of(t, b) for t in tasks for b in itertools.product(values, repeat=3))
    assert best.value == pytest.approx(whole)
    assert len({(c["task"], *c["alignment"]) for c in calls}) == len(calls) < len(tasks) * len(values) ** 3


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 2))
def test_coordinate_search_ends_where_no_single_change_helps(seed, bands):
    noise = np.random.default_rng(seed).integers(0, 4, size=(3, 4, 4))  # few values, so that many are equal
    values, tasks = (0.0, 0.2, 0.4, 0.8), (0.5, 1.0, 1.5)

    def score_of(task, alignment):
        own = alignment if bands > 1 else [alignment, alignment]
        return float(noise[tasks.index(task), values.index(own[0]), values.index(own[1])])

    memo, calls = surface(score_of)
    coordinate(memo, tasks, values, bands)
    best = choose(memo.outcomes)
    task = best.weights["task"]
    own = best.weights["alignment"] if bands > 1 else [best.weights["alignment"]]
    near = [(t, own) for t in tasks] + [(task, [*own[:b], v, *own[b + 1 :]]) for b in range(bands) for v in values]
    assert max(score_of(t, a if bands > 1 else a[0]) for t, a in near) <= best.value
    assert len({str(c) for c in calls}) == len(calls)


def test_equally_good_candidates_are_seldom_called_worse():
    """25 candidates that differ by luck alone: at 95 % over all, about one experiment in 20 may call one worse."""
    wrong = 0
    for seed in range(60):
        items = np.random.default_rng(seed).random((25, 80))
        outcomes = on_items(items, 500, seed)
        wrong += any(clearly_worse(outcomes, choose(outcomes)))
    assert wrong <= 9  # binomial(60, 0.05) exceeds 9 once in 3,000


def test_a_candidate_that_is_behind_on_most_items_is_called_worse():
    rng = np.random.default_rng(1)
    base = (rng.random(200) < 0.6).astype(float)
    slightly, clearly = base.copy(), base.copy()
    slightly[np.flatnonzero(base)[:1]] = 0
    clearly[np.flatnonzero(base)[:30]] = 0
    outcomes = on_items(np.stack([base, slightly, clearly, base]))
    assert clearly_worse(outcomes, outcomes[0]) == [False, False, True, False]


def test_with_two_candidates_noise_is_that_of_the_paired_bootstrap():
    """scipy's basic bootstrap of the paired differences is the oracle."""
    for seed, shift in itertools.product(range(4), (0.0, 0.03, 0.06, 0.2)):
        rng = np.random.default_rng(seed)
        first = rng.random(150)
        second = first - shift + 0.3 * rng.standard_normal(150)
        outcomes = on_items(np.stack([first, second]))
        best = choose(outcomes)
        gap = np.abs(first.mean() - second.mean())
        sign = np.sign(first.mean() - second.mean())
        found = scipy.stats.bootstrap(
            ((first - second) * sign,), np.mean, method="basic", n_resamples=5000, rng=np.random.default_rng(9)
        ).confidence_interval
        if abs(found.low) > 0.004:  # too close to call by two different sets of resamples
            assert any(clearly_worse(outcomes, best)) == (found.low > 0), (seed, shift, gap)


def test_candidates_with_the_same_answers_are_flat_and_one_alone_too():
    same = on_items(np.tile(np.random.default_rng(0).random(40), (3, 1)))
    assert clearly_worse(same, same[0]) == [False] * 3
    assert clearly_worse(same[:1], same[0]) == [False]


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
