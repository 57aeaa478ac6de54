"""Merge weights tuned on dev data, and the whole job of `midalign merge`.

Tuning loads the base once and writes nothing: both adapters are live on one model, only their scales change between
candidates, and their exact weighted sum is folded into the weights, so that a candidate costs what a plain model does.
The chosen weights are exported once.

1. `tune_weights` runs the recipe's search (`midalign.merge_search`) over one of two objectives:
2. *score*: the main metric of greedy answers to the dev items;
3. *loss*: the mean cross-entropy of the gold answers' tokens, for which nothing is generated.
4. `MergeJob` tunes if asked, merges, and exports the adapter or the base weights with it.
"""

from __future__ import annotations

import inspect
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from midalign.data.prompt_tokens import IGNORED, training_rows
from midalign.errors import DataError, RunError
from midalign.evaluation import MAIN_METRIC, strata_of
from midalign.generation import generate
from midalign.merge_search import (
    Memo,
    Outcome,
    Weights,
    choose,
    clearly_worse,
    coordinate,
    golden,
    golden_evaluations,
    grid,
)
from midalign.merging import Weight
from midalign.metrics.scoring import mean_over
from midalign.metrics.significance import FloatArray, paired_result, percentiles, resample_sums
from midalign.models.adapter_files import check_target
from midalign.models.adapters import MERGE_FILE as RECORD
from midalign.models.adapters import LiveAdapters, export_merged_base, merge_adapters
from midalign.models.folding import Folded
from midalign.models.hidden import unwrap
from midalign.models.loading import load_model, load_tokenizer
from midalign.recipe import MergeSection, Recipe
from midalign.recipe_data import data_paths, read_task_data
from midalign.records import TaskExample
from midalign.runs import Run, write_json

logger = logging.getLogger(__name__)

MERGE_FILE = "merge.json"
ADAPTER, MODEL = "adapter", "model"
LOSS = "loss"
Progress = Callable[[str, int, int], None]


