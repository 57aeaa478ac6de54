"""Rows of trl's dataset formats, in every layout in which people keep them."""

import csv
import gzip
import io
import json
import re

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from midalign.data.tasks.chat import read_chat
from midalign.errors import DataError, LanguageError, MissingFileError

QUESTION = {"role": "user", "content": "Is this good?"}
ANSWER = {"role": "assistant", "content": "yes"}
TOOLS = [{"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}]
SHAPES = {
    "text": {"prompt": "Is this good?\n", "completion": "yes"},
    "turns": {"prompt": [QUESTION], "completion": [ANSWER]},
    "messages": {"messages": [QUESTION, ANSWER]},
    "tools": {"messages": [QUESTION, ANSWER], "tools": TOOLS, "system": "Be brief."},
}
MESSAGES = {
    "text": (),
    "turns": (QUESTION,),
    "messages": (QUESTION,),
    "tools": ({"role": "system", "content": "Be brief."}, QUESTION),
}


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    elif path.suffix == ".parquet":
        Dataset.from_list(rows).to_parquet(path)
    else:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()})
        path.write_text(text.getvalue(), encoding="utf-8")


LAYOUTS = ("file per language", "language column", "fixed language")


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_read_from_every_layout(tmp_path, shape, layout, suffix):
    rows = [SHAPES[shape]] * 2
    languages = None
    if layout == "file per language":
        for code in ("en", "deu"):
            write(tmp_path / f"{code}.test.{suffix}", rows)
            write(tmp_path / f"{code}.train.{suffix}", rows[:1])
    elif layout == "language column":
        write(tmp_path / f"test.{suffix}", [{**row, "language": code} for code in ("en", "deu") for row in rows])
    else:
        write(tmp_path / f"test.{suffix}", rows)
        languages = ["deu"]
    found = read_chat(tmp_path, languages=languages)
    assert [example.language for example in found] == (
        ["deu_Latn"] * 2 if languages else sorted(["eng_Latn", "deu_Latn"] * 2, reverse=layout == "language column")
    )
    assert {example.reference for example in found} == {"yes"}
    assert {example.messages for example in map(_hashable, found)} == {_hashable_messages(MESSAGES[shape])}
    assert {example.text for example in found} == {"Is this good?\n" if shape == "text" else "Is this good?"}
    assert all(list(example.tools) == (TOOLS if shape == "tools" else []) for example in found)
    assert len({example.id for example in found}) == len(found)


def _hashable_messages(messages):
    return tuple(tuple(sorted(turn.items())) for turn in messages)


def _hashable(example):
    from types import SimpleNamespace

    return SimpleNamespace(messages=_hashable_messages(example.messages))


def test_the_last_turn_is_the_answer_and_the_others_are_its_context(tmp_path):
    turns = [QUESTION, ANSWER, {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "quite"}]
    write(tmp_path / "eng.test.jsonl", [{"messages": turns}])
    (found,) = read_chat(tmp_path / "eng.test.jsonl")
    assert found.messages == tuple(turns[:3])
    assert (found.reference, found.text) == ("quite", "Is this good?\nyes\nSure?")


def test_parts_of_text_are_joined(tmp_path):
    parts = [{"type": "text", "text": "Is this "}, {"type": "text", "text": "good?"}]
    write(tmp_path / "eng.test.jsonl", [{"messages": [{"role": "user", "content": parts}, ANSWER]}])
    assert read_chat(tmp_path)[0].text == "Is this good?"


def test_a_folder_for_each_split_and_names_without_any(tmp_path):
    write(tmp_path / "a" / "train" / "deu.jsonl", [SHAPES["text"]])
    write(tmp_path / "a" / "validation" / "deu.jsonl", [SHAPES["text"]] * 3)
    write(tmp_path / "b" / "deu.jsonl", [SHAPES["text"]])
    assert len(read_chat(tmp_path / "a", split="dev")) == 3
    assert len(read_chat(tmp_path / "b", split="dev")) == 1


