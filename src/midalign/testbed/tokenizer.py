"""The testbed's tokenizer: byte-level BPE whose words keep their combining vowel signs."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from midalign.testbed.chance import chance
from midalign.testbed.corpus import Corpus

_SPECIAL = ("<pad>", "<s>", "</s>")
# One digit or symbol (such as an emoji) a token, a word with the space before it, runs of punctuation, white space.
# Unlike GPT-2's pattern this keeps combining vowel signs (Devanagari, Thai, Malayalam) with their word.
_PIECES = r"\p{N}| ?\p{S}| ?[^\s\p{N}\p{P}\p{S}]+| ?\p{P}+|\s"


def train_tokenizer(corpus: Corpus, *, vocabulary: int, documents: int, seed: int) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE in memory; it puts ``<s>`` before every text, and loses nothing of any text.

    Args:
        corpus: Source of the text.
        vocabulary: Number of tokens, special ones included.
        documents: Documents per language; the same number for each, so that rare languages are not split into bytes.
        seed: Seed of the sample.
    """
    rng = chance(f"tokenizer {seed}")
    sample = [corpus.document(c, rng).text for c in corpus.world.languages for _ in range(documents)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(_SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **dict(zip(("pad_token", "bos_token", "eos_token"), _SPECIAL, strict=True)),
        clean_up_tokenization_spaces=False,
    )
