"""The probe against a plain double loop, its JSON, its cache, and its behaviour when killed."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

import midalign.probing.probe
from midalign.data.parallel.corpus import read_parallel
from midalign.errors import DataError, LanguageError, ModelError, OptionError, RunError
from midalign.probing.probe import ProbeResult, probe, probe_poolings
from midalign.probing.statistics import hit_counts
from tests.conftest import build_model
from tests.unit.models.test_encoding import some_sentences, states_before_the_final_norm

LANGUAGES = ["eng_Latn", "deu_Latn", "rus_Cyrl", "zho_Hans"]


def some_parallel(n=24, noise=3):
    """Sentences that share words across "languages", so that retrieval is neither hopeless nor perfect."""
    common = some_sentences(n, seed=50)
    return {
        language: [
            f"{text} {extra}" for text, extra in zip(common, some_sentences(n, seed, longest=noise), strict=True)
        ]
        for seed, language in enumerate(LANGUAGES)
    }


def double_loop_accuracy(x, y, k, candidates):
    """Ratio margin, the definition written out with loops in float64."""
    n = len(x)
    cos = [[float(x[i] @ y[j] / (x[i].norm() * y[j].norm())) for j in range(n)] for i in range(n)]
    near_x = [sum(sorted(cos[i])[-k:]) / k for i in range(n)]
    near_y = [sum(sorted(cos[i][j] for i in range(n))[-k:]) / k for j in range(n)]
    right = 0
    for i in range(n):
        among = sorted(range(n), key=lambda j: cos[i][j])[-k:] if candidates == "nearest" else range(n)
        scores = {j: cos[i][j] / (near_x[i] / 2 + near_y[j] / 2) for j in among}
        right += max(scores, key=scores.get) == i
    return right / n


@pytest.mark.parametrize(("family", "candidates"), [("llama", "all"), ("gpt2", "all"), ("llama", "nearest")])
def test_the_probe_equals_a_double_loop_over_hidden_states_at_every_layer(family, candidates, tokenizer):
    model, corpus = build_model(family), some_parallel()
    result = probe(model, tokenizer, corpus, candidates=candidates, batch_tokens=100)
    vectors = {
        language: torch.stack(
            [states_before_the_final_norm(model, tokenizer(text)["input_ids"]).mean(dim=1) for text in sentences]
        ).double()
        for language, sentences in corpus.items()
    }
    assert result.layers == [0, 1, 2, 3, 4]
    for layer in range(5):
        matrix = result.matrix(layer)
        for i, a in enumerate(LANGUAGES):
            assert math.isnan(matrix[i, i])
            for j, b in enumerate(LANGUAGES):
                if a != b:
                    expected = double_loop_accuracy(vectors[a][:, layer], vectors[b][:, layer], 4, candidates)
                    assert matrix[i, j] == pytest.approx(expected, abs=1e-5), (layer, a, b)
        directions = matrix[~np.eye(4, dtype=bool)]
        assert result.accuracy[layer] == pytest.approx(directions.mean(), abs=1e-5)
        entry = result.as_dict()["layers"][layer]
        assert entry["stderr"] == pytest.approx(directions.std(ddof=1) / math.sqrt(12), abs=1e-5)
    assert 0.05 < result.accuracy.max() < 0.999  # else the corpus tests nothing
    assert result.best_layer == int(result.accuracy.argmax())


def test_groups_languages_and_gaps_are_means_over_directions(tokenizer):
    groups = {"low_resource": ["ru", "swh"], "high": ("eng", "de")}
    result = probe(build_model("llama"), tokenizer, some_parallel(), groups=groups)
    content = result.as_dict()
    assert content["groups"]["low_resource"] == {"kind": "given", "languages": ["rus_Cyrl"]}
    assert content["groups"]["script:Latn"] == {"kind": "script", "languages": ["eng_Latn", "deu_Latn"]}
    assert content["groups"]["family:Indo-European"]["languages"] == LANGUAGES[:3]
    for entry in content["layers"]:
        matrix = result.matrix(entry["layer"])
        means = [(np.nanmean(matrix[i]) + np.nanmean(matrix[:, i])) / 2 for i in range(4)]
        assert entry["by_language"] == pytest.approx(means, abs=1e-5)
        assert result.by_language(entry["layer"]) == pytest.approx(dict(zip(LANGUAGES, means, strict=True)), abs=1e-5)
        assert entry["groups"]["high"] == pytest.approx((means[0] + means[1]) / 2, abs=1e-5)
        assert entry["groups"]["low_resource"] == pytest.approx(means[2], abs=1e-5)
        gap = entry["gaps"]["low_resource"]
        assert gap["difference"] == pytest.approx(entry["accuracy"] - means[2], abs=1e-5)
        assert gap["low"] <= gap["difference"] <= gap["high"]
        assert entry["interval"][0] <= entry["accuracy"] <= entry["interval"][1]


def test_probe_json_keeps_the_contract_and_is_strict_json(tokenizer, tmp_path):
    result = probe(build_model("llama"), tokenizer, some_parallel(), seed=3)
    result.write(tmp_path)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    content = json.loads((tmp_path / "probe.json").read_text(), parse_constant=refuse)
    assert content["languages"] == LANGUAGES
    assert (content["n"], content["margin"], content["k"]) == (24, "ratio", 4)
    assert (content["candidates"], content["pooling"], content["seed"]) == ("all", "mean", 3)
    for place, entry in enumerate(content["layers"]):
        assert {"layer", "accuracy", "stderr", "matrix", "groups", "anisotropy", "hubness"} <= entry.keys()
        assert entry["layer"] == place
        assert [entry["matrix"][i][i] for i in range(4)] == [None] * 4
    assert content["best_layer"] in range(5)
    assert sum(content["best_layer_bootstrap"]["share_best"].values()) == pytest.approx(1, abs=1e-5)
    assert list(content["projection"]["points"]) == LANGUAGES
    again = ProbeResult.from_file(tmp_path)
    assert again.as_dict() == result.as_dict()
    assert np.array_equal(again.hits, result.hits)
    assert ProbeResult.from_file(tmp_path / "probe.json").best_layer == result.best_layer


def test_a_language_probed_against_itself_is_perfect(tokenizer):
    sentences = list(dict.fromkeys(some_sentences(30, longest=30)))
    result = probe(build_model("llama"), tokenizer, {"eng": sentences, "deu": sentences}, layers=[2])
    assert result.accuracy.tolist() == [1.0]
    entry = result.as_dict()["layers"][0]
    assert entry["interval"] == [1.0, 1.0]
    assert entry["pair_cosine"] == pytest.approx(1, abs=1e-5)
    assert entry["hubness"]["never"] == 0


def test_several_poolings_from_one_pass_equal_one_at_a_time(tokenizer, monkeypatch):
    model, corpus = build_model("llama"), some_parallel()
    passes = []
    model.model.embed_tokens.register_forward_hook(lambda *_: passes.append(1))
    found = probe_poolings(model, tokenizer, corpus, poolings=("mean_unit", "last"))
    together = len(passes)
    for pooling in ("mean_unit", "last"):
        assert found[pooling].as_dict() == probe(model, tokenizer, corpus, pooling=pooling).as_dict()
    assert len(passes) == 3 * together


def test_a_second_probe_from_the_cache_gives_the_same_file(tokenizer, tmp_path):
    model, corpus = build_model("llama"), some_parallel()
    plain = probe(model, tokenizer, corpus)
    first = probe(model, tokenizer, corpus, cache=tmp_path)
    passes, seen = [], []
    model.model.embed_tokens.register_forward_hook(lambda *_: passes.append(1))
    second = probe(model, tokenizer, corpus, cache=tmp_path, progress=lambda *at: seen.append(at))
    assert plain.as_dict() == first.as_dict() == second.as_dict()
    assert not passes
    assert [at for at in seen if at[0] == "encode"][-1] == ("encode", 96, 96)
    assert seen[-1] == ("retrieve", 30, 30)
    probe(model, tokenizer, corpus, cache=tmp_path, margin="distance", k=2)
    assert not passes
    damaged = sorted(tmp_path.glob("rus*"))[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert probe(model, tokenizer, corpus, cache=tmp_path).as_dict() == plain.as_dict()
    assert passes


def test_finished_layers_are_not_retrieved_again_and_give_the_same_file(tokenizer, tmp_path, monkeypatch):
    model, corpus, cache = build_model("llama"), some_parallel(), tmp_path / "cache"
    probe(model, tokenizer, corpus).write(tmp_path / "plain")
    layers, retrieve = [], midalign.probing.probe.retrieve_all

    def counting(*args, **kwargs):
        layers.append(1)
        if len(layers) == 3:
            raise KeyboardInterrupt
        return retrieve(*args, **kwargs)

    monkeypatch.setattr("midalign.probing.probe.retrieve_all", counting)
    with pytest.raises(KeyboardInterrupt):
        probe(model, tokenizer, corpus, cache=cache)
    probe(model, tokenizer, corpus, cache=cache).write(tmp_path / "resumed")
    assert len(layers) == 3 + 3, "the first two of five layers were finished"
    damaged = sorted(cache.glob("layer.*"))[1]
    content = damaged.read_bytes()
    damaged.write_bytes(content.replace(b"0.", b"1.", 1))  # still a file of the right form
    probe(model, tokenizer, corpus, cache=cache).write(tmp_path / "mended")
    assert len(layers) == 7
    for name in ("resumed", "mended"):
        for file in ("probe.json", "hits.safetensors"):
            assert (tmp_path / name / file).read_bytes() == (tmp_path / "plain" / file).read_bytes()
    for options in ({"margin": "distance"}, {"k": 2}, {"candidates": "nearest"}, {"layers": [1, 2]}):
        before = len(layers)
        cached = probe(model, tokenizer, corpus, cache=cache, **options).as_dict()
        assert len(layers) == before + len(cached["layers"]), f"{options} make other numbers"
        assert cached == probe(model, tokenizer, corpus, **options).as_dict()


def test_an_adapter_changes_the_result_and_does_not_reuse_the_base_models_cache(tokenizer, tmp_path):
    corpus, model = some_parallel(), build_model("llama")
    base = probe(model, tokenizer, corpus, cache=tmp_path)
    torch.manual_seed(0)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    tuned = probe(adapted, tokenizer, corpus, cache=tmp_path)
    assert tuned.accuracy[0] == base.accuracy[0]
    assert not np.array_equal(tuned.hits[1:], base.hits[1:])


def test_hits_count_the_directions_of_each_language():
    predictions = torch.tensor([[[-1, -1], [0, 1], [0, 0]], [[1, 0], [-1, -1], [0, 1]], [[0, 1], [1, 1], [-1, -1]]])
    # 0->1 both, 0->2 first, 1->0 none, 1->2 both, 2->0 both, 2->1 second
    assert hit_counts(predictions).tolist() == [[3, 2], [2, 3], [3, 3]]


@pytest.mark.parametrize(
    ("corpus", "options", "error", "words"),
    [
        ({"eng": ["a"] * 5}, {}, DataError, "two or more"),
        ({"eng": ["a"] * 5, "deu": ["a"] * 4}, {}, DataError, "unequal"),
        ({"eng": ["a"] * 5, "en": ["a"] * 5}, {}, DataError, "twice"),
        ({"eng": ["a"] * 5, "klingon": ["a"] * 5}, {}, LanguageError, "klingon"),
        ({"eng": ["a"] * 5, "deu": ["a", "", "a", "a", "a"]}, {}, DataError, "sentence 1 is empty"),
        ({"eng": ["a"] * 3, "deu": ["a"] * 3}, {}, OptionError, "k = 4"),
        ({"eng": ["a"] * 5, "deu": ["a"] * 5}, {"margin": "ration"}, OptionError, "'ratio'"),
        ({"eng": ["a"] * 5, "deu": ["a"] * 5}, {"pooling": "mena"}, OptionError, "'mean'"),
        ({"eng": ["a"] * 5, "deu": ["a"] * 5}, {"layers": [9]}, ModelError, "4 blocks"),
        ({"eng": ["a"] * 5, "deu": ["a"] * 5}, {"groups": {"low": ["xxx"]}}, LanguageError, "group low"),
    ],
)
def test_a_request_that_cannot_be_served_says_why(corpus, options, error, words, tokenizer):
    model, passes = build_model("llama"), []
    model.model.embed_tokens.register_forward_hook(lambda *_: passes.append(1))
    with pytest.raises(error, match=words):
        probe(model, tokenizer, corpus, **options)
    assert not passes  # nothing expensive before the mistake is found


def test_vectors_that_are_not_finite_are_an_error_with_layer_and_language(tokenizer):
    model = build_model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.fill_(float("inf"))
    with pytest.raises(ModelError, match=r"layer 2, eng_Latn: .*sentence 0 holds NaN"):
        probe(model, tokenizer, some_parallel())


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("probe.json", '{"languages": []}', "not the result of a probe"),
        ("probe.json", "[", "not valid JSON"),
        ("hits.safetensors", "x", "damaged"),
    ],
)
def test_a_file_that_is_no_probe_is_refused(name, content, words, tokenizer, tmp_path):
    probe(build_model("llama"), tokenizer, some_parallel(), layers=[1]).write(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(RunError, match=words):
        ProbeResult.from_file(tmp_path)


def test_the_package_offers_the_probe_as_a_function_whatever_was_imported_before(tokenizer):
    import midalign

    for _ in range(2):  # the first call imports the module of that name
        assert midalign.probe(build_model("llama"), tokenizer, some_parallel(), layers=[1]).layers == [1]
        assert midalign.ProbeResult is ProbeResult


@pytest.mark.data
def test_a_probe_of_real_sentences_reads_the_corpus_object(data_folder, tokenizer):
    corpus = read_parallel(data_folder / "ntrex", languages=["eng", "deu", "tha"], limit=20)
    result = probe(build_model("llama", max_position_embeddings=512), tokenizer, corpus, layers=[0, 2])
    fertility = result.as_dict()["fertility"]
    assert result.languages == ["eng_Latn", "deu_Latn", "tha_Thai"]
    assert fertility["tha_Thai"]["tokens_per_word"] is None
    assert fertility["tha_Thai"]["tokens_per_character"] > 1 > fertility["eng_Latn"]["tokens_per_character"]


KILLED = """
import os, random, signal, sys
from pathlib import Path
from tests.conftest import build_model, build_tokenizer
from tests.unit.models.test_encoding import some_sentences
from midalign.probing.probe import probe
work, rng = Path(sys.argv[1]), random.Random(5)
model = build_model("llama", hidden_size=96, num_hidden_layers=12)
tokenizer = build_tokenizer()
codes = "eng deu fra spa ita nld rus ukr bul".split()
corpus = {code: some_sentences(150, seed) for seed, code in enumerate(codes)}

