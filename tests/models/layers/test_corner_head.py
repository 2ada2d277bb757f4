import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from models.layers.corner_head import CornerHead, corner_head_flops
from tests.models.helpers import randomise


def head(cells=6, size=96, **options):
    return CornerHead(16, 8, stride=16, size=size, cells=cells, **options)


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
    module = randomise(head()).eval()
    generator = torch.Generator().manual_seed(1)
    for name, buffer in module.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.2)
    features = torch.randn(2, 16, 6, 6, generator=generator)
    weights = module.state_dict()
    for corner in ("tl", "br"):
        x = features
        for layer in (1, 2, 3, 4):
            name = f"conv{layer}_{corner}"
            x = F.conv2d(x, weights[f"{name}.0.weight"], weights[f"{name}.0.bias"], padding=1)
            statistics = (weights[f"{name}.1.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
            x = F.batch_norm(x, *statistics)
            assert (x < 0).any()
            x = x.clamp(min=0)
        expected = F.conv2d(x, weights[f"conv5_{corner}.weight"], weights[f"conv5_{corner}.bias"])[:, 0]
        assert expected.std() > 0
        torch.testing.assert_close(module.scores(features, corner), expected, atol=1e-5, rtol=1e-5)


def test_every_weight_is_read():
    module = randomise(head()).train()
    # A sum over boxes is no good here: it is blind to weights that move all of them in opposite ways.
    (module(torch.randn(4, 16, 6, 6)) * torch.randn(4, 4)).sum().backward()
    idle = {name for name, weight in module.named_parameters() if weight.grad is None or not weight.grad.any()}
    # The softmax takes these away; the batch norms in training take the biases before them away too, up to rounding.
    assert {name for name in idle if not name.endswith(".0.bias")} == {"conv5_tl.bias", "conv5_br.bias"}
    assert not any(module.get_parameter(f"conv5_{corner}.bias").requires_grad for corner in ("tl", "br"))


def test_closed_form_equals_the_counter():
    with torch.device("meta"):
        module, features = head().eval(), torch.empty(2, 16, 6, 6)
    with FlopCounterMode(display=False) as counter:
        module(features)
    assert counter.get_total_flops() == 2 * corner_head_flops(16, 8, 6)
