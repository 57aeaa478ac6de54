"""The testbed's base model: a tokenizer and a tiny Llama, pretrained from scratch on `corpus` text.

1. The tokenizer is a byte-level BPE trained on a sample in which every language has the same number of documents.
2. The batch of step s is a pure function of (seed, s), so a resumed run gets the same batches as an uninterrupted one.
3. Muon for the matrices of the blocks and AdamW for the rest, linear warm-up, cosine to a tenth of the peak; forward
   and backward in bfloat16 autocast, weights in float32.
4. Checkpoints are written to a new folder and renamed, so that a killed run never leaves a half-written one.
"""

from __future__ import annotations

import json
import logging
import math
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from midalign.errors import RunError
from midalign.files import whole
from midalign.progress import Progress
from midalign.testbed.cards import pretraining_card, write_cards
from midalign.testbed.chance import chance
from midalign.testbed.corpus import Corpus, Document
from midalign.testbed.lexicon import DEMO_LANGUAGES, LANGUAGES
from midalign.testbed.tokenizer import train_tokenizer
from midalign.testbed.world import World

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Profile:
    """Profile of a base model: everything that decides the result, except the seed.

    Attributes:
        languages: Canonical codes, English among them.
        vocabulary: Size of the tokenizer.
        hidden: Width of the model.
        layers: Number of decoder blocks.
        intermediate: Width inside the MLPs.
        heads: Attention heads.
        steps: Optimiser updates.
        rows: Sequences per batch.
        length: Tokens per sequence.
        learning_rate: Peak of the learning rate.
        bilingual: Share of documents that are bilingual, a fraction.
        tokenizer_documents: Documents per language that the tokenizer is trained on.
        list_steps: Further updates after the others, in which a third of the documents are `Corpus.lists`.
    """

    languages: tuple[str, ...]
    vocabulary: int
    hidden: int
    layers: int
    intermediate: int
    heads: int
    steps: int
    rows: int = 16
    length: int = 128
    learning_rate: float = 2e-3
    bilingual: float = 0.02
    tokenizer_documents: int = 1500
    list_steps: int = 0

    @property
    def all_steps(self) -> int:
        """Optimiser updates in all."""
        return self.steps + self.list_steps


PROFILES: dict[str, Profile] = {
    "demo": Profile(
        languages=DEMO_LANGUAGES,
        vocabulary=3072,
        hidden=128,
        layers=6,
        intermediate=352,
        heads=4,
        steps=550,
        learning_rate=3e-3,
        tokenizer_documents=600,
        list_steps=60,
    ),
    "base": Profile(
        languages=tuple(LANGUAGES),
        vocabulary=8192,
        hidden=128,
        layers=10,
        intermediate=352,
        heads=4,
        steps=3000,
        learning_rate=1e-2,
        bilingual=0.04,  # of documents; below 5 % of tokens
        list_steps=150,
    ),
}


@dataclass
class Packer:
    """Packs documents into batches: each row is a run of documents ``<s> text </s>``, the last one truncated."""

    corpus: Corpus
    tokenizer: PreTrainedTokenizerFast
    rows: int
    length: int
    seed: int
    lists_from: int | None = None
    """From this step on, a third of the documents are lists."""

    def batch(self, step: int, count: Counter[tuple[str, str]] | None = None) -> torch.Tensor:
        """The token ids of one step, ``(rows, length)``; a pure function of (seed, step).

        Args:
            step: Number of the optimiser update, from 0.
            count: If given, tokens are added to it by (language, kind of document).
        """
        rng = chance(f"batch {self.seed} {step}")
        eos = self.tokenizer.eos_token_id
        out = []
        for _ in range(self.rows):
            row: list[int] = []
            while len(row) < self.length:
                document = self._document(step, rng)
                ids = self.tokenizer(document.text)["input_ids"] + [eos]
                if count is not None:
                    count[document.language, document.kind] += min(len(ids), self.length - len(row))
                row += ids
            out.append(row[: self.length])
        return torch.tensor(out)

    def _document(self, step: int, rng: random.Random) -> Document:
        if self.lists_from is not None and step >= self.lists_from and rng.random() < 1 / 3:
            return self.corpus.lists(rng.choice(self.corpus.world.languages), rng)
        return self.corpus.draw(rng)


