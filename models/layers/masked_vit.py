"""What the masked autoencoders of images share: configuration, masking, the encoder, its checkpoints and the loss.

He et al., "Masked Autoencoders Are Scalable Vision Learners", and its published code. The two architectures differ in
their decoders alone; their encoders have the same weights under the same names.

Axes: B images, L patches an image, V visible and M predicted ones, E width of the encoder, D width of the decoder,
p edge of a patch in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.config import build_config, require_bool, require_positive
from models.layers.mask_counts import MaskCounts, mask_counts
from models.layers.patches import patchify
from models.layers.sincos import sincos_grid
from models.layers.vit import Block, block_flops, layer_norm, require_divisible, xavier_init
from models.reference import load_strictly, unwrap_keys

CHANNELS = 3
TOKEN_STD = 0.02
"""Standard deviation of the initial class token and mask token."""
NORM_PIX_EPS = 1e-6

SIZES: dict[str, dict[str, Any]] = {
    name: {
        "patch_size": patch_size,
        "width": width,
        "layers": layers,
        "heads": heads,
        "decoder_width": decoder_width,
        "decoder_heads": decoder_heads,
    }
    for name, patch_size, width, layers, heads, decoder_width, decoder_heads in [
        ("S/16", 16, 384, 12, 6, 256, 8),
        ("B/16", 16, 768, 12, 12, 512, 16),
        ("L/16", 16, 1024, 24, 16, 512, 16),
        ("H/14", 14, 1280, 32, 16, 512, 16),
    ]
}
"""Published sizes: name -> options of either architecture. Decoders have 8 blocks in MAE, 12 in CrossMAE, at every size."""

TINY: dict[str, Any] = {
    "image_size": 64,
    "patch_size": 8,
    "width": 96,
    "layers": 6,
    "heads": 4,
    "decoder_width": 64,
    "decoder_heads": 4,
}
SMALL: dict[str, Any] = {**SIZES["S/16"], "image_size": 128, "patch_size": 8}
"""What the presets ``tiny`` and ``small`` of both architectures share."""


@dataclass(frozen=True)
class MaskedViTConfig:
    """Options that both architectures have; the defaults are ViT-B/16."""

    image_size: int = 224
    """Edge of the square images in pixels; a multiple of the patch size."""
    patch_size: int = 16
    """Edge of a patch in pixels."""
    width: int = 768
    """Channels of a token in the encoder; a multiple of ``heads`` and of 4."""
    layers: int = 12
    """Encoder blocks."""
    heads: int = 12
    """Attention heads of an encoder block."""
    decoder_width: int = 512
    """Channels of a token in the decoder; a multiple of ``decoder_heads`` and of 4."""
    decoder_layers: int = 8
    """Decoder blocks."""
    decoder_heads: int = 16
    """Attention heads of a decoder block."""
    norm_pix_loss: bool = True
    """Whether predictions are of pixels normalised by the mean and the deviation of their own patch."""
    mask_ratio: float = 0.75
    """Share of the patches that are hidden from the encoder; counts are exact, see `mask_counts`."""

    def __post_init__(self) -> None:
        require_positive(self, "image_size", "patch_size", "width", "layers", "heads")
        require_positive(self, "decoder_width", "decoder_layers", "decoder_heads")
        require_bool(self, "norm_pix_loss")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size must be a multiple of patch_size {self.patch_size}, got {self.image_size}: "
                f"try {max(1, self.image_size // self.patch_size) * self.patch_size}"
            )
        for name, heads in (("width", self.heads), ("decoder_width", self.decoder_heads)):
            require_divisible(name, getattr(self, name), heads, 4)  # 4: sine and cosine of row and of column
        _ = self.counts

    @property
    def patches(self) -> int:
        """Number L of patches of an image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def patch_pixels(self) -> int:
        """Numbers in a patch, p * p * 3."""
        return CHANNELS * self.patch_size**2

    @property
    def counts(self) -> MaskCounts:
        """How many patches of an image are kept, ignored and predicted in training."""
        return mask_counts(self.patches, self.mask_ratio)

    @property
    def read_maps(self) -> tuple[int, ...]:
        """What the decoder reads of the encoder: 0 is its input tokens, l the output of block l, counted from 1."""
        return (self.layers,)


