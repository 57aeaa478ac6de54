"""Metrics of translation: sacreBLEU's BLEU, chrF, chrF++ and TER, resampled from its sufficient statistics.

BLEU uses the target language's tokenizer: ``zh`` for Chinese, ``ja-mecab`` and ``ko-mecab`` for Japanese and Korean
where MeCab is installed and ``char`` where it is not (the signature says which), ``13a`` for the rest. TER of Chinese
and Japanese is by character (sacreBLEU's ``normalized`` and ``asian_support``), since words there are not separated.
All four stay in sacreBLEU's 0 to 100; TER is better when lower. Signatures begin with sacreBLEU's own.

COMET needs an environment of its own. `midalign.evaluation.comet` computes it, and `segment_strata` takes its scores.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from sacrebleu.metrics.base import Metric
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER

from midalign.functional.statistics import FloatArray
from midalign.metrics.scoring import (
    Measure,
    Predictions,
    Stratum,
    align_outputs,
    item_names,
    natural_key,
    share,
)
from midalign.records import TaskExample

logger = logging.getLogger(__name__)

T = TypeVar("T")
_ENGLISH = "eng"
_CHARACTER_TER = ("zho", "yue", "jpn")
_MECAB_MODULES = {"ja-mecab": "MeCab", "ko-mecab": "mecab_ko"}


def translation_strata(
    examples: Sequence[TaskExample], predictions: Predictions, names: Collection[str] | None = None
) -> list[Stratum]:
    """The statistics of each direction, for scores and for comparisons.

    A direction belongs to the language of its side that is not English (of the target, if neither is). Where both
    directions of a language are in the data, `Stratum.direction` names each, such as ``"deu_Latn-eng_Latn"``.

    Args:
        examples: Source texts with references.
        predictions: What was answered, for exactly the examples' ids. Blanks around an output are dropped. Line breaks
            in it become spaces, since one line is one segment.
        names: As `direction_statistics`.

    Raises:
        DataError: No examples, or ids that do not fit.
    """
    outputs = align_outputs(examples, predictions)
    return [
        Stratum(
            language,
            direction,
            item_names(example for example, _ in rows),
            *direction_statistics(
                [one_line(output) for _, output in rows],
                [example.reference for example, _ in rows],
                rows[0][0].target_language,
                names,
            ),
        )
        for language, direction, rows in by_direction(examples, outputs)
    ]


@dataclass(frozen=True, slots=True)
class SegmentScores:
    """Scores of single translations by a metric whose system score is their mean, such as COMET.

    Attributes:
        name: Name of the metric.
        scores: By id of the example.
        signature: How they were computed.
    """

    name: str
    scores: Mapping[str, float]
    signature: str


def segment_strata(examples: Sequence[TaskExample], segments: SegmentScores) -> list[Stratum]:
    """The statistics of each direction for segment scores, which must be of exactly these examples."""
    measure = Measure(segments.name, slice(0, 2), share, segments.signature)
    return [
        Stratum(
            language,
            direction,
            item_names(example for example, _ in rows),
            np.array([[score, 1.0] for _, score in rows]),
            (measure,),
        )
        for language, direction, rows in by_direction(examples, [segments.scores[e.id] for e in examples])
    ]


def by_direction(
    examples: Sequence[TaskExample], values: Sequence[T]
) -> Iterator[tuple[str, str | None, list[tuple[TaskExample, T]]]]:
    """Language a direction is filed under, its name where that has two, its examples with a value each, in order."""
    directions: dict[tuple[str, str], list[tuple[TaskExample, T]]] = {}
    for example, value in zip(examples, values, strict=True):
        directions.setdefault((example.language, example.target_language), []).append((example, value))
    filed = [_filed_under(source, target) for source, target in directions]
    for (source, target), language in sorted(zip(directions, filed, strict=True)):
        rows = sorted(directions[source, target], key=lambda row: natural_key(row[0].id))
        yield language, f"{source}-{target}" if filed.count(language) > 1 else None, rows


def one_line(text: str) -> str:
    """An output as one segment: line breaks become spaces, blanks around it are dropped."""
    return " ".join(text.split("\n")).strip()


def direction_statistics(
    outputs: Sequence[str], references: Sequence[str], target: str, names: Collection[str] | None = None
) -> tuple[FloatArray, tuple[Measure, ...]]:
    """SacreBLEU's statistics of each segment, ``(segments, columns)``, and the measures over them.

    Args:
        outputs: What was answered, one line each.
        references: Gold.
        target: Canonical code of their language.
        names: Of ``bleu``, ``chrf``, ``chrf++`` and ``ter``, those to compute; None for all. TER takes seconds for a
            long text that shares little with its reference.
    """
    blocks: list[FloatArray] = []
    measures: list[Measure] = []
    column = 0
    for name, metric in _metrics(target).items():
        if names is not None and name not in names:
            continue
        block = np.array(metric._extract_corpus_statistics(outputs, [references]), dtype=np.float64)
        columns = slice(column, column + block.shape[1])
        formula = functools.partial(_formula, metric)
        measures.append(Measure(name, columns, formula, str(metric.get_signature())))
        blocks.append(block)
        column = columns.stop
    return np.concatenate(blocks, axis=1), tuple(measures)


def bleu_tokenizer(target: str) -> str:
    """SacreBLEU's tokenizer for a target language: by canonical code, with ``char`` where MeCab does not work."""
    name = {"zho": "zh", "yue": "zh", "jpn": "ja-mecab", "kor": "ko-mecab"}.get(target[:3], "13a")
    return name if name not in _MECAB_MODULES or _mecab_works(name) else "char"


@functools.cache
def _mecab_works(name: str) -> bool:
    """Whether MeCab is there with a dictionary that it finds; the log says where only the latter is missing."""
    if importlib.util.find_spec(_MECAB_MODULES[name]) is None:
        return False
    try:
        return bool(BLEU(tokenize=name).tokenizer("試す 시험"))
    except Exception as fault:  # of another package and its C library: missing or broken dictionaries, wrong versions
        logger.warning(
            "MeCab is installed but does not work (%s), so BLEU counts characters instead of words. Install "
            "'sacrebleu[ja]' or 'sacrebleu[ko]' for it",
            str(fault).strip().partition("\n")[0] or type(fault).__name__,
        )
        return False


def _metrics(target: str) -> dict[str, Metric]:
    no_blanks = target[:3] in _CHARACTER_TER
    return {
        "bleu": BLEU(tokenize=bleu_tokenizer(target)),
        "chrf": CHRF(),
        "chrf++": CHRF(word_order=2),
        "ter": TER(normalized=no_blanks, asian_support=no_blanks),
    }


def _formula(metric: Metric, sums: FloatArray) -> FloatArray:
    """A sacreBLEU score for each row of sums; its own code, row by row."""
    rows = sums.reshape(-1, sums.shape[-1])
    values = [metric._compute_score_from_stats(row.tolist()).score for row in rows]
    return np.array(values, dtype=np.float64).reshape(sums.shape[:-1])


def _filed_under(source: str, target: str) -> str:
    return source if target.startswith(_ENGLISH) and not source.startswith(_ENGLISH) else target
