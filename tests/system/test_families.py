"""Every model family works unchanged: probe, one update of each objective, save, load, merge, generate.

Gradient checkpointing changes no gradient of either objective, and four-bit weights train where they can be had.
"""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, prepare_model_for_kbit_training
from safetensors.torch import load_file
from transformers import TrainerCallback
from transformers.pytorch_utils import Conv1D
from trl import SFTConfig

from midalign.answers.format import AnswerFormat
from midalign.data.prompt_tokens import training_rows
from midalign.generation.generate import generate
from midalign.merging.export import merge_adapters
from midalign.models.adapters import attach_adapter
from midalign.models.hidden import find_decoder, pooled_states
from midalign.models.loading import load_model
from midalign.probing.probe import probe
from midalign.recipe.alignment import AlignmentConfig
from midalign.recipe.file import load_recipe
from midalign.records import ParallelPair, Span, TaskExample
from midalign.training.arguments import linear_names
from midalign.training.train import train
from midalign.training.trainer import AlignmentTrainer
from tests.conftest import build_model, build_tokenizer
from tests.tiny_world import write_world

FAMILIES = [
    "llama", "qwen2", "qwen3", "gemma2", "gemma3", "mistral", "phi3", "gpt_neox", "gpt2", "olmo2", "mixtral",
    "bloom", "falcon", "opt", "qwen3_moe", "smollm3", "gemma3_images",
]  # fmt: skip
PAIRS = [ParallelPair(f"light {w}", f"licht {w * 2}", "eng_Latn", "deu_Latn", w) for w in "abcdefgh"]
EXAMPLES = [
    TaskExample(f"x:{i}", "slots", "eng_Latn", f"call name{i}", ("call", f"name{i}"), (Span("who", 1, 2),), "call")
    for i in range(4)
]


@pytest.mark.parametrize("family", FAMILIES)
def test_probe_train_save_load_merge_and_generate(family, tmp_path):
    tokenizer = build_tokenizer()
    corpus = {"eng_Latn": [p.source for p in PAIRS], "deu_Latn": [p.target for p in PAIRS]}
    result = probe(build_model(family), tokenizer, corpus).as_dict()
    assert [layer["layer"] for layer in result["layers"]] == [0, 1, 2, 3, 4]

    base = build_model(family)
    base.save_pretrained(tmp_path / "base")
    trainer = AlignmentTrainer(
        build_model(family),
        args=SFTConfig(
            output_dir=str(tmp_path / "run"), max_steps=1, per_device_train_batch_size=2, learning_rate=1e-2,
            save_strategy="no", report_to="none", bf16=False, use_cpu=True, gradient_checkpointing=False,
            disable_tqdm=True, logging_steps=1,
        ),
        train_dataset=Dataset.from_list(training_rows(EXAMPLES, tokenizer, AnswerFormat(system=""))),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=2, target_modules=linear_names(base), task_type="CAUSAL_LM"),
        pairs=PAIRS,
        alignment=AlignmentConfig(batch_size=4),
    )  # fmt: skip
    trainer.train()
    assert trainer.state.global_step == 2
    assert {"task_loss", "alignment_loss"} <= {name for entry in trainer.state.log_history for name in entry}
    trainer.save_model(str(tmp_path / "adapter"))

    ids = torch.tensor([[5, 6, 7, 8]])
    trainer.model.eval()
    with torch.no_grad():
        expected = trainer.model(ids).logits
        loaded = PeftModel.from_pretrained(build_model(family), tmp_path / "adapter").eval()
        assert torch.allclose(loaded(ids).logits, expected, atol=1e-6)
        assert not torch.allclose(build_model(family)(ids).logits, expected, atol=1e-6)

    adapters = {"task": tmp_path / "adapter", "alignment": tmp_path / "adapter"}
    merge_adapters(adapters, {"task": 0.75, "alignment": 0.25}, out=tmp_path / "merged", base_model=base)
    merged = attach_adapter(build_model(family), tmp_path / "merged")
    with torch.no_grad():
        assert torch.allclose(merged(ids).logits, expected, atol=1e-5)
    answers = generate(merged, tokenizer, EXAMPLES, AnswerFormat(system=""), max_new_tokens=3)
    assert [answer.id for answer in answers] == [example.id for example in EXAMPLES]


