"""What an alignment update costs, and what a joint run costs against SFT alone. CPU; medians of interleaved runs.

    python benchmarks/alignment_cost.py [--quick] [--only update|joint] [--size demo|large]

1. one alignment batch (32 pairs, forward and backward) through blocks 1 to k only, against
   (a) the full forward with all hidden states and the LM head over every position, and
   (b) blocks 1 to k plus the full LM head in float32, which is what the reference implementation does;
2. a whole joint run against SFT alone with the same number of task updates: wall time and peak memory.

Sentences are made of random words, so that no data is needed: pairs of 3 to 15 words (Tatoeba's have 7 in the median),
commands of 3 to 15 words (xSID's have 7) in the prompt that midalign puts around a command, and answers of 8 words.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time

import torch

SIZES = {
    "demo (6 layers, hidden 128, vocabulary 3k)": dict(
        num_hidden_layers=6, hidden_size=128, intermediate_size=352, num_attention_heads=4, vocab_size=3072
    ),
    "12 layers, hidden 512, vocabulary 32k": dict(
        num_hidden_layers=12, hidden_size=512, intermediate_size=1376, num_attention_heads=8, vocab_size=32000
    ),
}


def build(size: dict[str, int]):
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(num_key_value_heads=size["num_attention_heads"], **size)
    lora = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(LlamaForCausalLM(config), lora).train()


def pairs_batch(vocabulary: int, rows: int = 64, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 16, (rows,), generator=generator)
    mask = (torch.arange(int(lengths.max()))[None] < lengths[:, None]).long()
    ids = torch.randint(3, vocabulary, mask.shape, generator=generator) * mask
    keys = torch.randint(0, 2**62, (rows // 2, 3), generator=generator)
    masks = {"attention_mask": mask, "special_tokens_mask": torch.zeros_like(mask), "pooled_mask": mask}
    return {"input_ids": ids, **masks, "pair_keys": keys}


def variants(model, batch, depth):
    from midalign.functional.pooling import pool
    from midalign.models.hidden import stopped_after
    from midalign.recipe.alignment import AlignmentConfig
    from midalign.training.objective import AlignmentObjective

    objective = AlignmentObjective.for_depth(AlignmentConfig(), depth)
    k = objective.top
    ids, mask = batch["input_ids"], batch["attention_mask"]

    def ours():
        objective.loss(model, batch).backward()

    def full():
        out = model(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
        objective.loss_of({k: pool(out.hidden_states[k], mask)}, batch["pair_keys"]).backward()

    def reference():
        with stopped_after(model, k):
            out = model(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
        out.logits.float()
        objective.loss_of({k: pool(out.hidden_states[k], mask)}, batch["pair_keys"]).backward()

    return {"ours": ours, "full": full, "reference": reference}


def update_cost(name: str, size: dict[str, int], repeats: int) -> None:
    model = build(size)
    runs = variants(model, pairs_batch(size["vocab_size"]), size["num_hidden_layers"])
    times: dict[str, list[float]] = {run: [] for run in runs}
    for repeat in range(repeats + 1):
        for run, step in runs.items():
            start = time.perf_counter()
            step()
            if repeat:  # the first round warms up
                times[run].append(time.perf_counter() - start)
            model.zero_grad()
    medians = {run: statistics.median(values) for run, values in times.items()}
    ratios = {
        run: statistics.median(a / b for a, b in zip(times[run], times["ours"], strict=True))
        for run in ("full", "reference")
    }
    print(f"\nalignment update, {name}: median of {repeats} interleaved rounds")
    print(f"  ours, blocks 1 to k                 {1000 * medians['ours']:9.1f} ms")
    print(f"  (a) full forward and head           {1000 * medians['full']:9.1f} ms   {ratios['full']:.2f}x ours")
    print(
        f"  (b) blocks 1 to k and the full head {1000 * medians['reference']:9.1f} ms   {ratios['reference']:.2f}x ours"
    )


def one_run(name: str, schedule: str, task_updates: int) -> None:
    """One training run in a process of its own; prints its seconds and its peak memory in MiB."""
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig

    from midalign.data.prompts import render
    from midalign.recipe.alignment import AlignmentConfig
    from midalign.records import ParallelPair, TaskExample
    from midalign.training.trainer import AlignmentTrainer

    size = SIZES[name]
    generator = torch.Generator().manual_seed(1)
    words = [f"w{i}" for i in range(size["vocab_size"] - 4)]
    tokenizer = word_tokenizer(words, PreTrainedTokenizerFast)

    def sentence(low: int, high: int) -> str:
        length = int(torch.randint(low, high, (), generator=generator))
        return " ".join(words[int(i)] for i in torch.randint(0, len(words), (length,), generator=generator))

    examples = [
        TaskExample(str(i), "slots", "eng_Latn", sentence(3, 16), intent="x", reference=sentence(8, 9))
        for i in range(256)
    ]
    rows = []
    for example in examples:
        prompt = tokenizer(render(example, tokenizer).text)["input_ids"]
        answer = tokenizer(example.reference)["input_ids"]
        rows.append({"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer})
    pairs = [ParallelPair(sentence(3, 16), sentence(3, 16), "eng_Latn", "deu_Latn", str(i)) for i in range(400)]
    model = build(size)
    trainer = AlignmentTrainer(
        model, args=SFTConfig(
            output_dir="/tmp/alignment-cost", max_steps=task_updates, per_device_train_batch_size=32, bf16=False,
            use_cpu=True, gradient_checkpointing=False, save_strategy="no", report_to="none", disable_tqdm=True,
            logging_steps=1000,
        ),
        train_dataset=Dataset.from_list(rows), processing_class=tokenizer, pairs=pairs,
        alignment=AlignmentConfig(schedule=schedule),
    )  # fmt: skip
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    print(f"RESULT {seconds} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}")


def word_tokenizer(words: list[str], kind):
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *words])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return kind(tokenizer_object=inner, eos_token="</s>", pad_token="<pad>", bos_token="<s>", unk_token="<unk>")


def joint_cost(name: str, task_updates: int, repeats: int) -> None:
    found: dict[str, list[tuple[float, float]]] = {"task": [], "update": []}
    for _ in range(repeats):
        for schedule, values in found.items():
            command = [sys.executable, __file__, "--one", name, schedule, str(task_updates)]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            line = next(line for line in out.splitlines() if line.startswith("RESULT"))
            values.append(tuple(map(float, line.split()[1:])))
    pairs = list(zip(found["task"], found["update"], strict=True))
    time_ratio = statistics.median(joint[0] / sft[0] for sft, joint in pairs)
    memory_ratio = statistics.median(joint[1] / sft[1] for sft, joint in pairs)
    seconds = [statistics.median(values[i][0] for values in pairs) for i in (0, 1)]
    print(f"\n{task_updates} task updates, {name}: median of {repeats} interleaved runs")
    print(f"  SFT alone {seconds[0]:7.1f} s   joint (as many alignment updates on top) {seconds[1]:7.1f} s")
    print(f"  wall time {time_ratio:.2f}x   peak memory {memory_ratio:.3f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds, to see that it runs")
    parser.add_argument("--only", choices=("update", "joint"), help="one of the two measurements")
    parser.add_argument("--size", choices=("demo", "large"), help="one of the two models")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one_run(args.one[0], args.one[1], int(args.one[2]))
        return
    names = {"demo": list(SIZES)[:1], "large": list(SIZES)[1:]}.get(args.size, list(SIZES))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name in names if args.only != "joint" else []:
        update_cost(name, SIZES[name], 3 if args.quick else 15)
    for name in names if args.only != "update" else []:
        joint_cost(name, 4 if args.quick else 20, 1 if args.quick else 3)


if __name__ == "__main__":
    main()
