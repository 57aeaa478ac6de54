"""The stream of batches is a pure function of seed and step, and one window holds one objective."""

import collections
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midalign.recipe.schedule import Schedule
from midalign.training.sampler import AlternatingBatchSampler, resampled_pairs, shuffled_passes, task_stream


def sampler(**changes):
    options = dict(
        schedule=Schedule.parse("update"),
        updates=8,
        task_lengths=[1] * 10,
        pair_groups=[0] * 6 + [1] * 3,
        task_batch_size=2,
        pair_batch_size=3,
        accumulation=4,
        seed=3,
    )
    return AlternatingBatchSampler(**{**options, **changes})


def test_updates_alternate_task_and_align():
    batches = list(sampler())
    windows = [batches[i : i + 4] for i in range(0, len(batches), 4)]
    kinds = [{"task" if max(b) < 10 else "align" for b in window} for window in windows]
    assert kinds == [{"task"}, {"align"}] * 4
    assert {len(b) for w in windows[::2] for b in w} == {2}
    assert {len(b) for w in windows[1::2] for b in w} == {3}


def test_micro_batch_schedule_mixes_both_objectives_in_a_window():
    batches = list(sampler(schedule=Schedule.parse("micro_batch")))
    assert ["task" if max(b) < 10 else "align" for b in batches[:4]] == ["task", "align", "task", "align"]


def test_same_seed_gives_same_batches_and_another_seed_others():
    assert list(sampler()) == list(sampler())
    assert list(sampler()) != list(sampler(seed=4))


def test_two_processes_see_what_one_process_with_twice_the_accumulation_sees():
    one = list(sampler(accumulation=4))
    ranks = [list(sampler(accumulation=2, world_size=2, rank=r)) for r in (0, 1)]
    assert one == [batch for both in zip(*ranks, strict=True) for batch in both]


LENGTHS = [5, 9, 2, 7, 1, 8, 3, 6, 4, 10]


def test_by_length_a_window_holds_the_same_examples_longest_micro_batch_first():
    plain, sorted_ = (list(sampler(task_lengths=LENGTHS, by_length=by)) for by in (False, True))
    for start in range(0, len(plain), 4):
        before, after = plain[start : start + 4], sorted_[start : start + 4]
        assert sorted(itertools.chain(*before)) == sorted(itertools.chain(*after))
        if max(before[0]) < 10:
            lengths = [LENGTHS[example] for batch in after for example in batch]
            assert lengths == sorted(lengths, reverse=True)
        else:
            assert before == after, "negatives stay what they are"


def test_by_length_two_processes_see_what_one_process_with_twice_the_accumulation_sees():
    one = list(sampler(task_lengths=LENGTHS, by_length=True))
    ranks = [
        list(sampler(task_lengths=LENGTHS, by_length=True, accumulation=2, world_size=2, rank=rank)) for rank in (0, 1)
    ]
    assert one == [batch for both in zip(*ranks, strict=True) for batch in both]


@pytest.mark.parametrize("strategy", ["random", "sequential", "group_by_length"])
def test_every_strategy_takes_each_example_once_a_pass_and_the_same_with_the_same_seed(strategy):
    lengths = np.random.default_rng(0).integers(1, 99, 40).tolist()
    stream = task_stream(lengths, 100, 3, strategy, per_update=4)
    assert stream.tolist() == task_stream(lengths, 100, 3, strategy, per_update=4).tolist()
    assert [sorted(stream[start : start + 40]) for start in (0, 40)] == [list(range(40))] * 2
    assert len(stream) == 100
    if strategy == "sequential":
        assert stream[:40].tolist() == list(range(40))
    else:
        assert stream[:40].tolist() != stream[40:80].tolist()


def test_grouped_by_length_an_update_holds_examples_of_like_length():
    lengths = np.random.default_rng(0).integers(1, 999, 400)
    spread = {}
    for strategy in ("random", "group_by_length"):
        updates = lengths[task_stream(lengths.tolist(), 400, 3, strategy, per_update=8)].reshape(50, 8)
        spread[strategy] = np.mean(updates.max(axis=1) - updates.min(axis=1))
    assert spread["group_by_length"] < spread["random"] / 4


def test_more_updates_extend_the_task_stream_without_changing_its_start():
    longer = list(sampler(updates=20))
    assert [b for b in longer[:32] if max(b) < 10] == [b for b in sampler() if max(b) < 10]


def test_a_pass_holds_every_example_once():
    stream = shuffled_passes(7, 21, (0,))
    assert all(sorted(stream[i : i + 7]) == list(range(7)) for i in (0, 7, 14))


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_within_a_language_no_pair_comes_twice_before_all_came_once(sizes, seed):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    drawn = resampled_pairs(groups, 300, 0.0, seed)
    for number in range(len(sizes)):
        counts = collections.Counter(drawn[groups[drawn] == number].tolist())
        if counts:
            least = min(counts.values()) if len(counts) == sizes[number] else 0
            assert max(counts.values()) - least <= 1


@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (0, 2), (1, 2)])
def test_with_one_language_a_batch_all_processes_draw_it_alike(rank, world_size):
    groups = [0] * 60 + [1] * 30 + [2] * 20
    run = sampler(one_language=True, pair_groups=groups, updates=40, rank=rank, world_size=world_size)
    other = sampler(one_language=True, pair_groups=groups, updates=40, rank=0, world_size=world_size)
    drawn = [[groups[i - 10] for i in batch] for batch in run if batch[0] >= 10]
    assert all(len(set(batch)) == 1 for batch in drawn)
    assert {batch[0] for batch in drawn} == {0, 1, 2}
    assert [batch[0] for batch in drawn] == [groups[batch[0] - 10] for batch in other if batch[0] >= 10]


def test_exponent_zero_is_uniform_over_languages_and_one_is_proportional():
    groups = [0] * 900 + [1] * 100
    share = lambda exponent: np.mean(np.asarray(groups)[resampled_pairs(groups, 20_000, exponent, 0)])  # noqa: E731
    assert share(0.0) == pytest.approx(0.5, abs=0.02)
    assert share(1.0) == pytest.approx(0.1, abs=0.02)


def test_no_pairs_for_an_alignment_schedule_is_an_error():
    with pytest.raises(ValueError, match="no pairs"):
        sampler(pair_groups=[])
