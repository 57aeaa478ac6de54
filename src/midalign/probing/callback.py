"""Trainer callback that logs translation retrieval at chosen layers while a model trains."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TypedDict, Unpack

from transformers import (
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from midalign.probing.probe import Corpus, probe


class ProbeOptions(TypedDict, total=False):
    """Keyword arguments of `midalign.probing.probe.probe` that a callback passes on."""

    pooling: str
    margin: str
    k: int
    candidates: str
    groups: Mapping[str, Collection[str]] | None
    batch_tokens: int | None
    seed: int


class ProbeCallback(TrainerCallback):  # type: ignore[misc] # transformers is untyped for mypy
    """Trainer callback that logs the retrieval accuracy of a small parallel corpus during training.

    It probes at the start of training and then at every evaluation, or after every `every` updates, and logs the mean
    accuracy as ``retrieval_layer_<k>``. At an evaluation the value is also a metric, ``eval_retrieval_layer_<k>``, so
    that ``metric_for_best_model`` and early stopping can use it. Add it with
    ``trainer.add_callback(ProbeCallback(trainer, corpus, layers=[16]))``, and ``EarlyStoppingCallback`` after it:
    callbacks are called in order, and one that was given to the Trainer would look for the metric too early.

    Args:
        trainer: The Trainer to log with.
        corpus: As in `midalign.probing.probe.probe`; a few hundred sentences of a few languages keep it to seconds.
        layers: Numbers of the layers to probe; blocks above the highest are not run.
        tokenizer: By default the Trainer's ``processing_class``.
        every: Number of updates between two probes; None probes at every evaluation.
        options: Passed on to `midalign.probing.probe.probe` (``pooling``, ``margin``, ``k``, ``batch_tokens``, ...).

    Raises:
        ValueError: If ``every`` is less than 1, or there is no tokenizer.

    Examples:
        >>> trainer = Trainer(model, TrainingArguments("trained", report_to="none"), processing_class=tokenizer)
        >>> corpus = midalign.read_parallel("probe")
        >>> trainer.add_callback(midalign.ProbeCallback(trainer, corpus, layers=[2], every=100))
    """

    def __init__(
        self,
        trainer: Trainer,
        corpus: Corpus,
        *,
        layers: Sequence[int],
        tokenizer: PreTrainedTokenizerBase | None = None,
        every: int | None = None,
        **options: Unpack[ProbeOptions],
    ) -> None:
        if every is not None and every < 1:
            raise ValueError(f"every is {every}: write how many updates lie between two probes, 1 or more")
        self.tokenizer = tokenizer or trainer.processing_class
        if self.tokenizer is None:
            raise ValueError("the Trainer has no processing_class, so give ProbeCallback the tokenizer")
        self.trainer = trainer
        self.corpus = corpus
        self.layers = list(layers)
        self.every = every
        self.options = options

    def on_train_begin(
        self, _args: TrainingArguments, state: TrainerState, *_: TrainerControl, **_rest: object
    ) -> None:
        """Probe before the first update, but not when training is resumed."""
        if state.global_step == 0:
            self.trainer.log(self._probe())

    def on_step_end(self, _args: TrainingArguments, state: TrainerState, *_: TrainerControl, **_rest: object) -> None:
        """Probe after every `every` updates."""
        if self.every is not None and state.global_step % self.every == 0:
            self.trainer.log(self._probe())

    def on_evaluate(self, *_: object, metrics: dict[str, float] | None = None, **_rest: object) -> None:
        """Probe at an evaluation, and add the values to its metrics."""
        if self.every is None:
            values = self._probe()
            self.trainer.log(dict(values))
            if metrics is not None:
                metrics.update({f"eval_{name}": value for name, value in values.items()})

    def _probe(self) -> dict[str, float]:
        result = probe(self.trainer.model, self.tokenizer, self.corpus, layers=self.layers, **self.options)
        return {
            f"retrieval_layer_{layer}": float(value)
            for layer, value in zip(result.layers, result.accuracy, strict=True)
        }
