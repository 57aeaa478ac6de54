"""The models of docs/models.md: their sizes, and tiny models and tokenizers that behave like them.

Sizes are those of the published ``config.json``. The chat templates are written for these tests. They have what makes
the published ones hard: a date, thoughts, no system turn, a system turn of their own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from tests.conftest import build_model, build_plain_tokenizer, build_tokenizer

_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SYSTEM = "{% set system = messages[0].content if messages[0].role == 'system' else '' %}"
_LLAMA32 = (
    "{{ bos_token }}" + _SYSTEM + "<|start_header_id|>system<|end_header_id|>\n\n"
    "Cutting Knowledge Date: December 2023\n"
    "Today Date: {{ date_string if date_string is defined else strftime_now('%d %b %Y') }}\n\n{{ system }}<|eot_id|>"
    "{% for m in messages if m.role != 'system' %}"
    "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_QWEN3 = (
    _CHATML + "{% if add_generation_prompt and enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}"
)
_GEMMA3 = (
    "{{ bos_token }}" + _SYSTEM + "{% for m in messages if m.role != 'system' %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ system + '\n\n' if loop.first and system }}{{ m.content }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_MISTRAL = (
    "{{ bos_token }}" + _SYSTEM + "{% for m in messages if m.role != 'system' %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('they take turns') }}{% endif %}"
    "{% if m.role == 'user' %}[INST] {{ system + '\n\n' if loop.last and system }}{{ m.content }}[/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
_SMOLLM2 = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a small assistant<|im_end|>\n{% endif %}"
    + _CHATML
)
_SMOLLM3 = (
    "{% if enable_thinking is not defined %}{% set enable_thinking = true %}{% endif %}"
    + _SYSTEM
    + "<|im_start|>system\n"
    "Today Date: {{ strftime_now('%d %B %Y') }}\nReasoning Mode: {{ '/think' if enable_thinking else '/no_think' }}\n\n"
    "{{ system }}<|im_end|>\n"
    "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


@dataclass(frozen=True)
class Model:
    """A published model.

    Attributes:
        name: On the hub.
        recipe: The recipe for it.
        family: Its architecture, as of `tests.conftest.build_model`.
        sizes: Its configuration, as far as it decides the number of weights.
        bos: Whether its tokenizer puts a BOS before a text.
        template: A chat template that behaves like its own.
        end: What ends a turn.
        overrides: What to change in the recipe, beside the path.
    """

    name: str
    recipe: str
    family: str
    sizes: dict[str, Any]
    bos: bool
    template: str
    end: str
    overrides: tuple[str, ...] = field(default=())

    @property
    def depth(self) -> int:
        """Number of decoder blocks."""
        return int(self.sizes["num_hidden_layers"])

    def tokenizer(self) -> Any:
        """A tiny tokenizer with its template, its control tokens, and a BOS if it has one."""
        tokenizer = build_tokenizer() if self.bos else build_plain_tokenizer()
        controls = re.findall(r"<\|\w+\|>|<\w+_of_turn>|\[/?INST\]", self.template)
        tokenizer.add_special_tokens({"additional_special_tokens": sorted(set(controls))})
        if self.family != "gemma3_images":  # whose tokenizer names another end token than the one that ends a turn
            tokenizer.eos_token = self.end
        tokenizer.chat_template = self.template
        return tokenizer

    def tiny(self) -> Any:
        """A tiny random model of its architecture."""
        return build_model(self.family, vocab_size=448, max_position_embeddings=2048)


def _sizes(layers: int, hidden: int, inner: int, heads: int, key_heads: int, rows: int, **more: Any) -> dict[str, Any]:
    return {
        "num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": inner, "num_attention_heads": heads,
        "num_key_value_heads": key_heads, "vocab_size": rows, "head_dim": hidden // heads, "tie_word_embeddings": True,
        **more,
    }  # fmt: skip


def _qwen3(name: str, *sizes: int, **more: Any) -> Model:
    sizes_of_it = _sizes(*sizes, key_heads=8, rows=151936, head_dim=128, **more)
    return Model(f"Qwen/{name}", "reference_qwen3_4b", "qwen3", sizes_of_it, False, _QWEN3, "<|im_end|>")


_VISION = dict(
    hidden_size=1152,
    intermediate_size=4304,
    num_hidden_layers=27,
    num_attention_heads=16,
    image_size=896,
    patch_size=14,
    vision_use_head=False,
)
_GEMMA3_SIZES = _sizes(34, 2560, 10240, 8, 4, 262208, head_dim=256, sliding_window=1024)
MODELS = [
    *(
        Model(
            f"meta-llama/Llama-3.2-{size}-Instruct", "reference_llama32_3b", "llama", sizes, True,
            _LLAMA32, "<|eot_id|>",
        )
        for size, sizes in (
            ("1B", _sizes(16, 2048, 8192, 32, 8, 128256)),
            ("3B", _sizes(28, 3072, 8192, 24, 8, 128256)),
        )
    ),
    _qwen3("Qwen3-0.6B", 28, 1024, 3072, 16),
    _qwen3("Qwen3-1.7B", 28, 2048, 6144, 16),
    _qwen3("Qwen3-4B", 36, 2560, 9728, 32),
    _qwen3("Qwen3-8B", 36, 4096, 12288, 32, tie_word_embeddings=False),
    Model(
        "google/gemma-3-4b-it", "reference_gemma3_4b", "gemma3_images", _GEMMA3_SIZES, True, _GEMMA3, "<end_of_turn>",
    ),
    Model(
        "mistralai/Mistral-7B-Instruct-v0.3", "reference_mistral_7b", "mistral",
        _sizes(32, 4096, 14336, 32, 8, 32768, tie_word_embeddings=False), True, _MISTRAL, "</s>",
    ),
    *(
        Model(
            f"utter-project/EuroLLM-{size}-Instruct", "reference_eurollm_9b", "llama", sizes, True,
            "{{ bos_token }}" + _CHATML, "<|im_end|>",
        )
        for size, sizes in (
            ("1.7B", _sizes(24, 2048, 5632, 16, 8, 128000, tie_word_embeddings=False)),
            ("9B", _sizes(42, 4096, 12288, 32, 8, 128000, tie_word_embeddings=False)),
        )
    ),
    Model(
        "HuggingFaceTB/SmolLM2-1.7B-Instruct", "reference_smollm3_3b", "llama",
        _sizes(24, 2048, 8192, 32, 32, 49152), False, _SMOLLM2, "<|im_end|>", ("model.chat_template_kwargs={}",),
    ),
    Model(
        "HuggingFaceTB/SmolLM3-3B", "reference_smollm3_3b", "smollm3",
        _sizes(36, 2048, 11008, 16, 4, 128256), False, _SMOLLM3, "<|im_end|>",
    ),
]  # fmt: skip


def weights(model: Model) -> tuple[float, float]:
    """Billions of weights of a published model: in linear layers without the head, and elsewhere."""
    import torch
    from torch import nn
    from transformers import AutoConfig, AutoModelForCausalLM

    if model.family == "gemma3_images":
        config = AutoConfig.for_model("gemma3", text_config=model.sizes, vision_config=_VISION)
    else:
        config = AutoConfig.for_model(model.family, **model.sizes)
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(config)
    total = sum(parameter.numel() for parameter in whole.parameters())
    head = whole.get_output_embeddings()
    linear = sum(m.weight.numel() for m in whole.modules() if isinstance(m, nn.Linear) and m is not head)
    return linear / 1e9, (total - linear) / 1e9
