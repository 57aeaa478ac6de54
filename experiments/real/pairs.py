"""Pairs to align on, as Moses files: commands of a task's items, and Tatoeba; short ones only; and UNER's files.

    python -m experiments.real.pairs --model MODEL --data DATA --out PAIRS

For each task, PAIRS gets the folder ``tatoeba_<task>`` and, where its items are translations of each other,
``commands_<task>`` and ``both_<task>``, with files such as ``pairs.en-da.en`` and ``pairs.en-da.da``. Commands are
those of the items that are trained and tuned on, without their labels; a recipe leaves out the pairs that share a text
with a dev or test item. ``uner`` has links to the files of UNER, with one test set a language: that of PUD, the same
news sentences in five languages, where there is one. (English EWT begins with a web forum that names hardly anybody.)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from midalign.data.examples import read_examples
from midalign.data.parallel.corpus import read_parallel
from midalign.languages import Language
from midalign.models.loading import load_tokenizer

LONGEST = {
    "xsid": 24,
    "mtop": 100,
    "uner": 32,
}  # tokens; a Thai or Hindi command takes five times those of an English one
ALIGNED = {
    "xsid": ("dan", "nld", "tur", "ind"),
    "mtop": ("spa", "fra", "hin", "tha"),
    "uner": ("dan", "por", "swe"),
}
SPLIT = {"xsid": "dev", "mtop": "train"}  # of the tasks whose items are translations of each other
Pairs = dict[str, list[tuple[str, str]]]


def commands(task: str, data: Path) -> Pairs:
    """English and each aligned language: the same training commands, by their number in the files."""
    found: dict[str, dict[str, str]] = {}
    for code in ("eng", *ALIGNED[task]):
        items = read_examples("slots", data / task, languages=[Language.parse(code).code], split=SPLIT[task])
        found[code] = {item.id.rpartition(":")[2]: item.text for item in items}
    return {
        code: [(english, found[code][number]) for number, english in found["eng"].items() if number in found[code]]
        for code in ALIGNED[task]
    }


def tatoeba(data: Path, codes: tuple[str, ...]) -> Pairs:
    """English and each language."""
    found: Pairs = {}
    for code in codes:
        both = ["eng_Latn", Language.parse(code).code]
        pairs = read_parallel(data / "tatoeba", format="moses", languages=both).pairs(both)
        found[code] = [(pair.source, pair.target) for pair in pairs]
    return found


def write(folder: Path, pairs: Pairs, longest: int, tokens: Callable[[str], int]) -> None:
    """Write the short ones as Moses files."""
    folder.mkdir(parents=True, exist_ok=True)
    for code, rows in pairs.items():
        short = [row for row in dict.fromkeys(rows) if max(tokens(side) for side in row) <= longest]
        two = Language.parse(code).iso639_1
        for place, side in enumerate(("en", two)):
            lines = "".join(" ".join(row[place].split()) + "\n" for row in short)
            (folder / f"pairs.en-{two}.{side}").write_text(lines, encoding="utf-8")
        print(f"{folder.name} {code}: {len(short)} of {len(rows)}")


def link_uner(data: Path, folder: Path) -> None:
    """Links to all files, but of several test sets of a language to that of PUD only."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(data.glob("*.iob2")):
        pud = data / f"{file.name.split('_')[0]}_pud-ud-test.iob2"
        link = folder / file.name
        if not link.exists() and (not file.stem.endswith("-test") or file == pud or not pud.exists()):
            link.symlink_to(file.resolve())


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    tokenizer = load_tokenizer(given.model)

    def tokens(text: str) -> int:
        return len(tokenizer(text)["input_ids"])

    link_uner(given.data / "uner", given.out / "uner")
    for task, codes in ALIGNED.items():
        outside = tatoeba(given.data, codes)
        write(given.out / f"tatoeba_{task}", outside, LONGEST[task], tokens)
        if task not in SPLIT:
            continue
        inside = commands(task, given.data)
        write(given.out / f"commands_{task}", inside, LONGEST[task], tokens)
        write(given.out / f"both_{task}", {code: inside[code] + outside[code] for code in codes}, LONGEST[task], tokens)


if __name__ == "__main__":
    main()
