"""The records that all packages share: a task example, a parallel pair, a prediction, a score.

Languages are canonical codes such as ``"deu_Latn"`` (see `midalign.languages`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, get_args

TaskName = Literal["slots", "translation", "extraction", "chat"]
Translated = Literal["from_english", "into_english", "both"]
"""The directions of a translation task."""
Backend = Literal["transformers", "vllm"]
"""The library that generates answers."""
BACKENDS: tuple[Backend, ...] = get_args(Backend)
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
"""The number format that the weights of a model are loaded in (`midalign.models.loading`)."""
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
Message = dict[str, str]
"""One turn of a conversation: its ``role`` and its ``content``."""
RESAMPLES = 1000
"""Bootstrap resamples behind every interval of a score (sacreBLEU's default)."""
MOST_RESAMPLES = 1_000_000
TRIALS = 10000
"""Trials of approximate randomisation (sacreBLEU's default)."""
SEED = 12345
"""Seed of both, on every path, so that intervals of the same answers are equal (sacreBLEU's default)."""


@dataclass(frozen=True, slots=True)
class ParallelPair:
    """A sentence and its translation.

    Attributes:
        source: Text of the source side (English, where the corpus is English-centred).
        target: Text of the target side.
        source_language: Canonical code of the source side.
        target_language: Canonical code of the target side.
        id: Where the pair came from, ``<file stem>:<index from 0>``.

    Examples:
        >>> pair = midalign.ParallelPair("Good morning", "Guten Morgen", "eng_Latn", "deu_Latn", id="greetings:0")
        >>> pair.target
        'Guten Morgen'
    """

    source: str
    target: str
    source_language: str
    target_language: str
    id: str


@dataclass(frozen=True, slots=True)
class Span:
    """A labelled span over the words of a `TaskExample`: words ``start`` to ``end``, ``end`` not included.

    Examples:
        >>> words = ("wake", "me", "at", "nine")
        >>> span = midalign.Span("time", 3, 4)
        >>> words[span.start : span.end]
        ('nine',)
    """

    label: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class TaskExample:
    """One item of a task, with its gold answer.

    Attributes:
        id: ``<file stem>:<index from 0>``; unique within a data set.
        task: Which task it belongs to.
        language: Canonical code of the language of `text`.
        text: What the model is given, as the user wrote it.
        words: The units that `spans` count in: the file's own tokens, or single characters for MASSIVE's Chinese and
            Japanese. Empty for translation.
        spans: Gold spans in order of their start (slot filling, extraction).
        intent: Gold intent of a command, where the data has one.
        reference: Gold translation, or gold answer (translation and chat).
        target_language: Canonical code of the language to translate into (translation only).
        messages: The turns before the answer (chat); empty if `text` is the whole prompt.
        tools: The functions that the chat template is given (chat).

    Examples:
        >>> words = ("wake", "me", "at", "nine")
        >>> midalign.TaskExample(
        ...     id="en.test:0", task="slots", language="eng_Latn", text="wake me at nine", words=words,
        ...     spans=(midalign.Span("time", 3, 4),), intent="alarm",
        ... ).spans[0].label
        'time'
    """

    id: str
    task: TaskName
    language: str
    text: str
    words: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()
    intent: str = ""
    reference: str = ""
    target_language: str = ""
    messages: tuple[Message, ...] = ()
    tools: tuple[dict[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class Prediction:
    """One line of ``predictions.jsonl``: what a system wrote for the item with the same ``id``.

    Attributes:
        id: Id of the item.
        language: Canonical code of its language.
        prompt: The whole prompt.
        prediction: The answer.
        gold_loss: Cross-entropy of the gold answer after the same prompt, summed over its tokens, in nats; None where
            it was not computed.
        gold_tokens: Number of tokens of the gold answer, end token included; None likewise.
        target_language: Of a translation, the code of the language that it is in; None where it is not known.

    Examples:
        >>> midalign.Prediction("en.test:0", "eng_Latn", prompt="wake me at nine", prediction="time: nine").prediction
        'time: nine'
    """

    id: str
    language: str
    prompt: str
    prediction: str
    gold_loss: float | None = None
    gold_tokens: int | None = None
    target_language: str | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """One score with its interval, number of items and signature.

    Attributes:
        metric: Name of the metric, such as ``"slot_f1"``.
        value: The score; a fraction from 0 to 1, except BLEU, chrF and TER, which stay in sacreBLEU's 0 to 100.
        low: Lower end of the 95 % confidence interval.
        high: Upper end of the 95 % confidence interval.
        n: Number of items the score was computed over.
        signature: How it was computed, in one line (metric, version, resamples, seed, ...).
        language: Canonical code, or None for a group.
        group: Name of the group (``"all"``, ``"supervised"``, ...), or None for a single language.

    Examples:
        >>> found = midalign.Score("slot_f1", 0.52, 0.49, 0.55, n=500, signature="slot_f1|bs:1000", language="deu_Latn")
        >>> f"{found.metric} {100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"
        'slot_f1 52.0 [49.0, 55.0]'
    """

    metric: str
    value: float
    low: float
    high: float
    n: int
    signature: str
    language: str | None = None
    group: str | None = None

    def as_dict(self) -> dict[str, object]:
        """The score as a JSON object, without the keys that are None."""
        return {key: value for key, value in asdict(self).items() if value is not None}