def tune_weights(
    model: Any,
    tokenizer: Any,
    adapters: Mapping[str, Path],
    recipe: Recipe,
    dev: Sequence[TaskExample],
    *,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Search the merge weights of the recipe's ``merge:`` section on dev data.

    Args:
        model: The base model, loaded once for all candidates; as it was afterwards.
        tokenizer: Its tokenizer.
        adapters: Folders of the adapters ``task`` and ``alignment``.
        recipe: Gives the search, the objective, and the settings of prompts, generation and bootstrap.
        dev: Dev examples; never the test set.
        progress: Called with a description, the number of finished candidates, and how many are expected.

    Returns:
        ``metric`` (of the objective: the task's main metric, or ``loss`` in nats a token, which is better where it
        is lower), ``objective``, ``search``, ``n``; ``table`` with one row per candidate in the order tried:
        ``weights``, ``score`` with the 95 % bootstrap interval ``low`` to ``high``, ``difference`` (score less that of
        the best) with its paired interval ``difference_low`` to ``difference_high``, and ``worse``, whether it is
        clearly worse than the best (`midalign.merge_search.clearly_worse`); ``evaluations``, the rows of the table;
        ``chosen``, the weights of the best, among equals the least alignment; ``flat``: no candidate is clearly worse.

    Raises:
        DataError: There are no dev items, or one does not fit into the model's window.
        ModelError: An adapter is refused, or there are more bands than the model has blocks.
    """
    if not dev:
        raise DataError("there are no dev items to tune merge weights on; check task.dev_split and task.limit_dev")
    sign = -1.0 if recipe.merge.objective == "loss" else 1.0
    measure = _loss_of if recipe.merge.objective == "loss" else _score_of
    metric = LOSS if recipe.merge.objective == "loss" else MAIN_METRIC[recipe.task.name]
    expected = _expected(recipe.merge)
    with LiveAdapters(model, adapters) as live, Folded(live.model) as folded:
        outcome_of = measure(live.model, tokenizer, dev, recipe)

        def evaluate(weights: Weights) -> Outcome:
            live.set_weights(weights)
            folded.refresh()
            value, draws = outcome_of()
            logger.info("task %s, alignment %s: %s %.4f on dev", weights["task"], weights["alignment"], metric, value)
            done = len(memo.outcomes) + 1
            if progress is not None:
                progress("tuning weights", done, max(done, expected))
            return Outcome(weights, sign * value, sign * draws)

        memo = Memo(evaluate)
        _search(memo, recipe.merge)
    if progress is not None and len(memo.outcomes) < expected:
        progress("tuning weights", expected, expected)
    best = choose(memo.outcomes)
    table = _table(memo.outcomes, best, sign)
    return {
        "metric": metric,
        "objective": recipe.merge.objective,
        "search": recipe.merge.search,
        "n": len(dev),
        "table": table,
        "evaluations": len(table),
        "chosen": best.weights,
        "flat": not any(row["worse"] for row in table),
    }


def answer_losses(model: Any, rows: Sequence[Mapping[str, list[int]]], batch_tokens: int = 8192) -> FloatArray:
    """Cross-entropy of every answer: ``(items, 2)``, nats summed over its tokens, and how many tokens it has.

    Args:
        model: A causal language model, plain or with adapters.
        rows: ``input_ids`` and ``labels``, as `midalign.data.prompt_tokens.training_rows` gives them; a token whose
            label is ignored counts nothing.
        batch_tokens: Padded tokens of a batch. Rows are padded on the right, and the padding is masked.
    """
    inner = unwrap(model)
    device = next(model.parameters()).device
    keeps = "logits_to_keep" in inspect.signature(inner.forward).parameters
    found = np.zeros((len(rows), 2))
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]["input_ids"]))  # little padding
    while order:
        width = len(rows[order[0]]["input_ids"])
        size = max(1, batch_tokens // width)
        batch, order = order[:size], order[size:]
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
        for number, index in enumerate(batch):
            length = len(rows[index]["input_ids"])
            ids[number, :length] = torch.tensor(rows[index]["input_ids"])
            labels[number, :length] = torch.tensor(rows[index]["labels"])
            mask[number, :length] = 1
        labels[:, 0] = IGNORED  # nothing comes before the first token
        first = int((labels != IGNORED).any(0).nonzero().min())
        # The prompts, longest by far, need no logits: a row of them is as wide as the vocabulary.
        options = {"logits_to_keep": width - first + 1} if keeps else {}
        with torch.inference_mode():
            logits = inner(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False, **options).logits
            losses = torch.nn.functional.cross_entropy(
                logits[:, -(width - first + 1) : -1].float().transpose(1, 2),
                labels[:, first:].to(device),
                ignore_index=IGNORED,
                reduction="none",
            )
        found[batch, 0] = losses.double().sum(1).cpu().numpy()
        found[batch, 1] = (labels != IGNORED).sum(1).numpy()
    return found


@dataclass(frozen=True)
class MergeJob:
    """What one `midalign merge` is to do.

    Attributes:
        base: Hub name or folder of the base model.
        adapters: Folder of each adapter, by name.
        weights: Weight of each adapter, a number or one per band of layers; None where they are tuned.
        recipe: The recipe whose dev data they are tuned on; None where they are given.
        method: A key of `midalign.merging.METHODS`.
        rank: Rank to truncate to; None for the method's own.
        dtype: What the base is loaded in, and a merged base is written in.
        export: ``adapter``, or ``base`` for the base weights with the adapter merged into them as well.
        trust_remote_code: Let code from the model's repository run here.

    Raises:
        RunError: Not exactly one of weights and recipe is given, or tuning has other adapters than its two.
    """

    base: str
    adapters: dict[str, str]
    weights: Mapping[str, Weight] | None = None
    recipe: Recipe | None = None
    method: str = "sum"
    rank: int | None = None
    dtype: str = "auto"
    export: str = "adapter"
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if (self.weights is None) == (self.recipe is None):
            raise RunError(
                "give either --weights task=1.0,alignment=0.5 or --tune RECIPE, so that it is clear which count"
            )
        if self.recipe is not None and set(self.adapters) != {"task", "alignment"}:
            raise RunError(
                f"--tune needs the adapters task=PATH and alignment=PATH; got {', '.join(self.adapters) or 'none'}"
            )

    def start(self, out: Path) -> Run:
        """The run folder, told apart by everything that decides the result.

        Raises:
            RunError: It holds another run.
        """
        inputs = {name: getattr(self, name) for name in ("base", "adapters", "weights", "method", "dtype", "export")}
        data: list[str | Path] = [*self.adapters.values()]
        if self.rank is not None:
            inputs["rank"] = self.rank
        if self.recipe is not None:
            inputs["tune"] = self.recipe.as_dict()
            data += data_paths(self.recipe)
        return Run(out, "merge", inputs, data)

    def finish(self, run: Run, progress: Progress | None = None) -> Mapping[str, Weight]:
        """Tune, merge and export into the run's folder; returns the weights.

        Raises:
            UserError: Something the user named does not exist, does not fit, or cannot be written.
        """
        options = {} if self.rank is None else {"rank": self.rank}
        results = (ADAPTER, MODEL) if self.export == "base" else (ADAPTER,)
        if (run.out / ADAPTER / RECORD).exists():  # of a call that was killed before it could say so
            for name in results:
                shutil.rmtree(run.out / name, ignore_errors=True)
        for name in results:  # anything else there is the user's
            check_target(run.out / name)
        dev = read_task_data(self.recipe).dev if self.recipe is not None else []
        tokenizer = load_tokenizer(self.base, trust_remote_code=self.trust_remote_code)
        model = load_model(self.base, dtype=self.dtype, trust_remote_code=self.trust_remote_code)
        paths = {name: Path(path) for name, path in self.adapters.items()}
        tuned: dict[str, Any] = {}
        if self.recipe is not None:
            with run.timed("tune"):
                tuned = tune_weights(model, tokenizer, paths, self.recipe, dev, progress=progress)
        chosen: Mapping[str, Weight] = tuned["chosen"] if tuned else self.weights or {}
        with run.timed("merge"):
            done = merge_adapters(paths, chosen, self.method, out=run.out / ADAPTER, base_model=model, **options)
            if self.export == "base":
                export_merged_base(model, run.out / ADAPTER, out=run.out / MODEL)
                tokenizer.save_pretrained(run.out / MODEL)
        write_json(run.out / MERGE_FILE, tuned | {"method": self.method, "export": self.export, "merge": asdict(done)})
        run.finish()
        return chosen


def _search(memo: Memo, section: MergeSection) -> None:
    values = section.alignment_weights
    if section.search == "grid":
        grid(memo, section.task_weights, values)
    elif section.search == "golden":
        golden(memo, section.task_weights[0], min(values), max(values), section.tolerance)
    else:
        coordinate(memo, section.task_weights, values, section.bands)


def _expected(section: MergeSection) -> int:
    """How many candidates will be tried; for coordinate search, in its first round."""
    values = section.alignment_weights
    if section.search == "grid":
        return len(set(section.task_weights)) * len(set(values))
    if section.search == "golden":
        return golden_evaluations(min(values), max(values), section.tolerance)
    axes = 1 if section.bands == 1 else 1 + section.bands
    return axes * (len(set(values)) - 1) + len(set(section.task_weights))


def _table(outcomes: Sequence[Outcome], best: Outcome, sign: float) -> list[dict[str, Any]]:
    rows = []
    for outcome, worse in zip(outcomes, clearly_worse(outcomes, best), strict=True):
        low, high = percentiles(sign * outcome.draws)
        against = paired_result(sign * best.value, sign * outcome.value, sign * best.draws, sign * outcome.draws)
        rows.append(
            {"weights": outcome.weights, "score": against.b, "low": low, "high": high}
            | {"difference": against.difference, "difference_low": against.low, "difference_high": against.high}
            | {"worse": worse}
        )
    return rows


def _score_of(
    model: Any, tokenizer: Any, dev: Sequence[TaskExample], recipe: Recipe
) -> Callable[[], tuple[float, FloatArray]]:
    """Gives the task's main metric of the model as it is then, with its resampled values."""

    def measure() -> tuple[float, FloatArray]:
        predictions = generate(
            model,
            tokenizer,
            dev,
            max_new_tokens=recipe.generation.max_new_tokens,
            batch_tokens=recipe.generation.batch_tokens,
            completion_style=recipe.evaluation.completion_style,
            system=recipe.task.system,
            constrained=recipe.generation.constrained,
        )
        strata = strata_of(dev, predictions, recipe.evaluation.completion_style)
        name = MAIN_METRIC[recipe.task.name]
        sums = [resample_sums(stratum.stats, recipe.evaluation.resamples, recipe.seed) for stratum in strata]
        draws = [stratum.measure(name).of_sums(drawn) for stratum, drawn in zip(strata, sums, strict=True)]
        return float(np.mean([s.value(name) for s in strata])), mean_over(strata, draws, recipe.seed)

    return measure


def _loss_of(
    model: Any, tokenizer: Any, dev: Sequence[TaskExample], recipe: Recipe
) -> Callable[[], tuple[float, FloatArray]]:
    """Gives the mean loss of the model as it is then over all answer tokens, with its resampled values."""
    rows = training_rows(
        dev,
        tokenizer,
        completion_style=recipe.evaluation.completion_style,
        system=recipe.task.system,
        max_length=getattr(unwrap(model).config.get_text_config(), "max_position_embeddings", None),
    )

    def measure() -> tuple[float, FloatArray]:
        found = answer_losses(model, rows, recipe.generation.batch_tokens)
        sums, whole = resample_sums(found, recipe.evaluation.resamples, recipe.seed), found.sum(axis=0)
        return float(whole[0] / whole[1]), sums[:, 0] / sums[:, 1]

    return measure
