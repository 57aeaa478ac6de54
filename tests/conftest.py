"""Fixtures: tiny random models of many families from a config in memory, a tokenizer, the data folder."""

import logging
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# One worker of pytest-xdist per core: more threads than cores would wait for one another, four times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("MIDALIGN_DATA", ROOT.parent / "shared" / "data"))

CORPUS = [
    "wake me up at nine am on friday",
    "turn on the light in the kitchen",
    "weck mich am freitag um neun uhr",
    "mach das licht in der küche an",
    "разбуди меня в девять утра",
    "включи свет на кухне",
    "设置 九点 的 闹钟",
    "datetime: nine am; location: kitchen",
    "None",
]

# Small enough that a forward takes milliseconds, deep enough that a middle layer has blocks above and below.
TINY = dict(
    vocab_size=384,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=128,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
EXTRA = {
    "gpt2": dict(n_embd=32, n_layer=4, n_head=4, n_positions=128),
    "gemma3": dict(sliding_window=16),
    "mixtral": dict(num_local_experts=2, num_experts_per_tok=1),
    "phi3": dict(rope_scaling=None),
    "bloom": dict(n_layer=4, n_head=4, hidden_size=32),
    "falcon": dict(new_decoder_architecture=False, multi_query=False),
    "qwen3_moe": dict(num_experts=2, num_experts_per_tok=1, moe_intermediate_size=32, decoder_sparse_step=1),
    "opt": dict(ffn_dim=48, word_embed_proj_dim=32),
}
MODEL_TYPES = {"gemma3": "gemma3_text"}
# A text decoder beside a vision tower, as Gemma 3 has it from 4B on; its layers have names of the decoder's.
VISION = dict(
    hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=14
)
WITH_IMAGES = dict(mm_tokens_per_image=4, image_token_index=383, boi_token_index=382, eoi_token_index=381)


def build_model(family: str, **changes):
    """A tiny random model; the same weights whenever the arguments are the same. gemma3_images has a vision tower."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    images = family == "gemma3_images"
    options = {**TINY, **EXTRA.get("gemma3" if images else family, {}), **changes}
    if family == "falcon":
        del options["head_dim"]  # a read-only property there
    if images:
        config = AutoConfig.for_model("gemma3", text_config=options, vision_config=VISION, **WITH_IMAGES)
    else:
        config = AutoConfig.for_model(MODEL_TYPES.get(family, family), **options)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model.eval()


def build_tokenizer(chat: bool = False):
    """A byte-level BPE tokenizer with beginning, end and padding tokens, trained on a few lines."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(CORPUS, trainer)
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    if chat:
        tokenizer.chat_template = (
            "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"
            "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
        )
    return tokenizer


def build_plain_tokenizer():
    """The same tokenizer, but nothing is added to a text, as with those of Qwen and SmolLM2."""
    from tokenizers import processors

    tokenizer = build_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel()
    return tokenizer


def build_line_break_tokenizer():
    """The same tokenizer, but a line break is added before a text, as a token of the tokenizer's own."""
    from tokenizers import processors

    tokenizer = build_tokenizer()
    line_break = tokenizer.backend_tokenizer.token_to_id("Ċ")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="Ċ $A", special_tokens=[("Ċ", line_break)]
    )
    return tokenizer


@pytest.fixture
def tiny_model():
    """A factory of tiny random models by family name."""
    return build_model


@pytest.fixture(scope="session")
def tokenizer():
    """The tiny tokenizer, without a chat template."""
    return build_tokenizer()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A tiny Llama with its tokenizer, saved as a user would have it on disk."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    build_model("llama").save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def data_folder():
    """The folder with real data; tests that need it carry the marker ``data``."""
    if not DATA.is_dir():
        pytest.skip(f"no real data: {DATA} does not exist (set MIDALIGN_DATA)")
    return DATA


@pytest.fixture(autouse=True)
def _level_of_our_log():
    """The command line sets how much midalign logs, also in a module's fixture: each test begins with the default."""
    for name, level in (("midalign", logging.NOTSET), (None, logging.WARNING)):
        logging.getLogger(name).setLevel(level)
