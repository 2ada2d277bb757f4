"""Image features from networks that were trained elsewhere, on the grid of a model's tokens.

DINOv2, DINOv3 and PE-Core are built by timm, which also knows their published weight files; AlexNet is the trunk of
shift-tolerant LPIPS, whose package carries trained weights along, so that the path runs without a network connection.
Weights come from a file, from the package, or are fetched; what cannot be had is an error, never random weights. On the
meta device, where FLOPs are counted, nothing is read or fetched.

Axes: N images, H x W pixels, P = gh * gw tokens, F channels of a feature, D width of a token.
"""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.layers.config import require_bool
from models.layers.patches import TOKEN_STD, resized
from models.layers.precision import full_precision
from models.layers.trained_networks import NETWORKS, AlexNet, VisionTransformer, digest, find_weights

RESIZE = ("image", "features")


@dataclass(frozen=True)
class ImageEncoderConfig:
    """Which network gives the features, from which of its layers, and how they meet the token grid."""

    name: str
    """dinov2-b14, dinov2-l14, dinov3-b16, pe-core-l14, or alexnet (the trunk of ST-LPIPS)."""
    weights: str = ""
    """Local file (.safetensors, .pt, .pth) in timm's or the original layout; empty: the package's own, or fetched."""
    layer: int = 0
    """Block, counted from 1, whose raw output is the feature; 0: the last one, behind the network's final norm."""
    frozen: bool = True
    """Keep the weights as they are: they are then no parameters of the model and not in its state dict."""
    input_size: int | None = None
    """With ``resize: features`` (and for alexnet always) the edge in pixels that images are resized to; 0: as they come;
    None: 448, 512 for dinov3-b16, 336 for pe-core-l14 (as it was trained), 224 for alexnet. With ``resize: image`` the size follows from the token grid."""
    resize: str = "image"
    """image: the image is resized so that the encoder's patches are the model's (448 px for 32 x 32 tokens and patch 14);
    features: the encoder runs at ``input_size``, its map is resized to the token grid (also called patch-interpolate).
    AlexNet has no patches: its map is always resized."""
    zero_init: bool = False
    """The features join the tokens by a branch that starts at zero, instead of by a concatenation."""

    def __post_init__(self) -> None:
        if self.name not in NETWORKS:
            raise ValueError(f"image encoder: name must be one of {', '.join(NETWORKS)}, got {self.name!r}")
        blocks, size = NETWORKS[self.name].blocks, self.input_size
        if isinstance(self.layer, bool) or not isinstance(self.layer, int) or not 0 <= self.layer <= blocks:
            raise ValueError(f"image encoder: layer of {self.name} must be 0 (last) to {blocks}, got {self.layer!r}")
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 0):
            raise ValueError(f"image encoder: input_size must be pixels >= 0 or null, got {size!r}")
        if self.resize not in RESIZE:
            raise ValueError(f"image encoder: resize must be one of {', '.join(RESIZE)}, got {self.resize!r}")
        require_bool(self, "frozen", "zero_init")


