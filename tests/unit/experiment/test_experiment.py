"""The whole job of a recipe: what is refused before it starts, where it goes on, and what its summary says."""

import json
import shutil
import sys
import weakref

import pytest

from midalign.data.examples import TaskSource
from midalign.errors import DataError, MissingExtraError, ModelError, RecipeError, RunError
from midalign.experiment import experiment
from midalign.experiment.experiment import Experiment
from midalign.experiment.summary import SYSTEMS, TRAINED, changed_examples
from midalign.experiment.validate import ValidateJob
from midalign.generation import job as generation
from midalign.merging import job as merging
from midalign.models import source
from midalign.probing import job as probing
from midalign.recipe.file import build_recipe
from midalign.records import Prediction, Span, TaskExample
from midalign.training import job as training
from tests.tiny_world import recipe_content, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


def recipe(world, *overrides):
    return build_recipe(recipe_content(world), overrides)


@pytest.mark.parametrize(
    ("override", "kind", "says"),
    [
        ("languages.aligned=[en]", DataError, "nothing to align on"),
        ("alignment.layer=9", ModelError, "this model has 4 blocks"),
        (
            "lora.target_modules=[qproj]",
            RecipeError,
            "not a module of this model. Did you mean 'q_proj'",
        ),
        ("training.eos_token=<|x|>", ModelError, "no token"),
        ("generation.max_new_tokens=250", DataError, "does not fit into the model's window of 256"),
        ("merge={search: coordinate, bands: 32}", ModelError, "merge.bands is 32, but this model has 4 blocks"),
    ],
)
def test_what_cannot_fit_is_found_before_anything_is_written(world, tmp_path, override, kind, says):
    with pytest.raises(kind, match=says):
        Experiment(recipe(world, override), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("override", "module", "extra"),
    [
        ("generation.constrained=slots", "llguidance", "constrained"),
        ("generation.backend=vllm", "vllm", "vllm"),
    ],
)
def test_a_missing_extra_of_the_answers_is_found_before_anything_is_trained(
    world, tmp_path, monkeypatch, override, module, extra
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'midalign\[{extra}\]'"):
        Experiment(recipe(world, override), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ModelError, match=rf"generation: .*pip install 'midalign\[{extra}\]'"):
        ValidateJob(recipe(world, override)).check()


def test_validate_asks_the_tokenizer_as_the_run_will(world, tmp_path):
    for folder in ("model", "slots", "lines", "probe"):
        shutil.copytree(world / folder, tmp_path / folder)
    ValidateJob(recipe(tmp_path)).check()
    (tmp_path / "model" / "chat_template.jinja").write_text("{% for m in messages %}{{ m.role }}{% endfor %}")
    with pytest.raises(ModelError, match="model: the chat template of the tokenizer cannot write a prompt"):
        ValidateJob(recipe(tmp_path)).check()
    with pytest.raises(ModelError, match="the chat template of the tokenizer cannot write a prompt"):
        Experiment(recipe(tmp_path), tmp_path / "out")


WORK = ((probing, "probe"), (training, "train"), (merging, "tune_weights"), (generation, "generate"))


def test_an_aligned_language_without_task_data_is_trained_and_not_scored(tmp_path):
    write_world(tmp_path / "world")
    for file in (tmp_path / "world" / "slots").glob("de.*"):
        file.unlink()
    summary = Experiment(recipe(tmp_path / "world", "training.max_steps=1"), tmp_path / "out").run()
    scores = json.loads((tmp_path / "out" / "evaluation" / "joint" / "scores.json").read_text())["scores"]
    assert {row["language"] for row in scores if "language" in row} == {"eng_Latn", "rus_Cyrl"}
    assert {language["code"] for language in summary["languages"]} == {"eng_Latn", "deu_Latn", "rus_Cyrl"}
    trained = tmp_path / "out" / "train" / "joint"
    assert json.loads((trained / "training.json").read_text())["pairs"] > 0
    card = (trained / "adapter" / "README.md").read_text()
    assert "aligned at layer 2: German" in card
    assert "language: [de, en]" in card
    alone = (tmp_path / "out" / "train" / "sft" / "adapter" / "README.md").read_text()
    assert "parallel pairs" not in alone
    assert "language: [en]" in alone


def test_no_model_of_a_stage_is_in_memory_when_the_next_one_loads_its_own(world, tmp_path, monkeypatch):
    loaded, alive = [], []

    def load(*args, **options):
        alive.append(sum(reference() is not None for reference in loaded))
        model = load_model(*args, **options)
        loaded.append(weakref.ref(model))
        return model

    load_model = source.load_model
    monkeypatch.setattr(source, "load_model", load)
    Experiment(recipe(world, "training.max_steps=1"), tmp_path / "out").run()
    assert set(alive) == {0}
    assert len(alive) > len(TRAINED)


def test_vllm_is_started_only_for_answers_that_are_missing_and_ends_before_the_probes(world, tmp_path, monkeypatch):
    made, found = [], []

    class Engine:
        def __init__(self, *_, **__):
            made.append(weakref.ref(self))

    def probe(*_, **__):
        found.append(made[0]() is not None if made else None)
        raise KilledError

    monkeypatch.setattr(experiment, "check_packages", lambda _: None)
    monkeypatch.setattr(generation.GenerateJob, "engine", Engine)
    monkeypatch.setattr(generation, "generate", lambda _, __, asked, *___, **____: answers(asked, [""] * len(asked)))
    made_recipe = recipe(world, "training.max_steps=1", "generation.backend=vllm")
    monkeypatch.setattr(Experiment, "_probe", lambda self, system, *rest: system == "base" or probe())
    for _ in range(2):
        with pytest.raises(KilledError):
            Experiment(made_recipe, tmp_path / "out").run()
    assert (len(made), found) == (1, [False, False])


class KilledError(Exception):
    pass


def test_each_stage_is_done_once_however_often_the_run_is_killed(world, tmp_path, monkeypatch):
    """Killed before every piece of work in turn; the counts of real work are those of one uninterrupted run."""
    counts: dict[str, int] = {}
    budget = 1

    def counted(name, real):
        def work(*args, **kwargs):
            nonlocal budget
            if budget == 0:
                raise KilledError
            budget -= 1
            counts[name] = counts.get(name, 0) + 1
            return real(*args, **kwargs)

        return work

    for job, name in WORK:
        monkeypatch.setattr(job, name, counted(name, getattr(job, name)))
    made = recipe(world, "training.max_steps=1")
    kills = 0
    while True:
        try:
            summary = Experiment(made, tmp_path / "out").run()
            break
        except KilledError:
            kills += 1
            budget = 1
    systems = len(SYSTEMS)
    assert counts["train"] == len(TRAINED) == 3
    assert counts["tune_weights"] == 1
    assert counts["generate"] == systems
    assert counts["probe"] == len({"base", *TRAINED, *SYSTEMS})
    assert kills == sum(counts.values()) - 1
    assert not list((tmp_path / "out").rglob("*.partial")), "no partial file is left"
    assert not list((tmp_path / "out").rglob("checkpoint-*"))

    assert summary["systems"] == list(SYSTEMS)
    assert summary["aligned_layer"] == 2
    assert {language["code"]: language["role"] for language in summary["languages"]} == {
        "eng_Latn": "supervised", "deu_Latn": "aligned", "rus_Cyrl": "unseen",
    }  # fmt: skip
    assert {language["code"] for language in summary["languages"] if language["resource"] == "low"} == {"rus_Cyrl"}
    assert {(c["baseline"], c["system"]) for c in summary["comparisons"]} == {("sft", "joint"), ("sft", "merged")}
    assert summary["merge"]["chosen"]["alignment"] in (0.0, 0.5)
    assert set(summary["training"]) == set(TRAINED)


def answers(examples, texts):
    return [Prediction(e.id, e.language, "", text) for e, text in zip(examples, texts, strict=True)]


def test_changed_examples_are_those_that_only_one_system_got_right():
    examples = [
        TaskExample(f"x:{i}", "slots", "eng_Latn", f"call n{i}", ("call", f"n{i}"), (Span("who", 1, 2),))
        for i in range(6)
    ]
    gold = [f"who: n{i}" for i in range(6)]
    baseline = answers(examples, [gold[0], "None", "None", gold[3], "None", "None"])
    system = answers(examples, [gold[0], gold[1], "who: x", "None", gold[4], gold[5]])
    found = changed_examples(examples, baseline, system, limit=2)
    assert [(row["kind"], row["id"]) for row in found] == [("helped", "x:1"), ("helped", "x:4"), ("hurt", "x:3")]
    assert found[0]["gold"] == "who: n1"
    assert (found[2]["baseline"], found[2]["system"]) == ("who: n3", "None")
    assert changed_examples(examples, baseline, baseline) == []


def test_an_answer_is_right_in_any_order_of_slots_and_with_blanks_around_it():
    spans = (Span("who", 1, 2), Span("when", 2, 3))
    slots = [TaskExample("x:0", "slots", "eng_Latn", "call n0 now", ("call", "n0", "now"), spans)]
    right, other = answers(slots, ["who: n0; when: now"]), answers(slots, ["when: now; who: n0"])
    assert changed_examples(slots, right, other) == []
    chat = [TaskExample("x:0", "chat", "eng_Latn", "?", reference=" good")]
    (row,) = changed_examples(chat, answers(chat, ["bad"]), answers(chat, ["good"]))
    assert row["kind"] == "helped"


def test_a_finished_run_is_left_as_it_is_and_stays_finished_where_a_stage_is_refused(world, tmp_path):
    made = recipe(world, "training.max_steps=1")
    Experiment(made, tmp_path / "out").run()
    manifest = tmp_path / "out" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"numpy": "', '"numpy": "0.'))  # an older version
    before = manifest.read_text()
    Experiment(made, tmp_path / "out").run()
    assert manifest.read_text() == before, "the versions are those that computed the numbers"
    (tmp_path / "out").rename(tmp_path / "moved")
    Experiment(made, tmp_path / "moved").run()
    assert (tmp_path / "moved" / "manifest.json").read_text() == before, "it may stand elsewhere"
    (tmp_path / "moved").rename(tmp_path / "out")
    stage = tmp_path / "out" / "evaluation" / "sft" / "manifest.json"
    stage.write_text(stage.read_text().replace('"fingerprint": "', '"fingerprint": "x'))
    with pytest.raises(RunError, match="holds a run of 'generate' with other inputs"):
        Experiment(made, tmp_path / "out").run()
    assert manifest.read_text() == before


def test_the_items_of_a_job_stand_beside_its_other_inputs(world):
    job = generation.GenerateJob(source.ModelSource("m"), TaskSource("slots", "d", languages=("eng_Latn",)))
    assert {
        "task": "slots",
        "data": "d",
        "languages": ["eng_Latn"],
        "max_new_tokens": 128,
    }.items() <= job.inputs().items()
    assert "items" not in job.inputs()
