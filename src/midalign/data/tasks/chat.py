"""Chat data in trl's dataset formats: rows of any fine-tuning data, each with one answer of an assistant.

===================  ==========================================================================================
columns              what the row asks, and what it answers
===================  ==========================================================================================
prompt, completion   two strings: plain text, which no chat template touches (trl: standard)
prompt, completion   two lists of messages (trl: conversational)
messages             one list of messages; the last turn, the assistant's, is the answer, the others are context
system               optional: a system turn before the others, where there is none
tools                optional: the functions that the chat template is given
language             optional: code of the row's language, where a file holds several (also ``lang``, ``locale``)
===================  ==========================================================================================

From JSONL, JSON (a list), CSV or Parquet, or a dataset of the hub. The language comes from the column, from the file's
name (``<language>.<split>.jsonl``) or from the hub's configuration; otherwise it is the one language that is asked for.
In CSV a list is written as JSON.
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from midalign.data.file_names import bare, data_files, language_of_each, shown, split_name
from midalign.data.tasks.ids import check_ids_differ
from midalign.data.tasks.layout import files_of_split
from midalign.data.tasks.row_language import check_all_tell, told_by_row
from midalign.errors import DataError, LanguageError, MissingLanguageError
from midalign.files import (
    is_blank,
    local_path,
    missing_file,
    parse_json,
    read_json_lines,
    read_lines,
    read_parquet,
    readable,
)
from midalign.languages import canonical, known
from midalign.records import Message, TaskExample

logger = logging.getLogger(__name__)

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
_FORM = 'a row such as {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'
_LONGEST_CELL = 2**31 - 1  # characters; the csv module's default is 131,072
_ROLES = ("system", "user", "assistant", "tool", "developer")
_NOT_READ = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking")  # said beside the content
_NOT_TRAINED = {"weight": 0, "train": False}  # keys by which OpenAI's format and axolotl leave a turn out of the loss


@dataclass(frozen=True)
class _Table:
    """One file, or one table of the hub: its rows with their place, and its language where the name tells it.

    Attributes:
        assumed: Language of its rows where neither name nor rows tell one: the only one that was asked for.
        beside: Whether its name tells no language, but those of the files beside it do.
    """

    name: str
    language: str | None
    rows: Iterator[tuple[str, Mapping[str, Any]]]
    assumed: str | None = None
    beside: bool = False


def read_chat(data: str | Path, *, languages: Sequence[str] | None = None, split: str = "test") -> list[TaskExample]:
    """Examples of one split, in the order of the files and of their rows.

    Args:
        data: A folder with a file per language, one file, or the name of a dataset on the hub.
        languages: Codes to keep; None keeps all. For rows that do not tell their language, the one that they are in.
        split: ``train``, ``dev`` or ``test``.

    Returns:
        Examples whose `reference` is the answer and whose `messages` (or, for plain text, `text`) are the prompt.

    Raises:
        DataError: Nothing to read, or a row that is none of the above; with file and row.
        LanguageError: A code that is not known, or rows whose language nothing tells.
        MissingFileError: ``data`` looks like a path, or its folder is there, but it does not exist.
    """
    wanted = None if languages is None else [canonical(code) for code in languages]
    found: list[TaskExample] = []
    present: set[str] = set()
    for table in _tables(data, split, wanted):
        if table.language is not None and table.language not in (wanted or (table.language,)):
            present.add(table.language)
            continue
        for number, place, language, row in _rows(table):
            present.add(language)
            if wanted is None:
                canonical(language, place)
            if wanted is None or language in wanted:
                found.append(_example(row, f"{table.name}:{number}", language, place))
    if missing := [code for code in wanted or [] if code not in present]:
        raise MissingLanguageError(
            f"{data}: no {split} rows in {', '.join(missing)}; there are rows in "
            f"{', '.join(sorted(present)) or 'none'}. Add rows, or leave the language out"
        )
    if not found:
        raise DataError(f"{data}: no rows in split {split!r}; check the files and the split's name")
    check_ids_differ(found)
    return found


def _rows(table: _Table) -> Iterator[tuple[int, str, str, Mapping[str, Any]]]:
    """The rows of a table, each with its number, place and language, which need not be a known one.

    Raises:
        DataError: A row tells another language than the name of its file.
        LanguageError: Nothing tells the language of a row.
    """
    rows = list(table.rows)
    told = {place: told_by_row(row, place) for place, row in rows}
    if table.beside and not any(told.values()):
        if told:
            logger.warning("%s: not read, because neither its name nor its rows say the language", next(iter(told)))
        return
    if table.language is None:
        check_all_tell(told, table.name)
    for number, (place, row) in enumerate(rows):
        if not (language := told[place] or table.language or table.assumed):
            raise LanguageError(
                f"{place}: the language of this row is unknown, so it is unclear whether to train on it. Name the "
                "file <language>.<split>.jsonl, add a column 'language', or ask for exactly one language"
            )
        if table.language not in (None, language):
            raise DataError(
                f"{place}: the row says that its language is {language}, but the name {table.name} says "
                f"{table.language}, so it would be read as the wrong one. Correct one of the two, or rename the column "
                "if it holds something else"
            )
        yield number, place, language, row


def _tables(data: str | Path, split: str, wanted: Sequence[str] | None) -> Iterator[_Table]:
    path = local_path(data)
    if not path.exists():
        of_hub = str(data).count("/") == 1 and not str(data).startswith((".", "/", "~"))
        if not of_hub or path.parent.exists() or bare(path).suffix in SUFFIXES:
            raise missing_file(path)
        yield from _hub_tables(str(data), split, _the_only(wanted))
        return
    files = [path] if path.is_file() else _files_of_split(path, split)
    languages = language_of_each([bare(file).stem for file in files], wanted)
    only = None if any(languages) else _the_only(wanted)
    for file, language in zip(files, languages, strict=True):
        beside = language is None and any(languages) and wanted is not None
        yield replace(_file(file, language), assumed=only, beside=beside)


def _the_only(wanted: Sequence[str] | None) -> str | None:
    return wanted[0] if wanted is not None and len(wanted) == 1 else None


def _files_of_split(folder: Path, split: str) -> list[Path]:
    """The files of a folder whose name names the split; those in a folder of that name; or all, where none is named."""
    name = split_name(split)
    with readable(folder):
        inner = (each for each in folder.iterdir() if each.is_dir() and split_name(each.name) == name)
        folder = next(inner, folder)
    files = [file for file in data_files(folder) if bare(file).suffix in SUFFIXES]
    of_split = files_of_split(files, name)
    if not of_split:
        found = shown(file.name for file in files) or f"no {', '.join(SUFFIXES)} file"
        raise DataError(
            f"{folder}: no file for the split {split!r} (found: {found}). Name files <language>.<split>.jsonl, such as "
            f"deu.{split}.jsonl"
        )
    return of_split


def _file(path: Path, language: str | None) -> _Table:
    readers = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet}
    suffix = bare(path).suffix
    if suffix not in readers:
        raise DataError(f"{path}: rows are read from {', '.join(readers)}; convert it, or give another file")
    return _Table(bare(path).stem, language, readers[suffix](path))


def _jsonl(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return ((f"{path}:{line}", row) for line, row in read_json_lines(path, _FORM))


def _json(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    rows = parse_json("\n".join(read_lines(path)), path, f"a list of rows, each {_FORM}")
    if not isinstance(rows, list):
        raise DataError(f"{path}: {type(rows).__name__} where a list of rows was expected. Write each as {_FORM}.")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{path}: row {number} is {row!r}, not an object. Write {_FORM}.")
        yield f"{path}: row {number}", row


def _csv(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.DictReader([line + "\n" for line in read_lines(path)], strict=True)
    try:
        names = reader.fieldnames or ()
        if len(set(names)) < len(names):
            raise DataError(
                f"{path}:1: two columns have one name ({', '.join(names)}), and one would be lost; rename it"
            )
        for row in reader:
            place = f"{path}:{reader.line_num}"
            if None in row or None in row.values():
                raise DataError(
                    f"{place}: the row does not have as many cells as the header; quote cells that hold commas"
                )
            yield place, {name: _cell(name, cell, place) for name, cell in row.items()}
    except csv.Error as fault:
        raise DataError(f"{path}:{reader.line_num}: not CSV ({fault}); quote cells with quotes or commas") from fault


def _cell(name: str, cell: str, place: str) -> Any:
    """A cell as text, but a list of messages or tools as one; other text may well begin with a bracket."""
    if name in ("messages", "tools"):
        return parse_json(cell, place) if cell else cell
    if name in ("prompt", "completion") and cell.lstrip().startswith("[{"):
        try:
            value = parse_json(cell, place)
        except DataError:
            return cell
        turns = isinstance(value, list) and all(isinstance(turn, dict) and "role" in turn for turn in value)
        return value if turns else cell
    return cell


def _parquet(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return ((f"{path}: row {number}", row) for number, row in enumerate(read_parquet(path).to_pylist(), start=1))


def _hub_tables(name: str, split: str, only: str | None) -> Iterator[_Table]:
    """One table for each configuration that is named after a language, or the only one."""
    import datasets

    try:
        configurations = datasets.get_dataset_config_names(name)
        for configuration in configurations:
            language = known(configuration)
            if language is None and len(configurations) > 1:
                continue
            of_split = datasets.get_dataset_split_names(name, configuration)
            chosen = next((each for each in of_split if split_name(each) == split_name(split)), None)
            if chosen is None:
                raise DataError(f"{name}: no split {split!r}; there are {', '.join(of_split)}")
            table = datasets.load_dataset(name, configuration, split=chosen)
            rows = ((f"{name}, {configuration}, {chosen}, row {i}", row) for i, row in enumerate(table, start=1))
            yield _Table(f"{configuration}.{split}", language, rows, assumed=only)
    except (OSError, ValueError) as fault:
        if isinstance(fault, DataError):
            raise
        raise DataError(
            f"the dataset {name!r} cannot be loaded: {fault}. Check the name and, for a gated one, that you are logged "
            "in (hf auth login); or name a local folder."
        ) from fault


def _example(row: Mapping[str, Any], name: str, language: str, place: str) -> TaskExample:
    system, tools = row.get("system"), _tools(row, place)
    if system is not None and not isinstance(system, str):
        raise DataError(f"{place}: 'system' is {_shown(system)}, not a string")
    _check_no_more(row, place)
    prompt, answer = _prompt_and_answer(row, place)
    if isinstance(prompt, str):
        if system or tools:
            raise DataError(
                f"{place}: a prompt of plain text has no turns, so 'system' and 'tools' would have no effect; write "
                "'prompt' as a list of messages, or put the text into the prompt"
            )
        return TaskExample(id=name, task="chat", language=language, text=prompt, reference=answer)
    if system and prompt[0]["role"] != "system":
        prompt = [{"role": "system", "content": system}, *prompt]
    return TaskExample(
        id=name,
        task="chat",
        language=language,
        text="\n".join(turn["content"] for turn in prompt if turn["role"] != "system"),
        reference=answer,
        messages=tuple(prompt),
        tools=tuple(tools),
    )


def _tools(row: Mapping[str, Any], place: str) -> list[dict[str, Any]]:
    """The functions of a row: a list, or one as JSON, since columns of Parquet hold no objects of several shapes."""
    tools = row.get("tools") or []
    if isinstance(tools, str):
        tools = parse_json(tools, f"{place}: 'tools'", "a list of objects, one for each function")
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise DataError(f"{place}: 'tools' is {_shown(tools)}, not a list of objects, one for each function")
    return tools


def _check_no_more(row: Mapping[str, Any], place: str) -> None:
    """Refuse columns that change what is asked or answered, and that midalign does not use."""
    both = [name for name in ("prompt", "completion") if row.get("messages") and row.get(name)]
    if both:
        raise DataError(f"{place}: the row has 'messages' and {both[0]!r}, and one would be left out; keep one of them")
    if row.get("chat_template_kwargs"):
        raise DataError(
            f"{place}: 'chat_template_kwargs' is {_shown(row['chat_template_kwargs'])}, and a row's own would have no "
            "effect; write them in the recipe (model.chat_template_kwargs), for all rows, and take the column out"
        )


def _prompt_and_answer(row: Mapping[str, Any], place: str) -> tuple[str | list[Message], str]:
    if row.get("messages") is not None:
        turns = _turns(row["messages"], "messages", place)
        _check_trained(row["messages"][-1], place)
        return _split_off_the_answer(turns, place)
    if row.get("prompt") is None or row.get("completion") is None:
        raise DataError(
            f"{place}: the row has the columns {', '.join(map(str, row)) or 'none'}. It needs 'messages', or 'prompt' "
            f"and 'completion'. Write {_FORM}."
        )
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, str) and isinstance(completion, str):
        if is_blank(prompt) or is_blank(completion):
            raise DataError(f"{place}: the {'prompt' if is_blank(prompt) else 'completion'} is empty; remove the row")
        return prompt, completion
    if isinstance(prompt, str) or isinstance(completion, str):
        raise DataError(f"{place}: 'prompt' and 'completion' must both be text or both be lists of messages")
    turns = [*_turns(prompt, "prompt", place), *_turns(completion, "completion", place)]
    _check_trained(completion[-1], place)
    return _split_off_the_answer(turns, place)


def _split_off_the_answer(turns: list[Message], place: str) -> tuple[list[Message], str]:
    *prompt, answer = turns
    if answer["role"] != "assistant" or not prompt:
        raise DataError(
            f"{place}: the last turn is that of {answer['role']!r}, after {len(prompt)} others; the answer that is "
            "trained and scored is a last turn of the assistant after at least one other"
        )
    if is_blank(answer["content"]):
        raise DataError(f"{place}: the assistant's last turn is empty; remove the row, or write the answer as text")
    if all(is_blank(turn["content"]) for turn in prompt):
        raise DataError(f"{place}: the turns before the answer are empty, so nothing is asked; remove the row")
    return prompt, answer["content"]


def _turns(value: Any, column: str, place: str) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise DataError(f"{place}: {column!r} is {_shown(value)}, not a list of messages. Write {_FORM}.")
    turns: list[Message] = []
    for number, turn in enumerate(value, start=1):
        if not isinstance(turn, Mapping) or turn.get("role") not in _ROLES:
            raise DataError(
                f"{place}: message {number} of {column!r} is {_shown(turn)}. A message is an object with 'role' (one "
                f"of {', '.join(_ROLES)}) and 'content'."
            )
        if lost := [key for key in _NOT_READ if turn.get(key)]:
            raise DataError(
                f"{place}: message {number} of {column!r} has {lost[0]!r}, which would be left out; write it as text "
                "into 'content', as the model writes it, or take the row out"
            )
        turns.append({"role": str(turn["role"]), "content": _content(turn.get("content"), number, place)})
    return turns


def _check_trained(answer: Mapping[str, Any], place: str) -> None:
    """Refuse an answer that is marked as not to be trained on; of other turns none is."""
    for key, value in _NOT_TRAINED.items():
        if answer.get(key) is not None and answer[key] == value:
            raise DataError(
                f"{place}: the last turn has {key!r} = {value!r}, which says not to train on it, but it is the answer "
                f"that is trained and scored; take the row out, or {key!r}"
            )


def _content(content: Any, number: int, place: str) -> str:
    """The text of a message, which may be written as parts of type ``text``."""
    if isinstance(content, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        raise DataError(f"{place}: the content of message {number} is {_shown(content)}, not text")
    return content


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