def test_a_mistyped_path_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "mood").mkdir(parents=True)
    with pytest.raises(MissingFileError, match="Did you mean mood in"):
        read_chat("data/mod")
    with pytest.raises(MissingFileError, match="Did you mean data in"):
        read_chat("dta/mood.jsonl.gz")


def test_a_hub_dataset_by_configuration_or_by_column(monkeypatch):
    import datasets

    tables = {"de": [SHAPES["messages"]], "en": [SHAPES["messages"]] * 2, "all": [SHAPES["messages"]] * 9}
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name: list(tables))
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name, configuration: ["train", "validation"])
    monkeypatch.setattr(datasets, "load_dataset", lambda name, configuration, split: tables[configuration])
    assert [example.language for example in read_chat("me/mine", split="dev")] == ["deu_Latn", "eng_Latn", "eng_Latn"]
    with pytest.raises(DataError, match="no split 'test'"):
        read_chat("me/mine")
    tables = {"default": [{**SHAPES["text"], "language": "fr"}]}
    assert read_chat("me/mine", split="train")[0].language == "fra_Latn"


def test_names_tell_the_language_first_or_last_and_packed_files_are_read(tmp_path):
    rows = [SHAPES["messages"]]
    for name in ("test_de.jsonl", "test_it.jsonl", "notes_test.jsonl", "README.json", "fr.train.jsonl"):
        write(tmp_path / name, rows)
    packed = gzip.compress((tmp_path / "test_de.jsonl").read_bytes())
    (tmp_path / "test_nl.jsonl.gz").write_bytes(packed)
    found = read_chat(tmp_path, languages=["de", "it", "nl"])
    assert {e.id: e.language for e in found} == {
        "test_de:0": "deu_Latn", "test_it:0": "ita_Latn", "test_nl:0": "nld_Latn",
    }  # fmt: skip


def test_a_file_of_no_language_beside_others_is_not_of_the_one_asked_for(tmp_path, caplog):
    write(tmp_path / "deu.test.jsonl", [SHAPES["messages"]])
    write(tmp_path / "other.test.jsonl", [SHAPES["messages"]])
    assert [e.id for e in read_chat(tmp_path, languages=["deu"])] == ["deu.test:0"]
    assert "other.test.jsonl:1: not read" in caplog.text
    with pytest.raises(LanguageError, match=r"other\.test\.jsonl:1: the language of this row is unknown"):
        read_chat(tmp_path)


def test_faults_of_a_language_that_nobody_asked_for_do_not_matter(tmp_path):
    write(tmp_path / "deu.test.jsonl", [SHAPES["messages"]])
    (tmp_path / "fra.test.jsonl").write_text("{\n")
    assert len(read_chat(tmp_path, languages=["deu"])) == 1
    with pytest.raises(DataError, match=r"fra\.test\.jsonl:1"):
        read_chat(tmp_path)


def test_a_column_that_comes_twice_is_refused(tmp_path):
    (tmp_path / "deu.test.csv").write_text("prompt,completion,prompt\na,b,c\n")
    with pytest.raises(DataError, match=r"deu\.test\.csv:1: two columns have one name"):
        read_chat(tmp_path)


