"""Metrics of free answers, against the libraries that the field uses."""

import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER
from sklearn.metrics import accuracy_score, f1_score

from midalign.answers.format import METRICS, AnswerFormat
from midalign.errors import DataError, RunError
from midalign.evaluation.score import check_references, compare_runs, score
from midalign.metrics import chat
from midalign.metrics.chat import chat_strata, check_metric, own_metric_files
from midalign.records import TaskExample

LABELS = ("good", "bad", "so so")


def examples(references, language="eng_Latn"):
    return [TaskExample(f"t:{i}", "chat", language, "?", reference=text) for i, text in enumerate(references)]


def values(references, answers, *metrics, language="eng_Latn"):
    items = examples(references, language)
    (stratum,) = chat_strata(items, {e.id: a for e, a in zip(items, answers, strict=True)}, metrics)
    return {measure.name: stratum.value(measure.name) for measure in stratum.measures}


def test_the_names_are_those_that_recipe_and_help_show():
    assert tuple(chat._BY_NAME) == METRICS


pairs = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from((*LABELS, "odd", ""))), min_size=1, max_size=20)


@settings(deadline=None, max_examples=100)
@given(pairs)
def test_labels_are_scored_as_scikit_learn_does(found):
    gold, answers = zip(*found, strict=True)
    ours = values(gold, answers, "accuracy", "macro_f1")
    known = [answer if answer in gold else "another" for answer in answers]
    labels = sorted({*gold, *(set(answers) & set(gold))})
    assert ours["accuracy"] == pytest.approx(accuracy_score(gold, known))
    assert ours["macro_f1"] == pytest.approx(f1_score(gold, known, labels=labels, average="macro", zero_division=0))


texts = st.lists(
    st.sampled_from(["the", "cat", "sat", "on", "mats", "ein", "Straße", "кот", "."]), min_size=1, max_size=8
)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
def test_text_is_scored_by_sacrebleu(found):
    gold, answers = ([" ".join(side) for side in sides] for sides in zip(*found, strict=True))
    ours = values(gold, answers, "chrf", "bleu")
    assert ours["chrf"] == pytest.approx(CHRF().corpus_score(answers, [gold]).score)
    assert ours["bleu"] == pytest.approx(BLEU().corpus_score(answers, [gold]).score)


def test_a_metric_of_text_computes_no_other_one(monkeypatch):
    monkeypatch.setattr(TER, "_extract_corpus_statistics", lambda *_: pytest.fail("TER takes minutes for long texts"))
    assert values(["ein Satz"], ["ein Satz"], "chrf", "bleu")["chrf"] == 100


def test_references_that_a_metric_cannot_score_are_found_before_any_work():
    check_references(examples(['{"a": 1}']), AnswerFormat(metrics=("json_match", "mine:own")))
    with pytest.raises(DataError, match="t:1: its reference is not JSON"):
        check_references(examples(["1", "no"]), AnswerFormat(metrics=("json_match",)))


def test_rouge_is_that_of_the_library_on_english_and_knows_other_scripts():
    gold, answers = ["the cat sat on the mat", "no dogs here"], ["the cat is on a mat", "dogs"]
    scorer = rouge_scorer.RougeScorer(["rougeL"])
    expected = np.mean([scorer.score(g, a)["rougeL"].fmeasure for g, a in zip(gold, answers, strict=True)])
    assert values(gold, answers, "rougeL")["rougeL"] == pytest.approx(expected)
    assert values(["кот сидит"], ["кот спит"], "rougeL", language="rus_Cyrl")["rougeL"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [
        ("राम की किताब", "रामा का कताबा", 0.0),
        ("राम की किताब", "राम का किताब", 2 / 3),
        ("ไม่", "ไม้", 0.0),
        ("a_b, c-d!", "a_b c d", 1.0),
    ],
)
def test_words_of_rouge_keep_vowel_signs_and_tones(reference, answer, expected):
    assert values([reference], [answer], "rougeL")["rougeL"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("The Eiffel Tower!", "eiffel tower", 1.0),
        ("in Paris, France", "Paris", 0.5),
        ("", "Paris", 0.0),
        ("the", "a", 1.0),  # nothing is left of either, as in the official script
        ("London", "Paris", 0.0),
    ],
)
def test_token_f1_is_that_of_squads_script(answer, reference, expected):
    assert values([reference], [answer], "token_f1")["token_f1"] == pytest.approx(expected)


def test_exact_match_drops_blanks_at_the_ends_only():
    assert values(["yes", "yes", "yes"], [" yes\n", "Yes", "y es"], "exact_match")["exact_match"] == pytest.approx(
        1 / 3
    )


