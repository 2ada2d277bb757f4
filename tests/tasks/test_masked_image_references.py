"""Predictors that learn nothing: exact where the answer is known, and blind to what is masked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve

from bench.tasks.masked_image_batches import blank, is_masked
from bench.tasks.masked_image_references import FEATURES, REFERENCES, harmonic, mean_colour, nearest_patch


def hidden_patches(samples: int, patches: int, kept: int) -> torch.Tensor:
    return is_masked(torch.rand(samples, patches, generator=torch.Generator().manual_seed(0)), kept)


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda reference: reference.name)
def test_visible_pixels_stay_and_a_plain_image_is_restored(reference) -> None:
    hidden = hidden_patches(4, 36, 9)
    images = torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    seen = blank(images, hidden, 4)
    filled = reference.fill(seen, hidden, 4)
    torch.testing.assert_close(blank(filled, hidden, 4), seen)
    plain = torch.tensor([0.3, -1.0, 2.0])[:, None, None].expand(4, 3, 24, 24)
    torch.testing.assert_close(reference.fill(blank(plain, hidden, 4), hidden, 4), plain)


def test_mean_colour_is_of_the_visible_patches() -> None:
    hidden = hidden_patches(1, 16, 5)
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    visible = blank(torch.ones_like(images), hidden, 4).bool()
    filled = mean_colour(blank(images, hidden, 4), hidden, 4)
    for channel in range(3):
        expected = images[0, channel][visible[0, channel]].mean()
        torch.testing.assert_close(filled[0, channel][~visible[0, channel]], expected.expand(16 * 11))


def test_nearest_patch_by_hand() -> None:
    hidden = torch.ones(1, 16, dtype=torch.bool)
    hidden[0, [0, 15]] = False
    images = torch.zeros(1, 3, 8, 8)
    images[:, :, :2, :2], images[:, :, 6:, 6:] = 1.0, 2.0
    grid = nearest_patch(images, hidden, 2)[0, 0, ::2, ::2]
    expected = [[1, 1, 1, 1], [1, 1, 1, 2], [1, 1, 2, 2], [1, 2, 2, 2]]
    assert grid.tolist() == expected


def test_harmonic_interpolation_solves_the_laplace_equation() -> None:
    hidden, side = hidden_patches(2, 16, 4), 16
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    seen = blank(images, hidden, 4)
    filled = harmonic(seen, hidden, 4)
    for sample in range(2):
        free = ~blank(torch.ones_like(images), hidden, 4)[sample, 0].bool().numpy()
        matrix, right = lil_matrix((side * side, side * side)), seen[sample, 1].numpy().astype(float).ravel()
        for row in range(side):
            for column in range(side):
                place = row * side + column
                if not free[row, column]:
                    matrix[place, place] = 1
                    continue
                around = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
                around = [(r, c) for r, c in around if 0 <= r < side and 0 <= c < side]
                matrix[place, place], right[place] = len(around), 0
                for r, c in around:
                    matrix[place, r * side + c] = -1
        expected = spsolve(matrix.tocsr(), right).reshape(side, side)
        assert np.abs(filled[sample, 1].numpy() - expected).max() < 2e-3


def test_features_that_learn_nothing_are_fixed_functions_of_the_image() -> None:
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for _, features in FEATURES.values():
        found = features(images, 8)
        assert found.ndim == 2
        assert torch.equal(found, features(images, 8))
        torch.testing.assert_close(found[:1], features(images[:1], 8))
        assert not torch.allclose(found[0], found[1])