class Gradients(TrainerCallback):
    """The gradients of every update."""

    def __init__(self):
        self.updates = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        self.updates.append(found)


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt_neox"])
def test_gradient_checkpointing_changes_no_gradient_of_either_objective(family, tmp_path):
    tokenizer, found, passes = build_tokenizer(), [], []
    for checkpointing in (False, True):
        gradients, model = Gradients(), build_model(family)
        trainer = AlignmentTrainer(
            model,
            args=SFTConfig(
                output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=2, save_strategy="no",
                report_to="none", bf16=False, use_cpu=True, disable_tqdm=True, max_grad_norm=0, seed=0,
                gradient_checkpointing=checkpointing, gradient_checkpointing_kwargs={"use_reentrant": False},
            ),
            train_dataset=Dataset.from_list(training_rows(EXAMPLES, tokenizer, AnswerFormat(system=""))),
            processing_class=tokenizer,
            peft_config=LoraConfig(r=2, target_modules=linear_names(model), lora_dropout=0.1, task_type="CAUSAL_LM"),
            pairs=PAIRS,
            alignment=AlignmentConfig(batch_size=4),
            callbacks=[gradients],
        )  # fmt: skip
        calls = []
        block = find_decoder(trainer.model).blocks[0]
        linear = next(module for name, module in block.named_modules() if name.endswith("lora_A.default"))
        linear.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        trainer.train()
        found.append(gradients.updates)
        passes.append(len(calls))
    assert passes == [2, 4], "a task and an alignment update, each block run again in the backward pass"
    for plain, again in zip(*found, strict=True):
        assert plain.keys() == again.keys()
        assert any(gradient.abs().max() > 0 for gradient in plain.values())
        assert all(torch.allclose(plain[name], again[name], atol=1e-6) for name in plain)


# Falcon cannot be quantised: see test_loading.py.
QLORA = [
    "llama",
    "gpt2",
    *(pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES if f not in ("llama", "gpt2", "falcon")),
]


@pytest.mark.parametrize("family", QLORA)
def test_qlora_reads_the_four_bit_weights_trains_both_objectives_and_saves_a_plain_adapter(family, tmp_path):
    """Its sentence vectors are those of the same model in floating point, with the values that four bits stand for."""
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="QLoRA needs bitsandbytes, which is not installed here")
    build_model(family).save_pretrained(tmp_path / "model")
    tokenizer = build_tokenizer()
    model = load_model(str(tmp_path / "model"), quantization="4bit")
    plain = load_model(str(tmp_path / "model"), device="cpu")
    quantised = 0
    for name, module in model.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            values = bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state).float()
            twin = plain.get_submodule(name)
            twin.weight.data.copy_(values.T if isinstance(twin, Conv1D) else values)
            quantised += 1
    assert quantised >= 4 * 2, "at least the attention of four blocks"
    batch = tokenizer([pair.source for pair in PAIRS], padding=True, return_tensors="pt")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    found, expected = (
        pooled_states(each, ids.to(each.device), mask.to(each.device))["mean"].cpu() for each in (model, plain)
    )
    for layer in range(5):  # products are in bfloat16
        assert torch.cosine_similarity(found[layer], expected[layer]).min() > 0.999, layer

    model, gradients = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False), Gradients()
    trainer = AlignmentTrainer(
        model,
        args=SFTConfig(
            output_dir=str(tmp_path / "run"), max_steps=1, per_device_train_batch_size=2, learning_rate=1e-2,
            save_strategy="no", report_to="none", bf16=False, use_cpu=model.device.type == "cpu", disable_tqdm=True,
            gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": False},
        ),
        train_dataset=Dataset.from_list(training_rows(EXAMPLES, tokenizer, AnswerFormat(system=""))),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=2, target_modules=linear_names(model), task_type="CAUSAL_LM"),
        pairs=PAIRS,
        alignment=AlignmentConfig(batch_size=4),
        callbacks=[gradients],
    )  # fmt: skip
    trainer.train()
    reached = [
        {name.split(".lora_")[0] for name, g in update.items() if g.abs().max() > 0} for update in gradients.updates
    ]
    blocks = [{next(int(part) for part in name.split(".") if part.isdigit()) for name in names} for names in reached]
    assert blocks == [{0, 1, 2, 3}, {0, 1}], "the task trains every block, alignment those up to the middle"
    trainer.save_model(str(tmp_path / "adapter"))
    adapter = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in adapter.values())
    assert all("lora_" in name for name in adapter)
    attach_adapter(load_model(str(tmp_path / "model"), device="cpu"), tmp_path / "adapter")


def test_a_recipe_with_four_bit_weights_trains_and_resumes_to_the_same_adapter(tmp_path):
    pytest.importorskip("bitsandbytes", reason="QLoRA needs bitsandbytes, which is not installed here")
    recipe = load_recipe(write_world(tmp_path, model={"quantization": "4bit"}, training={"save_steps": 1}))
    assert train(recipe, tmp_path / "whole", progress=lambda *_: None)["updates"] == 4

    def interrupt(_description, done, _total):
        if done == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(recipe, tmp_path / "cut", progress=interrupt)
    assert train(recipe, tmp_path / "cut", progress=lambda *_: None)["resumed_from"]
    whole, cut = (load_file(tmp_path / out / "adapter" / "adapter_model.safetensors") for out in ("whole", "cut"))
    assert any(tensor.abs().max() > 0 for name, tensor in whole.items() if "lora_B" in name)
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
