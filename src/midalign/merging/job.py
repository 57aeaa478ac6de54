"""The job of ``midalign merge``: tune the weights on dev data if asked, merge, export.

Tuning loads the base once. Both adapters are live on one model, only their scales change between candidates, and their
exact weighted sum is folded into the weights, so that a candidate costs what a plain model does. Finished candidates
are kept in a file, from which the same command continues. The chosen weights are exported once.

1. `tune_weights` runs the recipe's search (`midalign.merging.search`) over one of two objectives:
2. *score*: the main metric of greedy answers to the dev items;
3. *loss*: the mean cross-entropy of the gold answers' tokens, for which nothing is generated.
4. `MergeJob` tunes if asked, merges, and exports the adapter or the base weights with it.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from transformers.utils import GENERATION_CONFIG_NAME

from midalign.data.prompt_check import check_prompt
from midalign.errors import RunError
from midalign.evaluation.score import check_metrics
from midalign.files import check_target, read_json, write_json
from midalign.functional.merge_methods import Weight, check_method
from midalign.functional.names import MergeOptions
from midalign.generation.engine import end_tokens
from midalign.merging.export import MERGE_RECORD, check_merge, export_merged_base, merge_adapters
from midalign.merging.tune import tune_weights
from midalign.metrics.chat import own_metric_files
from midalign.models.source import ModelSource
from midalign.progress import Progress
from midalign.recipe.data import data_paths, read_task_data
from midalign.recipe.sections import Recipe
from midalign.records import TaskExample
from midalign.runs import Job, Run

logger = logging.getLogger(__name__)

MERGE_FILE = "merge.json"
ADAPTER, MODEL = "adapter", "model"


@dataclass(frozen=True)
class MergeJob(Job[Mapping[str, Weight]]):
    """Job that merges two or more adapters into one.

    Attributes:
        base: The base model of all of them.
        adapters: Folder of each adapter, by name.
        weights: Weight of each adapter, a number or one per band of layers; None where they are tuned.
        recipe: The recipe whose dev data they are tuned on; None where they are given.
        method: A key of `midalign.functional.merge_methods.METHODS`.
        rank: Rank to truncate to; None for the method's own.
        export: ``adapter``, or ``base`` for the base weights with the adapter merged into them as well.

    Raises:
        RunError: Not exactly one of weights and recipe is given, or tuning has other adapters than its two.
        ModelError: The method does not exist, or takes no rank.
    """

    verb: ClassVar[str] = "merge"
    result: ClassVar[str] = MERGE_FILE

    base: ModelSource
    adapters: Mapping[str, str]
    weights: Mapping[str, Weight] | None = None
    recipe: Recipe | None = None
    method: str = "sum"
    rank: int | None = None
    export: str = "adapter"

    def __post_init__(self) -> None:
        if (self.weights is None) == (self.recipe is None):
            raise RunError(
                "give either --weights task=1.0,alignment=0.5 or --tune RECIPE, so that it is clear which count"
            )
        if self.recipe is not None and set(self.adapters) != {"task", "alignment"}:
            raise RunError(
                f"--tune needs the adapters task=PATH and alignment=PATH; got {', '.join(self.adapters) or 'none'}"
            )
        check_method(self.method, self._options())

    def _options(self) -> MergeOptions:
        return {} if self.rank is None else {"rank": self.rank}

    def paths(self) -> list[str]:
        """What the job reads."""
        read = [] if self.recipe is None else data_paths(self.recipe) + own_metric_files(self.recipe.answer_format)
        return [self.base.path, *self.adapters.values(), *read]

    def finish(
        self, run: Run, progress: Progress | None = None, *, dev: Sequence[TaskExample] | None = None
    ) -> Mapping[str, Weight]:
        """Tune, merge and export into the run's folder; an interrupted tuning resumes after its last candidate.

        Args:
            run: The run.
            progress: Called with the progress.
            dev: The dev items of the recipe, if they have been read already.

        Returns:
            The weights.

        Raises:
            UserError: Something the user named does not exist, does not fit, or cannot be written.
        """
        options = self._options()
        results = (ADAPTER, MODEL) if self.export == "base" else (ADAPTER,)
        if (run.out / ADAPTER / MERGE_RECORD).exists():  # of a call that was killed before it could say so
            for name in results:
                shutil.rmtree(run.out / name, ignore_errors=True)
        for name in results:  # anything else there is the user's
            check_target(run.out / name)
        check_merge(self.adapters, self.method, options)
        if self.recipe is not None:
            check_metrics(self.recipe.task.name, self.recipe.answer_format)
        tokenizer = self.base.tokenizer(self.adapters.values())
        if self.recipe is not None:
            dev = read_task_data(self.recipe).dev if dev is None else dev
            for item in dev[:1]:
                check_prompt(item, tokenizer, self.recipe.answer_format)
        weights_matter = self.recipe is not None or self.export == "base"
        model = self.base.load_exact() if weights_matter else self.base.empty()
        paths = {name: Path(path) for name, path in self.adapters.items()}
        partial = run.out / f".{MERGE_FILE}.partial"
        tuned: dict[str, Any] = {}
        if self.recipe is not None:
            with run.timed("tune"):
                tuned = tune_weights(
                    model, tokenizer, paths, self.recipe, dev or [],
                    progress=progress, partial=partial, begin=run.begin,
                )  # fmt: skip
        chosen: Mapping[str, Weight] = tuned["chosen"] if tuned else self.weights or {}
        with run.timed("merge"):
            done = merge_adapters(paths, chosen, self.method, out=run.out / ADAPTER, base_model=model, **options)
            tokenizer.save_pretrained(run.out / ADAPTER)  # which says what prompts look like, and how answers end
            summary = {"method": self.method, "export": self.export, "merge": asdict(done)}
            write_json(run.out / MERGE_FILE, tuned | summary)
            if self.export == "base":
                _export_base(model, tokenizer, run.out)
        partial.unlink(missing_ok=True)
        run.finish()
        return chosen


def _export_base(model: Any, tokenizer: Any, out: Path) -> None:
    """Write the base model with the merged adapter in its weights, its tokenizer, and how its answers end."""
    own = model.generation_config.eos_token_id
    export_merged_base(model, out / ADAPTER, out=out / MODEL)
    tokenizer.save_pretrained(out / MODEL)
    ends = end_tokens(own, tokenizer)
    if own != ends and [own] != ends:
        # Into the file: settings with a change are saved only if transformers finds no fault in any of them, and many
        # published ones sample without `do_sample`.
        settings = out / MODEL / GENERATION_CONFIG_NAME
        write_json(settings, read_json(settings) | {"eos_token_id": ends})
