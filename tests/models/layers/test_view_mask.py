import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.layers.view_mask import drop_views, reading


@settings(deadline=None)
@given(views=st.integers(1, 6), targets=st.none() | st.integers(1, 3), masked=st.booleans(), seed=st.integers(0, 999))
def test_some_view_stays_and_none_comes_back(views, targets, masked, seed):
    torch.manual_seed(seed)
    mask = torch.rand(4, views) < 0.5
    mask[torch.arange(4), torch.randint(views, (4,))] = True
    images = torch.empty(4, views, 3, 1, 1)
    visible = drop_views(mask if masked else None, images, targets)
    assert visible.shape == ((4, views) if targets is None else (4, targets, views))
    assert visible.any(-1).all()
    if masked:
        assert not (visible & ~(mask if targets is None else mask[:, None])).any()


def test_every_number_of_views_is_as_likely_and_every_view():
    torch.manual_seed(0)
    visible = drop_views(None, torch.empty(20_000, 4, 3, 1, 1))
    counts = visible.sum(-1).bincount(minlength=5) / len(visible)
    torch.testing.assert_close(counts, torch.tensor([0, 0.25, 0.25, 0.25, 0.25]), atol=0.02, rtol=0)
    torch.testing.assert_close(visible.float().mean(0), torch.full((4,), 0.625), atol=0.02, rtol=0)


def test_targets_draw_for_themselves():
    torch.manual_seed(0)
    visible = drop_views(None, torch.empty(50, 4, 3, 1, 1), targets=2)
    assert (visible[:, 0] != visible[:, 1]).any(-1).float().mean() > 0.5


def test_masks_name_tokens_view_by_view():
    assert reading(None, 3, 2) == (None, math.log(3))
    assert reading(None, 1, 2) == (None, math.log(2))
    mask, count = reading(torch.tensor([[True, False, True], [False, True, False]]), 3, 2)
    assert mask.int().tolist() == [[[[1, 1, 0, 0, 1, 1]]], [[[0, 0, 1, 1, 0, 0]]]]
    torch.testing.assert_close(count.flatten(), torch.full((2,), math.log(2)))
    mask, count = reading(torch.tensor([[[True, False, False], [True, True, True]]]), 3, 2)
    assert mask[0, 0].int().tolist() == [[1, 1, 0, 0, 0, 0]] * 2 + [[1] * 6] * 2
    torch.testing.assert_close(count, torch.tensor([2.0, 2, 3, 3]).log().view(1, 4, 1, 1))