def run(out, cache, point=None, delay=0.0):
    # At `point` a timer is set, which ends the child wherever it then is, without any clean-up.
    child = os.fork()
    if child == 0:
        def progress(stage, done, total):
            if point is not None and done + (stage == "retrieve") * 1350 >= point:
                signal.setitimer(signal.ITIMER_REAL, delay)

        probe(model, tokenizer, corpus, cache=cache, batch_tokens=1024, progress=progress).write(out)
        os._exit(0)
    return os.waitpid(child, 0)[1]

assert run(work / "whole", work / "cache-whole") == 0
ends, starts = [], []
for point in sorted(rng.sample(range(1350 + 300), 10)):  # 1,350 sentences to encode, 468 pairs to compare
    starts.append(len(list((work / "cache").glob("*.safetensors"))))
    ends.append(run(work / "resumed", work / "cache", point, rng.uniform(0.0001, 0.02)))
print(starts, ends)
assert sum(end == signal.SIGALRM for end in ends) >= 8 and len(set(starts)) > 3, (starts, ends)
assert run(work / "resumed", work / "cache") == 0
"""


@pytest.mark.slow
def test_killed_at_ten_random_points_and_resumed_gives_the_same_bytes(tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, check=True, timeout=500)
    for name in ("probe.json", "hits.safetensors"):
        assert (tmp_path / "resumed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
