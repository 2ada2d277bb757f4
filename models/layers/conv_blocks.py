"""Convolution blocks of ConvMAE's first two stages and the embeddings between its stages.

Gao et al., "ConvMAE: Masked Convolution Meets Masked Autoencoders". Parameter names are those of the published
checkpoints; every LayerNorm here acts on the channels of each pixel.

Axes: B images, C channels, H and W rows and columns of a map.
"""

from __future__ import annotations

from torch import Tensor, nn

MLP_RATIO = 4
KERNEL = 5
"""Edge of the depthwise convolution."""


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class MapEmbedding(nn.Module):
    """Strided convolution whose kernel is its stride, LayerNorm, exact GELU."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, kernel_size=stride, stride=stride)
        self.norm = ChannelNorm(width)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, H, W] -> [B, width, H / stride, W / stride]."""
        return self.act(self.norm(self.proj(x)))


class ConvMLP(nn.Module):
    """MLP of every pixel: 1x1 convolution, exact GELU, 1x1 convolution; hidden width 4 C."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, MLP_RATIO * width, 1)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(MLP_RATIO * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return self.fc2(self.act(self.fc1(x)))


class ConvBlock(nn.Module):
    """``x += conv2(depthwise(conv1(norm1 x))); x += MLP(norm2 x)``; the depthwise convolution is named ``attn``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(width)
        self.conv1 = nn.Conv2d(width, width, 1)
        self.attn = nn.Conv2d(width, width, KERNEL, padding=KERNEL // 2, groups=width)
        self.conv2 = nn.Conv2d(width, width, 1)
        self.norm2 = ChannelNorm(width)
        self.mlp = ConvMLP(width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        x = x + self.conv2(self.attn(self.conv1(self.norm1(x))))
        return x + self.mlp(self.norm2(x))


def embedding_flops(pixels: int, channels: int, width: int, stride: int) -> int:
    """FLOPs of a `MapEmbedding` that gives ``pixels`` pixels of one image: 2 per multiply-add."""
    return 2 * pixels * channels * stride**2 * width


def conv_block_flops(pixels: int, width: int) -> int:
    """FLOPs of a `ConvBlock` on one map of ``pixels`` pixels, likewise."""
    return 2 * pixels * width * (2 * width + KERNEL**2 + 2 * MLP_RATIO * width)
