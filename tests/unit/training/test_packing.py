"""Rows in bins: every token once, little padding, and attention within a row only."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from midalign.training.packing import PADDING, SHARED, Layout, fill_bins

LENGTHS = st.lists(st.integers(2, 300), min_size=1, max_size=70)


def width_of(bins, lengths, shared):
    return shared + max(sum(lengths[row] - shared for row in rows) for rows in bins)


@settings(deadline=None)
@given(lengths=LENGTHS, shared=st.integers(0, 1), hidden=st.sampled_from([32, 576, 4096]))
def test_every_row_is_in_one_bin(lengths, shared, hidden):
    bins = fill_bins(lengths, shared, hidden)
    assert sorted(row for rows in bins for row in rows) == list(range(len(lengths)))
    assert all(bins)


@settings(deadline=None)
@given(lengths=st.lists(st.integers(2, 40), min_size=64, max_size=64), long=st.integers(40, 400))
def test_hardly_any_padding_is_left_even_beside_a_row_that_is_far_longer(lengths, long):
    lengths = [long, *lengths]
    bins = fill_bins(lengths, 0, 576)
    assert len(bins) * width_of(bins, lengths, 0) <= 1.2 * sum(lengths) + long / 2


def test_a_long_common_beginning_stands_in_few_bins():
    lengths = [100 + own for own in range(5, 37)]
    bins = fill_bins(lengths, 100, 576)
    assert len(bins) * width_of(bins, lengths, 100) < 2 * sum(own for own in range(5, 37))


@settings(deadline=None, max_examples=50)
@given(lengths=st.lists(st.integers(3, 12), min_size=1, max_size=9), shared=st.integers(0, 2), data=st.data())
def test_the_layout_is_that_of_a_loop_over_tokens(lengths, shared, data):
    count = data.draw(st.integers(1, len(lengths)))
    bins = [list(range(len(lengths)))[number::count] for number in range(count)]
    layout = Layout.of(lengths, bins, shared)
    values = torch.arange(len(lengths) * 12).reshape(len(lengths), 12)
    values[:, :shared] = values[0, :shared].clone()
    places = {}
    for number, rows in enumerate(bins):
        place = shared
        for column in range(shared):
            places[number, column] = (SHARED, column)
        for row in rows:
            for column in range(shared, lengths[row]):
                places[number, place] = (row, column)
                place += 1
    packed, mask = layout.pack(values), layout.attention_mask()
    assert int((layout.row != PADDING).sum()) == len(places)
    for (number, place), (row, column) in places.items():
        assert (int(layout.row[number, place]), int(layout.column[number, place])) == (row, column)
        assert packed[number, place] == values[max(row, 0), column]
        seen = {places[number, other] for other in torch.nonzero(mask[number, 0, place]).flatten().tolist()}
        assert seen == {(row if past >= shared else SHARED, past) for past in range(column + 1)}
    assert mask[:, 0].diagonal(dim1=1, dim2=2).all(), "padding sees itself, so that no softmax is over nothing"


@pytest.mark.parametrize("shared", [0, 2])
def test_packed_weights_are_those_of_each_rows_own_tokens(shared):
    lengths = [4, 7, 5]
    weights = torch.zeros(3, 7)
    for row, length in enumerate(lengths):
        weights[row, shared:length] = torch.rand(length - shared) + 0.1
    layout = Layout.of(lengths, [[1], [0, 2]], shared)
    packed = layout.weights(weights)
    assert torch.allclose(packed.flatten(1).sum(dim=1), weights.sum(dim=1))
    for row in range(3):
        assert (layout.row[packed[row] > 0] == row).all()
