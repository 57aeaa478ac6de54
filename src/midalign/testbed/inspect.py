"""Inspection of a base model: anchor-free retrieval at every layer, and how well the model copies words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from midalign.functional.retrieval import accuracy_matrix
from midalign.models.hidden import pooled_states
from midalign.testbed.chance import chance
from midalign.testbed.corpus import Corpus
from midalign.testbed.lexicon import LANGUAGES
from midalign.testbed.tasks import known_anchor_free, parallel_rows
from midalign.testbed.world import World


@dataclass(frozen=True, slots=True)
class Inspection:
    """Result of `inspect_base`; all values are fractions.

    Attributes:
        retrieval: For every layer from 0, the mean over all directions between languages.
        retrieval_centred: The same after subtracting each language's mean vector.
        retrieval_low: For every layer, the mean over directions into or out of a low-resource language.
        sentences: Number of sentences; chance is one over this.
        copying: For every language, the share of commands after "say X" that greedy decoding repeats exactly.
    """

    retrieval: list[float]
    retrieval_centred: list[float]
    retrieval_low: list[float]
    sentences: int
    copying: dict[str, float]


@torch.no_grad()
def inspect_base(
    folder: Path, *, languages: Sequence[str], seed: int = 0, sentences: int = 100, commands: int | None = None
) -> Inspection:
    """Measures a base on sentences without shared names and digits, and on copying.

    Args:
        folder: What `build_base` saved, or one of its snapshots.
        languages: Canonical codes, English among them.
        seed: The world's seed, which must be that of the base.
        sentences: Largest number of parallel sentences.
        commands: Number of commands per language to copy; by default a quarter of `sentences`.
    """
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    world = World(seed, languages)
    rows = parallel_rows(world, languages, sentences, chance(f"{seed} parallel_anchor_free"), known_anchor_free(world))
    vectors = []
    for i in range(len(languages)):
        batch = tokenizer([row[i].text for row in rows], padding=True, return_tensors="pt")
        vectors.append(pooled_states(model, batch["input_ids"], batch["attention_mask"])["mean"])
    stacked = torch.stack(vectors, dim=1)  # (layers, languages, sentences, hidden)
    centred = stacked - stacked.mean(dim=2, keepdim=True)
    matrices = [accuracy_matrix(layer) for layer in stacked]
    low = torch.tensor([LANGUAGES[code].resource == "low" for code in languages])
    touched = low[:, None] | low[None, :]
    asked = max(4, sentences // 4) if commands is None else commands
    return Inspection(
        retrieval=[float(m.nanmean()) for m in matrices],
        retrieval_centred=[float(accuracy_matrix(layer).nanmean()) for layer in centred],
        retrieval_low=[float(m[touched].nanmean()) for m in matrices],
        sentences=len(rows),
        copying={code: _copying(model, tokenizer, Corpus(world), code, asked) for code in languages},
    )


def _copying(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, corpus: Corpus, language: str, n: int
) -> float:
    """The share of ``n`` commands of a language that the model copies exactly when asked to in that language."""
    rng = chance("copying", language)
    say = corpus.lexicons[language].entries["say"][0]
    hits = 0
    for _ in range(n):
        command = corpus.world.chatter(language, rng).text
        asked = tokenizer(f"{say}: {command}\n", return_tensors="pt")
        out = model.generate(
            input_ids=asked["input_ids"],
            attention_mask=asked["attention_mask"],
            max_new_tokens=asked["input_ids"].shape[1],
            do_sample=False,
        )
        answer = tokenizer.decode(out[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
        hits += answer.strip() == command
    return hits / n
