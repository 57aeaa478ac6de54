"""`ProbeResult`: the content of ``probe.json`` and of ``hits.safetensors`` beside it, read and written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from midalign.errors import ModelError, RunError
from midalign.files import read_json, write_atomically, write_json
from midalign.functional.statistics import FloatArray
from midalign.probing.content import LayerContent, ProbeContent
from midalign.probing.statistics import HitArray

PROBE_FILE = "probe.json"
HITS_FILE = "hits.safetensors"


@dataclass(frozen=True)
class ProbeResult:
    """The result of a probe.

    Attributes:
        content: What ``probe.json`` holds; docs/probe.md describes every key.
        hits: ``(layers, N, n)``: the number of directions, of 2 (N - 1), in which a sentence retrieved its translation.
            None where ``hits.safetensors`` is missing; comparing two probes needs it.

    Examples:
        >>> result = midalign.probe(model, tokenizer, midalign.read_parallel("probe"))
        >>> result.accuracy.shape, result.matrix(2).shape  # layers; languages x languages
        ((5,), (3, 3))
        >>> result.write(Path("probed"))
        >>> midalign.ProbeResult.from_file("probed").best_layer == result.best_layer
        True
    """

    content: ProbeContent
    hits: HitArray | None = None

    @property
    def languages(self) -> list[str]:
        """Canonical codes, in the order of the matrices."""
        return list(self.content["languages"])

    @property
    def layers(self) -> list[int]:
        """Numbers of the probed layers; 0 is the embeddings."""
        return [entry["layer"] for entry in self.content["layers"]]

    @property
    def best_layer(self) -> int:
        """The layer with the highest mean accuracy; of equal ones the lowest."""
        return int(self.content["best_layer"])

    @property
    def accuracy(self) -> FloatArray:
        """Mean accuracy over all directions of each layer, ``(layers,)``, fractions."""
        return np.array([entry["accuracy"] for entry in self.content["layers"]], dtype=np.float64)

    def matrix(self, layer: int) -> FloatArray:
        """Accuracy of each direction at one layer, ``(N, N)``: row = query, column = searched; NaN on the diagonal.

        Raises:
            ModelError: If the layer was not probed.
        """
        return np.array(self._entry(layer)["matrix"], dtype=np.float64)

    def by_language(self, layer: int) -> dict[str, float]:
        """Mean accuracy over the directions from and into each language, at one layer."""
        matrix = self.matrix(layer)
        means = (np.nanmean(matrix, axis=0) + np.nanmean(matrix, axis=1)) / 2
        return dict(zip(self.languages, means.tolist(), strict=True))

    def as_dict(self) -> ProbeContent:
        """The content of ``probe.json``."""
        return self.content

    def write(self, folder: Path) -> None:
        """Write ``probe.json`` and, beside it, ``hits.safetensors``.

        Raises:
            RunError: If the disk is full or the folder cannot be written to.
        """
        if self.hits is not None:
            write_atomically(folder / HITS_FILE, save({"hits": self.hits}, metadata={"data": self.content["data"]}))
        write_json(folder / PROBE_FILE, self.content)

    @classmethod
    def from_file(cls, path: str | Path) -> ProbeResult:
        """Read ``probe.json``, given by its path or its folder, and ``hits.safetensors`` beside it, if there is one.

        Raises:
            RunError: If it is missing, damaged, or no probe.
        """
        file = Path(path) / PROBE_FILE if Path(path).is_dir() else Path(path)
        content = read_json(file)
        if not isinstance(content, dict) or not {"languages", "layers", "best_layer"} <= content.keys():
            raise RunError(f"{str(file)!r} is not the result of a probe; give the probe.json of `midalign probe`")
        side = file.parent / HITS_FILE
        try:
            found = load_file(side)["hits"] if side.exists() else None
        except (OSError, SafetensorError, KeyError) as fault:
            raise RunError(f"{str(side)!r} is damaged ({fault}); delete it and probe again") from fault
        expected = (len(content["layers"]), len(content["languages"]), content["n"])
        if found is not None and found.shape != expected:
            raise RunError(f"{str(side)!r} belongs to another probe than {file.name}: {found.shape}, not {expected}")
        return cls(cast("ProbeContent", content), found)

    def _entry(self, layer: int) -> LayerContent:
        if layer not in self.layers:
            raise ModelError(f"layer {layer} was not probed; there are {self.layers}")
        return self.content["layers"][self.layers.index(layer)]
