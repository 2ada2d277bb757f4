"""How well every class fits every place of a picture, and what a network first makes of it (CAT-Seg, section 3.2).

Axes: B samples, T classes, P prompts of a class, C width of the features, h x w grid of the image, N = hw places, D hidden
width. Text features whose first axis is 1 belong to all samples: what is made of them alone is made once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.chunks import in_chunks


def cost_volume(image: Tensor, text: Tensor) -> Tensor:
    """Cosine of every place with every prompt of every class.

    Args:
        image: [B, C, h, w].
        text: [B or 1, T, P, C].

    Returns:
        [B, T, P, h, w], in -1..1.
    """
    image, text = F.normalize(image, dim=1), F.normalize(text, dim=-1)
    cost = text.flatten(1, 2) @ image.flatten(2)
    return cost.unflatten(1, text.shape[1:3]).unflatten(-1, image.shape[2:])


def best_classes(cost: Tensor, count: int) -> Tensor:
    """The ``count`` classes that fit some place best, by any prompt: [B, T, P, h, w] -> int64 [B, count], in no order."""
    return cost.flatten(2).amax(-1).topk(count, dim=-1, sorted=False).indices


def pick(x: Tensor, classes: Tensor) -> Tensor:
    """Those classes of x: [B or 1, T, ...] and int64 [B, K] -> [B, K, ...]."""
    x = x.expand(len(classes), *x.shape[1:])
    return x.gather(1, classes.view(*classes.shape, *[1] * (x.ndim - 2)).expand(-1, -1, *x.shape[2:]))


def mean_text(text: Tensor) -> Tensor:
    """One vector of length 1 for each class: the direction of the mean of its prompts, [B, T, P, C] -> [B, T, C]."""
    return F.normalize(text.mean(2), dim=-1)


def embed_cost(convolution: nn.Conv2d, cost: Tensor, chunk: int | None = None) -> Tensor:
    """Convolve each class's map, its prompts being the channels: [B, T, P, h, w] -> [B, T, h, w, D].

    ``chunk`` classes are computed at once; None: all.
    """

    def embed(cost: Tensor) -> Tensor:
        return convolution(cost.flatten(0, 1)).permute(0, 2, 3, 1).unflatten(0, cost.shape[:2])

    return in_chunks(embed, cost, chunk, dim=1)


def embed_features(convolution: nn.Conv2d, image: Tensor, text: Tensor, chunk: int | None = None) -> Tensor:
    """Convolve the feature volume: at every place of every class's map its image and its text vector, in one.

    The volume is never made. A convolution is linear in its channels, so the image's half is the same for all classes, and
    the text's, which is constant in space, differs from place to place only in which taps still lie inside the map.

    Args:
        convolution: of 2C channels, with an odd square kernel and the padding that keeps the size.
        image: [B, C, h, w], normalised here.
        text: [B or 1, T, P, C], each prompt normalised here, and their mean again.
        chunk: classes that are computed at once; None: all.

    Returns:
        [B, T, h, w, D].
    """
    channels, kernel, weight = image.shape[1], convolution.kernel_size[0], convolution.weight
    padding = kernel // 2
    of_image = F.conv2d(F.normalize(image, dim=1), weight[:, :channels], convolution.bias, padding=padding)
    of_image = of_image.permute(0, 2, 3, 1)[:, None]
    of_taps = weight[:, channels:].permute(2, 3, 0, 1).reshape(-1, channels)
    inside = F.unfold(torch.ones_like(image[:1, :1]), kernel, padding=padding)[0].T

    def embed(vectors: Tensor) -> Tensor:
        taps = F.linear(vectors, of_taps).unflatten(-1, (kernel**2, -1))
        return (inside @ taps).unflatten(2, image.shape[2:]) + of_image

    return in_chunks(embed, mean_text(F.normalize(text, dim=-1)), chunk, dim=1)
