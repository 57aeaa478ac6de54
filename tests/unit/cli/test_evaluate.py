"""``midalign evaluate`` from the command line: seeds, a baseline, COMET's segment scores, a limit."""

import functools
import json
import sys

import pytest

from midalign.answers.predictions import write_predictions
from midalign.answers.write import completion
from midalign.cli.main import main
from midalign.data.examples import read_examples
from midalign.evaluation.comet import write_segments
from midalign.evaluation.score import compare_runs, score
from midalign.metrics.translation import SegmentScores
from midalign.records import Prediction


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = functools.partial(compare_runs, trials=50)  # sacreBLEU's formulas are in plain Python
    monkeypatch.setattr("midalign.evaluation.job.compare_runs", quick)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["midalign", "evaluate", "--resamples", "100", *arguments])
        try:
            main()
        except SystemExit as ended:
            return ended.code or 0
        return 0

    return call


@pytest.fixture
def slots(tmp_path):
    (tmp_path / "slots").mkdir()
    for code in ("en", "de"):
        rows = [f"# text: to x{i}\n1\tto\tcall\tO\n2\tx{i}\tcall\tB-who\n" for i in range(6)]
        (tmp_path / "slots" / f"{code}.test.conll").write_text("\n".join(rows), encoding="utf-8")
    return read_examples("slots", tmp_path / "slots", languages=["eng_Latn", "deu_Latn"])


@pytest.fixture
def translation(tmp_path):
    (tmp_path / "corpus" / "test").mkdir(parents=True)
    for code, word in {"eng_Latn": "day", "deu_Latn": "tag", "fra_Latn": "jour"}.items():
        lines = "".join(f"{word} number {i} of the year\n" for i in range(5))
        (tmp_path / "corpus" / "test" / f"{code}.txt").write_text(lines)
    return read_examples("translation", tmp_path / "corpus")


