"""What is done to chosen views: mixing inputs into the targets, masks, symmetries; and views made up for probes."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.data.arrays import choose_views
from bench.data.draws import Salt
from bench.tasks.leakage import expected_leakage
from bench.tasks.views import (
    mask_inputs,
    mix_inputs,
    permute_input_views,
    scramble_masked_views,
    synthetic_views,
)


def drawn(count: int, fewest: int, input_views: int, target_views: int) -> tuple[np.ndarray, np.ndarray]:
    """For `count` training samples: which targets [count, Vt] are input views that can be seen, and the numbers of inputs."""
    draws = np.arange(count, dtype=np.uint64) * np.uint64(7919)
    inputs, targets = choose_views(draws, input_views + target_views + 1, input_views, target_views)
    mask, targets = mask_inputs(draws, fewest, input_views), mix_inputs(draws, inputs, targets)
    assert all(len(set(row)) == target_views for row in targets)
    return ((targets[:, :, None] == inputs[:, None]) & mask[:, None]).any(axis=2), mask.sum(axis=1)


def test_mixing_supervises_inputs_as_often_as_lvsm_does() -> None:
    """6 targets without replacement from 8 views, 2 of them inputs: a quarter of the targets, 96 % of the samples."""
    assert expected_leakage(2, 2, 6) == pytest.approx((0.25, 27 / 28))
    seen, _ = drawn(4000, 2, 2, 6)
    assert (seen.mean(), seen.any(axis=1).mean()) == pytest.approx((0.25, 27 / 28), abs=0.01)


@given(st.integers(1, 4), st.integers(0, 3), st.integers(1, 5))
def test_leakage_in_closed_form_is_that_of_the_draws(fewest: int, more: int, target_views: int) -> None:
    seen, _ = drawn(3000, fewest, fewest + more, target_views)
    found = seen.mean(), seen.any(axis=1).mean()
    assert found == pytest.approx(expected_leakage(fewest, fewest + more, target_views), abs=0.04)


def test_masks_keep_the_first_views_and_every_number_is_equally_likely() -> None:
    draws = np.arange(9000, dtype=np.uint64)
    mask = mask_inputs(draws, 2, 4)
    assert mask.dtype == bool
    assert (np.sort(mask, axis=1)[:, ::-1] == mask).all(), "the views that are there come first"
    assert np.bincount(mask.sum(axis=1), minlength=5) == pytest.approx([0, 0, 3000, 3000, 3000], abs=200)
    assert (mask_inputs(draws[5:6], 2, 4) == mask[5]).all(), "a sample does not depend on its batch"


def test_no_choice_of_the_task_shares_its_salt_with_the_data(repo_root: Path) -> None:
    """Two choices with one salt are one choice: a mask would say how far the inputs are apart."""
    written = {
        path: set(re.findall(r"salt=(\w+(?:\.\w+)?)", path.read_text())) - {"salt"}
        for path in (repo_root / "bench").rglob("*.py")
    }
    of_task = {salt for path, salts in written.items() if path.parent.name == "tasks" for salt in salts}
    assert of_task == {"Salt.TASK_TARGETS", "Salt.TASK_MASK", "Salt.TASK_NOISE"}
    of_data = {salt for path, salts in written.items() if path.parent.name != "tasks" for salt in salts}
    assert of_data, "nothing was found: look elsewhere"
    assert not of_data & {*of_task, *(str(int(salt)) for salt in (Salt.TASK_TARGETS, Salt.TASK_MASK))}


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


def masked_batch() -> dict[str, torch.Tensor]:
    label = torch.arange(12.0).reshape(4, 3)
    return {
        "input_images": (label / 12)[:, :, None, None, None].expand(4, 3, 3, 2, 2),
        "input_c2w": label[:, :, None, None].expand(4, 3, 4, 4),
        "input_intrinsics": label[:, :, None].expand(4, 3, 4),
        "input_mask": torch.tensor(
            [[True, False, False], [True, True, False], [True, True, True], [False, True, False]]
        ),
    }


def test_permutation_moves_the_mask_with_its_views() -> None:
    batch = masked_batch()
    there = {float(v) for v in batch["input_c2w"][..., 0, 0][batch["input_mask"]]}
    changed = permute_input_views(batch, torch.Generator().manual_seed(0))
    assert {float(v) for v in changed["input_c2w"][..., 0, 0][changed["input_mask"]]} == there
    assert not torch.equal(changed["input_mask"], batch["input_mask"])


def test_scrambling_changes_masked_views_and_nothing_else() -> None:
    batch = masked_batch()
    changed, mask = scramble_masked_views(batch, torch.Generator().manual_seed(0)), batch["input_mask"]
    for name in ("input_images", "input_c2w", "input_intrinsics"):
        differs = (changed[name] != batch[name]).flatten(2).any(dim=2)
        assert torch.equal(differs, ~mask), name
    assert changed["input_mask"] is mask


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
