"""A first recipe for your own data and model, with the comments that a newcomer needs.

What is not asked for has the default of `midalign.recipe.sections`. Batch sizes follow from the memory of the GPU by a
rule of thumb: the effective batch is the paper's 128 in any case.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from midalign.data.examples import read_examples
from midalign.data.parallel.corpus import read_parallel
from midalign.errors import RecipeError, UserError
from midalign.languages import ENGLISH
from midalign.recipe.file import load_text
from midalign.recipe.memory import training_memory
from midalign.recipe.sections import Recipe
from midalign.recipe.shipped import SCHEMA, folder
from midalign.records import TaskName

PAPERS_BATCH = 128
_FEWEST_UPDATES = 20
_PROBED = 200
# Memory of the GPU in GB, and how many task examples of a few hundred tokens fit beside the weights of an 8 B model.
_BATCHES = ((70, 32), (40, 16), (20, 8), (0, 4))
_TASKS = {
    "chat": "  metric: [{metric}]   # or token_f1, chrf, bleu, rougeL, json_match, accuracy, macro_f1, ...\n",
    "slots": "  # format: massive         # detected where possible\n",
    "extraction": "  # types: [PER, ORG, LOC]  # your own types of entities\n",
    "translation": "  # format: lines           # detected where possible\n",
}


@dataclass(frozen=True)
class NewRecipe:
    """What a recipe cannot be written without.

    Attributes:
        name: Name of the run.
        model: Hub name or folder of the model.
        task: The task.
        data: Folder or file with the task data.
        supervised: Languages with task data to train on.
        aligned: Languages to carry the task to.
        parallel: Sentences of the aligned languages with their English translations.
        unseen: Languages for evaluation only.
        probe: Corpus parallel over all languages to probe on; None takes the first sentences of `parallel`.
        gpu_memory: Memory of the GPU in GB; 0 for none.
        metric: What answers of chat are scored by.

    Raises:
        RecipeError: If the memory is below 0.
    """

    name: str
    model: str
    task: TaskName
    data: str
    supervised: tuple[str, ...]
    aligned: tuple[str, ...]
    parallel: str
    unseen: tuple[str, ...] = ()
    probe: str | None = None
    gpu_memory: float = 0.0
    metric: str = "exact_match"

    def __post_init__(self) -> None:
        if not self.gpu_memory >= 0:
            raise RecipeError(
                f"gpu_memory is {self.gpu_memory:g}, and batch sizes follow from it; give it in GB, 0 for no GPU"
            )

    def text(self) -> str:
        """The recipe as commented YAML.

        Raises:
            RecipeError: If what was given makes no recipe, such as an unknown language, or pairs to probe on of which
                none is in all languages.
        """
        text = _TEMPLATE.format(
            schema=folder() / SCHEMA,
            name=_yaml(self.name),
            model=_yaml(self.model),
            quantization=self._quantization(),
            supervised=_yaml(list(self.supervised)),
            aligned=_yaml(list(self.aligned)),
            unseen=_yaml(list(self.unseen)),
            task=self.task,
            data=_yaml(self.data),
            of_the_task=_TASKS[self.task].format(metric=_yaml(self.metric)),
            parallel=_yaml(self.parallel),
            probe=self._probe(),
            batches=self._batches(),
        )
        load_text(text, "the new recipe")
        return text

    def recipe(self) -> Recipe:
        """The recipe, checked; errors as of `text`."""
        return load_text(self.text(), "the new recipe")

    def _quantization(self) -> str:
        weights = _billion_weights(self.model)
        if not weights or not self.gpu_memory or training_memory(weights, 0) <= self.gpu_memory:
            return "  # quantization: 4bit      # QLoRA, where the GPU is small (extra 'qlora')\n"
        whole, four_bits = training_memory(weights, 0), training_memory(0.9 * weights, 0.1 * weights, four_bits=True)
        return (
            f"  quantization: 4bit        # QLoRA: about {four_bits:.0f} GB rather than {whole:.0f}, by arithmetic, on "
            f"{self.gpu_memory:g} GB of GPU\n"
        )

    def _batches(self) -> str:
        effective = self._effective_batch()
        size = min(effective, next(size for memory, size in _BATCHES if self.gpu_memory >= memory))
        why = (
            "paper"
            if effective == PAPERS_BATCH
            else f"paper: {PAPERS_BATCH}; lower, because there are few task examples"
        )
        lines = [
            f"  per_device_train_batch_size: {size}   # if memory runs out, halve it and double the next",
            f"  gradient_accumulation_steps: {effective // size}   # effective batch {effective} ({why})",
        ]
        if self.gpu_memory:
            lines += [
                "  bf16: true                # paper",
                "  gradient_checkpointing: true   # less memory, more time",
            ]
        return "\n".join(lines) + "\n"

    def _effective_batch(self) -> int:
        """The paper's batch; of few task data a smaller power of two, so that a pass has some twenty updates."""
        try:
            examples = len(read_examples(self.task, self.data, languages=self.supervised, split="train"))
        except UserError:  # what is wrong with the data is for `validate` to say
            return PAPERS_BATCH
        few = max(4, examples // _FEWEST_UPDATES)
        return min(PAPERS_BATCH, 1 << (few.bit_length() - 1))

    def _probe(self) -> str:
        if self.probe is not None:
            return f"  data: {_yaml(self.probe)}\n"
        own = (ENGLISH, *self.aligned)
        rows, named = _common_rows(self.parallel), ""
        if not rows and (among := _common_rows(self.parallel, own)) is not None:
            rows, named = among, f"  languages: {_yaml(list(own))}   # no sentence is in all of the corpus\n"
        if rows == 0:
            raise RecipeError(
                f"no sentence of {self.parallel} is in all of {', '.join(own)}, so the model cannot be probed on it. "
                "Name a corpus that is parallel across all languages by --probe, such as FLORES-200 or NTREX-128"
            )
        limit = _PROBED if rows is None else max(2, min(_PROBED, rows // 4))  # most are left to train on
        return (
            f"  data: {_yaml(self.parallel)}\n{named}"
            f"  limit: {limit}   # its first sentences, which are then not trained on\n"
        )


_TEMPLATE = """\
# yaml-language-server: $schema={schema}
# Written by `midalign recipe new`. Check it with `midalign validate FILE`, run it with `midalign run FILE --out DIR`.
# docs/recipe.md lists every key; what is left out has a default, mostly the paper's (arXiv 2502.14830).
name: {name}
seed: 0

model:
  path: {model}
{quantization}  # chat_template_kwargs: {{enable_thinking: false}}   # for models that can think: Qwen3, SmolLM3

languages:
  supervised: {supervised}   # task data to train on
  aligned: {aligned}   # sentences with their English translations; no task data needed
  unseen: {unseen}   # evaluation only
  # low_resource: []        # reported as a group

task:
  name: {task}
  data: {data}
{of_the_task}  # system: ""             # system text of the prompt; midalign's own by default
  # dev_split: train        # where there is no dev split: a tenth of the training items
  limit_dev: 100            # per language, to choose merge weights on

parallel:
  data: {parallel}
  limit_per_language: 1000  # paper: a few hundred pairs suffice for a low-resource language

probe:                      # translation retrieval at every layer; all languages must be parallel line by line
{probe}  pooling: mean_no_first    # as in alignment

alignment:
  layer: middle             # paper; auto: the layer at which the model retrieves translations best
  temperature: 0.1          # paper, for Llama 3; higher (0.5 to 1.5) for small models and Qwen 2.5
  pooling: mean_no_first    # leaves out BOS, or the first word: an attention sink (docs/probe.md); mean: the paper's
  # prompt: task            # align sentences inside the task's prompt (not for translation); with pooling: last and
  #                           layer: 0.67, the state the answer begins from: for labels and intents (docs/training.md)

lora: {{r: 8, lora_alpha: 16, lora_dropout: 0.1}}   # paper, on all linear layers of the blocks

training:
  learning_rate: 5e-4       # paper
  num_train_epochs: 5       # paper: at most 5 epochs of task data
{batches}  logging_steps: 10
  eval_strategy: epoch
  save_strategy: epoch
  load_best_model_at_end: true     # paper: early stopping on dev loss
  metric_for_best_model: eval_loss

early_stopping_patience: 5  # paper

merge:
  alignment_weights: [0.0, 0.1, 0.3, 0.5, 1.0]   # tried on dev

generation:
  max_new_tokens: 128
"""


def _yaml(value: object) -> str:
    """A value as it stands on one line of YAML, in quotes where it must be."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000)
    return text.removesuffix("...\n").strip()


def _billion_weights(model: str) -> float | None:
    """Billions of weights of a model: by its files, at two bytes each, or by a name such as ``Qwen2.5-7B``."""
    files = list(Path(model).expanduser().glob("*.safetensors"))
    if files:
        return sum(file.stat().st_size for file in files) / 2e9
    named = re.search(r"(?<![\w.])(\d+(?:\.\d+)?)[bB](?![a-zA-Z])", model.rpartition("/")[2].replace("-", " "))
    return float(named[1]) if named else None


def _common_rows(parallel: str, languages: tuple[str, ...] | None = None) -> int | None:
    """Number of rows of a corpus that have all of some languages (None: all of its own); None if it cannot be read."""
    try:
        corpus = read_parallel(parallel, languages=languages)
    except UserError:  # what is wrong with the data is for `validate` to say
        return None
    return sum(row.texts.keys() >= set(corpus.languages) for row in corpus.rows)
