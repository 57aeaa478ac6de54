"""Script that runs inside COMET's own environment: it imports only the standard library and ``comet``.

    python comet_worker.py MODEL INPUT.jsonl OUTPUT.jsonl BATCH_SIZE

INPUT has one ``{"id", "src", "mt", "ref"}`` per line. OUTPUT gets a first line ``{"model", "versions"}``, then one
``{"id", "score"}`` per input line, in their order. Exit code 3: the model cannot be loaded (stderr has the reason).
"""

import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

NO_MODEL = 3


def checkpoint(model: str) -> str:
    """The checkpoint file of a model: itself, inside the folder given, or downloaded by name."""
    path = Path(model)
    if path.is_file():
        return str(path)
    if path.is_dir():
        found = sorted(path.rglob("*.ckpt"))
        if not found:
            raise FileNotFoundError(f"the folder {model} holds no .ckpt file")
        return str(found[0])
    from comet import download_model  # type: ignore[import-not-found]

    return str(download_model(model))


def reasons(fault: BaseException | None) -> list[str]:
    """The chain of causes, the first one first.

    COMET itself only says that it does not support the model, even when it cannot reach the hub.
    """
    found: list[str] = []
    while fault is not None:
        found.insert(0, f"{type(fault).__name__}: {(str(fault).strip().splitlines() or [''])[0]}")
        fault = fault.__cause__ or fault.__context__
    return list(dict.fromkeys(found))


def main() -> int:
    """Score the input file; returns the exit code."""
    warnings.filterwarnings("ignore")  # COMET's old dependencies warn a lot, and stderr is shown where it fails
    name, source, target, batch_size = sys.argv[1:5]
    rows = [json.loads(line) for line in Path(source).read_text(encoding="utf-8").split("\n") if line]
    try:
        from comet import load_from_checkpoint

        model = load_from_checkpoint(checkpoint(name))
    except Exception as fault:  # whatever the hub, the network or the file raised: the caller shows it
        sys.stderr.write("".join(f"{reason}\n" for reason in reasons(fault)))
        return NO_MODEL
    import torch  # COMET's own dependency

    data = [{"src": row["src"], "mt": row["mt"], "ref": row["ref"]} for row in rows]
    gpus = int(torch.cuda.is_available())
    scores = model.predict(data, batch_size=int(batch_size), gpus=gpus, progress_bar=False).scores
    lines: list[dict[str, object]] = []
    lines += [{"model": name, "versions": {"unbabel-comet": version("unbabel-comet"), "torch": version("torch")}}]
    lines += [{"id": row["id"], "score": float(score)} for row, score in zip(rows, scores, strict=True)]
    Path(target).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
