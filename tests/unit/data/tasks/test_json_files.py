from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from midalign.data.tasks.columns import RawItem
from midalign.data.tasks.json_files import read_massive, read_reference, read_snips, words_of_chunks
from midalign.errors import DataError, LanguageError
from midalign.records import Span


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def massive(tmp_path: Path, annot: str, utt: str, locale: str = "en-US") -> RawItem:
    row = {"id": "7", "locale": locale, "partition": "test", "intent": "alarm_set", "utt": utt, "annot_utt": annot}
    (item,) = read_massive(lines(tmp_path / f"{locale}.jsonl", row))
    return item


def test_a_massive_row_is_read_exactly(tmp_path: Path) -> None:
    item = massive(tmp_path, "wake me up at [time : nine am] on [date : friday]", "wake me up at nine am on friday")
    assert item == RawItem(
        0,
        "wake me up at nine am on friday",
        ("wake", "me", "up", "at", "nine", "am", "on", "friday"),
        (Span("time", 4, 6), Span("date", 7, 8)),
        "alarm_set",
        "test",
        "eng_Latn",
    )


@pytest.mark.parametrize(
    ("annot", "utt", "words", "spans"),
    [
        ("stop", "stop", ["stop"], []),
        ("[time : 9:30]", "9:30", ["9:30"], [("time", 0, 1)]),
        ("[a : x][a : y]", "xy", ["x", "y"], [("a", 0, 1), ("a", 1, 2)]),
        ("[a : x] [a : y]", "x y", ["x", "y"], [("a", 0, 1), ("a", 1, 2)]),
        ("[date : tomorrow]'s news", "tomorrow's news", ["tomorrow", "'s", "news"], [("date", 0, 1)]),
        ("[time:nine am]", "nine am", ["nine", "am"], [("time", 0, 2)]),
        ("[ time  :  nine  am ] now", "nine am now", ["nine", "am", "now"], [("time", 0, 2)]),
    ],
)
def test_brackets_and_blanks_of_massive(
    tmp_path: Path, annot: str, utt: str, words: list[str], spans: list[tuple[str, int, int]]
) -> None:
    item = massive(tmp_path, annot, utt)
    assert (list(item.words), item.text) == (words, utt)
    assert list(item.spans) == [Span(*span) for span in spans]


@pytest.mark.parametrize("locale", ["zh-CN", "zh-TW", "ja-JP"])
def test_chinese_and_japanese_are_read_by_character_with_latin_kept_whole(tmp_path: Path, locale: str) -> None:
    item = massive(tmp_path, "播放 [artist_name : adele] 的[media_type : 歌曲]吧", "播放 adele 的歌曲吧", locale)
    assert item.words == ("播", "放", "adele", "的", "歌", "曲", "吧")
    assert item.spans == (Span("artist_name", 2, 3), Span("media_type", 4, 6))


def test_an_empty_slot_is_left_out_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    item = massive(tmp_path, "wake me [time : ] up", "wake me up")
    assert (item.words, item.spans) == (("wake", "me", "up"), ())
    assert "en-US.jsonl:1: a slot has no phrase" in caplog.text


def test_an_annotation_that_does_not_spell_the_utterance_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert massive(tmp_path, "at [time : nine  am]", "at ten am").text == "at nine am"
    assert "annot_utt does not spell utt" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"utt": "x", "annot_utt": "[time x]", "partition": "test"}', "f.jsonl:1: cannot read the slots"),
        ('{"utt": "x", "annot_utt": "[time : x", "partition": "test"}', "f.jsonl:1: cannot read the slots"),
        ('{"utt": "x", "annot_utt": "[a : [b : x]]", "partition": "test"}', "f.jsonl:1: cannot read the slots"),
        ('\n\n{"utt": "x", "partition": "test"}', "f.jsonl:3: no text under 'annot_utt'"),
        ('{"utt": 3, "annot_utt": "x"}', "f.jsonl:1: no text under 'utt', 'partition'"),
        ("[]", "f.jsonl:1: list where a JSON object"),
        ("{", "f.jsonl:1: not JSON"),
    ],
)
def test_faults_of_massive_files_are_named_with_their_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "f.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        list(read_massive(tmp_path / "f.jsonl"))


def row(**changes: Any) -> dict[str, Any]:
    return {"id": "0", "locale": "de-DE", "partition": "test", "utt": "a", "annot_utt": "a"} | changes


