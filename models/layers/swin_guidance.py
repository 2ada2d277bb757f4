"""The separate backbone that guides CAT-Seg of 2023: the first three stages of a Swin transformer, built by timm.

Axes: B pictures, h x w grid of the aggregator's tokens, which is that of the third stage.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.layers.clip_weights import RANDOM
from models.layers.image_tower import IMAGENET_MEAN, IMAGENET_STD, ImageMaps, Pixels
from models.layers.sliding_window import bilinear
from models.layers.trained_networks import HUB_FILE, digest
from models.reference import load_strictly

NAME = "swin_base_patch4_window12_384.ms_in22k"
CHANNELS = (512, 256, 128)
"""Of the stages at one, two and four times the grid."""
STRIDE = 16
"""Pixels between two cells of the third stage."""
STAGES = 3
PATCH = 4


class SwinGuidance(nn.Module):
    """Frozen maps of three stages of Swin-B, each behind a norm of its own, coarse to fine."""

    swin: Any
    norms: Any

    def __init__(self, grid: tuple[int, int], weights: str | None, guidance: Sequence[bool]) -> None:
        """Build it and load its weights, on the CPU; without weights on the meta device.

        Args:
            grid: rows and columns of the third stage.
            weights: a file in timm's or the original layout, ``timm`` (timm fetches it), or ``random``.
            guidance: which of the maps are wanted, coarse to fine.

        Raises:
            ValueError: the weights cannot be read or fetched, or do not fit.
        """
        super().__init__()
        import timm

        on_meta = torch.empty(0).device.type == "meta"
        edge = (grid[0] * STRIDE, grid[1] * STRIDE)
        self.source, self.sha256 = RANDOM, ""
        self.swin = timm.create_model(NAME, img_size=edge, features_only=True, out_indices=tuple(range(STAGES)))
        if not on_meta and weights != RANDOM:
            path, self.source = _find(weights)
            self.sha256 = digest(path)
            # timm fills a part of a network without a word about what is missing: the whole one converts, this one checks.
            with torch.random.fork_rng(devices=[]):
                whole = timm.create_model(NAME, img_size=edge)
            load_strictly(self.swin, _converted(path, whole), dropped=("layers_3.", "norm.", "head."))
        self.pixels = Pixels(IMAGENET_MEAN, IMAGENET_STD)
        self.grid, self.guidance = grid, tuple(guidance)
        channels = self.swin.feature_info.channels()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in channels)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> SwinGuidance:
        """Stay in evaluation mode: what is frozen drops no branches."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> ImageMaps:
        """[B, 3, H, W] -> guidance alone, at one, two and four times the grid."""
        pixels = self.pixels(bilinear(image, (self.grid[0] * STRIDE, self.grid[1] * STRIDE)))
        stages = [norm(x).movedim(-1, 1) for norm, x in zip(self.norms, self.swin(pixels), strict=True)]
        return ImageMaps(None, tuple(x if on else None for x, on in zip(stages[::-1], self.guidance, strict=True)))

    def flops(self) -> int:
        """Of one picture: patches, merging of four cells, MLP, and projections and attention of whole windows."""
        total = 0
        for stage in range(STAGES):
            layer = self.swin[f"layers_{stage}"]
            width: int = self.norms[stage].normalized_shape[0]
            edges = [edge * STRIDE // (PATCH * 2**stage) for edge in self.grid]
            cells = math.prod(edges)
            total += 2 * cells * (layer.downsample.reduction.weight.numel() if stage else 3 * PATCH**2 * width)
            for block in layer.blocks:
                # Where windows do not tile the map, timm pads it for the attention alone.
                seen = math.prod(-(-edge // side) * side for edge, side in zip(edges, block.window_size, strict=True))
                total += 4 * cells * width * block.mlp.fc1.out_features
                total += 4 * seen * width * (2 * width + block.window_area)
        return total


def _find(weights: str | None) -> tuple[Path, str]:
    """The file, and how a record names it."""
    if weights is None:
        raise ValueError(
            f"guidance_weights must be a file, 'timm' or {RANDOM!r}, got null: random weights are never silent"
        )
    if weights == "timm":
        from timm.models._hub import download_from_hf

        repository = f"timm/{NAME}"
        try:
            return Path(download_from_hf(repository, HUB_FILE)), f"{repository}: {HUB_FILE}"
        except Exception as error:  # no connection, no access, no room: whatever it is, the mend is the same
            raise ValueError(
                f"guidance_weights of {NAME} could not be fetched ({type(error).__name__}): download {HUB_FILE} from "
                f"https://huggingface.co/{repository} and set guidance_weights to its path"
            ) from error
    path = Path(weights).expanduser()
    if not path.is_file():
        raise ValueError(f"guidance_weights must be a file, got {weights!r}: mend the path")
    return path, path.name


def _converted(path: Path, whole: nn.Module) -> dict[str, Tensor]:
    """The file's weights under the names of the parts that `SwinGuidance` has of ``whole``.

    Raises:
        ValueError: it cannot be read.
    """
    from timm.models import load_state_dict
    from timm.models.swin_transformer import checkpoint_filter_fn

    try:
        state = checkpoint_filter_fn(load_state_dict(str(path), weights_only=True), whole)
    except Exception as error:  # a damaged or foreign file fails in as many ways as there are formats
        raise ValueError(
            f"guidance_weights {path} cannot be read ({type(error).__name__}): give a .safetensors, .pt or .pth file"
        ) from error
    return {re.sub(r"^layers\.", "layers_", key): value for key, value in state.items()}


def published_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the ``backbone.`` weights of published checkpoints, without that prefix, to those of `SwinGuidance`.

    There the merging of cells ends a stage, in timm it begins the next one. Tables of window positions that the original
    stores, which follow from the window's size, are dropped.
    """
    renamed = {}
    for key, value in state.items():
        if key.endswith(("relative_position_index", "attn_mask")):
            continue
        key = re.sub(r"^layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) + 1}.downsample", key)
        key = re.sub(r"^layers\.(\d+)", r"swin.layers_\1", key)
        key = re.sub(r"^patch_embed", "swin.patch_embed", key)
        renamed[re.sub(r"^norm(\d)", r"norms.\1", key)] = value
    return renamed
