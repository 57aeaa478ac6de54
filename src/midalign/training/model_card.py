"""The README of a trained adapter: how it was made, on what, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping

from midalign.languages import ENGLISH, Language
from midalign.recipe.sections import Recipe
from midalign.runs import versions

_HOW = {
    "joint": "task updates and middle-layer alignment updates in turn (arXiv 2502.14830)",
    "task": "the task alone (supervised fine-tuning)",
    "align": "middle-layer alignment alone (arXiv 2502.14830), for merging into a task adapter",
}


def model_card(recipe: Recipe, objective: str, summary: Mapping[str, object]) -> str:
    """A model card with the metadata that the hub reads.

    Args:
        recipe: What the adapter was trained with.
        objective: ``joint``, ``task`` or ``align``.
        summary: Counts of the training: ``layer``, ``updates``, ``task_examples``, ``pairs``.
    """
    languages = recipe.languages
    trained: tuple[str, ...] = ()
    facts = []
    if objective != "align":
        trained += languages.supervised
        facts += [
            f"- task: {recipe.task.name}, from `{recipe.task.data}`, {summary['task_examples']} examples",
            f"- languages with task data: {_names(languages.supervised)}",
        ]
    if objective != "task":
        trained += (ENGLISH, *languages.aligned)
        asked = " in the task's prompt" if recipe.alignment.prompt == "task" else ""
        facts += [
            f"- aligned at layer {summary['layer']}{asked}: {_names(languages.aligned)}",
            f"- parallel pairs: {summary['pairs']}",
        ]
    two_letter = sorted({Language.parse(code).iso639_1 for code in trained} - {""})
    listed = "\n".join(facts)
    found = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"""---
base_model: {recipe.model.path}
library_name: peft
pipeline_tag: text-generation
language: [{", ".join(two_letter)}]
tags: [midalign, lora, cross-lingual-transfer]
---

# {recipe.name}: {objective}

A LoRA adapter for `{recipe.model.path}`, trained with midalign on {_HOW[objective]}.

{listed}
- updates: {summary["updates"]}, seed {recipe.seed}
- versions: {found}

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{recipe.model.path}"), "this folder")
```

Scores, with intervals and a comparison with the baseline, are in the report of the run. The card was written when the
training ended and names none.
"""


def _names(codes: tuple[str, ...]) -> str:
    return ", ".join(f"{Language.parse(code).name} ({code})" for code in codes) or "none"
