"""``predictions.jsonl``: ours come back as they were written, anybody's are read or refused by file and line."""

import pytest

from midalign.answers.predictions import append_predictions, read_partial, read_predictions, write_predictions
from midalign.errors import DataError, MissingFileError, RunError
from midalign.records import Prediction


def test_predictions_are_read_back_as_they_were_written(tmp_path):
    predictions = [Prediction("a:0", "zho_Hans", "p\n\u2028q", "line\nbreak 你好 \x85"), Prediction("a:1", "x", "", "")]
    write_predictions(predictions, tmp_path / "p.jsonl")
    assert read_predictions(tmp_path / "p.jsonl") == predictions


def test_the_loss_of_the_gold_answer_is_read_back_and_left_out_where_there_is_none(tmp_path):
    predictions = [Prediction("a:0", "x", "p", "q", 0.1 + 0.2, 7), Prediction("a:1", "x", "p", "q")]
    write_predictions(predictions, tmp_path / "p.jsonl")
    assert read_predictions(tmp_path / "p.jsonl") == predictions
    assert [line.count("gold_") for line in (tmp_path / "p.jsonl").read_text().splitlines()] == [2, 0]


@pytest.mark.parametrize(
    ("loss", "tokens"),
    [
        ("1.5", None), (None, "3"), ("-1", "3"), ("NaN", "3"), ("true", "3"), ('"1"', "3"), ("1e999", "3"), ("[]", "3"),
        ("1", "0"), ("1", "2.5"), ("1", "true"), ("1", '"3"'),
    ],
)  # fmt: skip
def test_a_loss_that_is_none_is_named(tmp_path, loss, tokens):
    gold = {"gold_loss": loss, "gold_tokens": tokens}
    fields = "".join(f', "{name}": {value}' for name, value in gold.items() if value is not None)
    (tmp_path / "p.jsonl").write_text(f'{{"id": "a", "prediction": "b"{fields}}}\n')
    with pytest.raises(DataError, match=r"p\.jsonl:1: 'gold_loss' is .*leave both out"):
        read_predictions(tmp_path / "p.jsonl")


def test_anybodys_predictions_need_only_id_and_prediction(tmp_path):
    (tmp_path / "p.jsonl").write_text(
        '{"id": "a:0", "prediction": "None", "model": "gpt"}\n\n{"id": "1", "prediction": ""}'
    )
    assert [(p.id, p.prediction, p.language) for p in read_predictions(tmp_path / "p.jsonl")] == [
        ("a:0", "None", ""), ("1", "", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "line", ["[1]", "3", "null", '{"id": 1, "prediction": "x"}', '{"id": "x"}', "{", '"x"', "\xff"]
)
def test_a_line_that_is_no_prediction_is_named(tmp_path, line):
    good = b'{"id": "a", "prediction": "b"}\n'
    (tmp_path / "p.jsonl").write_bytes(good + line.encode("latin-1") + b"\n" + good)
    with pytest.raises(DataError, match=r"p\.jsonl:2: .*Write on each line an object such as|p\.jsonl:2: byte 0xff"):
        read_predictions(tmp_path / "p.jsonl")


DEEP = "[" * 100_000
NUMBER = "1" * 5_000


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "a", "prediction": "b", "language": ["en"]}', "'language' is of the type list"),
        ('{"id": "a", "prediction": "b", "language": 3}', "'language' is of the type int"),
        ('{"id": "a", "prediction": "b", "prompt": {"role": "user"}}', "'prompt' is of the type dict"),
        ('{"id": 7, "prediction": "b"}', "'id' is of the type int"),
        ('{"id": "a", "prediction": ["b"]}', "'prediction' is of the type list"),
        ('{"id": "a", "prediction": NaN}', "'prediction' is of the type float"),
        ('{"id": "a", "prediction": null}', "there is no prediction"),
        ('{"id": "a", "answer": "b"}', "there is no prediction"),
        ("{}", "there is no id and no prediction"),
        (DEEP, "nested too deeply"),
        ('{"id": "a", "prediction": ' + DEEP, "nested too deeply"),
        ('{"id": "a", "prediction": "b", "language": ' + "[" * 900 + "]" * 900 + "}", "type list"),
        ('{"id": "a", "prediction": ' + NUMBER + "}", "not JSON"),
        ('{"id": "a", "prediction": "\\ud83d"}', "surrogate"),
        ('{"id": "a", "prediction": "b", "prediction": "c"}', "comes twice"),
    ],
)
def test_odd_types_deep_nesting_and_huge_numbers_are_named_by_file_and_line(tmp_path, line, message):
    (tmp_path / "p.jsonl").write_text('{"id": "x", "prediction": ""}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"p\.jsonl:2: ") as caught:
        read_predictions(tmp_path / "p.jsonl")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


def test_null_is_as_good_as_nothing_where_nothing_is_needed(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"id": "x", "prediction": "", "language": null, "prompt": null}\n')
    assert read_predictions(tmp_path / "p.jsonl") == [Prediction("x", "", "", "")]


@pytest.mark.parametrize("line", ['{"id": "b"}', "nonsense", "[]", '{"id": 1, "prediction": "x"}', "\x00"])
def test_a_damaged_line_of_an_interrupted_run_is_an_error_that_says_what_to_do(tmp_path, line):
    append_predictions(tmp_path / "partial", [Prediction("a", "eng_Latn", "p", "x")])
    with (tmp_path / "partial").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(RunError, match=r"interrupted run are damaged: .*partial:2.*delete .*to start again"):
        read_partial(tmp_path / "partial")


def test_missing_and_empty_predictions_are_refused(tmp_path):
    with pytest.raises(MissingFileError, match="midalign generate"):
        read_predictions(tmp_path / "p.jsonl")
    (tmp_path / "p.jsonl").write_text("\n")
    with pytest.raises(DataError, match="there are no predictions in this file"):
        read_predictions(tmp_path / "p.jsonl")
