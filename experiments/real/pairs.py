"""Pairs to align on, as Moses files: commands of a task's training items, Tatoeba, TICO-19; short ones only.

    python experiments/real/pairs.py --model MODEL --data DATA --out PAIRS

Each of ``commands_xsid``, ``commands_mtop``, ``tatoeba``, ``tico19`` and ``both_xsid``, ``both_mtop`` (commands and Tatoeba)
becomes a folder with files such as ``en-da.en`` and ``en-da.da``. Commands are those of the training items (by the same
rule as in the recipe: the dev items are held out by sentence number, in all languages at once), without their labels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from midalign.data.parallel.corpus import read_parallel
from midalign.languages import Language
from midalign.models.loading import load_tokenizer
from midalign.recipe.data import read_examples

LONGEST = 24  # tokens; longer pairs say little more about commands, and cost much more
ALIGNED = {
    "xsid": ("dan", "nld", "tur", "ind"),
    "mtop": ("spa", "fra", "hin", "tha"),
}
SPLIT = {"xsid": "dev", "mtop": "train"}
Pairs = dict[str, list[tuple[str, str]]]


def commands(task: str, data: Path) -> Pairs:
    """English and each aligned language: the same training commands, by their number in the files."""
    found = {
        code: {item.id.rpartition(":")[2]: item.text for item in read_examples("slots", data / task, languages=[full], split=SPLIT[task])}
        for code, full in ((code, Language.parse(code).code) for code in ("eng", *ALIGNED[task]))
    }  # fmt: skip
    return {
        code: [(english, found[code][number]) for number, english in found["eng"].items() if number in found[code]]
        for code in ALIGNED[task]
    }


def corpus(name: str, data: Path, codes: tuple[str, ...]) -> Pairs:
    """Pairs of English and each language that a corpus has."""
    found: Pairs = {}
    folders = {"tatoeba": [data / "tatoeba"], "tico19": sorted((data / "tico19").iterdir())}[name]
    for folder in folders:
        for code in codes:
            full = Language.parse(code).code
            if name == "tico19" and Language.parse(folder.name.partition("-")[2]).code != full:
                continue
            pairs = read_parallel(folder, format="moses", languages=["eng_Latn", full]).pairs(["eng_Latn", full])
            found[code] = [(pair.source, pair.target) for pair in pairs]
    return found


def write(folder: Path, pairs: Pairs, tokenizer: object) -> None:
    """Write the short ones as Moses files."""
    folder.mkdir(parents=True, exist_ok=True)
    for code, rows in pairs.items():
        short = [row for row in dict.fromkeys(rows) if max(len(tokenizer(side)["input_ids"]) for side in row) <= LONGEST]  # type: ignore[operator]
        two = Language.parse(code).iso639_1
        for place, side in enumerate(("en", two)):
            lines = "".join(" ".join(row[place].split()) + "\n" for row in short)
            (folder / f"pairs.en-{two}.{side}").write_text(lines, encoding="utf-8")
        print(f"{folder.name} {code}: {len(short)} of {len(rows)}")


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    tokenizer = load_tokenizer(given.model)
    for task, codes in ALIGNED.items():
        inside, outside = commands(task, given.data), corpus("tatoeba", given.data, codes)
        write(given.out / f"commands_{task}", inside, tokenizer)
        write(given.out / f"tatoeba_{task}", outside, tokenizer)
        write(given.out / f"both_{task}", {code: inside[code] + outside[code] for code in codes}, tokenizer)


if __name__ == "__main__":
    main()
