"""Segmentation of a picture through overlapping windows, averaged with a look at the whole (CAT-Seg, published code).

The picture is squashed to a fixed size, cut into windows, and squashed once more into a single window, the global one.
The network's logits are brought to the window's size; their sigmoids are averaged where windows overlap, and the result
is averaged with that of the global window. With the global window alone the sigmoids of the logits as they are get
resized. What is done after the network costs memory by the class, so it can be done for a few classes at a time; the
result is the same.

Axes: B pictures, H x W pixels, N windows of a picture (the global one is the last), T classes, K = kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.config import build_config, require_positive
from models.reference import unwrap_keys


def bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize [B, C, H, W] to [B, C, *size] without antialiasing, as published."""
    return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class SlidingWindow:
    """Where the windows lie."""

    kernel: int
    """Edge of a window in pixels."""
    stride: int
    """Pixels from one window to the next, at most the kernel."""
    out_res: tuple[int, int]
    """Height and width that pictures are squashed to before they are cut; no larger than the kernel in both axes: there
    is the global window alone."""

    def __post_init__(self) -> None:
        require_positive(self, "kernel", "stride")
        if self.stride > self.kernel:
            raise ValueError(
                f"stride must be at most the kernel {self.kernel}, or pixels between windows are never seen, got "
                f"{self.stride}: try {self.kernel}"
            )
        pair = self.out_res
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(type(e) is int and e > 0 for e in pair):
            raise ValueError(f"out_res must be an edge or [height, width] in pixels, got {pair!r}")
        object.__setattr__(self, "out_res", tuple(pair))
        for edge in self.out_res:
            if not self.alone and (edge < self.kernel or (edge - self.kernel) % self.stride):
                near = self.kernel + max(1, round((edge - self.kernel) / self.stride)) * self.stride
                raise ValueError(
                    f"the windows' picture (out_res, test_size) must measure the kernel {self.kernel} and a multiple of the "
                    f"stride {self.stride}, or its rim is never seen, got {edge}: try {near}"
                )

    @property
    def alone(self) -> bool:
        """Whether there is the global window alone."""
        return max(self.out_res) <= self.kernel

    @property
    def corners(self) -> list[tuple[int, int]]:
        """Row and column of each window's first pixel, row by row, without the global window."""
        if self.alone:
            return []
        rows, columns = (range(0, edge - self.kernel + 1, self.stride) for edge in self.out_res)
        return [(row, column) for row in rows for column in columns]

    @property
    def count(self) -> int:
        """N."""
        return len(self.corners) + 1

    def cut(self, pictures: Tensor) -> Tensor:
        """[B, C, H, W] -> [B * N, C, K, K], picture by picture."""
        k = self.kernel
        whole = bilinear(pictures, (k, k))
        if self.alone:
            return whole
        large = bilinear(pictures, self.out_res)
        windows = [large[..., row : row + k, column : column + k] for row, column in self.corners]
        return torch.stack([*windows, whole], dim=1).flatten(0, 1)

    def merge(self, logits: Tensor, size: tuple[int, int], class_chunk: int | None = None) -> Iterator[Tensor]:
        """Make probabilities of the windows' logits, so many classes at a time.

        Args:
            logits: [B * N, T, h, w], in the order of `cut`, of any resolution.
            size: height and width of the result.
            class_chunk: classes at a time; None: all.

        Yields:
            fp32 [B, up to ``class_chunk``, *size], each class by itself in 0..1.
        """
        for part in logits.unflatten(0, (-1, self.count)).split(class_chunk or logits.shape[1], dim=2):
            yield bilinear(self._average(part), size)

    def _average(self, logits: Tensor) -> Tensor:
        """[B, N, t, h, w] -> probabilities [B, t, *out_res]; [B, t, h, w] with the global window alone."""
        if self.alone:
            return logits[:, 0].float().sigmoid()
        k = self.kernel
        probabilities = [bilinear(window.float(), (k, k)).sigmoid() for window in logits.unbind(1)]
        whole = probabilities.pop()
        total = whole.new_zeros(*whole.shape[:2], *self.out_res)
        cover = whole.new_zeros(self.out_res)
        for (row, column), window in zip(self.corners, probabilities, strict=True):
            total[..., row : row + k, column : column + k] += window
            cover[row : row + k, column : column + k] += 1
        return (total / cover + bilinear(whole, self.out_res)) / 2


@dataclass(frozen=True)
class SlidingWindowConfig:
    """What the published inference fixes, and the size of the result."""

    height: int
    """Rows of the result."""
    width: int
    """Columns of the result."""
    kernel: int = 384
    """Edge of a window in pixels."""
    stride: int = 256
    """Pixels from one window to the next."""
    out_res: int | tuple[int, int] = 640
    """Edge of the square, or height and width, that pictures are squashed to."""

    def __post_init__(self) -> None:
        require_positive(self, "height", "width")
        object.__setattr__(self, "out_res", self.windows.out_res)  # checks the rest

    @property
    def windows(self) -> SlidingWindow:
        """Where the windows lie."""
        pair = (self.out_res, self.out_res) if isinstance(self.out_res, int) else self.out_res
        return SlidingWindow(self.kernel, self.stride, pair)


class SlidingWindowSegmenter(nn.Module):
    """The windows around a network of one 1x1 convolution: what `isochron parity` compares with the published inference."""

    def __init__(self, config: SlidingWindowConfig) -> None:
        super().__init__()
        self.config = config
        self.weight: nn.Parameter | None = None
        self.bias: nn.Parameter | None = None
        self.windows = config.windows

    @classmethod
    def from_reference(cls, state: Mapping[str, Any], **config: Any) -> Self:
        """Build it; ``state`` holds ``weight`` and ``bias`` of the convolution, or nothing where they are inputs.

        Raises:
            ValueError: another key, or an unknown option.
        """
        model, weights = cls(build_config(SlidingWindowConfig, config)), unwrap_keys(state)
        if weights and set(weights) != {"weight", "bias"}:
            raise ValueError(f"state must hold weight and bias, or nothing, got {', '.join(sorted(weights))}")
        for name, value in weights.items():
            setattr(model, name, nn.Parameter(value))
        return model

    def forward(
        self,
        image: Tensor,
        pixel_mean: Tensor,
        pixel_std: Tensor,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Segment one picture.

        Args:
            image: [3, H, W], 0..255.
            pixel_mean: mean of each channel, three numbers.
            pixel_std: their deviations, likewise.
            weight: [T, 3, 1, 1]; None: of the state.
            bias: [T]; None: of the state.

        Returns:
            ``probabilities`` [T, height, width].
        """
        weight, bias = self.weight if weight is None else weight, self.bias if bias is None else bias
        if weight is None:
            raise ValueError("weight must be given, as an input or in the state, got None")
        windows = self.windows.cut(image[None].float())
        windows = (windows - pixel_mean.reshape(3, 1, 1)) / pixel_std.reshape(3, 1, 1)
        merged = self.windows.merge(F.conv2d(windows, weight, bias), (self.config.height, self.config.width))
        return {"probabilities": next(merged)[0]}
