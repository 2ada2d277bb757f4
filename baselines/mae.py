"""MAE: a masked autoencoder of images whose decoder is self-attention over all patches.

He et al., "Masked Autoencoders Are Scalable Vision Learners", and its published code. The encoder sees the visible patches
alone; the decoder sees them again beside a mask token for every hidden one.

Axes: B images, L patches an image, V visible ones, E width of the encoder, D width of the decoder, p edge of a patch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.layers.masked_vit import SIZES, SMALL, TINY, MaskedViT, MaskedViTConfig, draw_mask
from models.layers.vit import Block, block_flops


@dataclass(frozen=True)
class MAEConfig(MaskedViTConfig):
    """Size of the model; the defaults are the published ViT-B/16."""


PRESETS: dict[str, MAEConfig] = {
    "tiny": MAEConfig(**TINY, decoder_layers=4),
    "small": MAEConfig(**SMALL),
    "paper": MAEConfig(image_size=224, **SIZES["B/16"]),
}


class MAE(MaskedViT):
    """Masked autoencoder with a self-attention decoder."""

    config_class = MAEConfig
    config: MAEConfig
    norm: nn.LayerNorm

    def __init__(self, config: MAEConfig) -> None:
        super().__init__(config)
        self.decoder_embed = nn.Linear(config.width, config.decoder_width)
        self.decoder_blocks = nn.ModuleList(
            Block(config.decoder_width, config.decoder_heads) for _ in range(config.decoder_layers)
        )
        self.initialise()

    def forward(self, images: Tensor, noise: Tensor, predict_all: bool = False) -> dict[str, Tensor]:
        """Predict every patch from the visible ones.

        Args:
            images: [B, 3, H, W]; the hidden patches are not read.
            noise: [B, L]; the patches of the least noise are visible.
            predict_all: no matter here, all patches are predicted always.

        Returns:
            ``prediction``: fp32 [B, L, p * p * 3], patches as `patchify` cuts them; ``mask``: fp32 [B, L], 1 on the hidden
            patches.

        Raises:
            ValueError: images or noise of another size.
        """
        self.check_inputs(images, noise)
        masking = draw_mask(noise, self.counts)
        seen = self.decoder_embed(self.norm(self.encode(images, masking.kept)[-1]))  # [B, 1 + V, D]
        tokens = self.mask_token.expand(*noise.shape, -1)
        places = masking.kept[..., None].expand(-1, -1, tokens.shape[-1])
        tokens = tokens.scatter(1, places, seen[:, 1:].to(tokens.dtype))
        tokens = torch.cat([seen[:, :1], tokens], dim=1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            tokens = block(tokens)
        return {"prediction": self.decoder_pred(self.decoder_norm(tokens[:, 1:])).float(), "mask": masking.mask}

    def flops(self, batch: Mapping[str, Tensor]) -> int:
        """FLOPs of one forward pass: 2 per multiply-add, matrix products and attention, embeddings and head included.

        Args:
            batch: ``images`` [B, 3, H, W]; only its shape is read.
        """
        return self.encode_flops(batch) + self.decode_flops(batch)

    def decode_flops(self, batch: Mapping[str, Tensor]) -> int:
        """The share of the decoder in `flops`."""
        config = self.config
        width, patches = config.decoder_width, config.patches
        embedding = 2 * (1 + self.counts.kept) * config.width * width
        blocks = config.decoder_layers * block_flops(1 + patches, width)
        head = 2 * patches * width * config.patch_pixels
        return batch["images"].shape[0] * (embedding + blocks + head)
