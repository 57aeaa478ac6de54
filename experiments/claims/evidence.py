"""Writes docs/evidence_world.md from the runs of run.py: every claim, the paper's figure, ours, and whether it holds.

    python -m experiments.claims.evidence --out RUNS [--claim N] [--write docs/evidence_world.md]

`measured` reads the runs, `claims` tests each claim, `tables` sets the tables, ``evidence.md.in`` is the text around.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from experiments.claims import tables
from experiments.claims.claims import CLAIMS
from experiments.claims.measured import Runs
from experiments.claims.run import HERE, NEEDED


def page(runs: Runs, claims: Sequence[str]) -> str:
    """The page: ``evidence.md.in`` with tables and facts in place of its marks."""
    parts = {
        "goals": tables.goals_table(runs),
        "claims": claims,
        "scores": tables.scores_table(runs),
        "beyond": tables.beyond_table(runs),
        "languages": tables.languages_table(runs),
        "curve": tables.curve_table(runs),
        "plain": tables.against_plain(runs),
        "free": tables.free_table(runs),
        "runs": tables.runs_table(runs),
    }
    text = (HERE / "evidence.md.in").read_text()
    for name, content in ({name: "\n".join(lines) for name, lines in parts.items()} | facts(runs)).items():
        text = text.replace(f"<!-- {name} -->", content)
    return text


def facts(runs: Runs) -> dict[str, str]:
    """What the text says of the bases and the runs."""
    folders = {run.parent.name: Path(json.loads((run / "base.json").read_text())["path"]) for run in runs.runs}
    made = [json.loads((folder / "pretraining.json").read_text()) for folder in folders.values()]
    return {
        "count": f"{len(runs.runs)} runs ({len(folders)} bases)",
        "parameters": f"{made[0]['parameters']:,}",
        "tokens": f"{made[0]['tokens']:,}",
        "bilingual": " to ".join(f"{f(card['bilingual_share'] for card in made):.1%}" for f in (min, max)),
        "seeds": ", ".join(sorted({run.name.removeprefix("seed") for run in runs.runs})),
    }


def main() -> None:
    """Reads the arguments; prints, or writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder that run.py wrote to")
    parser.add_argument("--claim", type=int, choices=list(CLAIMS), help="only this claim")
    parser.add_argument("--write", type=Path, help="the page to write")
    given = parser.parse_args()
    runs = Runs(given.out)
    numbers = [given.claim] if given.claim is not None else list(CLAIMS)
    rows = [CLAIMS[number](runs) for number in numbers if runs.having(*NEEDED[number])]
    claims = tables.claims_table(runs, rows)
    if given.write is None:
        print("\n".join(claims))
    else:
        given.write.write_text(page(runs, claims))


if __name__ == "__main__":
    main()
