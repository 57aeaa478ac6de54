"""`ModelSource`: which model to load, and how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from midalign.models.chat import fix_arguments, take_over
from midalign.models.loading import empty_model, full_precision_on_cpu, load_config, load_model, load_tokenizer


@dataclass(frozen=True)
class ModelSource:
    """A base model by name, with everything that decides what is loaded.

    Attributes:
        path: Hub name or local folder.
        revision: Hub branch, tag or commit; None for the default.
        dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``; see `midalign.models.loading.load_model`.
        quantization: ``4bit``, or None.
        trust_remote_code: Let code from the model's repository run here.
        gguf_file: Name of a GGUF file in the folder or repository, which is dequantised; None for safetensors.
        attn_implementation: Attention kernel, by its name in transformers; None for the choice of transformers.
        chat_template_kwargs: Arguments of the chat template; see `midalign.models.chat.fix_arguments`.
    """

    path: str
    revision: str | None = None
    dtype: str = "auto"
    quantization: str | None = None
    trust_remote_code: bool = False
    gguf_file: str | None = None
    attn_implementation: str | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, section: Iterable[tuple[str, Any]]) -> ModelSource:
        """The source that the ``model:`` section of a recipe names; its fields have the names of ours."""
        return cls(**dict(section))

    def load(self, **options: Any) -> Any:
        """The model; errors and options, which take the place of ours, as of `midalign.models.loading.load_model`."""
        chosen = asdict(self)
        for name in ("path", "chat_template_kwargs"):
            del chosen[name]
        if self.attn_implementation is None:
            del chosen["attn_implementation"]
        return load_model(self.path, **(chosen | options))

    def load_exact(self, **options: Any) -> Any:
        """The model to train or to merge into: as `load`, but ``auto`` is float32 on a CPU."""
        return self.load(dtype=full_precision_on_cpu(self.dtype), **options)

    def empty(self) -> Any:
        """The model without its weights; errors as of `config` and `midalign.models.loading.empty_model`."""
        return empty_model(self.config(), trust_remote_code=self.trust_remote_code)

    def config(self) -> Any:
        """The model's configuration, without its weights; errors as of `midalign.models.loading.load_config`."""
        return load_config(self.path, **self._which())

    def tokenizer(self, adapters: Iterable[str | Path] = ()) -> Any:
        """The model's tokenizer, with the end token and the chat template that `adapters` were trained with.

        Raises:
            UserError: As `midalign.models.loading.load_tokenizer`, and `take_over` and `fix_arguments` of
                `midalign.models.chat`.
        """
        tokenizer = load_tokenizer(self.path, **self._which())
        take_over(tokenizer, adapters)
        fix_arguments(tokenizer, self.chat_template_kwargs)
        return tokenizer

    def _which(self) -> dict[str, Any]:
        names = ("revision", "trust_remote_code", "gguf_file")
        return {name: getattr(self, name) for name in names}
