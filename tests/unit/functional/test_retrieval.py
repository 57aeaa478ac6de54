"""All directions at once against one pair at a time; hubness and mean cosines against counts by hand."""

from __future__ import annotations

import zlib
from collections import Counter

import numpy as np
import pytest
import torch

from midalign.errors import ModelError, OptionError
from midalign.functional.margin import retrieval_accuracy, retrieve
from midalign.functional.names import CANDIDATES, MARGINS
from midalign.functional.retrieval import accuracy, accuracy_matrix, hits, hubness, mean_cosines, retrieve_all
from tests.conftest import DATA


def corpus(n_languages=4, n=60, d=16, noise=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    meaning = torch.randn(n, d, generator=generator)
    return torch.randn(d, generator=generator) + torch.stack(
        [meaning + noise * torch.randn(n, d, generator=generator) for _ in range(n_languages)]
    )


@pytest.mark.parametrize("candidates", CANDIDATES)
@pytest.mark.parametrize("block", [None, 7])
def test_every_direction_and_margin_equals_retrieval_of_that_pair_alone(candidates, block):
    vectors = corpus()
    predictions = retrieve_all(vectors, MARGINS, candidates=candidates, block=block)
    assert list(predictions) == list(MARGINS)
    for margin in MARGINS:
        assert predictions[margin].dtype == torch.int32
        for a in range(4):
            for b in range(4):
                found = predictions[margin][a, b]
                if a == b:
                    assert (found == -1).all()
                else:
                    expected, _ = retrieve(vectors[a], vectors[b], margin, candidates=candidates, block=block)
                    assert found.tolist() == expected.tolist()


def test_the_matrix_has_queries_in_rows_and_equals_the_mean_of_hits():
    vectors = corpus(noise=1.3)
    vectors[0] = vectors[1]
    matrix = accuracy_matrix(vectors, "cosine")
    assert matrix.shape == (4, 4)
    assert matrix.dtype == torch.float64
    assert matrix.diagonal().isnan().all()
    assert matrix[0, 1] == matrix[1, 0] == 1.0
    forward, backward = retrieval_accuracy(vectors[2], vectors[3], "cosine")
    assert (float(matrix[2, 3]), float(matrix[3, 2])) == (forward, backward)
    assert forward != backward, "a matrix the wrong way round would not show"
    found = hits(retrieve_all(vectors, ("cosine",))["cosine"])
    assert found.dtype == torch.bool
    assert found.shape == (4, 4, 60)
    off_diagonal = ~torch.eye(4, dtype=torch.bool)
    assert torch.equal(found.double().mean(dim=-1)[off_diagonal], matrix[off_diagonal])
    assert not found.diagonal().any()


def test_vectors_by_language_name_and_as_one_tensor_give_the_same():
    vectors = corpus()
    named = dict(zip(["deu", "eng", "fra", "jav"], vectors, strict=True))
    assert torch.equal(retrieve_all(named)["ratio"], retrieve_all(vectors)["ratio"])
    assert mean_cosines(named) == mean_cosines(vectors)


def test_permuting_languages_permutes_the_matrix():
    vectors, order = corpus(noise=1.3), torch.tensor([2, 0, 3, 1])
    expected = accuracy_matrix(vectors)[order][:, order]
    assert torch.equal(accuracy_matrix(vectors[order]).nan_to_num(-1), expected.nan_to_num(-1))


@pytest.mark.parametrize(("cells", "expected"), [(1, [1, 2, 3, 4, 5, 6]), (7200, [2, 3, 5, 6]), (1 << 22, [3, 5, 6])])
def test_languages_in_batches_of_any_size_give_the_same_and_progress_counts_pairs(monkeypatch, cells, expected):
    vectors, seen = corpus(noise=1.3), []
    alone = torch.stack([torch.stack([retrieve(x, y)[0] for y in vectors]) for x in vectors])
    monkeypatch.setattr("midalign.functional.margin._BATCH_CELLS_CPU", cells)
    found = retrieve_all(vectors, progress=lambda _stage, done, total: seen.append((done, total)))["ratio"]
    assert seen == [(done, 6) for done in expected]
    off_diagonal = ~torch.eye(4, dtype=torch.bool)
    assert torch.equal(found[off_diagonal].long(), alone[off_diagonal])


def test_inputs_are_not_changed():
    vectors = corpus()
    before = vectors.clone()
    retrieve_all(vectors)
    mean_cosines(vectors)
    assert torch.equal(vectors, before)


@pytest.mark.parametrize(
    ("vectors", "options", "error", "says"),
    [
        ({"deu": torch.ones(6, 3)}, {}, OptionError, "two languages or more, not 1"),
        ({}, {}, OptionError, "two languages or more, not 0"),
        (
            {"deu": torch.ones(6, 3), "fra": torch.ones(5, 3)},
            {},
            ValueError,
            r"fra has vectors \(5, 3\) but deu \(6, 3\)",
        ),
        ({"deu": torch.ones(6, 3), "fra": torch.zeros(6, 3)}, {}, ModelError, "fra: .*sentence 0 is all zeros"),
        ({"deu": torch.ones(3, 3), "fra": torch.ones(3, 3)}, {}, OptionError, "k = 4 .*3 sentences"),
        ({"deu": torch.ones(6, 3), "fra": torch.ones(6, 3)}, {"margins": ()}, OptionError, "no margin"),
        ({"deu": torch.ones(6, 3), "fra": torch.ones(6, 3)}, {"margins": ("ratoi",)}, OptionError, "'ratoi'"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_language(vectors, options, error, says):
    with pytest.raises(error, match=says):
        retrieve_all(vectors, **options)


def test_hubness_counts_by_hand():
    one_each, hub = torch.arange(4), torch.tensor([2, 2, 2, 0])
    found = hubness(torch.stack([one_each, hub, torch.full((4,), -1)]).int())
    assert found.never.tolist()[:2] == [0.0, 0.5]
    assert found.top_share.tolist()[:2] == [0.25, 0.75]
    counts = np.array([1, 0, 3, 0]) - 1.0
    assert float(found.skewness[0]) == 0.0
    assert float(found.skewness[1]) == pytest.approx((counts**3).mean() / (counts**2).mean() ** 1.5)
    assert all(bool(values[2].isnan()) for values in found)


def test_hubness_of_all_directions_agrees_with_a_counter():
    predictions = retrieve_all(corpus(n=250, noise=2.0), ("cosine",))["cosine"]
    found = hubness(predictions)
    assert found.never.shape == (4, 4)
    assert found.never.diagonal().isnan().all()
    counter = Counter(predictions[1, 3].tolist())
    assert float(found.never[1, 3]) == pytest.approx(1 - len(counter) / 250)
    assert float(found.top_share[1, 3]) == pytest.approx(sum(c for _, c in counter.most_common(3)) / 250)


def test_mean_cosines_equal_a_double_loop_over_pairs_and_non_pairs():
    vectors = corpus(n_languages=3, n=12, d=5)
    pairs, non_pairs = [], []
    for a in range(3):
        for b in range(3):
            if a != b:
                cosines = torch.cosine_similarity(vectors[a][:, None].double(), vectors[b][None].double(), dim=-1)
                pairs += cosines.diagonal().tolist()
                non_pairs += cosines[~torch.eye(12, dtype=torch.bool)].tolist()
    found = mean_cosines(vectors)
    assert found.pairs == pytest.approx(np.mean(pairs), abs=1e-6)
    assert found.non_pairs == pytest.approx(np.mean(non_pairs), abs=1e-6)
    assert found.pairs > found.non_pairs > 0


def test_mean_cosine_of_non_pairs_of_a_single_sentence_is_nan():
    found = mean_cosines(torch.ones(2, 1, 3))
    assert found.pairs == pytest.approx(1.0)
    assert np.isnan(found.non_pairs)


def trigram_vectors(lines, d=512):
    """Hashed character trigram counts: vectors of real sentences without a model."""
    vectors = torch.zeros(len(lines), d)
    for row, line in enumerate(lines):
        text = f" {line.casefold()} "
        for i in range(len(text) - 2):
            vectors[row, zlib.crc32(text[i : i + 3].encode()) % d] += 1
    return vectors.sqrt()


@pytest.mark.data
def test_real_sentences_agree_with_plain_xsim_on_every_prediction():
    from tests.unit.functional.test_margin import plain_xsim

    files = {"dan": "newstest2019-ref.dan.txt", "swe": "newstest2019-ref.swe.txt", "deu": "newstest2019-ref.deu.txt"}
    paths = {name: DATA / "ntrex" / file for name, file in files.items()}
    if missing := [path for path in paths.values() if not path.is_file()]:
        pytest.skip(f"no NTREX at {missing[0]}: set MIDALIGN_DATA")
    vectors = {
        name: trigram_vectors(path.read_text(encoding="utf-8").split("\n")[:250]) for name, path in paths.items()
    }
    predictions = retrieve_all(vectors, candidates="nearest")["ratio"]
    for a, x in enumerate(vectors.values()):
        for b, y in enumerate(vectors.values()):
            if a != b:
                assert predictions[a, b].tolist() == plain_xsim(x, y)
    assert 0.2 < float(accuracy(predictions).nanmean()) < 1
