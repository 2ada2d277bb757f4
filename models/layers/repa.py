"""REPA: a model's tokens are drawn towards the features of a frozen, trained image encoder.

Representation alignment (Yu et al. 2025) as in the published code of Efficient-LVSM: a projector for each stream and pair of
layers maps tapped tokens to the channels of the teacher, whose raw block outputs on the same images are the labels.
Training only; the teacher sees the true target images, the model never does.

Axes: B scenes, V views, P patch tokens, D width, F channels of the teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.attention import SelfAttention
from models.layers.config import build_config, require_positive
from models.layers.image_encoder import ImageEncoder, ImageEncoderConfig
from models.layers.precision import full_precision

STREAMS = {"inputs": ("input",), "targets": ("target",), "both": ("input", "target")}
LOSSES = ("cos", "mse", "smooth-l1")
PROJECTORS = ("mlp", "attention")
HEAD_DIM = 64
"""Channels of a head in the attention projector."""


@dataclass(frozen=True)
class RepaConfig:
    """What is distilled, from where to where."""

    teacher: ImageEncoderConfig
    """The frozen encoder; its ``layer`` stays 0, the pairs name the layers. Published: dinov2-b14 with resize: features,
    input_size: 336, or dinov3-b16. Images reach it by plain bicubic interpolation, as published: not antialiased where they
    are larger than it reads them."""
    pairs: tuple[tuple[int, int], ...] = ((8, 2),)
    """(teacher layer, model layer), both counted from 1."""
    on: str = "both"
    """inputs, targets or both."""
    loss: str = "smooth-l1"
    """cos (minus the cosine), mse, or smooth-l1 (beta 1), over the channels."""
    projector: str = "mlp"
    """mlp: Linear D -> hidden, SiLU, Linear, SiLU, Linear -> F. attention: Linear D -> hidden, self-attention over the
    patches of a view (heads of 64, QK-norm), Linear -> F."""
    hidden: int = 2048
    """Channels inside the projector."""
    weight: float = 0.5
    """Factor on the loss."""
    until: float = 1.0
    """Progress at which distillation stops, in (0, 1]."""

    def __post_init__(self) -> None:
        if isinstance(self.teacher, Mapping):
            object.__setattr__(self, "teacher", build_config(ImageEncoderConfig, self.teacher))
        if not isinstance(self.teacher, ImageEncoderConfig):
            raise ValueError(f"repa: teacher must be the options of an image encoder, got {self.teacher!r}")
        object.__setattr__(self, "pairs", _pairs(self.pairs))
        if not self.teacher.frozen or self.teacher.layer:
            raise ValueError("repa: teacher must be frozen and name no layer (the pairs do): leave both options out")
        for layer, _ in self.pairs:
            replace(self.teacher, layer=layer)  # complains of a layer that the teacher does not have
        for name, known in (("on", tuple(STREAMS)), ("loss", LOSSES), ("projector", PROJECTORS)):
            if getattr(self, name) not in known:
                raise ValueError(f"repa: {name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        require_positive(self, "hidden")
        if self.projector == "attention" and self.hidden % HEAD_DIM:
            raise ValueError(f"repa: hidden must be a multiple of {HEAD_DIM} for attention, got {self.hidden}")
        for name in ("weight", "until"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"repa: {name} must be a number, got {value!r}")
        if not self.weight > 0:
            raise ValueError(f"repa: weight must be > 0, got {self.weight!r}: leave repa out to train without it")
        if not 0 < self.until <= 1:
            raise ValueError(f"repa: until must be a progress in (0, 1], got {self.until!r}")


class Repa(nn.Module):
    """Teacher, projectors and loss.

    A model keeps it as ``self.repa_projector``: the keys are then the published ones,
    ``repa_projector.{input|target}.{teacher layer}.{model layer}.{0,2,4}.{weight,bias}``; the teacher has none.
    """

    def __init__(self, config: RepaConfig, width: int) -> None:
        """`width`: channels D of the model's tokens.

        Raises:
            ValueError: the teacher's weights cannot be had.
        """
        super().__init__()
        self.config = config
        layers = sorted({teacher for teacher, _ in config.pairs})
        self.teacher = ImageEncoder(replace(config.teacher, layer=layers[-1]))
        self.teacher_layers = layers
        self.streams = STREAMS[config.on]
        channels = dict(zip(layers, self.teacher.layer_channels(layers), strict=True))
        for stream in self.streams:
            by_teacher: dict[str, nn.Module] = {}
            for layer in layers:
                models = [model for teacher, model in config.pairs if teacher == layer]
                by_model = {str(model): _projector(config, width, channels[layer]) for model in models}
                by_teacher[str(layer)] = nn.ModuleDict(by_model)
            self.add_module(stream, nn.ModuleDict(by_teacher))

    def taps(self, stream: str) -> frozenset[int]:
        """Model layers, counted from 1, whose tokens the loss reads; ``stream``: input or target."""
        return frozenset(model for _, model in self.config.pairs) if stream in self.streams else frozenset()

    def loss(self, batch: Mapping[str, Tensor], outputs: Mapping[str, Tensor], progress: float = 0.0) -> Tensor:
        """The weighted distillation loss.

        Summed over streams and pairs, averaged over the view samples that are read: with 2 input and 6 target views the
        targets carry three quarters of it. A view that ``input_mask`` leaves out counts for nothing, whatever it holds.

        Behind ``until`` the teacher does not run and the loss is 0, as 0 times the projectors' weights: they then still
        receive a gradient, of zero, without which DistributedDataParallel would wait for them. So no parameter is ever
        unused.

        Args:
            batch: ``input_images`` [B, Vi, 3, H, W] and ``target_images`` [B, Vt, 3, H, W] in 0..1; may hold ``input_mask``
                [B, Vi], true where a view is there.
            outputs: ``repa.input.L`` and ``repa.target.L`` [B, V, P, D] for the layers L of `taps`, without registers.
            progress: share of the budget that is spent.

        Returns:
            Scalar, fp32.

        Raises:
            ValueError: tapped tokens that are missing, or are no grid over the image.
        """
        if progress >= self.config.until:
            return torch.stack([weight.float().sum() for weight in self.parameters()]).sum() * 0
        sums, views = [], []
        for stream in self.streams:
            images = batch[f"{stream}_images"]
            mask = batch.get("input_mask") if stream == "input" else None
            there = images.new_ones(images.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
            if mask is not None:
                images = images.masked_fill(~there[:, :, None, None, None], 0)
            views.append(there.sum())
            sums += [torch.where(there, distance, 0).sum() for distance in self._distances(stream, images, outputs)]
        return self.config.weight * torch.stack(sums).sum() / torch.stack(views).sum()

    def _distances(self, stream: str, images: Tensor, outputs: Mapping[str, Tensor]) -> list[Tensor]:
        """[B, V] for each pair: distance of projected tokens and labels, averaged over the patches."""
        tapped = [_tokens(outputs, f"repa.{stream}.{model}") for _, model in self.config.pairs]
        grid = _grid(tapped[0].shape[2], images.shape[-2], images.shape[-1])
        labels = self.teacher.taps(images.flatten(0, 1), grid, self.teacher_layers, labels=True)
        by_layer = dict(zip(self.teacher_layers, labels, strict=True))
        distances = []
        for (teacher, model), tokens in zip(self.config.pairs, tapped, strict=True):
            projected = self.get_submodule(f"{stream}.{teacher}.{model}")(tokens.flatten(0, 1))  # [B V, P, F]
            with full_precision(projected.device):
                distance = _distance(self.config.loss, projected.float(), by_layer[teacher].float())
            distances.append(distance.mean(-1).view(images.shape[:2]))
        return distances


def _distance(kind: str, projected: Tensor, labels: Tensor) -> Tensor:
    """[..., F] and [..., F] -> [...]."""
    if kind == "cos":
        return -F.cosine_similarity(projected, labels, dim=-1)
    if kind == "mse":
        return (projected - labels).square().mean(-1)
    return F.smooth_l1_loss(projected, labels, reduction="none").mean(-1)


def _projector(config: RepaConfig, width: int, channels: int) -> nn.Sequential:
    """With torch's own initial weights, as published."""
    first, last = nn.Linear(width, config.hidden), nn.Linear(config.hidden, channels)
    if config.projector == "attention":
        return nn.Sequential(first, SelfAttention(config.hidden, HEAD_DIM), last)
    return nn.Sequential(first, nn.SiLU(), nn.Linear(config.hidden, config.hidden), nn.SiLU(), last)


def _tokens(outputs: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in outputs:
        raise ValueError(f"repa: the model returns no {name!r}: name a layer that it has, and keep it in training mode")
    return outputs[name]


def _grid(tokens: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of so many square patches over an image."""
    edge = round((height * width / tokens) ** 0.5)
    rows, columns = height // edge, width // edge
    if rows * columns != tokens:
        raise ValueError(f"repa: {tokens} tokens are no grid of square patches over {height} x {width} px")
    return rows, columns


def _pairs(pairs: Any) -> tuple[tuple[int, int], ...]:
    """Pairs from a configuration file, where they are lists."""
    try:
        found = tuple((teacher, model) for teacher, model in pairs)
    except (TypeError, ValueError):
        found = ()
    numbers = [n for pair in found for n in pair]
    if not found or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in numbers):
        raise ValueError(f"repa: pairs must be [[teacher layer, model layer], ...], counted from 1, got {pairs!r}")
    if len(set(found)) < len(found):
        raise ValueError(f"repa: pairs must differ from one another, got {pairs!r}")
    return found
