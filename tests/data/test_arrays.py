"""Arrays as a split: the choice of views is a function of the draw alone, uniform, and stays for good."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.arrays import ArraySplit, choose_views, shuffled

COUNTS = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(0, 6))
DRAWS = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=8)


@given(DRAWS, COUNTS)
def test_inputs_and_targets_are_distinct_views(draws: list[int], counts: tuple[int, int, int]) -> None:
    inputs_n, targets_n, spare = counts
    views = inputs_n + targets_n + spare
    inputs, targets = choose_views(np.array(draws, np.uint64), views, inputs_n, targets_n)
    assert inputs.shape == (len(draws), inputs_n)
    assert targets.shape == (len(draws), targets_n)
    for row in np.concatenate([inputs, targets], axis=1):
        assert len(set(row)) == inputs_n + targets_n
        assert set(row) <= set(range(views))


@given(DRAWS, COUNTS)
def test_a_sample_does_not_depend_on_its_batch(draws: list[int], counts: tuple[int, int, int]) -> None:
    inputs_n, targets_n, spare = counts
    views = inputs_n + targets_n + spare
    together = choose_views(np.array(draws, np.uint64), views, inputs_n, targets_n)
    for number, draw in enumerate(draws):
        alone = choose_views(np.array([draw], np.uint64), views, inputs_n, targets_n)
        assert all((a[0] == b[number]).all() for a, b in zip(alone, together, strict=True))


def test_every_view_is_drawn_equally_often() -> None:
    inputs, targets = choose_views(np.arange(12000, dtype=np.uint64), 6, 2, 2)
    for column in (inputs[:, 0], inputs[:, 1], targets[:, 0], targets[:, 1]):
        assert np.bincount(column, minlength=6) == pytest.approx(2000, abs=200)
    pairs = np.bincount(inputs[:, 0] * 6 + inputs[:, 1], minlength=36).reshape(6, 6)
    assert pairs[~np.eye(6, dtype=bool)] == pytest.approx(400, abs=100)


def test_targets_stay_when_inputs_are_added() -> None:
    draws = np.arange(50, dtype=np.uint64)
    two, eight = choose_views(draws, 16, 2, 4), choose_views(draws, 16, 8, 4)
    assert (two[1] == eight[1]).all()
    assert (two[0] == eight[0][:, :2]).all()


def test_too_few_views_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit the 3 views"):
        choose_views(np.zeros(1, np.uint64), 3, 2, 2)


def test_the_choice_is_the_published_one() -> None:
    """Results are compared by sample name: another choice would be another test set."""
    inputs, targets = choose_views(np.array([0, 1, 99], np.uint64), 16, 2, 2)
    assert inputs.tolist() == [[8, 2], [7, 0], [14, 8]]
    assert targets.tolist() == [[3, 5], [13, 1], [11, 4]]


def test_salts_give_unrelated_permutations() -> None:
    draws = np.arange(600, dtype=np.uint64)
    one, other = shuffled(draws, 6, salt=1), shuffled(draws, 6, salt=2)
    assert (one == other).mean() == pytest.approx(1 / 6, abs=0.03)


def test_a_split_of_arrays_reads_what_is_asked_for() -> None:
    numbers = np.arange(3 * 5).reshape(3, 5)
    split = ArraySplit(
        rgb=np.broadcast_to(numbers[..., None, None, None], (3, 5, 2, 2, 3)).astype(np.uint8),
        c2w=np.broadcast_to(numbers[..., None, None], (3, 5, 4, 4)).astype(np.float32),
        intrinsics=np.broadcast_to(numbers[..., None], (3, 5, 4)).astype(np.float32),
    )
    views = split.load(np.array([2, 0]), np.array([[4, 0, 1], [1, 1, 3]]))
    expected = [[14, 10, 11], [1, 1, 3]]
    assert views.rgb.shape == (2, 3, 2, 2, 3)
    assert views.rgb[..., 0, 0, 0].tolist() == views.c2w[..., 0, 0].tolist() == expected
    assert views.intrinsics[..., 0].tolist() == expected
    assert (len(split), split.sample_name(2, 4)) == (3, "0002/04")


def test_evaluation_keeps_its_targets_for_every_number_of_inputs() -> None:
    empty = np.zeros((50, 16, 1))
    split, scenes = ArraySplit(rgb=empty, c2w=empty, intrinsics=empty), np.arange(50)
    two, eight = split.choose_evaluation(scenes, 2, 4), split.choose_evaluation(scenes, 8, 4)
    assert (two[1] == eight[1]).all()
    assert all((a == b).all() for a, b in zip(two, split.choose(scenes, scenes.astype(np.uint64), 2, 4), strict=True))
