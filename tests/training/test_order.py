"""The stream of samples: everything once an epoch, whatever the number of processes, and always the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssr_encoder.errors import SSRError
from ssr_encoder.training.order import Order, keyed, part, pieces

COUNTS = st.lists(st.integers(0, 12), min_size=1, max_size=12).filter(sum)


@settings(deadline=None, max_examples=60)
@given(COUNTS, st.integers(0, 99), st.integers(1, 5), st.integers(0, 3))
def test_an_epoch_is_a_permutation(counts, seed, window, epoch):
    order = Order(counts, seed, window)
    places = [order[epoch * order.total + i] for i in range(order.total)]
    assert {place.epoch for place in places} == {epoch}
    expected = {(s, i) for s, count in enumerate(counts) for i in range(count)}
    assert sorted((p.shard, p.index) for p in places) == sorted(expected)


@settings(deadline=None, max_examples=60)
@given(COUNTS, st.integers(1, 9), st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_no_sample_is_lost_or_repeated_when_the_number_of_processes_changes(counts, batch, worlds):
    order = Order(counts, 3, 2)
    seen, position, step = [], 0, 0
    while len(seen) < 2 * order.total:
        ranks = worlds[step % len(worlds)]
        for rank in range(ranks):
            seen += list(part(position, batch, rank, ranks))
        position, step = position + batch, step + 1
    assert seen == list(range(position))  # so each epoch's positions occur once
    first = [order[p][1:] for p in seen[: order.total]]
    assert len(set(first)) == order.total


def test_the_order_differs_by_seed_and_epoch_and_is_the_same_on_every_machine():
    order = Order([30, 20, 10], 0, 2)
    epochs = [[order[e * 60 + i][1:] for i in range(60)] for e in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert [Order([30, 20, 10], 1, 2)[i][1:] for i in range(60)] != epochs[0]
    assert [tuple(order[i]) for i in range(4)] == FIRST  # what a run of today does, one of next year must do


FIRST = [(0, 0, 4), (0, 1, 8), (0, 0, 7), (0, 1, 19)]


def test_samples_are_mixed_within_a_window_only():
    order = Order([50] * 8, 0, 2)
    windows = [{order[w * 100 + i].shard for i in range(100)} for w in range(4)]
    assert [len(window) for window in windows] == [2] * 4
    indexes = [order[i].index for i in range(100)]
    assert np.abs(np.diff(indexes)).mean() > 5


def test_random_access_does_not_depend_on_what_was_asked_before():
    order, other = Order([5, 6, 7], 4, 2), Order([5, 6, 7], 4, 2)
    forward = [order[i] for i in range(54)]
    assert [other[i] for i in reversed(range(54))] == forward[::-1]


@given(st.integers(1, 40), st.integers(1, 8), st.integers(1, 9))
def test_every_process_takes_as_many_micro_batches(batch, ranks, micro):
    parts = [part(100, batch, rank, ranks) for rank in range(ranks)]
    assert [p for each in parts for p in each] == list(range(100, 100 + batch))
    sizes = [len(each) for each in parts]
    if min(sizes):
        cuts = [pieces(size, min(sizes), micro) for size in sizes]
        assert len({len(cut) for cut in cuts}) == 1
        for size, cut in zip(sizes, cuts, strict=True):
            lengths = [len(range(size)[c]) for c in cut]
            assert sum(lengths) == size and min(lengths) > 0 and max(lengths) <= micro + 1


def test_random_numbers_are_keyed():
    assert keyed(1, 2, 3).random() == keyed(1, 2, 3).random()
    assert len({keyed(*k).random() for k in ((1, 2, 3), (1, 3, 2), (0, 2, 3), (1, 2, 4))}) == 4


def test_no_samples_is_an_error():
    with pytest.raises(SSRError, match="no samples"):
        Order([0, 0], 0, 1)