def write(path, examples, wrong=()):
    lines = [{"id": e.id, "prediction": "x" if i in wrong else completion(e)} for i, e in enumerate(examples)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return [Prediction(line["id"], "", "", line["prediction"]) for line in lines]


def scores_in(folder, name="scores"):
    return {
        (row["metric"], row.get("language") or row["group"]): row
        for row in json.loads((folder / f"{name}.json").read_text())[name]
    }


def test_several_predictions_are_seeds_of_one_system(evaluate, slots, tmp_path, capsys):
    for seed in range(3):
        write(tmp_path / f"{seed}.jsonl", slots, wrong=range(seed))
    files = [word for seed in range(3) for word in ("--predictions", f"{seed}.jsonl")]
    assert evaluate("--data", "slots", *files, "--out", "out") == 0
    found = scores_in(tmp_path / "out")["exact_match", "deu_Latn"]
    assert found["values"] == pytest.approx([1, 5 / 6, 4 / 6])
    assert (found["value"], found["sd"]) == pytest.approx((5 / 6, 1 / 6))
    assert "sd of seeds" in capsys.readouterr().out
    assert evaluate("--data", "slots", "--predictions", "0.jsonl", "--predictions", "0.jsonl", "--out", "o2") == 2
    assert "names a file twice" in capsys.readouterr().err
    assert evaluate("--data", "slots", *files, "--baseline", "0.jsonl", "--out", "o3") == 2
    assert "give one --predictions" in capsys.readouterr().err.replace("\n", " ")


def test_a_baseline_is_tested_item_by_item(evaluate, slots, tmp_path):
    write(tmp_path / "a.jsonl", slots, wrong=range(6))
    write(tmp_path / "b.jsonl", slots)
    assert evaluate("--data", "slots", "--predictions", "b.jsonl", "--baseline", "a.jsonl", "--out", "out") == 0
    found = scores_in(tmp_path / "out", "comparisons")
    german = found["slot_f1", "deu_Latn"]
    assert german["difference"] == pytest.approx(1)
    assert german["p_holm"] == pytest.approx(2 * german["p_randomization"])
    assert found["slot_f1", "eng_Latn"]["difference"] == 0
    assert "p_holm" not in found["slot_f1", "all"]


def test_the_library_and_the_command_give_the_same_intervals(evaluate, slots, tmp_path):
    predictions, before = write(tmp_path / "a.jsonl", slots, wrong=[1, 2, 8]), write(tmp_path / "b.jsonl", slots, [3])
    assert evaluate("--data", "slots", "--predictions", "a.jsonl", "--baseline", "b.jsonl", "--out", "out") == 0
    written = json.loads((tmp_path / "out" / "scores.json").read_text())["scores"]
    assert written == [found.as_dict() for found in score(slots, predictions, resamples=100)]
    compared = json.loads((tmp_path / "out" / "comparisons.json").read_text())["comparisons"]
    found = compare_runs(slots, before, predictions, resamples=100, trials=50)
    assert compared == [one.as_dict() for one in found]
    assert len({(row["low"], row["high"]) for row in written}) > 3


@pytest.mark.parametrize(("code", "status"), [("de", 0), ("deu", 0), ("de-DE", 0), ("German", 2), ("xx", 2)])
def test_the_language_of_a_prediction_may_be_any_usual_code(evaluate, slots, tmp_path, capsys, code, status):
    german = [e for e in slots if e.language == "deu_Latn"]
    lines = [{"id": e.id, "prediction": completion(e), "language": code} for e in german]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert evaluate("--data", "slots", "--predictions", "p.jsonl", "--out", "out") == status
    said = capsys.readouterr().err.replace("\n", " ")
    assert "scoring the languages that were answered: deu_Latn" in said if status == 0 else "p.jsonl, item de" in said


def test_a_limit_scores_the_first_items_of_each_language_as_a_limited_run_generated_them(
    evaluate, slots, tmp_path, capsys
):
    first = [e for e in slots if int(e.id.rpartition(":")[2]) < 4]
    write(tmp_path / "p.jsonl", first)
    command = ["--data", "slots", "--predictions", "p.jsonl", "--out", "out"]
    assert evaluate(*command) == 2
    assert "4 of 12 examples have no prediction" in capsys.readouterr().err.replace("\n", " ")
    assert evaluate(*command, "--limit", "4") == 0
    found = scores_in(tmp_path / "out")
    assert found["slot_f1", "all"]["n"] == 8
    assert found["slot_f1", "deu_Latn"]["n"] == 4
    assert evaluate(*command, "--limit", "0") == 2


def test_both_directions_of_a_translation_are_scored_apart(evaluate, translation, tmp_path, capsys):
    both = read_examples("translation", tmp_path / "corpus", directions="both")
    write(tmp_path / "both.jsonl", both, wrong=range(0, 20, 4))  # the five into German
    command = ["--task", "translation", "--data", "corpus", "--predictions", "both.jsonl"]
    assert evaluate(*command, "--directions", "both", "--out", "out") == 0
    rows = json.loads((tmp_path / "out" / "scores.json").read_text())["scores"]
    found = {row["group"]: row["value"] for row in rows if row["metric"] == "chrf" and row.get("language")}
    assert {direction: round(value) for direction, value in found.items()} == {
        "eng_Latn-deu_Latn": 0,
        "deu_Latn-eng_Latn": 100,
        "eng_Latn-fra_Latn": 100,
        "fra_Latn-eng_Latn": 100,
    }
    assert evaluate(*command, "--directions", "all", "--out", "o2") == 2
    assert "--directions 'all' is not one of from_english, into_english, both" in capsys.readouterr().err


def test_segment_scores_of_comet_stand_beside_bleu(evaluate, translation, tmp_path, capsys):
    before, after = write(tmp_path / "a.jsonl", translation, wrong=[1]), write(tmp_path / "b.jsonl", translation)
    for name, predictions in {"a": before, "b": after}.items():
        values = {p.id: (0.25 if p.prediction == "x" else 0.75) for p in predictions}
        write_segments(SegmentScores("comet", values, "comet|model:m"), predictions, tmp_path / f"{name}.segments")
    data = ["--task", "translation", "--data", "corpus"]
    both = [*data, "--predictions", "b.jsonl", "--comet", "b.segments", "--baseline", "a.jsonl"]
    assert evaluate(*both, "--baseline-comet", "a.segments", "--out", "out") == 0
    found = scores_in(tmp_path / "out")
    for where in ("deu_Latn", "fra_Latn", "all"):
        assert found["comet", where]["value"] == 0.75
        assert found["bleu", where]["value"] == pytest.approx(100)
        assert "comet|model:m|" in found["comet", where]["signature"]
    differences = scores_in(tmp_path / "out", "comparisons")
    assert differences["comet", "all"]["difference"] == pytest.approx(0.05)
    assert evaluate(*both, "--out", "o2") == 2
    assert "together" in capsys.readouterr().err
    assert evaluate(*data, "--predictions", "a.jsonl", "--comet", "b.segments", "--out", "o3") == 2
    assert "is of another translation" in capsys.readouterr().err.replace("\n", " ")
    seeds = ["--predictions", "a.jsonl", "--predictions", "b.jsonl", "--comet", "a.segments"]
    assert evaluate(*data, *seeds, "--out", "o4") == 2
    assert evaluate(*data, *seeds, "--comet", "b.segments", "--out", "o5") == 0
    assert scores_in(tmp_path / "o5")["comet", "all"]["values"] == pytest.approx([0.70, 0.75])


def test_a_translation_into_another_language_is_not_scored(evaluate, tmp_path, capsys):
    for name, words in {"eng": "one two", "deu": "eins zwei", "swh": "moja mbili"}.items():
        (tmp_path / "mt").mkdir(exist_ok=True)
        (tmp_path / "mt" / f"{name}.txt").write_text("".join(f"{words} {i}\n" for i in range(6)))
    german = read_examples("translation", tmp_path / "mt", languages=["deu"])
    answers = [Prediction(e.id, e.language, "", e.reference, target_language=e.target_language) for e in german]
    write_predictions(answers, tmp_path / "de.jsonl")
    command = ["--task", "translation", "--data", "mt", "--predictions", "de.jsonl", "--out", "out", "--languages"]
    assert evaluate(*command, "swh") == 2
    assert "6 predictions are translations into another language" in capsys.readouterr().err.replace("\n", " ")
    assert evaluate(*command, "deu") == 0


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["evaluate", "--metric", "chrf", "--predictions", "p.jsonl"], "metric: chrf is for the task chat"),
        (["generate", "--types", "PER=people", "--model", "m"], "types: PER are for the task extraction"),
        (["generate", "--task", "extraction", "--types", "PER", "--types", "PER", "--model", "m"], "each name once"),
        (["generate", "--task", "extraction", "--types", "=x", "--model", "m"], "each name once"),
    ],
)
def test_an_option_of_another_task_is_refused(slots, tmp_path, monkeypatch, capsys, command, says):
    write(tmp_path / "p.jsonl", slots)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["midalign", *command, "--data", "slots", "--out", "out"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert says in " ".join(capsys.readouterr().err.split())
