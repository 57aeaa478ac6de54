"""midalign: middle-layer representation alignment for cross-lingual transfer.

Public names are resolved on first use, so that importing the package stays cheap and does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from midalign.answers.format import AnswerFormat as AnswerFormat
    from midalign.answers.predictions import read_predictions as read_predictions
    from midalign.data.parallel.corpus import ParallelCorpus as ParallelCorpus
    from midalign.data.parallel.corpus import read_parallel as read_parallel
    from midalign.data.prompt_tokens import InTaskPrompt as InTaskPrompt
    from midalign.data.tasks.read import read_task as read_task
    from midalign.errors import DataError as DataError
    from midalign.errors import LanguageError as LanguageError
    from midalign.errors import MissingExtraError as MissingExtraError
    from midalign.errors import MissingFileError as MissingFileError
    from midalign.errors import ModelError as ModelError
    from midalign.errors import OptionError as OptionError
    from midalign.errors import RecipeError as RecipeError
    from midalign.errors import RunError as RunError
    from midalign.errors import UserError as UserError
    from midalign.evaluation.score import compare_runs as compare_runs
    from midalign.evaluation.score import score as score
    from midalign.functional.info_nce import info_nce as info_nce
    from midalign.generation.generate import generate as generate
    from midalign.languages import Language as Language
    from midalign.merging.export import MergeSummary as MergeSummary
    from midalign.merging.export import merge_adapters as merge_adapters
    from midalign.metrics.comparison import PairedScore as PairedScore
    from midalign.probing.callback import ProbeCallback as ProbeCallback
    from midalign.probing.comparison import compare as compare
    from midalign.probing.comparison import correlate as correlate
    from midalign.probing.probe import probe as probe
    from midalign.probing.result import ProbeResult as ProbeResult
    from midalign.recipe.alignment import AlignmentConfig as AlignmentConfig
    from midalign.recipe.file import load_recipe as load_recipe
    from midalign.recipe.sections import Recipe as Recipe
    from midalign.records import ParallelPair as ParallelPair
    from midalign.records import Prediction as Prediction
    from midalign.records import Score as Score
    from midalign.records import Span as Span
    from midalign.records import TaskExample as TaskExample
    from midalign.training.mixin import AlternatingMixin as AlternatingMixin
    from midalign.training.train import train as train
    from midalign.training.trainer import AlignmentTrainer as AlignmentTrainer

__version__ = "0.1.0"

_MODULE_OF = {
    "AlignmentConfig": "recipe.alignment",
    "AlignmentTrainer": "training.trainer",
    "AlternatingMixin": "training.mixin",
    "AnswerFormat": "answers.format",
    "DataError": "errors",
    "InTaskPrompt": "data.prompt_tokens",
    "Language": "languages",
    "LanguageError": "errors",
    "MergeSummary": "merging.export",
    "MissingExtraError": "errors",
    "MissingFileError": "errors",
    "ModelError": "errors",
    "OptionError": "errors",
    "PairedScore": "metrics.comparison",
    "ParallelCorpus": "data.parallel.corpus",
    "ParallelPair": "records",
    "Prediction": "records",
    "ProbeCallback": "probing.callback",
    "ProbeResult": "probing.result",
    "Recipe": "recipe.sections",
    "RecipeError": "errors",
    "RunError": "errors",
    "Score": "records",
    "Span": "records",
    "TaskExample": "records",
    "UserError": "errors",
    "compare": "probing.comparison",
    "compare_runs": "evaluation.score",
    "correlate": "probing.comparison",
    "generate": "generation.generate",
    "info_nce": "functional.info_nce",
    "load_recipe": "recipe.file",
    "merge_adapters": "merging.export",
    "probe": "probing.probe",
    "read_parallel": "data.parallel.corpus",
    "read_predictions": "answers.predictions",
    "read_task": "data.tasks.read",
    "score": "evaluation.score",
    "train": "training.train",
}

__all__ = ["__version__", *_MODULE_OF]

if not TYPE_CHECKING:  # a type checker reads the imports above, and says where a name does not exist

    def __getattr__(name):
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'midalign' has no attribute {name!r}")
        return getattr(importlib.import_module(f"midalign.{_MODULE_OF[name]}"), name)

    def __dir__():
        return sorted(__all__)
