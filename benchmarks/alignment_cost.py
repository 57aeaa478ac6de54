"""What alignment costs at the shape of SmolLM2-135M on a CPU, beside SFT alone; about 25 minutes on two idle cores.

    python benchmarks/alignment_cost.py [--quick] [--shape smollm2|tiny]

Weights and tokens are random: times do not depend on them. Lengths are drawn from a seed, as SmolLM2's tokenizer gives
them: pairs as in Tatoeba (log-normal, in the mean 9 tokens on the English and 15 on the other side, 267 at most), and
commands as in xSID, in midalign's own prompt (90 to 171 tokens, 115 in the mean, 17 of them the answer).

1. *memory*: peak of a process that trains on the longest pair too, SFT alone and joint;
2. *update*: one alignment batch of 32 pairs, forward and backward, as midalign does it, as a padded batch, and as the
   reference implementation does it (padded, all blocks, LM head over every position in float32);
3. *training*: whole trainings with as many task updates, SFT alone and joint, for 32 pairs to 32 examples and for the
   paper's proportion (128 to 128, accumulated in 4). Both with midalign's own head on completions only.

Each ratio is a median over rounds, in which what is compared runs in turn on the same data. *Of the rate* is the share
of the rate at which this machine multiplies such matrices in the same number format; FLOP are those of `flop`.
The number format of trainings is the one that midalign chooses here. The last line is for scripts: the larger ratio of
joint and SFT time, their ratio of peak memory, and padded against packed batches.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import SFTConfig

from midalign.models.hidden import find_decoder
from midalign.models.loading import cpu_computes_in_bfloat16
from midalign.recipe.alignment import AlignmentConfig
from midalign.records import ParallelPair
from midalign.training.arguments import linear_names
from midalign.training.objective import AlignmentObjective
from midalign.training.pair_batches import PAIR_KEYS, PairCollator, PairDataset
from midalign.training.train import head_on_completions_only
from midalign.training.trainer import AlignmentTrainer

SHAPES = {
    "smollm2": dict(
        num_hidden_layers=30, hidden_size=576, intermediate_size=1536, num_attention_heads=9, num_key_value_heads=3,
        vocab_size=49152, tie_word_embeddings=True,
    ),
    "tiny": dict(
        num_hidden_layers=4, hidden_size=64, intermediate_size=128, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=512, tie_word_embeddings=True,
    ),
}  # fmt: skip
ROWS = 32  # examples, and pairs, of a micro-batch
LONGEST = 267


def build(shape: str) -> Any:
    """A random model with the paper's adapter, in training mode; weights in float32, as midalign trains on a CPU."""
    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(**SHAPES[shape]))
    lora = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.1, target_modules=linear_names(base), task_type="CAUSAL_LM")
    return get_peft_model(base, lora).train()