def new_model(profile: Profile, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """An untrained model of the profile's size, in float32."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=profile.hidden,
        intermediate_size=profile.intermediate,
        num_hidden_layers=profile.layers,
        num_attention_heads=profile.heads,
        num_key_value_heads=profile.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    # For rows this short, torch's fused attention is several times slower on a CPU than the plain products.
    model: LlamaForCausalLM = LlamaForCausalLM._from_config(config, attn_implementation="eager")
    return model.float()


def learning_rate(step: int, profile: Profile) -> float:
    """Learning rate: linear warm-up over 3 %, then a cosine to a tenth of the peak; for lists a falling quarter."""
    if step >= profile.steps:
        return profile.learning_rate * 0.25 * (1 - (step - profile.steps) / max(1, profile.list_steps))
    warm = max(1, round(0.03 * profile.steps))
    if step < warm:
        return profile.learning_rate * (step + 1) / warm
    share = (step - warm) / max(1, profile.steps - warm)
    return profile.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * share)))


_CHECKPOINT_SECONDS = 300


def build_base(
    out: Path,
    *,
    seed: int = 0,
    profile: Profile = PROFILES["base"],
    threads: int | None = None,
    resume: bool = True,
    progress: Progress | None = None,
    snapshot_steps: int = 0,
    stop_after: int | None = None,
    compiled: bool = False,
) -> Path:
    """Trains tokenizer and model from scratch and saves them as a Hugging Face folder.

    Args:
        out: Folder of the model; ``out/checkpoint`` holds the state of an unfinished run.
        seed: Decides what is held out, the text, its order, and the initial weights.
        profile: Sizes and schedule.
        threads: Threads of torch; None leaves them as they are.
        resume: Resume from ``out/checkpoint`` if there is one; otherwise start anew.
        progress: Called after every tenth step.
        snapshot_steps: Steps between two snapshots of the bfloat16 weights in ``out/snapshots``; 0 keeps none.
        stop_after: Stop, with a checkpoint, after this many steps in all (for tests of resuming).
        compiled: Compile the model (needs a C++ compiler); nearly twice as fast, with losses that differ in rounding.

    Returns:
        ``out``.

    Raises:
        RunError: The checkpoint belongs to another seed or profile, `out` is a file, or PyTorch is too old.
    """
    if out.exists() and not out.is_dir():
        raise RunError(f"{str(out)!r} is a file, and the model is a folder; name another one")
    if threads is not None:
        torch.set_num_threads(threads)
    recipe = json.loads(json.dumps({"seed": seed, **asdict(profile)}))
    corpus = Corpus(World(seed, profile.languages), bilingual=profile.bilingual)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(corpus, vocabulary=profile.vocabulary, documents=profile.tokenizer_documents, seed=seed)
    state = _Training(recipe, profile, tokenizer, new_model(profile, tokenizer, seed))
    checkpoint = out / "checkpoint"
    if resume and checkpoint.is_dir():
        state.load(checkpoint)
    if compiled:
        state.forward = torch.compile(state.model)
    packer = Packer(corpus, tokenizer, profile.rows, profile.length, seed, profile.steps)
    last_saved = started = time.monotonic()
    first = state.step
    end = profile.all_steps if stop_after is None else min(stop_after, profile.all_steps)
    while state.step < end:
        loss = state.update(packer.batch(state.step, state.tokens))
        state.losses.append(loss)
        if progress is not None and (state.step % 10 == 0 or state.step == end):
            done = (state.step - first) * profile.rows * profile.length
            rate = done / (time.monotonic() - started)
            progress(
                f"pretraining the small base model (loss {loss:.2f}, {rate:.0f} tokens/s)",
                state.step,
                profile.all_steps,
            )
        if snapshot_steps and state.step % snapshot_steps == 0:
            _save_model(state.model, tokenizer, out / "snapshots" / f"step-{state.step:06d}")
        if time.monotonic() - last_saved > _CHECKPOINT_SECONDS or state.step == end:
            state.save(checkpoint)
            last_saved = time.monotonic()
    if state.step >= profile.all_steps:
        _save_model(state.model, tokenizer, out)
        write_cards(out, state.card())
    return out


@dataclass
class _Training:
    """State of a run: model, optimiser, step, and counts of tokens."""

    recipe: dict[str, Any]
    profile: Profile
    tokenizer: PreTrainedTokenizerFast
    model: LlamaForCausalLM

    def __post_init__(self) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise RunError(
                f"a base is built with PyTorch 2.9 or newer, which has the optimizer Muon; this is {torch.__version__}"
            )
        # Muon with its update scaled to AdamW's (Liu et al. 2025), so that both take the same learning rate.
        named = list(self.model.named_parameters())
        hidden = [p for name, p in named if p.ndim == 2 and "embed" not in name]
        rest = [p for name, p in named if p.ndim != 2 or "embed" in name]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(hidden, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        self.forward: Callable[..., Any] = self.model
        self.step = 0
        self.losses: list[float] = []
        self.tokens: Counter[tuple[str, str]] = Counter()

    def update(self, batch: torch.Tensor) -> float:
        """One optimiser update; returns the loss before it."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(self.step, self.profile)
        with torch.autocast("cpu", torch.bfloat16):
            loss = self.forward(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return float(loss.detach())

    def save(self, folder: Path) -> None:
        """Writes the state atomically."""
        weights = {name: p.detach().contiguous() for name, p in self.model.named_parameters()}
        with whole(folder) as fresh:
            fresh.mkdir()
            save_file(weights, fresh / "model.safetensors")
            torch.save([optimizer.state_dict() for optimizer in self.optimizers], fresh / "optimizer.pt")
            (fresh / "state.json").write_text(json.dumps({"step": self.step, **self._counts(), "recipe": self.recipe}))

    def load(self, folder: Path) -> None:
        """Restores what `save` wrote."""
        saved = json.loads((folder / "state.json").read_text())
        if saved["recipe"] != self.recipe:
            wrong = sorted(k for k in self.recipe if saved["recipe"].get(k) != self.recipe[k])
            raise RunError(
                f"{folder} holds a checkpoint of another base (different: {', '.join(wrong)}); continuing from it "
                f"would give a model that no seed can reproduce. Use another folder, or delete {folder} to start again."
            )
        with torch.no_grad():
            weights = load_file(folder / "model.safetensors")
            for name, parameter in self.model.named_parameters():
                parameter.copy_(weights[name])
        states = torch.load(folder / "optimizer.pt", weights_only=True)
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)
        self.step = saved["step"]
        self.losses = saved["losses"]
        self.tokens = Counter({tuple(key.split(" ", 1)): n for key, n in saved["tokens"].items()})

    def _counts(self) -> dict[str, Any]:
        return {"losses": self.losses, "tokens": {" ".join(key): n for key, n in sorted(self.tokens.items())}}

    def card(self) -> dict[str, Any]:
        """The data for the model card of this run (`midalign.testbed.cards`)."""
        parameters = sum(p.numel() for p in self.model.parameters())
        return pretraining_card(self.recipe, parameters, self.losses, self.tokens)


def _save_model(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Saves a bfloat16 copy of the model, and the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
