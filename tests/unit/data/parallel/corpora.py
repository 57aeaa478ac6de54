"""Small corpora as they lie on disk."""

import gzip
import json

import pytest

from midalign.data.parallel.corpus import read_parallel
from midalign.errors import DataError

EN, DE, TR = "eng_Latn", "deu_Latn", "tur_Latn"
WORDS = {"eng": ["one", "two", "three"], "deu": ["eins", "zwei", "drei"], "tur": ["bir", "iki", "üç"]}


def write(path, lines, end="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(line + end for line in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def plain(folder, **texts):
    for code, lines in (texts or WORDS).items():
        write(folder / f"{code}.txt", lines)
    return folder


def flores(root, splits=("dev", "devtest")):
    for split in splits:
        for code, lines in ((EN, WORDS["eng"]), (DE, WORDS["deu"])):
            write(root / split / f"{code}.{split}", [f"{line} {split}" for line in lines])
    return root


def tatoeba(folder):
    for code in ("deu", "tur"):
        write(folder / f"tatoeba.{code}-eng.{code}", WORDS[code])
        write(folder / f"tatoeba.{code}-eng.eng", WORDS["eng"])
    return folder


def jsonl(path, *records):
    return write(path, [json.dumps(record) for record in records])


def fails(match, path, error=DataError, **options):
    with pytest.raises(error, match=match) as caught:
        read_parallel(path, **options)
    return str(caught.value)