def word_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    """One token for each of these words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *words])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="</s>", pad_token="<pad>", bos_token="<s>", unk_token="<unk>"
    )


def lengths(rng: np.random.Generator, count: int, mean: float, spread: float, low: int, high: int) -> np.ndarray:
    """Log-normal lengths with this mean, and this standard deviation of the logarithm."""
    drawn = np.exp(rng.normal(np.log(mean) - spread**2 / 2, spread, count))
    return np.clip(np.round(drawn), low, high).astype(int)


def make_pairs(words: list[str], count: int, seed: int, longest: int | None = None) -> list[ParallelPair]:
    rng = np.random.default_rng(seed)
    sides = [lengths(rng, count, 9, 0.4, 3, LONGEST), lengths(rng, count, 15, 0.5, 3, LONGEST)]
    if longest is not None:
        sides[1][0] = longest
    texts = [[" ".join(rng.choice(words, size)) for size in side] for side in sides]
    return [
        ParallelPair(source, target, "eng_Latn", "deu_Latn", str(i))
        for i, (source, target) in enumerate(zip(*texts, strict=True))
    ]


def make_examples(vocabulary: int, count: int, seed: int) -> Dataset:
    rng = np.random.default_rng(seed)
    prompts, answers = 85 + lengths(rng, count, 13, 0.4, 3, 39), lengths(rng, count, 17, 0.5, 2, 47)
    rows = []
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = rng.integers(4, vocabulary, prompt + answer).tolist()
        rows.append({"input_ids": ids, "labels": [-100] * int(prompt) + ids[prompt:]})
    return Dataset.from_list(rows)


def flop(model: Any, layers: int, tokens: float, squares: float, scored: float = 0) -> float:
    """FLOP that the mathematics of an update needs.

        4 n P + 6 n p + 6 d sum(length ** 2) layers + 4 h H

    n tokens, P frozen weights of the linear layers in these blocks (2 forward, 2 for the gradient of activations;
    frozen weights have no gradient of their own), p LoRA weights (2 forward, 4 backward), d = heads x head size,
    causal attention at half of the square, h positions of the LM head of H weights.

    Args:
        model: The model.
        layers: Blocks that take part.
        tokens: Real tokens.
        squares: Sum of the squared lengths of the rows.
        scored: Positions that the LM head scores.
    """
    blocks = find_decoder(model).blocks[:layers]
    weights = [(name, p) for block in blocks for name, p in block.named_parameters() if p.ndim == 2]
    lora = sum(p.numel() for name, p in weights if "lora_" in name)
    frozen = sum(p.numel() for name, p in weights if "lora_" not in name)
    config = model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = 6 * config.num_attention_heads * head_dim * squares * layers
    return tokens * (4 * frozen + 6 * lora) + attention + 4 * scored * model.get_output_embeddings().weight.numel()


def matrix_rate(shape: str, dtype: torch.dtype) -> float:
    """FLOP a second of this machine on the largest matrix product of a block, on 1024 tokens."""
    hidden, inner = SHAPES[shape]["hidden_size"], SHAPES[shape]["intermediate_size"]
    tokens, weight = torch.randn(1024, hidden, dtype=dtype), torch.randn(inner, hidden, dtype=dtype)
    seconds = []
    for _ in range(50):
        start = time.perf_counter()
        torch.nn.functional.linear(tokens, weight)
        seconds.append(time.perf_counter() - start)
    return 2 * tokens.numel() * inner / statistics.median(seconds)


class Clock(TrainerCallback):
    """Seconds of a training, without setting up."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.start = time.perf_counter()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.seconds = time.perf_counter() - self.start


def train(model: Any, data: tuple[Any, Dataset, list[ParallelPair]], schedule: str, seed: int, **options: Any) -> float:
    """One training of ``max_steps`` task updates in the number format of this machine; its seconds."""
    tokenizer, examples, pairs = data
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = AlignmentTrainer(
            model,
            args=SFTConfig(
                output_dir=folder, per_device_train_batch_size=ROWS, use_cpu=True, gradient_checkpointing=False,
                save_strategy="no", report_to="none", disable_tqdm=True, logging_steps=1000, seed=seed,
                bf16=dtype_here() == torch.bfloat16, **options,
            ),
            train_dataset=examples, processing_class=tokenizer, pairs=pairs,
            alignment=AlignmentConfig(schedule=schedule, batch_size=ROWS), callbacks=[clock],
        )  # fmt: skip
        with head_on_completions_only():
            trainer.train()
    return clock.seconds


