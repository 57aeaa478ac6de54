"""Hidden states of a decoder-only model, on stock transformers classes.

*Layer k* is the output of decoder block k before the final norm; layer 0 is what enters the first block (the
embeddings). Two ways to get at it, both equal to a hook on the full model:

1. `states_up_to` runs only blocks 1 to k, with gradients, through the outermost wrapped model (DDP, FSDP2, PEFT):
   for the length of one call, the first k blocks replace the list of blocks, and an identity replaces the final norm;
2. `pooled_states` runs the whole decoder once, without the LM head, and pools inside hooks as each block finishes, so
   that memory does not grow with layers x tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils.output_capturing import maybe_install_capturing_hooks

from midalign.errors import ModelError
from midalign.functional.pooling import pool_all, token_weights

_LAYER_LISTS = ("layers", "h", "blocks")
_FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f")


@dataclass(frozen=True)
class Decoder:
    """Where a model keeps its decoder blocks.

    Attributes:
        base: The transformers base model (embeddings to final norm), which can be called without the LM head.
        owner: The module that holds the blocks; `base` itself, or a child of it (OPT).
        layers_name: Attribute of `owner` with the list of blocks.
        norm_name: Attribute of `owner` with the final norm.
    """

    base: nn.Module
    owner: nn.Module
    layers_name: str
    norm_name: str

    @property
    def blocks(self) -> nn.ModuleList:
        """The decoder blocks, first to last."""
        blocks = self.owner._modules[self.layers_name]
        assert isinstance(blocks, nn.ModuleList)
        return blocks

    @property
    def depth(self) -> int:
        """Number of decoder blocks."""
        return len(self.blocks)


def unwrap(model: Any) -> Any:
    """The transformers model below DDP, ``torch.compile`` and PEFT wrappers."""
    while True:
        if hasattr(model, "get_base_model"):  # peft.PeftModel
            model = model.get_base_model()
        elif "_orig_mod" in model._modules:  # torch.compile
            model = model._modules["_orig_mod"]
        elif "module" in model._modules:  # DistributedDataParallel, DeepSpeedEngine
            model = model._modules["module"]
        else:
            return model


def find_decoder(model: nn.Module) -> Decoder:
    """Locate the decoder blocks and the final norm of any stock decoder-only model.

    Raises:
        ModelError: If they cannot be found, for example in an encoder-decoder.
    """
    inner = unwrap(model)
    base = getattr(inner, "base_model", inner)
    for owner in (base, getattr(base, "decoder", None), getattr(base, "language_model", None)):
        if owner is None:
            continue
        layers = next((n for n in _LAYER_LISTS if isinstance(owner._modules.get(n), nn.ModuleList)), None)
        norm = next((n for n in _FINAL_NORMS if owner._modules.get(n) is not None), None)
        if layers and norm:
            return Decoder(base, owner, layers, norm)
    raise ModelError(
        f"cannot find the decoder blocks and the final norm of {type(inner).__name__}: midalign reads hidden states "
        f"of decoder-only models whose base model has a list of blocks ({', '.join(_LAYER_LISTS)}) and a final norm "
        f"({', '.join(_FINAL_NORMS)}). Use a causal language model such as Llama, Qwen, Gemma or Mistral."
    )


def check_layer(layer: int, depth: int) -> int:
    """Return `layer` if a model of `depth` blocks has it to train on (1 to depth).

    Raises:
        ModelError: If not.
    """
    if not 1 <= layer <= depth:
        raise ModelError(
            f"layer is {layer}, but this model has {depth} blocks: layer k is the output of block k, and only layers "
            f"1 to {depth} have trainable blocks below them. The paper uses the middle, which is {depth // 2} here."
        )
    return layer


@contextmanager
def stopped_after(model: nn.Module, layer: int) -> Iterator[None]:
    """Within this context, calling `model` runs blocks 1 to `layer` only and skips the final norm."""
    decoder = find_decoder(model)
    check_layer(layer, decoder.depth)
    if isinstance(decoder.owner, PreTrainedModel):
        # transformers installs its hooks for output_hidden_states once, on the blocks it finds at the first call that
        # asks for them: were that a stopped call, the whole model would never report the upper blocks again.
        maybe_install_capturing_hooks(decoder.owner)
    modules = decoder.owner._modules
    blocks, norm = modules[decoder.layers_name], modules[decoder.norm_name]
    modules[decoder.layers_name] = nn.ModuleList(list(decoder.blocks)[:layer])
    modules[decoder.norm_name] = nn.Identity()
    try:
        yield
    finally:
        modules[decoder.layers_name], modules[decoder.norm_name] = blocks, norm


def states_up_to(
    model: nn.Module,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    layer: int,
    position_ids: torch.Tensor | None = None,
) -> tuple[torch.Tensor, ...]:
    """Hidden states of layers 0 to `layer` with gradients, without running the blocks above.

    Args:
        model: The outermost wrapped causal language model, so that DDP and FSDP see the call.
        input_ids: ``(batch, seq)``, right-padded.
        attention_mask: ``(batch, seq)``, 1 for real tokens, or whatever else the model takes for a mask.
        layer: 1 to the model's depth.
        position_ids: ``(batch, seq)``, where they do not follow from the mask.

    Returns:
        ``layer + 1`` tensors ``(batch, seq, hidden)`` in the model's dtype, each before the final norm.

    Raises:
        ModelError: If the model has no such layer or no decoder can be found.
    """
    options = {} if position_ids is None else {"position_ids": position_ids}
    # A call of the whole model cannot leave out the head; one position costs little. As an index, since a slice would
    # not be contiguous, for which bfloat16 on a CPU multiplies a copy of the head with each row.
    one_position = torch.zeros(1, dtype=torch.long, device=input_ids.device)
    with stopped_after(model, layer):
        states: tuple[torch.Tensor, ...] = model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            use_cache=False,
            output_hidden_states=True,
            logits_to_keep=one_position,
            **options,
        ).hidden_states
    return states


@contextmanager
def eager_on_a_cpu(model: nn.Module) -> Iterator[None]:
    """Eager attention in place of flash attention while the model is on the CPU, which flash attention does not know.

    A model that FSDP or DeepSpeed will shard is still there when it is checked.
    """
    plain, device = unwrap(model), next(model.parameters()).device
    chosen = plain.config.get_text_config()._attn_implementation
    if device.type != "cpu" or chosen in (None, "eager", "sdpa"):
        yield
        return
    plain.set_attn_implementation("eager")
    try:
        yield
    finally:
        plain.set_attn_implementation(chosen)


def verify_stopping(model: nn.Module, layer: int) -> None:
    """Check once that `states_up_to` equals a hook on the full model, on a two-row batch.

    Raises:
        ModelError: If the values differ, which means that this architecture needs support of its own.
    """
    decoder = find_decoder(model)
    check_layer(layer, decoder.depth)
    device = next(model.parameters()).device
    vocabulary = int(unwrap(model).config.get_text_config().vocab_size)
    input_ids = (torch.arange(12, device=device).reshape(2, 6) * 7 + 3) % vocabulary
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 4:] = 0
    caught: list[torch.Tensor] = []
    handle = decoder.blocks[layer - 1].register_forward_hook(lambda _m, _i, out: caught.append(_first(out)))
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), eager_on_a_cpu(model):
            model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, logits_to_keep=1)
            stopped = states_up_to(model, input_ids, attention_mask, layer)[-1]
    finally:
        handle.remove()
        model.train(training)
    real = attention_mask.bool()
    difference = (stopped[real].float() - caught[0][real].float()).abs().max().item()
    if difference > 0:
        raise ModelError(
            f"stopping {type(unwrap(model)).__name__} after block {layer} gives hidden states that differ from the "
            f"full model's by {difference:.3g}: this architecture does more after a block than midalign knows about, "
            "so aligning it would train on wrong vectors. Please report the model's name."
        )


@torch.no_grad()
def pooled_states(
    model: nn.Module,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    *,
    poolings: Sequence[str] = ("mean",),
    special_tokens_mask: torch.Tensor | None = None,
    layers: Sequence[int] | None = None,
) -> dict[str, torch.Tensor]:
    """Sentence vectors of every layer from one forward pass, pooled as each block finishes.

    Args:
        model: A causal language model in evaluation mode, plain or with an adapter.
        input_ids: ``(batch, seq)``, right-padded.
        attention_mask: ``(batch, seq)``, 1 for real tokens.
        poolings: Names from `midalign.functional.names.POOLINGS`.
        special_tokens_mask: ``(batch, seq)``, 1 for tokens that the tokenizer added.
        layers: Which layers, 0 to depth; all by default. Blocks above the highest are not run, and never the final
            norm.

    Returns:
        For each pooling a float32 tensor ``(layers, batch, hidden)`` on the model's device.
    """
    decoder = find_decoder(model)
    wanted = list(range(decoder.depth + 1)) if layers is None else list(layers)
    weights = {name: token_weights(attention_mask, name, special_tokens_mask) for name in poolings}
    pooled: dict[int, dict[str, torch.Tensor]] = {}

    def entering(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        pooled[0] = pool_all(args[0] if args else kwargs["hidden_states"], weights)

    def finished(layer: int, output: Any) -> None:
        pooled[layer] = pool_all(_first(output), weights)

    handles = []
    try:
        if 0 in wanted:
            handles.append(decoder.blocks[0].register_forward_pre_hook(entering, with_kwargs=True))
        for layer, block in enumerate(decoder.blocks, start=1):
            if layer in wanted:
                handles.append(block.register_forward_hook(lambda _m, _i, out, k=layer: finished(k, out)))
        with stopped_after(model, max(1, *wanted)):
            decoder.base(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.stack([pooled[layer][name] for layer in wanted]) for name in poolings}


def _first(output: Any) -> torch.Tensor:
    """The hidden states of a block's output, which is a tensor or a tuple that begins with it."""
    states: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return states
