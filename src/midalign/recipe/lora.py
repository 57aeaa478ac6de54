"""The recipe's section ``lora``: the arguments of peft's ``LoraConfig``, one by one.

`LoraSection` has the arguments that take effect, with their types; `REFUSED` has all others, with the reason. Every
verb must be able to merge, export and use a trained adapter, so what merging cannot express is refused before training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from midalign.recipe.fields import Arguments, Refused, argument

# The settings of the paper and its reference implementation, for whatever a recipe leaves out.
LORA_DEFAULTS: dict[str, Any] = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.1, "target_modules": "all-linear"}

Rank = Annotated[int, Field(gt=0, le=65536)]


def _checked_start(value: bool | str) -> bool | str:
    """Check how the factors are initialised.

    Raises:
        ValueError: If peft would change the base weights too, or would need data for it.
    """
    if value in (True, False, "gaussian", "orthogonal"):
        return value
    raise ValueError(
        "this initialisation needs data, or changes the base weights, so that the adapter would not fit the base "
        "model; write true, false, gaussian or orthogonal"
    )


class LoraArguments(Arguments):
    """Arguments of peft's LoraConfig."""

    r: Rank = argument("Rank of the factors.")
    lora_alpha: int = argument("The update is scaled by lora_alpha / r.", gt=0, le=1_000_000)
    lora_dropout: float = argument("Dropout on the input of the factors.", ge=0, lt=1)
    target_modules: str | list[str] = argument(
        "Linear layers that get an adapter: names, a regular expression, or all-linear for those of every block."
    )
    exclude_modules: str | list[str] | None = argument(
        "Modules that get none: a list of names, or a regular expression."
    )
    use_rslora: bool = argument("Scale by lora_alpha / sqrt(r) instead.")
    rank_pattern: dict[str, Rank] = argument("Rank of single modules, by name or regular expression.")
    alpha_pattern: dict[str, int] = argument("lora_alpha of single modules, by name or regular expression.")
    layers_to_transform: int | list[int] | None = argument("Put adapters on these blocks only, counted from 0.")
    layers_pattern: str | list[str] | None = argument("Name of the list of blocks, where peft does not know it.")
    init_lora_weights: Annotated[bool | str, AfterValidator(_checked_start)] = argument(
        "How the factors are initialised: true (B is zero), false (both random), gaussian or orthogonal."
    )

    @model_validator(mode="after")
    def _start_has_even_ranks(self) -> LoraArguments:
        ranks = [self.r or LORA_DEFAULTS["r"], *(self.rank_pattern or {}).values()]
        if odd := [rank for rank in ranks if self.init_lora_weights == "orthogonal" and rank % 2]:
            raise ValueError(f"init_lora_weights: orthogonal needs even ranks, and {odd[0]} is odd; write another rank")
        return self


_PRODUCT = "its update is not a product of two factors, so that midalign could not use or merge it; leave it out"

REFUSED: dict[str, Refused] = {
    "task_type": Refused("a causal language model is trained; leave it out", ("CAUSAL_LM",)),
    "peft_type": Refused("LoRA is trained; leave it out", ("LORA",)),
    "auto_mapping": Refused("peft sets it itself; leave it out", (None,)),
    "peft_version": Refused("peft sets it itself; leave it out", (None,)),
    "base_model_name_or_path": Refused("it is set in the recipe's section model; leave it out", (None,)),
    "revision": Refused("it is set in the recipe's section model (model.revision); leave it out", (None,)),
    "inference_mode": Refused("the adapter is trained; leave it out", (False,)),
    "fan_in_fan_out": Refused("peft finds it out from the layer; leave it out", (False,)),
    "bias": Refused(
        "biases of the base model would be trained too, which merging would leave out; leave it out", ("none",)
    ),
    "modules_to_save": Refused("it also trains whole modules, which merging would leave out; leave it out", (None, [])),
    "trainable_token_indices": Refused(
        "it also trains embeddings, which merging would leave out; leave it out", (None,)
    ),
    "ensure_weight_tying": Refused("it is for modules_to_save, which is refused; leave it out", (False,)),
    "use_dora": Refused("DoRA also trains magnitudes: " + _PRODUCT, (False,)),
    "lora_bias": Refused("the factor B gets a bias: " + _PRODUCT, (False,)),
    "use_qalora": Refused("QALoRA pools the input of the factors: " + _PRODUCT, (False,)),
    "qalora_group_size": Refused("it is for use_qalora, which is refused; leave it out", (16,)),
    "use_bdlora": Refused("BD-LoRA has block-diagonal factors: " + _PRODUCT, (None,)),
    "kasa_config": Refused("KaSA truncates the base weights: " + _PRODUCT, (None,)),
    "monteclora_config": Refused("MonteCLoRA samples its factors: " + _PRODUCT, (None,)),
    "velora_config": Refused("VeLoRA projects the input of the factors: " + _PRODUCT, (None,)),
    "arrow_config": Refused("Arrow routes between adapters: " + _PRODUCT, (None,)),
    "alora_invocation_tokens": Refused("an activated LoRA acts on a part of the tokens: " + _PRODUCT, (None,)),
    "layer_replication": Refused("it adds blocks that the base model does not have; leave it out", (None,)),
    "target_parameters": Refused("it trains parameters of experts rather than linear layers; leave it out", (None,)),
    "loftq_config": Refused(
        "LoftQ changes the base weights, so that the adapter would not fit them; leave it out", (None, {})
    ),
    "eva_config": Refused("EVA starts from data, which midalign does not give it; leave it out", (None,)),
    "corda_config": Refused(
        "CorDA changes the base weights, so that the adapter would not fit them; leave it out", (None,)
    ),
    "lora_ga_config": Refused(
        "LoRA-GA changes the base weights, so that the adapter would not fit them; leave it out", (None,)
    ),
    "megatron_config": Refused("models of Megatron are not loaded here; leave it out", (None,)),
    "megatron_core": Refused("models of Megatron are not loaded here; leave it out", ("megatron.core",)),
    "runtime_config": Refused("it is for DoRA, which is refused; leave it out", (None,)),
}

if TYPE_CHECKING:
    LoraSection = LoraArguments
else:
    LoraSection = LoraArguments.refusing("LoraSection", REFUSED)