def measure_updates(shape: str, dtype: torch.dtype, rounds: int) -> float:
    """Times of one alignment update done in three ways; returns padded against ours."""
    model, words = build(shape), vocabulary_of(shape)
    depth = SHAPES[shape]["num_hidden_layers"]
    ours = AlignmentObjective.for_depth(AlignmentConfig(), depth)
    padded = AlignmentObjective.for_depth(AlignmentConfig(), depth, packing="none")
    data, collate = PairDataset(make_pairs(words, ROWS * (rounds + 1), 1), word_tokenizer(words)), PairCollator(0)

    def reference(batch: Any) -> torch.Tensor:
        mask = batch["attention_mask"]
        out = model(input_ids=batch["input_ids"], attention_mask=mask, output_hidden_states=True, use_cache=False)
        out.logits.float()
        vectors = (out.hidden_states[ours.top] * mask.unsqueeze(-1)).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return ours.loss_of({ours.top: vectors}, batch[PAIR_KEYS])

    ways = {
        "packed": lambda batch: ours.loss(model, batch),
        "padded": lambda batch: padded.loss(model, batch),
        "reference": reference,
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    counted = []
    for number in range(rounds + 1):
        batch = collate([data[i] for i in range(number * ROWS, (number + 1) * ROWS)])
        sizes = batch["attention_mask"].sum(dim=1).double()
        for way, loss in ways.items():
            start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                value = loss(batch)
            value.backward()
            model.zero_grad()
            if number:  # the first round warms up
                seconds[way].append(time.perf_counter() - start)
        if number:
            counted.append((sizes.sum().item(), flop(model, ours.top, sizes.sum().item(), (sizes**2).sum().item())))
    rate = matrix_rate(shape, dtype)
    print(
        f"\nalignment update of {ROWS} pairs, {dtype}, median of {rounds} rounds; matrices at {rate / 1e9:.0f} GFLOP/s"
    )
    for way, times in seconds.items():
        speed = statistics.median(tokens / s for s, (tokens, _) in zip(times, counted, strict=True))
        share = statistics.median(needed / s / rate for s, (_, needed) in zip(times, counted, strict=True))
        print(
            f"  {way:10}{statistics.median(times):8.3f} s {speed:9.0f} tokens/s {share:6.0%} of the rate "
            f"{ratio_of(seconds['packed'], times):7.2f}x"
        )
    return ratio_of(seconds["packed"], seconds["padded"])


def measure_trainings(shape: str, rounds: int, accumulation: int) -> float:
    """Joint training against SFT alone, with one task update a round; returns the ratio of their times."""
    model, words = build(shape), vocabulary_of(shape)
    tokenizer, depth = word_tokenizer(words), SHAPES[shape]["num_hidden_layers"]
    found = []
    for number in range(rounds + 1):
        count = ROWS * accumulation
        examples = make_examples(SHAPES[shape]["vocab_size"], count, number)
        data = (tokenizer, examples, make_pairs(words, count, number))
        times = [
            train(model, data, schedule, number, max_steps=1, gradient_accumulation_steps=accumulation)
            for schedule in ("task", "update")
        ]
        sizes = np.array([len(row) for row in examples["input_ids"]])
        scored = sum(label != -100 for row in examples["labels"] for label in row)
        if number:  # the first round warms up
            found.append((*times, sizes.sum(), flop(model, depth, sizes.sum(), (sizes**2).sum(), scored)))
    sft, joint, tokens, needed = (np.array(column) for column in zip(*found, strict=True))
    ratio = float(np.median(joint / sft))
    share = np.median(needed / sft) / matrix_rate(shape, dtype_here())
    print(
        f"\n{accumulation} x {ROWS} pairs to as many examples, {dtype_here()}, median of {rounds} rounds\n"
        f"  SFT {np.median(sft):.2f} s an update ({np.median(tokens / sft):.0f} tokens/s, {share:.0%} of the rate), "
        f"joint {np.median(joint):.2f} s: {ratio:.3f}x"
    )
    return ratio


def measure_memory(shape: str, quick: bool) -> float:
    """Peak memory of joint training against SFT alone, in processes of their own."""
    peaks = []
    for schedule in ("task", "update"):
        command = [sys.executable, __file__, "--shape", shape, "--peak", schedule, *(["--quick"] if quick else [])]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        peaks.append(float(out.rpartition("PEAK ")[2]))
    print(f"\npeak memory: SFT {peaks[0]:.0f} MiB, joint {peaks[1]:.0f} MiB: {peaks[1] / peaks[0]:.3f}x")
    return peaks[1] / peaks[0]


def print_peak(shape: str, schedule: str, updates: int) -> None:
    words = vocabulary_of(shape)
    pairs = make_pairs(words, ROWS, 0, LONGEST)
    data = (word_tokenizer(words), make_examples(SHAPES[shape]["vocab_size"], ROWS * updates, 0), pairs)
    train(build(shape), data, schedule, 0, max_steps=updates, gradient_accumulation_steps=1)
    print(f"PEAK {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}")


def ratio_of(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))


def vocabulary_of(shape: str) -> list[str]:
    return [f"w{i}" for i in range(SHAPES[shape]["vocab_size"] - 4)]


def dtype_here() -> torch.dtype:
    return torch.bfloat16 if cpu_computes_in_bfloat16() else torch.float32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of each, to see that it runs")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="smollm2")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        print_peak(args.shape, args.peak, 1 if args.quick else 2)
        return
    print(f"{args.shape}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    rounds = 1 if args.quick else 5
    memory = measure_memory(args.shape, args.quick)  # first, while this process holds no model of its own
    padded = 0.0
    for dtype in dict.fromkeys((torch.float32, dtype_here())):
        padded = measure_updates(args.shape, dtype, rounds)
    ratios = [measure_trainings(args.shape, rounds, accumulation) for accumulation in (1, 4)]
    print(f"\njoint/sft {max(ratios):.3f} memory {memory:.3f} padded/ours {padded:.2f}")


if __name__ == "__main__":
    main()
