"""The job of ``midalign train``: one LoRA adapter, trained as a recipe says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from midalign.progress import Progress
from midalign.recipe.data import PairData, TaskData, data_paths
from midalign.recipe.sections import Recipe
from midalign.runs import Job, Run
from midalign.training.train import ADAPTER, RunObjective, TrainingSummary, train


@dataclass(frozen=True)
class TrainJob(Job[TrainingSummary]):
    """One training.

    Attributes:
        recipe: The recipe.
        objective: ``joint``, ``task`` (SFT alone) or ``align`` (an adapter for merging).
    """

    verb: ClassVar[str] = "train"
    result: ClassVar[str] = ADAPTER

    recipe: Recipe
    objective: RunObjective = "joint"

    def paths(self) -> list[str]:
        """What the job reads."""
        return data_paths(self.recipe)

    def finish(
        self,
        run: Run,
        progress: Progress | None = None,
        *,
        task_data: TaskData | None = None,
        pair_data: PairData | None = None,
    ) -> TrainingSummary:
        """Train into the run's folder; an interrupted training resumes from its newest whole checkpoint.

        Args:
            run: The run.
            progress: Called with the progress.
            task_data: The task data, if it has been read already.
            pair_data: The pairs, if they have been read already.

        Raises:
            UserError: If data, model and recipe do not fit.
        """
        with run.timed("train"):
            summary = train(
                self.recipe,
                run.out,
                objective=self.objective,
                task_data=task_data,
                pair_data=pair_data,
                progress=progress,
                begin=run.begin,
            )
        run.finish(seeds=[self.recipe.seed])
        return summary
