"""CrossMAE: a masked autoencoder of images whose decoder is cross-attention from hidden patches to visible ones.

Fu et al., "Rethinking Patch Dependence for Masked Autoencoders", and its published code. Hidden patches do not read one
another, so any part of them can be predicted, and every decoder block reads its own mixture of the encoder's layers.

Axes: B images, L patches an image, V visible and M predicted ones, E width of the encoder, D width of the decoder,
p edge of a patch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from models.layers.config import require_bool
from models.layers.feature_maps import MapWeights, feature_map_flops
from models.layers.mask_counts import MaskCounts, mask_counts
from models.layers.masked_vit import SIZES, SMALL, TINY, MaskedViT, MaskedViTConfig, draw_mask
from models.layers.vit import CrossBlock, cross_block_flops, layer_norm


@dataclass(frozen=True)
class CrossMAEConfig(MaskedViTConfig):
    """Size and variant of the model; the defaults are the published ViT-B/16."""

    decoder_layers: int = 12
    """Decoder blocks."""
    prediction_ratio: float | None = None
    """Share of all patches that are predicted in training, at most the mask ratio; None predicts all that are hidden."""
    decoder_self_attention: bool = False
    """Let the predicted patches read one another in every decoder block, before they read the visible ones."""
    weighted_feature_maps: bool = True
    """Let every decoder block read its own mixture of the encoder's layers. Otherwise all read the normed output of the
    encoder, and the two options below have no effect."""
    use_input: bool = True
    """Whether the encoder's input, class token and visible patches, is one more map."""
    feature_layers: Sequence[int] | None = None
    """Encoder blocks whose outputs are maps, counted from 0, or from the end where negative, in any order; None takes all.
    (-1 is the last block; the published code takes all blocks for it.) Blocks behind the last that is read do not run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_bool(self, "decoder_self_attention", "weighted_feature_maps", "use_input")
        if self.feature_layers is None:
            return
        numbers = self.feature_layers
        if not isinstance(numbers, Sequence) or not all(type(number) is int for number in numbers) or not numbers:
            raise ValueError(f"feature_layers must be a list of encoder blocks or null for all, got {numbers!r}")
        for number in numbers:
            if not -self.layers <= number < self.layers:
                raise ValueError(
                    f"feature_layers must lie between {-self.layers} and {self.layers - 1} with {self.layers} encoder "
                    f"layers, got {number}"
                )
        if len({number % self.layers for number in numbers}) < len(numbers):
            raise ValueError(f"feature_layers must name a block once, got {list(numbers)}")
        object.__setattr__(self, "feature_layers", tuple(numbers))

    @property
    def counts(self) -> MaskCounts:
        """How many patches of an image are kept, ignored and predicted in training."""
        return mask_counts(self.patches, self.mask_ratio, self.prediction_ratio)

    @property
    def read_maps(self) -> tuple[int, ...]:
        """What the decoder reads of the encoder: 0 is its input tokens, l the output of block l, counted from 1."""
        if not self.weighted_feature_maps:
            return super().read_maps
        layers = range(self.layers) if self.feature_layers is None else self.feature_layers
        blocks = sorted(number % self.layers + 1 for number in layers)
        return (0, *blocks) if self.use_input else tuple(blocks)


PRESETS: dict[str, CrossMAEConfig] = {
    "tiny": CrossMAEConfig(**TINY, decoder_layers=6),
    "small": CrossMAEConfig(**SMALL),
    "paper": CrossMAEConfig(image_size=224, **SIZES["B/16"]),
}


class CrossMAE(MaskedViT):
    """Masked autoencoder with a cross-attention decoder."""

    config_class = CrossMAEConfig
    config: CrossMAEConfig

    def __init__(self, config: CrossMAEConfig) -> None:
        super().__init__(config, encoder_norm=not config.weighted_feature_maps)
        self.counts_of_all = mask_counts(config.patches, config.mask_ratio)
        layers = range(config.decoder_layers)
        self.wfm = MapWeights(len(self.read_maps), len(layers)) if config.weighted_feature_maps else None
        self.dec_norms = nn.ModuleList(layer_norm(config.width) for _ in layers if config.weighted_feature_maps)
        self.decoder_blocks = nn.ModuleList(
            CrossBlock(config.decoder_width, config.width, config.decoder_heads, config.decoder_self_attention)
            for _ in layers
        )
        self.initialise()

    def forward(self, images: Tensor, noise: Tensor, predict_all: bool = False) -> dict[str, Tensor]:
        """Predict hidden patches from the visible ones.

        Args:
            images: [B, 3, H, W]; the hidden patches are not read.
            noise: [B, L]; the patches of the least noise are visible, those of the largest are predicted.
            predict_all: predict all hidden patches, whatever the prediction ratio.

        Returns:
            ``prediction``: fp32 [B, M, p * p * 3] of the predicted patches in raster order, pixels as `patchify` orders
            them; ``mask``: fp32 [B, L], 1 on the predicted patches.

        Raises:
            ValueError: images or noise of another size.
        """
        self.check_inputs(images, noise)
        masking = draw_mask(noise, self.counts_of_all if predict_all else self.counts)
        sources = self.sources(self.encode(images, masking.kept))
        tokens = self.mask_token + self.decoder_pos_embed[0, 1:][masking.predicted]  # [B, M, D]
        for block, source in zip(self.decoder_blocks, sources, strict=True):
            tokens = block(tokens, source)
        return {"prediction": self.decoder_pred(self.decoder_norm(tokens)).float(), "mask": masking.mask}

    def sources(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """What each decoder block reads: maps [B, 1 + V, E] of the encoder -> as many such tensors as blocks."""
        if self.wfm is not None:
            return [norm(mixture) for norm, mixture in zip(self.dec_norms, self.wfm.mix(maps), strict=True)]
        assert self.norm is not None
        return [self.norm(maps[-1])] * len(self.decoder_blocks)

    def flops(self, batch: Mapping[str, Tensor]) -> int:
        """FLOPs of one training forward pass: 2 per multiply-add, matrix products and attention, ends included.

        Args:
            batch: ``images`` [B, 3, H, W]; only its shape is read.
        """
        return self.encode_flops(batch) + self.decode_flops(batch)

    def decode_flops(self, batch: Mapping[str, Tensor]) -> int:
        """The share of the decoder in `flops`, the mixing of the maps included."""
        config = self.config
        width, seen, predicted = config.decoder_width, 1 + self.counts.kept, self.counts.predicted
        block = cross_block_flops(predicted, seen, width, config.width, config.decoder_self_attention)
        flops = config.decoder_layers * block + 2 * predicted * width * config.patch_pixels
        if config.weighted_feature_maps:
            flops += feature_map_flops(len(self.read_maps), config.decoder_layers, seen, config.width)
        return batch["images"].shape[0] * flops
