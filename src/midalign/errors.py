"""The errors that a user can fix, and how their messages are worded.

Every one is also a builtin exception, so that ``except ValueError`` works in a notebook. The command line turns a
`UserError` into one message and exit code 2; anything else is a bug in midalign and exits with 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can fix: says what was wrong, why it matters, and what to write instead.

    Examples:
        >>> try:
        ...     midalign.Language.parse("germn")
        ... except midalign.UserError as mistake:
        ...     print(mistake)
        unknown language 'germn'. ... Did you mean 'deu_Latn' (German)? ...
    """


class RecipeError(UserError, ValueError):
    """One or more faults of a recipe, all reported at once.

    Examples:
        >>> midalign.load_recipe("recipe.yaml", ["alignment.temprature=0.5"])
        Traceback (most recent call last):
            ...
        midalign.errors.RecipeError: recipe.yaml has 1 fault:
          alignment.temprature: no such key. Did you mean 'temperature'?
    """


class DataError(UserError, ValueError):
    r"""A data file that cannot be used as it is; the message names file and line.

    Examples:
        >>> folder = Path("unequal")
        >>> folder.mkdir()
        >>> _ = (folder / "eng.txt").write_text("one\ntwo\n")
        >>> _ = (folder / "deu.txt").write_text("eins\n")
        >>> midalign.read_parallel(folder)
        Traceback (most recent call last):
            ...
        midalign.errors.DataError: unequal/eng.txt has 2 lines, but unequal/deu.txt has 1. ...
    """


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that does not exist.

    Examples:
        >>> midalign.read_predictions("answers.jsonl")
        Traceback (most recent call last):
            ...
        midalign.errors.MissingFileError: predictions file 'answers.jsonl' does not exist; ...
    """


class LanguageError(UserError, ValueError):
    """A language code that is not known.

    Examples:
        >>> midalign.Language.parse("klingon")
        Traceback (most recent call last):
            ...
        midalign.errors.LanguageError: ...
    """


class MissingLanguageError(DataError, LanguageError):
    """A language that was asked for, and that the data do not have."""


class ModelError(UserError, ValueError):
    """A model or adapter that cannot be loaded, or does not fit the request.

    Examples:
        >>> midalign.probe(model, tokenizer, {"en": ["yes", "no"], "de": ["ja", "nein"]}, k=1, layers=[9])
        Traceback (most recent call last):
            ...
        midalign.errors.ModelError: layers are [9], but this model has 4 blocks: ...
    """


class OptionError(UserError, ValueError):
    """A name or number that a function does not take, such as an unknown pooling.

    Examples:
        >>> midalign.probe(model, tokenizer, {"en": ["yes", "no"], "de": ["ja", "nein"]}, k=1, pooling="meen")
        Traceback (most recent call last):
            ...
        midalign.errors.OptionError: unknown pooling 'meen': ... Did you mean 'mean'...
    """


class RunError(UserError, ValueError):
    """A run folder that cannot be used: of another recipe, incomplete, or in the way.

    Examples:
        >>> midalign.ProbeResult.from_file("model/config.json")
        Traceback (most recent call last):
            ...
        midalign.errors.RunError: 'model/config.json' is not the result of a probe; ...
    """


class MissingExtraError(UserError, ImportError):
    """An optional dependency that is not installed.

    Examples:
        >>> raise midalign.MissingExtraError("llguidance", "constrained", "generation.constrained")
        Traceback (most recent call last):
            ...
        midalign.errors.MissingExtraError: ... Install it with: pip install 'midalign[constrained]'
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install 'midalign[{extra}]'"
        )


def listed(names: Iterable[str]) -> str:
    """Names as a phrase, such as ``"ratio, distance or cosine"``."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def nearest(value: str, allowed: Iterable[str], n: int = 3, cutoff: float = 0.5) -> list[str]:
    """The members of ``allowed`` most similar to ``value``, best first, at most ``n`` (case ignored).

    Args:
        value: What was written.
        allowed: What could have been meant.
        n: Largest number of members.
        cutoff: Least similarity, from 0 to 1 (equal), by `difflib.SequenceMatcher.ratio`.
    """
    by_folded: dict[str, str] = {}
    for name in allowed:
        by_folded.setdefault(name.casefold(), name)
    close = difflib.get_close_matches(value.casefold(), by_folded, n=n, cutoff=cutoff)
    likeness = [difflib.SequenceMatcher(None, name, value.casefold()).ratio() for name in close]
    # Beside a name that is nearly the same, the others are noise.
    return [by_folded[name] for name, alike in zip(close, likeness, strict=True) if alike > likeness[0] - 0.15]


def did_you_mean(value: str, allowed: Iterable[str]) -> str:
    """A sentence fragment such as ``" Did you mean 'mean'?"``, or the empty string where nothing is near."""
    close = nearest(value, allowed)
    if not close:
        return ""
    return " Did you mean " + " or ".join(repr(name) for name in close) + "?"
