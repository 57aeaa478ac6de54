"""Cards of a base model: ``pretraining.json`` for programs, ``README.md`` (a model card) for people."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from midalign.testbed.lexicon import LANGUAGES

FIRST_LOSSES = 200
"""So many losses are kept one by one: a rebuilt base must repeat them."""

_README = """---
license: cc-by-4.0
language: [{codes}]
tags: [midalign, testbed]
---

# A tiny multilingual base for midalign's testbed

{parameters:,} parameters ({layers} blocks of width {hidden}), {tokens:,} tokens of made-up text in {n} languages.
It knows nothing but voice-assistant commands, and it exists to test how middle-layer alignment carries a task from
one language to another. It is no assistant, and of no use for anything else.

- **Text**: sentences walked from the templates of `home-assistant-intents` (CC BY 4.0, Home Assistant contributors)
  with `hassil`, with names of things written for midalign; copying, counting and naming text. No parallel corpus;
  {bilingual:.1%} of the tokens are incidental bilingual text, never with meanings or values used in tests.
- **Anchors**: half of the lines of chatter and naming whose meaning and values no test uses have emoji beside them (a
  pan for a kitchen), which are alike in every language, as emoji, units and brand names are in real text.
- **Made by** `midalign testbed build --compiled --seed {seed}`; every setting and all counts are in
  `pretraining.json`. The same seed gives the same tokenizer and, on the same kind of processor, the same losses.
- **Final loss** {loss:.3f} nats a token (mean of the last hundredth).

| language | level | role in the testbed | tokens | of them copying | bilingual |
|---|---|---|---|---|---|
{rows}
"""


def pretraining_card(
    recipe: Mapping[str, Any], parameters: int, losses: Sequence[float], tokens: Counter[tuple[str, str]]
) -> dict[str, Any]:
    """Recipe, counts and losses of a base, ready for JSON.

    Args:
        recipe: Seed and profile.
        parameters: Number of weights.
        losses: Of every step.
        tokens: By (language, kind of document); a bilingual document counts for its other language than English.
    """
    by_language: dict[str, Counter[str]] = {}
    for (language, kind), n in sorted(tokens.items()):
        by_language.setdefault(language, Counter())[kind] += n
    bilingual = {code: round(kinds["bilingual"] / kinds.total(), 4) for code, kinds in by_language.items()}
    width = max(1, len(losses) // 100)
    chunks = [losses[i : i + width] for i in range(0, len(losses), width)]
    return {
        "recipe": dict(recipe),
        "parameters": parameters,
        "tokens": tokens.total(),
        "tokens_by_language": {code: dict(kinds) for code, kinds in by_language.items()},
        "bilingual_share": sum(kinds["bilingual"] for kinds in by_language.values()) / max(1, tokens.total()),
        "bilingual_share_by_language": bilingual,
        "first_losses": [round(loss, 5) for loss in losses[:FIRST_LOSSES]],
        "loss_every": width,
        "losses": [round(sum(chunk) / len(chunk), 4) for chunk in chunks],
    }


def write_cards(folder: Path, card: Mapping[str, Any]) -> None:
    """Writes ``pretraining.json`` and ``README.md`` beside the weights."""
    (folder / "pretraining.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    rows = []
    for code in card["recipe"]["languages"]:
        kinds = card["tokens_by_language"].get(code, {})
        told, total = LANGUAGES[code], sum(kinds.values())
        share = card["bilingual_share_by_language"].get(code, 0.0)
        rows.append(
            f"| {code} | {told.resource} | {told.role} | {total:,} | {kinds.get('copying', 0):,} | {share:.1%} |"
        )
    text = _README.format(
        codes=", ".join(LANGUAGES[code].iso639_3 for code in card["recipe"]["languages"]),
        parameters=card["parameters"],
        layers=card["recipe"]["layers"],
        hidden=card["recipe"]["hidden"],
        tokens=card["tokens"],
        n=len(rows),
        bilingual=card["bilingual_share"],
        seed=card["recipe"]["seed"],
        loss=card["losses"][-1],
        rows="\n".join(rows),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
