"""Options that several verbs share, and their parsers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from midalign.answers.format import METRIC_HELP, STYLE_HELP
from midalign.errors import RunError, did_you_mean, listed
from midalign.files import local_path
from midalign.languages import canonical
from midalign.records import DTYPES, TaskName, Translated

if TYPE_CHECKING:
    from midalign.data.examples import TaskSource
    from midalign.models.source import ModelSource
    from midalign.recipe.sections import Recipe

Out = Annotated[Path, typer.Option(help="Folder for the results; created if needed, never overwritten by another run.")]
RecipeFile = Annotated[
    Path, typer.Argument(help="The YAML recipe, or the name of a shipped one (midalign recipe list).")
]
Overrides = Annotated[list[str] | None, typer.Argument(help="section.key=value, such as alignment.layer=8.")]
ModelName = Annotated[
    str, typer.Option(help="Hub name or local folder of the model; testbed and smollm2 come with midalign.")
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of the model on the hub.")]
GgufFile = Annotated[str | None, typer.Option(help="Name of a GGUF file in the model's folder (extra 'gguf').")]
Dtype = Annotated[str, typer.Option(help=f"Number format of the weights: {listed(DTYPES)}.")]
TrustRemoteCode = Annotated[bool, typer.Option(help="Let code from the model's repository run here.")]
AdapterPath = Annotated[Path | None, typer.Option(help="Folder of a PEFT adapter to use with the model.")]
Languages = Annotated[str | None, typer.Option(help="Comma-separated codes of any kind, such as eng,deu or en,de.")]
Format = Annotated[str, typer.Option(help="Format of the data; detected where possible.")]
Columns = Annotated[
    str | None,
    typer.Option(help="What each column holds, if the data do not say, counted from 0: eng=0,deu=1, or word=1,tag=2."),
]
Labels = Annotated[str | None, typer.Option(help="Comma-separated labels of spans to keep, such as PER,ORG,LOC.")]
TranslationDirections = Annotated[
    str, typer.Option(help="Of a translation task: from_english into each language, into_english, or both.")
]
Split = Annotated[str, typer.Option(help="train, dev or test.")]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Only the first N items of each language, as task.limit_test does.")
]
CompletionStyle = Annotated[str, typer.Option(help=STYLE_HELP)]
Metric = Annotated[
    list[str] | None,
    typer.Option(help=f"{METRIC_HELP} Give the option once per metric."),
]
Resamples = Annotated[int, typer.Option(help="Bootstrap resamples behind every interval.")]
Seed = Annotated[int, typer.Option(help="Seed of the bootstrap.")]


class Task(StrEnum):
    """The downstream tasks."""

    slots = "slots"
    translation = "translation"
    extraction = "extraction"
    chat = "chat"


def in_home(word: str) -> str:
    """An argument with the home folder in place of ``~/`` at its beginning or behind ``=`` (``task=~/a``)."""
    before, mark, path = word.rpartition("=")
    return f"{before}{mark}{local_path(path)}" if path.startswith("~") and "/" in path else word


def choice(name: str, value: str, allowed: tuple[str, ...]) -> Any:
    """Check the value of an option against its allowed names.

    Raises:
        RunError: If it is none of them; the message suggests the nearest.
    """
    if value not in allowed:
        raise RunError(f"--{name} {value!r} is not one of {', '.join(allowed)}.{did_you_mean(value, allowed)}")
    return value


def codes(text: str | None, option: str = "languages") -> tuple[str, ...] | None:
    """The canonical codes of a comma-separated list, each once; `option` is what messages name.

    Raises:
        LanguageError: If a code is not known.
    """
    if text is None:
        return None
    return tuple(dict.fromkeys(canonical(code.strip(), f"--{option}") for code in text.split(",") if code.strip()))


def columns_of(text: str | None) -> dict[str, str | int] | None:
    """Parse columns of the form ``eng=0,deu=1``: numbers from 0, or names of columns.

    Raises:
        RunError: If they are not of that form.
    """
    if text is None:
        return None
    return {
        name: int(column) if column.isascii() and column.isdecimal() else column
        for name, column in named("columns", text.split(","), "eng=0,deu=1").items()
    }


def items_of(
    task: str,
    data: str,
    *,
    format: str,  # noqa: A002
    languages: tuple[str, ...] | None,
    split: str,
    columns: str | None,
    labels: str | None = None,
    directions: str,
    limit: int | None,
) -> TaskSource:
    """The items that the options of a verb name.

    Raises:
        RunError: If an option is not of its form.
    """
    from midalign.data.examples import TaskSource

    return TaskSource(
        cast("TaskName", task),
        data,
        format=format,
        languages=languages,
        split=split,
        columns=columns_of(columns),
        labels=None if labels is None else tuple(label.strip() for label in labels.split(",") if label.strip()),
        directions=choice("directions", directions, get_args(Translated)),
        limit=limit,
    )


def named(option: str, values: Sequence[str], example: str = "task=runs/sft/adapter") -> dict[str, str]:
    """Parse values of the form ``name=value``; a mapping by name.

    Raises:
        RunError: If one is not of that form, or a name comes twice.
    """
    found: dict[str, str] = {}
    for value in values:
        name, equals, path = value.partition("=")
        if not equals or not name or not path:
            raise RunError(f"--{option} {value!r} is not of the form name=value, such as {example}")
        if name in found:
            raise RunError(f"--{option} names {name!r} twice, and one of the two would be lost; give each its own name")
        found[name] = path
    return found


def weights_of(text: str) -> dict[str, float | list[float]]:
    """Parse weights of the form ``name=number,name=number``; ``0.2/0.5/0.8`` is one number per band of layers.

    Raises:
        RunError: If they are not of that form.
    """
    given = named("weights", text.split(","), "task=1.0,alignment=0.5")
    try:
        bands = {name: [float(number) for number in value.split("/")] for name, value in given.items()}
    except ValueError:
        raise RunError(
            f"--weights {text!r}: a weight is a number, or one per band of layers from the lowest to the highest, such "
            "as task=1.0,alignment=0.5 or task=1.0,alignment=0.2/0.5/0.8"
        ) from None
    return {name: values[0] if len(values) == 1 else values for name, values in bands.items()}


def template_arguments_of(text: str | None) -> dict[str, Any]:
    """Parse the arguments of a chat template, a JSON object.

    Raises:
        RunError: If it is none, or a value is neither a word, a number nor a switch.
    """
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, bool | int | float | str) for value in found.values()):
        raise RunError(
            f"--chat-template-kwargs {text!r} is not a JSON object of names and values, such as "
            """'{"enable_thinking": false}'"""
        )
    return found


def model_of(
    name: str,
    *,
    revision: str | None,
    dtype: str,
    trust_remote_code: bool,
    gguf_file: str | None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> ModelSource:
    """The model that the options name; `testbed` and `smollm2` are prepared first.

    Raises:
        RunError: If `dtype` is unknown.
        ModelError: If a model that comes with midalign cannot be downloaded.
    """
    from midalign.experiment.named import model_folder
    from midalign.models.source import ModelSource

    choice("dtype", dtype, DTYPES)
    return ModelSource(
        model_folder(name),
        revision=revision,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        gguf_file=gguf_file,
        chat_template_kwargs=chat_template_kwargs or {},
    )


def recipe_of(path: Path, overrides: list[str] | None = None) -> Recipe:
    """The recipe of a file, checked by trl and peft too.

    Raises:
        RecipeError: With all its faults.
    """
    from midalign.recipe.file import load_recipe

    recipe = load_recipe(path, overrides or [])
    from midalign.training.arguments import check_arguments  # trl and peft take seconds to load

    check_arguments(recipe, str(path))
    return recipe