class Masking(NamedTuple):
    """Which patches of each image are seen and which are predicted."""

    kept: Tensor
    """[B, V] int64, in the order of the noise."""
    predicted: Tensor
    """[B, M] int64, in raster order."""
    mask: Tensor
    """[B, L] fp32, 1 on the predicted patches."""


def draw_mask(noise: Tensor, counts: MaskCounts) -> Masking:
    """Keep the patches of the least noise, predict those of the largest; ``noise`` is [B, L], ties go by position."""
    order = noise.argsort(dim=1, stable=True)
    predicted = order[:, counts.kept + counts.ignored :].sort(dim=1).values
    mask = torch.zeros(noise.shape, device=noise.device).scatter(1, predicted, 1.0)
    return Masking(order[:, : counts.kept], predicted, mask)


def take(tokens: Tensor, indices: Tensor) -> Tensor:
    """Pick tokens of each image: [B, N, E] at [B, M] -> [B, M, E]."""
    return tokens.gather(1, indices[..., None].expand(-1, -1, tokens.shape[-1]))


class PatchEmbedding(nn.Module):
    """Linear map from the pixels of a patch to a token, kept in the form of a convolution as published."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(CHANNELS, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, L, E], patches row by row."""
        # As a matrix product, which unlike the backward pass of a convolution is the same every time on a GPU.
        pixels = patchify(images, self.proj.kernel_size[0])
        return F.linear(pixels, self.proj.weight.permute(0, 2, 3, 1).flatten(1), self.proj.bias)