class ImageEncoder(nn.Module):
    """A trained network as a source of features.

    Frozen, the network is hidden: its weights are not among ``parameters()`` nor in the state dict, ``train()`` leaves it
    in evaluation mode, no gradient is kept for it, and it follows ``.to``. Copies of the encoder (a model's average) share
    it, also once they have been moved: one network for all that are on one device in one type. Otherwise it is an ordinary
    submodule. It is cut off behind ``config.layer``. Under autocast it runs in the type of the rest.
    """

    network: VisionTransformer | AlexNet
    _shared: _Shared

    def __init__(self, config: ImageEncoderConfig) -> None:
        """Build the network and load its weights, on the CPU; without weights on the meta device.

        Raises:
            ValueError: the weights cannot be read or fetched, or do not fit; a package is missing. One line with the mend.
        """
        super().__init__()
        self.config = config
        on_meta = torch.empty(0).device.type == "meta"
        self.source, self.sha256 = "none: on the meta device", ""
        if not on_meta:
            path, self.source = find_weights(config.name, config.weights)
            self.sha256 = digest(path)
        # The random state is left alone, so that the model's own initial weights do not depend on its encoder.
        with (
            torch.device("meta" if on_meta else "cpu"),
            torch.random.fork_rng(devices=[]),
            torch.inference_mode(False),
        ):
            network = (AlexNet if config.name == "alexnet" else VisionTransformer)(config.name)
            if not on_meta:
                network.load(path)
        network.cut(config.layer)
        if on_meta:
            network.to("meta").make_traceable()
        if config.frozen:
            self.__dict__["network"] = network.eval().requires_grad_(False)  # not by setattr, which would register it
            self._shared = _Shared({_place(network): network})
        else:
            self.network = network
        self.channels = self.layer_channels([0])[0]

    def forward(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Features of the configured layer.

        Args:
            images: RGB in 0..1, [N, 3, H, W].
            grid: rows and columns (gh, gw) of the model's tokens.

        Returns:
            [N, P, F], row by row.

        Raises:
            ValueError: a size that the network cannot read, or ``input_size`` that contradicts the token grid.
        """
        return self._maps(images, grid, [self.config.layer])[0]

    def taps(
        self, images: Tensor, grid: tuple[int, int], layers: Sequence[int], *, labels: bool = False
    ) -> tuple[Tensor, ...]:
        """Raw outputs of several layers in one pass.

        Args:
            images: as in `forward`.
            grid: as in `forward`.
            layers: counted from 1, none behind ``config.layer``; no final norm.
            labels: resize as published for the labels of REPA: images by plain bicubic interpolation also where they
                shrink (others are antialiased then), maps by bicubic instead of bilinear interpolation.

        Returns:
            [N, P, F] for each of ``layers``, in their order.
        """
        last = self.config.layer or NETWORKS[self.config.name].blocks
        if not all(1 <= layer <= last for layer in layers):
            raise ValueError(f"image encoder: layers must be from 1 to {last}, got {list(layers)}")
        return tuple(self._maps(images, grid, layers, labels=labels))

    def layer_channels(self, layers: Sequence[int]) -> list[int]:
        """Channels F of each of ``layers``, counted from 1; 0 is the last one."""
        return [self.network.channels[layer - 1] for layer in layers]

    def flops(self, images: int, grid: tuple[int, int], size: tuple[int, int] | None = None) -> int:
        """FLOPs of one forward pass over ``images`` images; 2 per multiply-add, resizing not counted.

        Args:
            images: how many.
            grid: as in `forward`.
            size: height and width of the images, read only where ``input_size`` is 0.
        """
        if size is None and self.config.input_size == 0:
            raise ValueError("image encoder: with input_size 0 the FLOPs depend on the images: give size (H, W)")
        return images * self.network.flops(*self._input_size(size or (0, 0), grid))

    def identity(self) -> dict[str, Any]:
        """What was loaded: ``name``, ``layer``, ``frozen``, ``source``, ``sha256`` of the weight file, ``parameters``.

        ``parameters`` counts what is kept of the network, trained or not. On the meta device ``sha256`` is empty.
        """
        return {
            "name": self.config.name,
            "layer": self.config.layer or NETWORKS[self.config.name].blocks,
            "frozen": self.config.frozen,
            "source": self.source,
            "sha256": self.sha256,
            "parameters": sum(weight.numel() for weight in self.network.parameters()),
        }

    def _maps(
        self, images: Tensor, grid: tuple[int, int], layers: Sequence[int], *, labels: bool = False
    ) -> list[Tensor]:
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"image encoder: images must be [N, 3, H, W], got {list(images.shape)}")
        size = self._input_size((images.shape[-2], images.shape[-1]), grid)
        with torch.no_grad() if self.config.frozen else contextlib.nullcontext():
            with full_precision(images.device):
                pixels = self.network.scaled(resized(images.float(), size, "bicubic", antialias=not labels))
            found = self.network(pixels, sorted(set(layers)))
            by_layer = dict(zip(sorted(set(layers)), found, strict=True))
            maps = [resized(by_layer[layer], grid, "bicubic" if labels else "bilinear") for layer in layers]
            return [found.flatten(2).transpose(1, 2) for found in maps]

    def _input_size(self, size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
        """Height and width at which the network sees images of ``size``."""
        edge, patch = self.config.input_size, self.network.patch_size
        wanted = size if edge == 0 else (edge, edge) if edge else None
        if self.config.resize == "image" and patch:
            aligned = (grid[0] * patch, grid[1] * patch)
            if wanted not in (None, aligned):
                raise ValueError(
                    f"image encoder: input_size {edge} does not put the patches of {self.config.name} on the {grid[0]} x "
                    f"{grid[1]} tokens: leave it out (it is then {aligned[0]} x {aligned[1]}), or set resize: features"
                )
            return aligned
        height, width = wanted or (NETWORKS[self.config.name].input_size,) * 2
        if height % (patch or 1) or width % (patch or 1) or min(height, width) < self.network.smallest:
            raise ValueError(
                f"image encoder: {self.config.name} reads multiples of {patch or 1} px from {self.network.smallest} px, "
                f"got {height} x {width}: set another input_size"
            )
        return height, width

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ImageEncoder:
        super()._apply(fn, recurse)
        if self.config.frozen:
            # Not converted in place: a copy that shares the network may stay where it is. Where another copy went before,
            # its network is taken over.
            probe = fn(torch.empty(0, dtype=_place(self.network)[1], device=_place(self.network)[0]))
            network = self._shared.get((probe.device, probe.dtype))
            if network is None or network is self.network:
                weights = {id(p): nn.Parameter(p.data, requires_grad=False) for p in self.network.parameters()}
                buffers = {id(buffer): buffer for buffer in self.network.buffers()}
                network = copy.deepcopy(self.network, {**weights, **buffers})._apply(fn)
                self._shared[_place(network)] = network
            self.__dict__["network"] = network
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ImageEncoder:
        if self.config.frozen:
            memo[id(self.network)] = self.network
        clone = self.__class__.__new__(self.__class__)
        memo[id(self)] = clone
        clone.__dict__.update({name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()})
        return clone


class _Shared(weakref.WeakValueDictionary[tuple[torch.device, torch.dtype], nn.Module]):
    """The networks that an encoder and its copies use, by where they are; each lives as long as one of them uses it."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self

    def __reduce__(self) -> tuple[type[_Shared], tuple[()]]:
        return _Shared, ()  # in another process there is nobody to share with


def _place(network: nn.Module) -> tuple[torch.device, torch.dtype]:
    weight = next(network.parameters())
    return weight.device, weight.dtype


class FeatureFusion(nn.Module):
    """Joins features to tokens, in fp32 like the tokenisers whose rays it passes on.

    ``token = Linear([feature ; token])`` without bias, from normal(0, 0.02), as published for Efficient-LVSM; with
    ``zero_init`` instead ``token + Linear(feature)`` from zero, so that the model starts as the one without features.
    """

    def __init__(self, channels: int, width: int, zero_init: bool = False) -> None:
        super().__init__()
        self.zero_init = zero_init
        self.linear = nn.Linear(channels if zero_init else channels + width, width, bias=False)
        if zero_init:
            nn.init.zeros_(self.linear.weight)
        else:
            nn.init.normal_(self.linear.weight, std=TOKEN_STD)

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        """[..., P, D] and [..., P, F] -> [..., P, D], fp32."""
        with full_precision(tokens.device):
            tokens, features = tokens.float(), features.float()
            if self.zero_init:
                return tokens + self.linear(features)
            return self.linear(torch.cat([features, tokens], dim=-1))

    def flops(self, tokens: int) -> int:
        """FLOPs for so many tokens; 2 per multiply-add."""
        return 2 * tokens * self.linear.in_features * self.linear.out_features
