"""Probing: translation retrieval at every layer, by language and group, with intervals.

1. Sentence vectors of all layers in one pass (`midalign.models.encoding`), from a cache where there is one.
2. Per layer, retrieval in all directions with a margin and with plain cosine (`midalign.functional.retrieval`).
3. Per layer, language and group, accuracies with intervals over resampled sentences (`midalign.probing.statistics`).

The result is a `midalign.probing.result.ProbeResult`; `midalign.probing.comparison` compares two of them.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from transformers import PreTrainedTokenizerBase

from midalign.data.parallel.corpus import ParallelCorpus
from midalign.errors import DataError, ModelError
from midalign.functional.margin import check_options
from midalign.functional.names import BEHIND_SINK
from midalign.functional.pooling import check_pooling
from midalign.functional.retrieval import retrieve_all
from midalign.languages import canonical
from midalign.models.encoding import Encoder, SentenceVectors, encode_corpus
from midalign.models.hidden import unwrap
from midalign.models.limits import check_ids, context_window
from midalign.models.tokens import BehindSink, Tokens, tokenize
from midalign.models.vector_cache import weights_key
from midalign.probing.cache import finished_path, read_finished, write_finished
from midalign.probing.content import ProbeContent
from midalign.probing.result import ProbeResult
from midalign.probing.statistics import (
    HitArray,
    best_layer_bootstrap,
    clean,
    fertility,
    find_groups,
    hit_counts,
    interval,
    layer_numbers,
    project,
    resampled,
    shares,
)
from midalign.progress import Progress
from midalign.records import RESAMPLES

Corpus = Mapping[str, Sequence[str]] | ParallelCorpus

PROJECTED = 30  # sentences on the 2-D map


def probe(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    *,
    pooling: str = "mean",
    margin: str = "ratio",
    k: int = 4,
    candidates: str = "all",
    groups: Mapping[str, Collection[str]] | None = None,
    layers: Sequence[int] | None = None,
    batch_tokens: int | None = None,
    cache: Path | None = None,
    cache_key: str | None = None,
    progress: Progress | None = None,
    seed: int = 0,
) -> ProbeResult:
    """Probe one model: translation retrieval in all directions at every layer (arXiv 2502.14830, section 2).

    Args:
        model: Any decoder-only causal language model, plain or with a PEFT adapter.
        tokenizer: Its tokenizer.
        corpus: A parallel corpus, or a mapping from language to a list of sentences. All lists have the same length,
            and sentence i of each list is a translation of sentence i of the others.
        pooling: One of `midalign.functional.names.POOLINGS`; ``mean`` is the paper's.
        margin: One of `midalign.functional.names.MARGINS`; ``ratio`` is the paper's. Plain cosine is reported beside
            it.
        k: Neighbours in the margin; 4 as in Artetxe and Schwenk 2019.
        candidates: ``all`` scores every sentence; ``nearest`` the k nearest by cosine, as LASER's xsim does.
        groups: Groups of languages to report (``low_resource``, ...); scripts and families are always reported.
        layers: Which layers, 0 (embeddings) to depth; all by default.
        batch_tokens: Padded tokens in a batch; halved when memory runs out. None is 16,384 on an accelerator and 1,024
            on a CPU, where larger batches are slower.
        cache: Folder for sentence vectors and finished layers. A second probe recomputes only what its options change,
            and an interrupted probe resumes at the language or layer where it stopped. None holds all vectors in
            memory.
        cache_key: Identifies model and adapter in the cache, for example name and revision. None hashes the weights,
            which takes about one second per GB.
        progress: Called with ``"encode"`` and sentences done, or ``"retrieve"`` and pairs of languages done over all
            layers, and with the total.
        seed: Seed of the bootstrap, and of the choice of sentences for the 2-D projection.

    Returns:
        The result; under ``accelerate launch`` the same on every process.

    Raises:
        OptionError: If a name is unknown, or ``k`` does not fit the number of sentences.
        LanguageError: If a language code is not known.
        DataError: If the languages differ in their number of sentences, or a sentence is empty.
        ModelError: If the model has no such layer, or its vectors are not finite.
        RunError: If the cache cannot be written to.

    Examples:
        >>> english = ["wake me at nine", "turn on the light", "play some music"]
        >>> german = ["weck mich um neun", "mach das licht an", "spiel etwas musik"]
        >>> result = midalign.probe(model, tokenizer, {"eng_Latn": english, "deu_Latn": german}, k=2)
        >>> result.layers
        [0, 1, 2, 3, 4]
        >>> result.by_language(result.best_layer).keys()
        dict_keys(['eng_Latn', 'deu_Latn'])
    """
    return probe_poolings(
        model, tokenizer, corpus, poolings=(pooling,), margin=margin, k=k, candidates=candidates, groups=groups,
        layers=layers, batch_tokens=batch_tokens, cache=cache, cache_key=cache_key, progress=progress, seed=seed,
    )[pooling]  # fmt: skip


def probe_poolings(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    *,
    poolings: Sequence[str],
    margin: str = "ratio",
    k: int = 4,
    candidates: str = "all",
    groups: Mapping[str, Collection[str]] | None = None,
    layers: Sequence[int] | None = None,
    batch_tokens: int | None = None,
    cache: Path | None = None,
    cache_key: str | None = None,
    progress: Progress | None = None,
    seed: int = 0,
) -> dict[str, ProbeResult]:
    """`probe` with several poolings in one pass over the text; arguments and errors as there.

    Poolings of sentences behind a sink token need a pass of their own, where the tokenizer adds none.

    Returns:
        The result of each pooling.
    """
    for pooling in poolings:
        check_pooling(pooling)
    texts = _texts(corpus)
    n = len(next(iter(texts.values())))
    check_options((margin,), k, candidates, n)
    named = {name: [canonical(code, f"group {name}") for code in codes] for name, codes in (groups or {}).items()}
    about = {
        "languages": list(texts), "n": n, "margin": margin, "k": k, "candidates": candidates, "seed": seed,
        "resamples": RESAMPLES, "data": _data_hash(texts), "groups": find_groups(list(texts), named),
    }  # fmt: skip
    key = "" if cache is None else cache_key or weights_key(model)
    sinks = {pooling: BehindSink(tokenizer).sink if pooling in BEHIND_SINK else () for pooling in poolings}
    results: dict[str, ProbeResult] = {}
    for sink in dict.fromkeys(sinks.values()):
        encoder = Encoder(
            model, poolings=[pooling for pooling in poolings if sinks[pooling] == sink], layers=layers,
            batch_tokens=batch_tokens, pad_id=tokenizer.pad_token_id or 0,
        )  # fmt: skip
        tokens = _tokens(model, tokenizer, texts, sink)
        vectors = encode_corpus(encoder, tokens, cache=cache, model_key=key, progress=progress)
        results |= _score_all(vectors, encoder, about | {"fertility": _fertilities(texts, tokens)}, progress)
    return {pooling: results[pooling] for pooling in poolings}


def _tokens(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, texts: Mapping[str, Sequence[str]], sink: Sequence[int]
) -> dict[str, Tokens]:
    """The tokens of each language, cut at the window, behind a sink token where one is asked for."""
    config = unwrap(model).config
    longest = context_window(config, tokenizer)
    found = {language: tokenize(tokenizer, text, longest, language, sink=sink) for language, text in texts.items()}
    for language, tokens in found.items():
        check_ids(tokens.ids, tokenizer, config, language)
    return found


def _fertilities(texts: Mapping[str, Sequence[str]], tokens: Mapping[str, Tokens]) -> dict[str, dict[str, Any]]:
    return {
        language: fertility(language, texts[language], found.content) | {"truncated": found.truncated}
        for language, found in tokens.items()
    }


def _score_all(
    vectors: SentenceVectors, encoder: Encoder, about: Mapping[str, Any], progress: Progress | None
) -> dict[str, ProbeResult]:
    """The result of each pooling, on every process."""
    results: list[dict[str, ProbeResult] | None] = [None]
    if encoder.rank == 0:
        device = next(encoder.model.parameters()).device
        results = [{pooling: _score(vectors, pooling, about, device, progress) for pooling in encoder.poolings}]
    if encoder.world > 1:
        dist.broadcast_object_list(results)
    assert results[0] is not None
    return results[0]


def _texts(corpus: Corpus) -> dict[str, list[str]]:
    """The sentences by canonical language, checked to be parallel."""
    if isinstance(corpus, ParallelCorpus):
        return corpus.multiway()
    texts: dict[str, list[str]] = {}
    for code, sentences in corpus.items():
        language = canonical(code, "corpus")
        if language in texts:
            raise DataError(f"the corpus names {language} twice (once as {code!r}); each language can be probed once")
        texts[language] = list(sentences)
    if len(texts) < 2:
        raise DataError(f"the corpus has {len(texts)} language(s), but retrieval needs two or more; name another")
    counts = {language: len(sentences) for language, sentences in texts.items()}
    if len(set(counts.values())) > 1:
        raise DataError(
            f"the languages have unequal numbers of sentences ({counts}), so they cannot be parallel: sentence i of "
            "each must be a translation of sentence i of the others"
        )
    return texts


def _score(
    vectors: SentenceVectors,
    pooling: str,
    about: Mapping[str, Any],
    device: torch.device,
    progress: Progress | None,
) -> ProbeResult:
    """Retrieval at every layer and everything that follows from it."""
    languages = about["languages"]
    pairs = len(languages) * (len(languages) - 1) // 2
    entries, counts = [], []
    for place, layer in enumerate(vectors.layers):

        def report(stage: str, done: int, _total: int, before: int = place * pairs) -> None:
            if progress is not None:
                progress(stage, before + done, len(vectors.layers) * pairs)

        path = finished_path(vectors.files(pooling), layer, about)
        found = None if path is None else read_finished(path)
        if found is None:
            found = _score_layer(vectors, pooling, layer, about, device, report)
            if path is not None:
                write_finished(path, *found)
        else:
            report("retrieve", pairs, pairs)
        entries.append(found[0])
        counts.append(found[1])
    hit_table = np.stack(counts)
    extra = _uncertainty(hit_table, vectors.layers, about, entries)
    best_layer = extra["best_layer"]
    rows = sorted(random.Random(about["seed"]).sample(range(vectors.n), min(PROJECTED, vectors.n)))  # noqa: S311
    projection = {"layer": best_layer} | project(vectors.layer(best_layer, pooling), rows)
    content = {**about, "pooling": pooling, **extra, "projection": projection, "layers": entries}
    return ProbeResult(cast("ProbeContent", content), hit_table)


def _score_layer(
    vectors: SentenceVectors,
    pooling: str,
    layer: int,
    about: Mapping[str, Any],
    device: torch.device,
    progress: Progress,
) -> tuple[dict[str, Any], HitArray]:
    """Retrieval at one layer: its numbers without intervals, and its hits ``(N, n)``."""
    here = {language: values.to(device) for language, values in vectors.layer(layer, pooling).items()}
    margin = about["margin"]
    margins = tuple(dict.fromkeys((margin, "cosine")))
    try:
        predictions = retrieve_all(here, margins, about["k"], about["candidates"], progress=progress)
    except ModelError as fault:  # NaN or zero vectors; it names the language and the sentence
        raise ModelError(f"layer {layer}, {fault}") from fault
    return layer_numbers(layer, here, predictions, margin), hit_counts(predictions[margin])


def _uncertainty(
    hit_table: HitArray, layers: Sequence[int], about: Mapping[str, Any], entries: list[dict[str, Any]]
) -> dict[str, Any]:
    """Add intervals, groups and languages to each layer's entry; return what concerns the best layer."""
    members = {name: group["languages"] for name, group in about["groups"].items()}
    table = shares(hit_table, about["languages"], members)
    means, draws = table.mean(axis=0), resampled(table, about["seed"], about["resamples"])
    given = [name for name, group in about["groups"].items() if group["kind"] == "given"]
    for place, entry in enumerate(entries):
        entry["interval"] = interval(draws[:, place, 0])
        names = list(members)
        entry["groups"] = {name: clean(means[place, 1 + i]) for i, name in enumerate(names)}
        entry["group_intervals"] = {name: interval(draws[:, place, 1 + i]) for i, name in enumerate(names)}
        entry["by_language"] = [clean(value) for value in means[place, 1 + len(names) :]]
        entry["gaps"] = {}
        for name in given:
            column = 1 + names.index(name)
            low, high = interval(draws[:, place, 0] - draws[:, place, column])
            entry["gaps"][name] = {
                "difference": clean(means[place, 0] - means[place, column]), "low": low, "high": high,
            }  # fmt: skip
    best = int(means[:, 0].argmax())
    return {
        "best_layer": layers[best],
        "best_layer_bootstrap": best_layer_bootstrap(layers, means[:, 0], draws[:, :, 0], best),
    }


def _data_hash(texts: Mapping[str, Sequence[str]]) -> str:
    return hashlib.sha256(json.dumps(texts, ensure_ascii=False).encode()).hexdigest()
