from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.engine.stream import SampleStream, derive_seed

seeds = st.integers(0, 2**31)


def take_in(stream: SampleStream, batches: list[int]) -> tuple[list[int], list[int]]:
    indices, draws, position = [], [], 0
    for batch in batches:
        some = stream.take(position, batch)
        indices += some[0].tolist()
        draws += some[1].tolist()
        position += batch
    return indices, draws


@given(seed=seeds, size=st.integers(1, 30), batches=st.lists(st.integers(1, 17), min_size=1, max_size=12))
def test_the_stream_does_not_depend_on_the_batch(seed: int, size: int, batches: list[int]) -> None:
    assert take_in(SampleStream(seed, size), batches) == take_in(SampleStream(seed, size), [sum(batches)])


@given(seed=seeds, size=st.integers(1, 50), epoch=st.integers(0, 1000))
def test_every_epoch_is_a_permutation(seed: int, size: int, epoch: int) -> None:
    indices, _ = SampleStream(seed, size).take(epoch * size, size)
    assert sorted(indices.tolist()) == list(range(size))


def test_epochs_and_seeds_differ() -> None:
    stream = SampleStream(0, 1000)
    orders = [stream.take(1000 * epoch, 1000)[0] for epoch in range(3)]
    orders.append(SampleStream(1, 1000).take(0, 1000)[0])
    for one, other in itertools.combinations(orders, 2):
        assert (one == other).mean() < 0.02


@given(seed=seeds, start=st.integers(0, 2**40))
def test_draws_differ_even_where_a_sample_comes_again(seed: int, start: int) -> None:
    indices, draws = SampleStream(seed, 3).take(start, 200)
    assert (indices.dtype, draws.dtype) == (np.int64, np.uint64)
    assert len(set(draws.tolist())) == 200


def test_draws_are_spread_over_all_bits() -> None:
    _, draws = SampleStream(5, 10).take(0, 4000)
    ones = np.unpackbits(draws.view(np.uint8)).reshape(4000, 64).mean(axis=0)
    assert np.abs(ones - 0.5).max() < 0.05


def test_going_back_gives_the_same_again() -> None:
    stream = SampleStream(7, 12)
    first = stream.take(5, 20)
    stream.take(400, 3)
    again = stream.take(5, 20)
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))


def test_the_stream_is_the_same_in_every_version() -> None:
    """A seed must name the same samples for good; the stream must not change by itself."""
    assert derive_seed(0, "net", "weights") == 4941216595649216732
    indices, draws = SampleStream(0, 10).take(0, 4)
    assert indices.tolist() == [7, 2, 8, 5]
    assert draws.tolist() == [16974175356844616232, 5723454592489857111, 4728685426598541664, 7258217135830646398]


@given(parts=st.lists(st.one_of(st.integers(), st.text()), max_size=4))
def test_seeds_fit_torch_and_numpy(parts: list[object]) -> None:
    assert 0 <= derive_seed(*parts) < 2**63
    assert derive_seed(*parts) == derive_seed(*parts)


def test_seeds_keep_their_parts_apart() -> None:
    assert len({derive_seed("a", "bc"), derive_seed("ab", "c"), derive_seed("abc"), derive_seed("a", "b", "c")}) == 4


@pytest.mark.parametrize("world", [1, 2, 3])
def test_shares_of_a_batch_are_the_batch(world: int) -> None:
    whole = SampleStream(0, 7).take(0, 24)[0].tolist()
    parts = [
        SampleStream(0, 7).take(step * 4 * world + rank * 4, 4)[0].tolist()
        for step in range(24 // (4 * world))
        for rank in range(world)
    ]
    assert list(itertools.chain(*parts)) == whole