def test_each_row_of_massive_tells_its_own_language(tmp_path: Path) -> None:
    rows = [row(), row(locale="fr-FR"), row(locale="zh-CN", utt="播放", annot_utt="播放")]
    items = list(read_massive(lines(tmp_path / "all.jsonl", *rows)))
    assert [item.language for item in items] == ["deu_Latn", "fra_Latn", "zho_Hans"]
    assert items[2].words == ("播", "放")
    without = {key: value for key, value in row(utt="播放", annot_utt="播放").items() if key != "locale"}
    (item,) = read_massive(lines(tmp_path / "x.jsonl", without), "jpn_Jpan")
    assert (item.language, item.words) == ("", ("播", "放"))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"locale": 3.5}, DataError, "f.jsonl:1: 'locale' is 3.5, not a string"),
        ({"lang": ["de"]}, DataError, r"f.jsonl:1: 'lang' is \['de'\]"),
        ({"locale": "qq-QQ"}, LanguageError, "f.jsonl:1: unknown language 'qq-QQ'"),
        ({"intent": ["x"]}, DataError, r"f.jsonl:1: 'intent' is \['x'\]"),
        ({"intent": True}, DataError, "f.jsonl:1: 'intent' is True"),
    ],
)
def test_odd_values_of_massive_are_refused_and_not_turned_into_text(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        list(read_massive(lines(tmp_path / "f.jsonl", row(**changes))))


@pytest.mark.parametrize(("intent", "expected"), [("alarm_set", "alarm_set"), (48, "48"), (None, "")])
def test_an_intent_is_a_word_or_the_number_that_conversions_give_it(
    tmp_path: Path, intent: object, expected: str
) -> None:
    assert next(read_massive(lines(tmp_path / "f.jsonl", row(intent=intent)))).intent == expected


@pytest.mark.parametrize("text", ["", "  ", "\u200b"])
def test_rows_without_text_are_left_out_and_counted(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    items = list(read_massive(lines(tmp_path / "f.jsonl", row(utt=text, annot_utt=text), row())))
    assert [item.index for item in items] == [1]
    assert "f.jsonl:1: the row has no text; left out" in caplog.text
    assert list(read_reference(lines(tmp_path / "r.jsonl", {"prefix": LLAMA.format(text), "text": "None"}))) == []
    assert "r.jsonl:1: the command is empty; left out" in caplog.text


def test_words_end_where_a_piece_ends() -> None:
    words, spans = words_of_chunks([("play ", ""), ("Yo Ho", "track"), (". ", ""), (" ", "empty")])
    assert (words, spans) == (("play", "Yo", "Ho", "."), (Span("track", 1, 3),))


def test_a_snips_file_is_read_with_its_intent(tmp_path: Path) -> None:
    pieces = [("play ", None), ("Yo Ho", "track"), (" on ", None), ("Tube", "service"), (".", None)]
    data = [{"text": text, "entity": label} if label else {"text": text} for text, label in pieces]
    rows = [{"data": data}, {"data": []}, {"data": [{"text": "stop"}]}]
    (tmp_path / "f.json").write_text(json.dumps({"PlayMusic": rows}))
    first, second = read_snips(tmp_path / "f.json")
    assert first.text == "play Yo Ho on Tube."
    assert first.words == ("play", "Yo", "Ho", "on", "Tube", ".")
    assert first.spans == (Span("track", 1, 3), Span("service", 4, 5))
    assert (second.index, second.intent, second.text) == (2, "PlayMusic", "stop")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "f.json: not JSON"),
        ("[]", "one intent as its only key"),
        ('{"a": [], "b": []}', "one intent as its only key"),
        ('{"PlayMusic": [{"text": "x"}]}', "item 0 of 'PlayMusic'"),
        ('{"PlayMusic": {"data": []}}', "item 0 of 'PlayMusic'"),
        ('{"PlayMusic": [{"data": [{"text": null}]}]}', "item 0 of 'PlayMusic'"),
        ('{"PlayMusic": [{"data": [{"text": "x", "entity": 3}]}]}', "item 0 of 'PlayMusic'"),
        ('{"PlayMusic": [{"data": "text"}]}', "item 0 of 'PlayMusic'"),
    ],
)
def test_faults_of_snips_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "f.json").write_text(content)
    with pytest.raises(DataError, match=message):
        list(read_snips(tmp_path / "f.json"))


LLAMA = (
    "<|start_header_id|>system<|end_header_id|>\n\nFind entities.<|eot_id|>\n"
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>\n<|start_header_id|>assistant<|end_header_id|>\n\n"
)
CHATML = "<|im_start|>system\nFind.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("template", [LLAMA, CHATML], ids=["llama", "chatml"])
def test_a_record_of_the_reference_is_parsed_back(tmp_path: Path, template: str) -> None:
    file = lines(
        tmp_path / "f.jsonl",
        {"prefix": template.format("wake me at nine am"), "text": "time: nine am<|eot_id|>", "text_parallel_0": "x"},
        {"prefix": template.format("stop"), "text": "None"},
        {"prefix": template.format("播放adele的歌"), "text": "media: 歌"},
    )
    first, second, third = read_reference(file)
    assert (first.text, first.spans) == ("wake me at nine am", (Span("time", 3, 5),))
    assert (second.text, second.spans) == ("stop", ())
    assert third.spans == (Span("media", len(third.words) - 1, len(third.words)),)


def test_slots_that_the_command_does_not_have_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = lines(tmp_path / "f.jsonl", {"prefix": LLAMA.format("stop"), "text": "time: ten"})
    assert next(iter(list(read_reference(file)))).spans == ()
    assert "f.jsonl:1: a slot of the completion is not in the command" in caplog.text


def test_a_prefix_without_a_user_turn_is_an_error(tmp_path: Path) -> None:
    file = lines(tmp_path / "f.jsonl", {"prefix": "Wake me", "text": "None"})
    with pytest.raises(DataError, match=r"f.jsonl:1: no user turn in the prefix"):
        list(read_reference(file))
