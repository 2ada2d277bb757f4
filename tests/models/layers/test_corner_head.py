import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from models.layers.corner_head import CornerHead, PyramidCornerHead, corner_head_flops, pyramid_corner_head_flops
from tests.models.helpers import randomise

HEADS = [CornerHead, PyramidCornerHead]


def head(cells=6, size=96, kind=CornerHead):
    return kind(16, 8, stride=16, size=size, cells=cells)


def with_statistics(module):
    """In evaluation mode, with weights that all matter and with running statistics of a batch."""
    randomise(module).train()
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad():
        for name, bias in module.named_parameters():
            bias.sub_(1.0 if name.endswith(".1.bias") else 0.0)  # about 0, so that each ReLU has something to do
        module(torch.randn(8, 16, 6, 6, generator=torch.Generator().manual_seed(1)))
    return module.eval()


def blocks(weights, name, x):
    """Convolution, batch norm and ReLU, from a state dict."""
    x = F.conv2d(x, weights[f"{name}.0.weight"], weights[f"{name}.0.bias"], padding=1)
    x = F.batch_norm(x, *(weights[f"{name}.1.{part}"] for part in ("running_mean", "running_var", "weight", "bias")))
    assert (x < 0).any(), name
    return x.clamp(min=0)


def grown(x, times):
    return x.repeat_interleave(times, dim=2).repeat_interleave(times, dim=3)


def peak(row, column, cells=6):
    scores = torch.zeros(1, cells, cells)
    scores[0, row, column] = 1e4
    return scores


@pytest.mark.parametrize(("cells", "size"), [(6, 96), (7, 100), (20, 320)])
def test_a_single_peak_is_at_index_times_stride_over_size(cells, size):
    module = head(cells, size)
    x, y = module.expectation(peak(2, 4, cells))
    assert x.item() == pytest.approx(4 * 16 / size)
    assert y.item() == pytest.approx(2 * 16 / size)
    x, y = module.expectation(peak(cells - 1, cells - 1, cells))
    assert x.item() == y.item() == pytest.approx((cells - 1) * 16 / size)


def test_two_equal_peaks_meet_in_the_middle():
    x, y = head().expectation(peak(0, 5) + peak(3, 5))
    assert x.item() == pytest.approx(5 / 6)
    assert y.item() == pytest.approx(1.5 / 6)


def test_boxes_are_made_of_two_corners(monkeypatch):
    module = head()
    corners = {"tl": peak(1, 2), "br": peak(4, 0)}
    monkeypatch.setattr(module, "scores", lambda features, corner: corners[corner])
    box = module(torch.empty(1, 16, 6, 6))
    # The bottom-right corner left of the other one: the width is negative, and nothing hides it.
    assert box[0].tolist() == pytest.approx([1 / 6, 2.5 / 6, -2 / 6, 3 / 6])


def test_towers_shrink_by_halves_and_are_not_shared():
    module = randomise(head()).eval()
    widths = [module.get_submodule(f"conv{layer}_tl.0").out_channels for layer in (1, 2, 3, 4)]
    assert widths == [8, 4, 2, 1]
    features = torch.randn(2, 16, 6, 6)
    assert not torch.allclose(module.scores(features, "tl"), module.scores(features, "br"))
    assert module(features).shape == (2, 4)
    assert not any("coordinates" in name for name in module.state_dict())


def test_a_tower_is_convolution_norm_and_relu_four_times_and_a_last_convolution():
    module, features = with_statistics(head()), torch.randn(2, 16, 6, 6)
    weights = module.state_dict()
    for corner in ("tl", "br"):
        x = features
        for layer in (1, 2, 3, 4):
            x = blocks(weights, f"conv{layer}_{corner}", x)
        expected = F.conv2d(x, weights[f"conv5_{corner}.weight"], weights[f"conv5_{corner}.bias"])[:, 0]
        assert expected.std() > 0
        torch.testing.assert_close(module.scores(features, corner), expected, atol=1e-5, rtol=1e-5)


def test_a_pyramid_grows_and_sees_the_features_again():
    """The published wiring, every map made as large as its place asks before anything is added."""
    torch.manual_seed(2)
    module, x = with_statistics(head(kind=PyramidCornerHead)), torch.randn(2, 16, 6, 6)
    w = module.state_dict()
    for c in ("tl", "br"):
        second = blocks(w, f"conv2_{c}", blocks(w, f"conv1_{c}", x))
        third = blocks(w, f"conv3_{c}", grown(second, 2) + grown(blocks(w, f"adjust1_{c}", x), 2))
        fourth = blocks(w, f"conv4_{c}", grown(third, 2) + grown(blocks(w, f"adjust2_{c}", x), 4))
        last = F.conv2d(fourth, w[f"conv5_{c}.weight"], w[f"conv5_{c}.bias"])
        coarse, middle = second, third
        for layer in range(3):
            coarse = blocks(w, f"adjust3_{c}.{layer}", coarse)
        for layer in range(2):
            middle = blocks(w, f"adjust4_{c}.{layer}", middle)
        assert coarse.std() > 0
        assert middle.std() > 0
        expected = (last + grown(coarse, 4) + grown(middle, 2))[:, 0]
        assert expected.shape == (2, 24, 24)
        torch.testing.assert_close(module.scores(x, c), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("stride", "size", "cells"), [(16, 288, 18), (8, 40, 5), (5, 35, 7)])
def test_cells_of_a_pyramid_are_a_quarter_as_wide(stride, size, cells):
    module = PyramidCornerHead(16, 8, stride=stride, size=size, cells=cells)
    assert module.coordinates.tolist() == pytest.approx([index * stride / 4 / size for index in range(4 * cells)])
    assert module.coordinates.max() < 1


@pytest.mark.parametrize("kind", HEADS)
def test_every_weight_is_read(kind):
    module = randomise(head(kind=kind)).train()
    # A sum over boxes is no good here: it is blind to weights that move all of them in opposite ways.
    (module(torch.randn(4, 16, 6, 6)) * torch.randn(4, 4)).sum().backward()
    idle = {name for name, weight in module.named_parameters() if weight.grad is None or not weight.grad.any()}
    # The softmax takes these away; the batch norms in training take the biases before them away too, up to rounding.
    assert {name for name in idle if not name.endswith(".0.bias")} == {"conv5_tl.bias", "conv5_br.bias"}
    assert not any(module.get_parameter(f"conv5_{corner}.bias").requires_grad for corner in ("tl", "br"))


@pytest.mark.parametrize(("kind", "closed"), [*zip(HEADS, [corner_head_flops, pyramid_corner_head_flops], strict=True)])
def test_closed_form_equals_the_counter(kind, closed):
    with torch.device("meta"):
        module, features = head(kind=kind).eval(), torch.empty(2, 16, 6, 6)
    with FlopCounterMode(display=False) as counter:
        module(features)
    assert counter.get_total_flops() == 2 * closed(16, 8, 6)
