"""The choice of views: a function of the draw alone, uniform, without leakage."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.tasks.views import choose_views, permute_input_views, synthetic_views

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


@given(DRAWS, COUNTS, st.booleans())
def test_a_sample_does_not_depend_on_its_batch(draws: list[int], counts: tuple[int, int, int], overlap: bool) -> None:
    inputs_n, targets_n, spare = counts
    views = inputs_n + targets_n + spare
    together = choose_views(np.array(draws, np.uint64), views, inputs_n, targets_n, overlap)
    for number, draw in enumerate(draws):
        alone = choose_views(np.array([draw], np.uint64), views, inputs_n, targets_n, overlap)
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


def test_overlap_supervises_inputs_as_often_as_lvsm_does() -> None:
    """6 targets without replacement from 8 views, 2 of them inputs: 1.5 targets on average are inputs."""
    inputs, targets = choose_views(np.arange(4000, dtype=np.uint64), 8, 2, 6, overlap=True)
    shared = (targets[:, :, None] == inputs[:, None]).any(axis=2)
    assert shared.sum(axis=1).mean() == pytest.approx(1.5, abs=0.05)
    assert shared.any(axis=1).mean() == pytest.approx(0.964, abs=0.02)
    assert all(len(set(row)) == 6 for row in targets)


def test_too_few_views_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit the 3 views"):
        choose_views(np.zeros(1, np.uint64), 3, 2, 2)


def test_permutation_moves_image_and_pose_together_and_nothing_else() -> None:
    label = torch.arange(12.0).reshape(4, 3)
    batch = {
        "input_images": label[:, :, None, None, None].expand(4, 3, 3, 2, 2),
        "input_c2w": label[:, :, None, None].expand(4, 3, 4, 4),
        "input_intrinsics": label[:, :, None].expand(4, 3, 4),
        "target_c2w": label[:, :, None, None].expand(4, 3, 4, 4),
    }
    changed = permute_input_views(batch, torch.Generator().manual_seed(0))
    order = changed["input_c2w"][:, :, 0, 0]
    assert not (order == label).all(dim=1).any(), "every sample must be changed"
    assert torch.equal(order.sort(dim=1).values, label)
    assert torch.equal(changed["input_images"][:, :, 0, 0, 0], order)
    assert torch.equal(changed["input_intrinsics"][:, :, 0], order)
    assert changed["target_c2w"] is batch["target_c2w"]


def test_synthetic_cameras_are_rotations_that_look_at_the_origin() -> None:
    images, c2w, _ = synthetic_views(np.random.default_rng(0), 3, 2, 16)
    rotation, centre = c2w[..., :3, :3], c2w[..., :3, 3]
    np.testing.assert_allclose(
        rotation @ rotation.swapaxes(-1, -2), np.broadcast_to(np.eye(3), (3, 2, 3, 3)), atol=1e-6
    )
    np.testing.assert_allclose(np.linalg.det(rotation), 1, atol=1e-6)
    np.testing.assert_allclose(rotation[..., 2] * 2.5, -centre, atol=1e-6)
    assert (rotation[..., 2, 1] < 0).all(), "the camera's y axis points down"
    assert images.std(axis=(2, 3, 4)).max() > 3 * images.std(axis=(2, 3, 4)).min()
