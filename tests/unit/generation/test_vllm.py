"""The vLLM engine against a made-up ``vllm`` that answers with transformers: same ids asked, same answers."""

import sys
import types
from importlib.machinery import ModuleSpec

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from midalign.answers.format import AnswerFormat
from midalign.errors import MissingExtraError, ModelError
from midalign.generation.generate import generate
from midalign.generation.vllm import VllmEngine
from midalign.records import TaskExample
from tests.conftest import build_model, build_tokenizer

EXAMPLES = [TaskExample(f"x:{i}", "slots", "eng_Latn", text) for i, text in enumerate(["licht", "a b c", "на кухне"])]
OPTIONS = dict(max_new_tokens=8, answer_format=AnswerFormat(system="go"))


class FakeLLM:
    """One row at a time, greedily; ends after a stop token, which it returns, as vLLM does."""

    def __init__(self, model, **options):
        self.options, self.model = options, AutoModelForCausalLM.from_pretrained(model).eval()
        FakeLLM.made = self

    def generate(self, prompts, sampling, lora_request, use_tqdm):
        assert not use_tqdm
        assert sampling.temperature == 0.0
        model = self.model
        if lora_request is not None:
            model = PeftModel.from_pretrained(self.model, lora_request.lora_path).eval()
        outputs = []
        for prompt in prompts:
            ids, new = prompt["prompt_token_ids"], []
            while len(new) < sampling.max_tokens and (not new or new[-1] not in sampling.stop_token_ids):
                with torch.no_grad():
                    new.append(int(model(torch.tensor([ids + new])).logits[0, -1].argmax()))
            outputs.append(types.SimpleNamespace(outputs=[types.SimpleNamespace(token_ids=tuple(new))]))
        return outputs


class LoRARequest:
    def __init__(self, lora_name, lora_int_id, lora_path):
        self.lora_name, self.lora_int_id, self.lora_path = lora_name, lora_int_id, lora_path


@pytest.fixture
def fake_vllm(monkeypatch):
    request = types.ModuleType("vllm.lora.request")
    request.LoRARequest = LoRARequest
    vllm = types.ModuleType("vllm")
    vllm.__spec__ = ModuleSpec("vllm", None)
    vllm.LLM, vllm.SamplingParams = FakeLLM, lambda **options: types.SimpleNamespace(**options)
    for name, module in {
        "vllm": vllm,
        "vllm.lora": types.ModuleType("vllm.lora"),
        "vllm.lora.request": request,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)


def adapter(folder, rank=4, **options):
    torch.manual_seed(0)
    config = LoraConfig(r=rank, **options, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    get_peft_model(build_model("llama"), config).save_pretrained(folder, save_embedding_layers=False)
    return folder


def test_answers_equal_those_of_transformers_with_and_without_an_adapter(fake_vllm, model_folder, tmp_path):
    tokenizer, path = build_tokenizer(), adapter(tmp_path / "a", 12)
    engine = VllmEngine(str(model_folder), tokenizer, adapters=[path])
    plain = generate(engine, tokenizer, EXAMPLES, **OPTIONS)
    assert plain == generate(build_model("llama"), tokenizer, EXAMPLES, **OPTIONS)
    adapted = generate(engine, tokenizer, EXAMPLES, adapter=path, **OPTIONS)
    assert adapted == generate(build_model("llama"), tokenizer, EXAMPLES, adapter=path, **OPTIONS)
    assert adapted != plain
    made = FakeLLM.made.options
    assert (made["enable_lora"], made["max_lora_rank"], made["generation_config"]) == (True, 16, "vllm")


def test_an_answer_ends_before_its_end_token(fake_vllm, model_folder):
    engine = VllmEngine(str(model_folder), build_tokenizer())
    (free,) = engine.answer([[1, 7, 30]], 6)
    engine.stops = [free[2]]
    assert engine.answer([[1, 7, 30]], 6) == [free[: free.index(free[2])]]
    assert "enable_lora" not in FakeLLM.made.options


def test_adapters_that_vllm_cannot_take_are_refused(fake_vllm, model_folder, tmp_path):
    with pytest.raises(ModelError, match="rank 600, and vLLM takes at most 512"):
        VllmEngine(str(model_folder), build_tokenizer(), adapters=[adapter(tmp_path / "wide", 600)])
    patterns = {"rank_pattern": {"up_proj": 8}, "alpha_pattern": {"q_proj": 16}}
    for name, pattern in patterns.items():
        folder = adapter(tmp_path / name, 4, **{name: pattern})
        with pytest.raises(
            ModelError, match=r"scales .* \(rank_pattern, alpha_pattern\), and vLLM would scale it by 2"
        ):
            VllmEngine(str(model_folder), build_tokenizer(), adapters=[folder])
    VllmEngine(str(model_folder), build_tokenizer(), adapters=[adapter(tmp_path / "rs", 4, use_rslora=True)])
    engine = VllmEngine(str(model_folder), build_tokenizer())
    with pytest.raises(ModelError, match="was not named"):
        engine.use_adapter(tmp_path / "wide", [])


def test_without_vllm_the_message_names_the_extra(monkeypatch, model_folder):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'midalign\[vllm\]'"):
        VllmEngine(str(model_folder), build_tokenizer())
