import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from models.layers.mask_decoder import LOGIT_LIMIT, MaskDecoder, ResidualBlock, aggregate, enforce
from tests.models.helpers import randomise


def plain_aggregate(logits, live):
    """Soft aggregation as it is written down, in fp64."""
    probabilities = logits.double().sigmoid() * live[:, :, None, None]
    background = (1 - probabilities).prod(1, keepdim=True)
    everything = torch.cat([background, probabilities], dim=1).clamp(1e-7, 1 - 1e-7)
    return torch.log(everything / (1 - everything))


def test_aggregation_equals_the_plain_formula():
    logits = 4 * torch.randn(3, 4, 5, 6)
    live = torch.tensor([[True] * 4, [True, False, True, False], [False] * 4])
    found, expected = aggregate(logits, live), plain_aggregate(logits, live)
    assert found.shape == (3, 5, 5, 6)
    torch.testing.assert_close(found.softmax(1).double(), expected.softmax(1), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)


def test_one_object_alone_has_its_own_probability_squared_up():
    # softmax(logit(1 - p), logit(p)) = p^2 / (p^2 + (1 - p)^2)
    p = torch.tensor([0.1, 0.5, 0.9]).view(1, 1, 1, 3)
    found = aggregate(p.logit(), torch.ones(1, 1, dtype=torch.bool)).softmax(1)[:, 1:]
    torch.testing.assert_close(found, p**2 / (p**2 + (1 - p) ** 2))


def test_what_is_not_live_has_next_to_no_probability():
    logits = torch.full((1, 2, 3, 3), 50.0)
    found = aggregate(logits, torch.tensor([[True, False]])).softmax(1)
    assert found[:, 1].min() > 0.999
    assert found[:, 2].max() < 1e-12


@pytest.mark.parametrize("magnitude", [1e4, 3e38])
def test_extreme_logits_stay_finite_and_so_do_gradients(magnitude):
    logits = torch.tensor([magnitude, -magnitude, 0.0]).view(1, 1, 1, 3).repeat(2, 2, 1, 1).requires_grad_()
    found = aggregate(logits, torch.tensor([[True, True], [False, False]]))
    found.softmax(1).square().sum().backward()
    assert found.isfinite().all()
    assert found.abs().max() <= LOGIT_LIMIT + 1e-4
    assert logits.grad.isfinite().all()
    assert logits.grad[0, :, :, 2].abs().min() > 0
    assert not logits.grad[1].any()


def test_aggregation_keeps_single_precision_under_autocast():
    logits = torch.randn(1, 2, 4, 4)
    live = torch.ones(1, 2, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        found = aggregate(logits, live)
    assert torch.equal(found, aggregate(logits, live))


def test_given_masks_stand_and_the_rest_is_left():
    logits = aggregate(torch.randn(1, 3, 4, 4), torch.tensor([[True, False, False]]))
    masks = torch.zeros(1, 3, 4, 4)
    masks[0, 0] = 1  # not given: no matter
    masks[0, 1, :2] = 1
    found = enforce(logits, masks, torch.tensor([[False, True, False]]))
    assert (found[:, :, :2].argmax(1) == 2).all()
    assert found.softmax(1)[0, 2, :2].min() > 1 - 1e-6
    assert found.softmax(1)[0, 2, 2:].max() < 1e-6
    assert torch.equal(found[:, [0, 1, 3], 2:], logits[:, [0, 1, 3], 2:])
    assert torch.equal(enforce(logits, masks, torch.zeros(1, 3, dtype=torch.bool)), logits)


def plain_decode(model, f16, f8, f4, size):
    """The U-Net for one object, on copies of the skips."""

    def conv(module, x):
        return F.conv2d(x, module.weight, module.bias, padding=1)

    for block, skip in ((model.up_16_8, f8), (model.up_8_4, f4)):
        x = F.interpolate(f16, scale_factor=skip.shape[-1] / f16.shape[-1], mode="bilinear", align_corners=False)
        x = x + conv(block.skip_conv, skip)
        inner = conv(block.out_conv.conv2, F.relu(conv(block.out_conv.conv1, F.relu(x))))
        f16 = inner + (x if block.out_conv.downsample is None else conv(block.out_conv.downsample, x))
    return F.interpolate(conv(model.pred, F.relu(f16)), size, mode="bilinear", align_corners=False)[:, 0]


@pytest.mark.parametrize(("grids", "size"), [((2, 4, 8), (32, 32)), ((4, 4, 8), (16, 16))])
def test_each_object_is_decoded_by_itself(grids, size):
    model = randomise(MaskDecoder((6, 8, 12), 6))
    h16, h8, h4 = grids
    f16, f8, f4 = torch.randn(2, 3, 12, h16, h16), torch.randn(2, 8, h8, h8), torch.randn(2, 6, h4, h4)
    found = model(f16, f8, f4, size)
    assert found.shape == (2, 3, *size)
    for number in range(3):
        torch.testing.assert_close(found[:, number], plain_decode(model, f16[:, number], f8, f4, size), atol=1e-4,
                                   rtol=1e-4)  # fmt: skip


def test_a_residual_block_of_one_width_has_no_shortcut_convolution():
    assert ResidualBlock(6, 6).downsample is None
    assert ResidualBlock(6, 8).downsample.weight.shape == (8, 6, 3, 3)


def test_published_widths():
    model = MaskDecoder((256, 384, 768), 256)
    assert {name: list(weight.shape) for name, weight in model.named_parameters() if weight.ndim == 4} == {
        "up_16_8.skip_conv.weight": [768, 384, 3, 3],
        "up_16_8.out_conv.downsample.weight": [256, 768, 3, 3],
        "up_16_8.out_conv.conv1.weight": [256, 768, 3, 3],
        "up_16_8.out_conv.conv2.weight": [256, 256, 3, 3],
        "up_8_4.skip_conv.weight": [256, 256, 3, 3],
        "up_8_4.out_conv.conv1.weight": [256, 256, 3, 3],
        "up_8_4.out_conv.conv2.weight": [256, 256, 3, 3],
        "pred.weight": [1, 256, 3, 3],
    }


def test_closed_form_equals_the_counter():
    with torch.device("meta"):
        model = MaskDecoder((6, 8, 12), 6)
        features = torch.empty(2, 3, 12, 2, 3), torch.empty(2, 8, 4, 6), torch.empty(2, 6, 8, 12)
    with FlopCounterMode(display=False) as counter:
        model(*features, (32, 48))
    assert counter.get_total_flops() == 2 * model.flops(4, 6, 8, 12, 3)