BAD = {
    "no answer": ({"messages": [QUESTION]}, "last turn is that of 'user'"),
    "no question": ({"messages": [ANSWER]}, "after at least one other"),
    "other columns": ({"text": "hello"}, "the row has the columns text"),
    "mixed": ({"prompt": "x", "completion": [ANSWER]}, "must both be"),
    "empty": ({"prompt": "x", "completion": " "}, "the completion is empty"),
    "no role": ({"messages": [{"content": "x"}, ANSWER]}, "message 1"),
    "a role that no template knows": ({"messages": [{"role": "boss", "content": "x"}, ANSWER]}, "'boss'|\"boss\""),
    "no list": ({"messages": {"role": "user"}}, "not a list of messages"),
    "an image": (
        {"messages": [{"role": "user", "content": [{"type": "image"}]}, ANSWER]},
        "content of message 1",
    ),
    "tools of text": ({"prompt": "x", "completion": "y", "tools": TOOLS}, "would have no effect"),
    "odd tools": ({"messages": [QUESTION, ANSWER], "tools": "clock"}, "'tools'"),
    "empty to the eye": ({"prompt": "x", "completion": "\u200b"}, "the completion is empty"),
    "no text asked": ({"messages": [QUESTION | {"content": "\u2060"}, ANSWER]}, "nothing is asked"),
    "a call": ({"messages": [QUESTION, ANSWER | {"tool_calls": [{"type": "function"}]}, ANSWER]}, "'tool_calls'"),
    "a thought": ({"messages": [QUESTION, ANSWER | {"reasoning_content": "Hm."}]}, "'reasoning_content'"),
    "a thought before": ({"messages": [QUESTION, ANSWER | {"thinking": "Hm."}, QUESTION, ANSWER]}, "message 2"),
    "not trained": ({"messages": [QUESTION, ANSWER | {"weight": 0}]}, "'weight' = 0, which says not to train on it"),
    "nor scored": ({"prompt": [QUESTION], "completion": [ANSWER | {"train": False}]}, "'train' = False"),
    "two prompts": (SHAPES["messages"] | {"prompt": "x", "completion": "y"}, "'messages' and 'prompt'"),
    "more for the template": (
        SHAPES["messages"] | {"chat_template_kwargs": {"enable_thinking": False}},
        "'chat_template_kwargs' is",
    ),
    "language of another type": (SHAPES["messages"] | {"language": 3}, "'language' is 3, not a string"),
    "odd system": ({"messages": [QUESTION, ANSWER], "system": 3}, "'system' is 3"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_names_file_and_line(tmp_path, name):
    row, words = BAD[name]
    write(tmp_path / "eng.test.jsonl", [SHAPES["messages"], row])
    with pytest.raises(DataError, match=words) as raised:
        read_chat(tmp_path)
    assert "eng.test.jsonl:2" in str(raised.value)


def test_what_is_not_trained_anyway_may_say_so(tmp_path):
    turns = [
        QUESTION | {"weight": 0},
        ANSWER | {"weight": 0, "reasoning_content": None},
        QUESTION,
        ANSWER | {"weight": 1},
    ]
    write(tmp_path / "eng.test.jsonl", [{"messages": turns}])
    assert [sorted(turn) for turn in read_chat(tmp_path)[0].messages] == [["content", "role"]] * 3


def test_text_that_looks_like_a_list_is_text(tmp_path):
    prompts = ["[{x", "[] is what?", '[{"a": 1}]', "[1, 2]"]
    rows = [{"prompt": prompt, "completion": "a list"} for prompt in prompts]
    write(tmp_path / "eng.test.csv", rows)
    assert [example.text for example in read_chat(tmp_path)] == prompts


def test_a_cell_of_json_that_holds_no_messages_is_text(tmp_path):
    for text in ('[{"role": "user"}, 3]', '[{"a": 1}]'):
        write(tmp_path / "eng.test.csv", [{"prompt": text, "completion": "yes"}])
        assert read_chat(tmp_path / "eng.test.csv")[0].text == text


def test_a_cell_may_be_long(tmp_path):
    write(tmp_path / "eng.test.csv", [{"prompt": "x" * 200_000, "completion": "long"}])
    assert len(read_chat(tmp_path)[0].text) == 200_000


def test_tools_may_be_written_as_json(tmp_path):
    write(tmp_path / "eng.test.jsonl", [SHAPES["messages"] | {"tools": json.dumps(TOOLS)}])
    assert read_chat(tmp_path)[0].tools == tuple(TOOLS)


@pytest.mark.parametrize("key", ["language", "lang", "locale"])
def test_rows_tell_their_language_all_or_none(tmp_path, key):
    row = SHAPES["text"]
    write(tmp_path / "test.jsonl", [row | {key: "fr"}, row | {key: "de-DE"}])
    assert [example.id for example in read_chat(tmp_path, languages=["de"])] == ["test:1"]
    for other in (row, row | {key: None}, row | {key: " "}):
        write(tmp_path / "test.jsonl", [row | {key: "fr"}, other])
        with pytest.raises(DataError, match=r"test\.jsonl:2: the row has no language, but other rows of test have"):
            read_chat(tmp_path, languages=["fr"])
    write(tmp_path / "test.jsonl", [row | {key: "fr"}])
    with pytest.raises(LanguageError, match="no test rows in deu_Latn; there are rows in fra_Latn"):
        read_chat(tmp_path, languages=["de"])


def test_rows_tell_their_language_by_code_or_name_and_others_may_be_unknown(tmp_path):
    rows = [SHAPES["text"] | {"language": word} for word in ("haw-wiki", "English", "swahili", "deu")]
    write(tmp_path / "test.jsonl", rows)
    assert [example.language for example in read_chat(tmp_path, languages=["eng", "swh"])] == ["eng_Latn", "swh_Latn"]
    with pytest.raises(LanguageError, match=r"no test rows in fra_Latn; .* haw-wiki"):
        read_chat(tmp_path, languages=["fra"])
    with pytest.raises(LanguageError, match=r"test\.jsonl:1: unknown language 'haw-wiki'"):
        read_chat(tmp_path)


@pytest.mark.parametrize(("word", "shown"), [("deu", "deu_Latn"), ("python", "python")])
@pytest.mark.parametrize("languages", [None, ["eng"]])
def test_a_row_of_another_language_than_the_name_of_its_file_is_refused(tmp_path, word, shown, languages):
    write(tmp_path / "eng.test.jsonl", [SHAPES["text"] | {"lang": "en"}, SHAPES["text"] | {"lang": word}])
    with pytest.raises(DataError, match=rf"eng\.test\.jsonl:2: .* language is {shown}, but .* eng\.test says eng_Latn"):
        read_chat(tmp_path, languages=languages)


def test_rows_whose_language_nothing_tells_are_refused_by_line(tmp_path):
    write(tmp_path / "test.jsonl", [SHAPES["text"]])
    with pytest.raises(LanguageError, match=r"test\.jsonl:1: the language of this row is unknown"):
        read_chat(tmp_path)
    with pytest.raises(LanguageError, match=r"test\.jsonl:1: the language of this row is unknown"):
        read_chat(tmp_path, languages=["eng", "deu"])


def test_what_is_missing_is_named(tmp_path):
    write(tmp_path / "eng.train.jsonl", [SHAPES["text"]])
    with pytest.raises(DataError, match="no file for the split 'test'"):
        read_chat(tmp_path)
    with pytest.raises(LanguageError, match="no train rows in deu_Latn"):
        read_chat(tmp_path, languages=["eng", "deu"], split="train")
    with pytest.raises(MissingFileError):
        read_chat(tmp_path / "nowhere")
    (tmp_path / "eng.test.csv").write_text('prompt,completion\n"a,b\n', encoding="utf-8")
    with pytest.raises(DataError, match=re.escape("eng.test.csv")):
        read_chat(tmp_path / "eng.test.csv")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.sampled_from(["user", "assistant"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(st.sampled_from(["prompt", "completion", "messages", "tools", "system", "language"]), values))
def test_any_row_is_an_example_or_a_message(tmp_path_factory, row):
    path = tmp_path_factory.mktemp("rows") / "eng.test.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    said = ""
    try:
        (found,) = read_chat(path)
    except (DataError, LanguageError) as fault:
        said = str(fault)
    assert "eng.test.jsonl" in said if said else found.reference.strip()


def test_a_file_and_its_packed_copy_are_not_read_as_two(tmp_path):
    text = json.dumps({"prompt": "p", "completion": "c"}) + "\n"
    (tmp_path / "eng.train.jsonl").write_text(text)
    assert len(read_chat(tmp_path, split="train")) == 1
    (tmp_path / "eng.train.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(DataError, match="occurs twice"):
        read_chat(tmp_path, split="train")