class MaskedViT(nn.Module):
    """Encoder and common ends of a masked autoencoder; parameters bear the names of the published checkpoints.

    A subclass adds its decoder blocks and `forward`, and calls `initialise` once all its parts are there. Without
    ``encoder_norm`` the decoder reads maps of the encoder that are not normed, and there is no final norm.
    """

    config_class: ClassVar[type[MaskedViTConfig]] = MaskedViTConfig
    config: MaskedViTConfig

    def __init__(self, config: MaskedViTConfig, *, encoder_norm: bool = True) -> None:
        super().__init__()
        self.config = config
        # Worked out once: exact arithmetic is nothing for every step, nor for a compiler.
        self.counts, self.read_maps = config.counts, config.read_maps
        width, decoder_width = config.width, config.decoder_width
        self.patch_embed = PatchEmbedding(config.patch_size, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = self._positions(width)
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.layers))
        self.norm = layer_norm(width) if encoder_norm else None
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width))
        self.decoder_pos_embed = self._positions(decoder_width)
        self.decoder_norm = layer_norm(decoder_width)
        self.decoder_pred = nn.Linear(decoder_width, config.patch_pixels)

    def _positions(self, width: int) -> nn.Parameter:
        """Position table [1, 1 + L, width], zeros for the class token: not trained, but part of the checkpoints."""
        edge = self.config.image_size // self.config.patch_size
        return nn.Parameter(F.pad(sincos_grid(edge, edge, width), (0, 0, 1, 0))[None], requires_grad=False)

    def initialise(self) -> None:
        """Draw the initial weights as published; the bias of the patch embedding stays at torch's default."""
        xavier_init(self)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.flatten(1))
        for token in (self.cls_token, self.mask_token):
            nn.init.normal_(token, std=TOKEN_STD)

    def check_inputs(self, images: Tensor, noise: Tensor | None = None) -> None:
        """Raise ValueError unless images are [B, 3, H, W] and noise is [B, L] of the configured size."""
        size = self.config.image_size
        if images.ndim != 4 or images.shape[1:] != (CHANNELS, size, size):
            raise ValueError(f"images must be [B, {CHANNELS}, {size}, {size}], got {list(images.shape)}")
        if noise is not None and noise.shape != (images.shape[0], self.config.patches):
            raise ValueError(f"noise must be {[images.shape[0], self.config.patches]}, got {list(noise.shape)}")

    def encode(self, images: Tensor, kept: Tensor | None = None) -> list[Tensor]:
        """Run the encoder on the class token and the patches ``kept`` [B, V], all of them by default.

        Returns:
            The maps that the decoder reads, [B, 1 + V, E] each, from the input on. Blocks behind the last do not run.
        """
        tokens = self.patch_embed(images) + self.pos_embed[:, 1:]
        if kept is not None:
            tokens = take(tokens, kept)
        first = (self.cls_token + self.pos_embed[:, :1]).expand(images.shape[0], -1, -1)
        tokens = torch.cat([first, tokens], dim=1)
        maps = []
        for layer in range(self.read_maps[-1] + 1):
            if layer:
                tokens = self.blocks[layer - 1](tokens)
            if layer in self.read_maps:
                maps.append(tokens)
        return maps

    def features(self, images: Tensor) -> Tensor:
        """Describe whole images: the mean of the patch tokens of the last map, normed.

        Args:
            images: nothing masked, [B, 3, H, W].

        Returns:
            [B, E] fp32. A model without a final norm has its tokens normed without weights.

        Raises:
            ValueError: images of another size.
        """
        self.check_inputs(images)
        tokens = self.encode(images)[-1]
        tokens = F.layer_norm(tokens, tokens.shape[-1:]) if self.norm is None else self.norm(tokens)
        return tokens[:, 1:].float().mean(1)

    def reference_loss(self, batch: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> Tensor:
        """Mean squared error over the predicted patches, as published.

        Args:
            batch: ``images`` [B, 3, H, W] with nothing blanked.
            outputs: of `forward` on them.
        """
        target = patchify(batch["images"].float(), self.config.patch_size)
        if self.config.norm_pix_loss:
            variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
            target = (target - mean) / (variance + NORM_PIX_EPS).sqrt()
        predicted = outputs["mask"].bool()
        prediction = outputs["prediction"].float()
        if prediction.shape[1] == target.shape[1]:
            prediction = prediction[predicted]
        return F.mse_loss(prediction.flatten(0, -2), target[predicted])

    def encode_flops(self, batch: Mapping[str, Tensor]) -> int:
        """The share of the encoder in `flops`."""
        config = self.config
        embedding = 2 * config.patches * config.patch_pixels * config.width
        blocks = self.read_maps[-1] * block_flops(1 + self.counts.kept, config.width)
        return batch["images"].shape[0] * (embedding + blocks)

    def unused_parameters(self) -> frozenset[str]:
        """Weights that the options leave without gradient: those of the blocks behind the last map that is read."""
        unread = range(self.read_maps[-1], self.config.layers)
        return frozenset(
            f"blocks.{index}.{name}" for index in unread for name, _ in self.blocks[index].named_parameters()
        )

    @classmethod
    def from_reference(cls, state: Mapping[str, Any], *, encoder_only: bool = False, **config: Any) -> Self:
        """Build the model from a checkpoint in the published layout.

        Args:
            state: its state dict, or the file's dict that holds it under ``model``; wrapper prefixes are stripped.
            encoder_only: whether the checkpoint holds an encoder alone (``cls_token``, ``pos_embed``, ``patch_embed``,
                ``blocks``, ``norm``), of either architecture. Everything else is then freshly drawn. Of an encoder with a
                final norm, a model without one drops exactly ``norm.weight`` and ``norm.bias``.
            **config: the options of the configuration.

        Raises:
            ValueError: an unknown option, a key that is missing, superfluous or of another shape, a full checkpoint where
                an encoder is expected, or an encoder where a full one is.
        """
        model = cls(build_config(cls.config_class, config))
        weights = unwrap_keys(state)
        fresh = {key: value for key, value in model.state_dict().items() if not _of_encoder(key)}
        decoder = [key for key in weights if not _of_encoder(key)]
        if encoder_only and decoder:
            raise ValueError(
                f"state holds more than an encoder ({_some(decoder)}): load a full checkpoint without encoder_only, "
                f"or give only its encoder's keys"
            )
        if weights and not encoder_only and not decoder:
            raise ValueError(
                f"state holds an encoder alone ({_some(fresh)} missing): load it with encoder_only=True, which draws the "
                f"decoder afresh, or give the full checkpoint"
            )
        dropped: tuple[str, ...] = ()
        if encoder_only:
            weights |= fresh
            dropped = ("norm.weight", "norm.bias") if model.norm is None else ()
        load_strictly(model, weights, dropped)
        return model


def _of_encoder(key: str) -> bool:
    return key.split(".")[0] in {"cls_token", "pos_embed", "patch_embed", "blocks", "norm"}


def _some(keys: Any) -> str:
    """The first few keys, for an error."""
    keys = list(keys)
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(map(repr, keys[:3])) + more