@pytest.mark.parametrize(
    ("answer", "match", "valid", "fields"),
    [
        ('{"b": [1, 2], "a": "x"}', 1, 1, 1.0),
        ('{"a": "x", "b": [2, 1]}', 0, 1, 1 / 3),
        ('{"a": "x"}', 0, 1, 0.5),
        ('{"a": "x", "b": [true, 2]}', 0, 1, 2 / 3),
        ('{"a": "x", "b": [1.0, 20e-1]}', 1, 1, 1.0),
        ('{"a": "x", "b": [1.5, Infinity]}', 0, 1, 1 / 3),
        ('{"a": "x"', 0, 0, 0.0),
        ("[" * 100_000, 0, 0, 0.0),
        ("null", 0, 1, 0.0),
    ],
)
def test_json_is_compared_as_json(answer, match, valid, fields):
    found = values(['{"a": "x", "b": [1, 2]}'], [answer], "json_match")
    assert found == {"json_match": match, "json_valid": valid, "json_field_f1": pytest.approx(fields)}


def test_a_reference_that_is_no_json_is_named():
    with pytest.raises(DataError, match="item t:1: its reference is not JSON"):
        values(["{}", "{"], ["{}", "{}"], "json_match")


def test_a_function_of_the_users_own_with_intervals_and_paired_tests(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_metric.py").write_text(
        "def length(prediction, reference):\n    return len(prediction) / len(reference)\n"
        "def fails(prediction, reference):\n    raise KeyError(prediction)\n"
        "def nan(prediction, reference):\n    return float('nan')\n"
        "def edits(prediction, reference):\n    return 2\n"
        "def rounded(prediction, reference):\n    return 1 + 1e-7\n"
    )
    items = examples(["abcd"] * 6)
    answers, others = {e.id: "ab" for e in items}, {e.id: "abc" for e in items}
    mine = AnswerFormat(metrics=("my_metric:length",))
    found = score(items, answers, mine, resamples=100)
    assert [(s.metric, s.value, s.low, s.high) for s in found if s.group] == [("my_metric:length", 0.5, 0.5, 0.5)]
    (difference,) = (d for d in compare_runs(items, answers, others, mine, resamples=100, trials=100) if d.group)
    assert difference.difference == pytest.approx(0.25)
    above = score(items, answers, AnswerFormat(metrics=("my_metric:rounded",)), resamples=100)
    assert {s.value for s in above if s.metric.startswith("my")} == {1.0}
    assert sys.path[0] != str(tmp_path)
    for name, words in (
        ("fails", "item t:0: the metric 'my_metric:fails' failed with KeyError"),
        ("nan", "gave nan"),
        ("edits", "gave 2.0; scores are shares"),
    ):
        with pytest.raises(DataError, match=words):
            score(items, answers, AnswerFormat(metrics=(f"my_metric:{name}",)))


@pytest.mark.parametrize("text", ["def f(:", "open('/nowhere/at/all')", "raise KeyError('key')"])
def test_a_module_that_cannot_be_imported_is_the_users_mistake(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    name = f"broken_{abs(hash(text))}"
    (tmp_path / f"{name}.py").write_text(text)
    with pytest.raises(RunError, match=f"metric '{name}:f': [A-Z][A-Za-z]*Error: .* Write module:function"):
        check_metric(f"{name}:f")


def test_the_files_of_ones_own_metrics_are_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metric_with_file.py").write_text("def f(prediction, reference):\n    return 1.0\n")
    assert own_metric_files(AnswerFormat(metrics=("accuracy",))) == []
    found = own_metric_files(AnswerFormat(metrics=("accuracy", "metric_with_file:f")))
    assert found == [str(tmp_path / "metric_with_file.py")]


def test_the_signature_of_ones_own_metric_tells_its_versions_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    items, signatures = examples(["a"]), []
    for value in ("0.5", "0.25", "0.5"):
        (tmp_path / "versions.py").write_text(f"def f(prediction, reference):\n    return {value}\n")
        monkeypatch.delitem(sys.modules, "versions", raising=False)
        (stratum,) = chat_strata(items, {"t:0": "a"}, ["versions:f"])
        signatures.append(stratum.measures[0].signature)
    assert signatures[0] == signatures[2] != signatures[1]
    assert signatures[0].startswith("versions:f|mean over items|a function of the user's own|sha256:")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("exactmatch", "Did you mean 'exact_match'"),
        ("no_such_module:f", "No module named"),
        ("json:no_such", "no_such"),
        ("json:__name__", "not a function"),
        (":", "metric ':'"),
    ],
)
def test_a_metric_that_is_not_there_is_refused(name, words):
    with pytest.raises(RunError, match=words):
        check_metric(name)


def test_several_metrics_stand_beside_each_other_and_each_is_as_alone():
    gold = [json.dumps({"a": i}) for i in range(5)]
    answers = [gold[0], gold[0], "no", gold[3], ""]
    together = values(gold, answers, "chrf", "json_match", "exact_match", "token_f1", "macro_f1")
    for name in ("chrf", "json_match", "exact_match", "token_f1", "macro_f1"):
        alone = values(gold, answers, name)
        assert {key: together[key] for key in alone} == alone
