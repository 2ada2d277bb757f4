"""Convolution blocks against the same written with plain functions."""

import torch
import torch.nn.functional as F

from models.layers.conv_blocks import ConvBlock, MapEmbedding
from tests.models.helpers import randomise


def norm(x, weights, name):
    """LayerNorm over the channels of every pixel."""
    centred = x - x.mean(1, keepdim=True)
    scaled = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
    return scaled * weights[f"{name}.weight"].view(-1, 1, 1) + weights[f"{name}.bias"].view(-1, 1, 1)


def conv(x, weights, name, **options):
    return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **options)


def gelu(x):
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def test_an_embedding_is_convolution_norm_and_gelu():
    module = randomise(MapEmbedding(3, 8, 2))
    weights, x = module.state_dict(), torch.randn(2, 3, 6, 10)
    expected = gelu(norm(conv(x, weights, "proj", stride=2), weights, "norm"))
    assert expected.shape == (2, 8, 3, 5)
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-5)


def test_a_block_has_one_activation_and_that_in_the_mlp():
    module = randomise(ConvBlock(8))
    weights, x = module.state_dict(), torch.randn(2, 8, 6, 7)
    mixed = conv(conv(norm(x, weights, "norm1"), weights, "conv1"), weights, "attn", padding=2, groups=8)
    middle = x + conv(mixed, weights, "conv2")
    expected = middle + conv(gelu(conv(norm(middle, weights, "norm2"), weights, "mlp.fc1")), weights, "mlp.fc2")
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-5)
