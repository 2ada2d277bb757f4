"""A masked autoencoder of daily images and gauge series: what is hidden is predicted from what is seen.

The notes' model, in the forms of CrossMAE (arXiv 2401.14391) and of MAE (arXiv 2111.06377). A token is one patch of one day
of an image modality, or one day of a series. Encoders see the visible tokens only and keep their sequences, each with one
token more that is never hidden: a learned one of an image modality, the catchment's static attributes of a series. Each
decoder predicts the masked tokens of its modality. Samples never read one another; modalities do in a shared encoder only.

Axes: B samples, T days, N patches a day, P pixels a patch, K image modalities, S series, A static attributes, V visible and
M masked tokens of an image modality, Vs and Ms of a series, E width of the encoders, D of the decoders.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.config import require_bool, require_choice, require_count, require_positive
from models.layers.modality import DecoderKind, Encoded, ModalityDecoder, ModalityEncoder
from models.layers.packed import Ragged
from models.layers.tokens import ModalityEmbedding, PositionTables, TokenPositions, learned_token
from models.layers.vit import xavier_init

EncoderKind = Literal["separate", "shared"]


@dataclass(frozen=True)
class HydrologyMAEConfig:
    """Data, size and variant of the model; the defaults are the notes'."""

    image_modalities: int = 3
    """Number K of image modalities."""
    patch_pixels: int = 100
    """Number P of pixels of a patch."""
    series_modalities: int = 2
    """Number S of series."""
    static_attributes: int = 11
    """Number A of static attributes; they reach the model with the series."""
    width: int = 256
    """Channels of an encoder token; a multiple of 4 and of the heads."""
    layers: int = 6
    """Blocks of an image encoder, or of the shared one."""
    series_layers: int = 4
    """Blocks of a series encoder; no matter where the encoder is shared."""
    heads: int = 8
    """Attention heads of the encoders."""
    decoder_width: int = 128
    """Channels of a decoder token; a multiple of 4 and of the decoder's heads."""
    decoder_layers: int = 4
    """Blocks of a decoder."""
    decoder_heads: int = 8
    """Attention heads of the decoders."""
    encoder: EncoderKind = "separate"
    """``separate``: each modality has its own encoder. ``shared``: behind the embeddings, to which one of the modality is
    added, one transformer over the visible tokens of all modalities; all decoders read all of them."""
    decoder: DecoderKind = "cross"
    """``cross``: masked tokens read the encoded ones (CrossMAE). ``self``: both read one another (MAE)."""
    decoder_self_attention: bool = False
    """In ``cross`` decoders, masked tokens of a modality read one another before they read the encoded ones."""
    weighted_feature_maps: bool = False
    """Each block of a ``cross`` decoder reads its own learned mixture of the encoder's layers."""
    feature_layers: tuple[int, ...] | None = None
    """Encoder blocks that are mixed, from 0, negative from the end; None for all."""
    use_input: bool = False
    """Mix the encoder's input tokens too."""
    prediction_ratio: float | None = None
    """Share of all tokens of a modality, rounded up, to predict in training, at most those that are masked; None for all
    that are masked. Counted on the padded lengths of the batch."""
    calendar: bool = True
    """Whether tokens know the day of the year."""
    ragged: Ragged = "auto"
    """How blocks run on samples of unequal length; see `models.layers.packed`."""

    def __post_init__(self) -> None:
        require_count(self, "image_modalities", "series_modalities", "static_attributes")
        require_positive(self, "patch_pixels", "width", "layers", "series_layers", "heads")
        require_positive(self, "decoder_width", "decoder_layers", "decoder_heads")
        require_choice(self, "encoder", get_args(EncoderKind))
        require_choice(self, "decoder", get_args(DecoderKind))
        require_choice(self, "ragged", get_args(Ragged))
        require_bool(self, "decoder_self_attention", "weighted_feature_maps", "use_input", "calendar")
        if not self.image_modalities + self.series_modalities:
            raise ValueError("image_modalities and series_modalities are both 0: give the model something to learn")
        for name, heads in (("width", self.heads), ("decoder_width", self.decoder_heads)):
            step = math.lcm(4, heads)  # 4 for the two axes of the sine-cosine positions
            if (value := getattr(self, name)) % step:
                near = max(1, round(value / step)) * step
                raise ValueError(f"{name} must be a multiple of 4 and of its {heads} heads, got {value}: try {near}")
        ratio = self.prediction_ratio
        if ratio is not None and (isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio <= 1):
            raise ValueError(f"prediction_ratio must be above 0 and at most 1, or null for all, got {ratio!r}")
        for name, off in (
            ("decoder_self_attention", False),
            ("weighted_feature_maps", False),
            ("prediction_ratio", None),
        ):
            if self.decoder == "self" and getattr(self, name) is not off:
                null = "null" if off is None else "false"
                raise ValueError(f"{name} needs decoder 'cross', got 'self': set decoder: cross, or {name}: {null}")
        if not self.weighted_feature_maps and (self.use_input or self.feature_layers is not None):
            name = "use_input" if self.use_input else "feature_layers"
            raise ValueError(
                f"{name} needs weighted_feature_maps: set weighted_feature_maps: true, or leave {name} out"
            )
        if self.feature_layers is not None:
            self._check_feature_layers()

    def _check_feature_layers(self) -> None:
        depth, layers = min(self.depths), self.feature_layers
        if not isinstance(layers, Sequence) or not layers or any(type(layer) is not int for layer in layers):
            raise ValueError(f"feature_layers must be a list of block numbers, or null for all, got {layers!r}")
        object.__setattr__(self, "feature_layers", tuple(layers))
        for layer in layers:
            if not -depth <= layer < depth:
                raise ValueError(
                    f"feature_layers must lie in {-depth}..{depth - 1}, for the shallowest encoder has {depth} blocks, "
                    f"got {layer}"
                )
        if any(len(set(self.map_layers(own) or ())) < len(layers) for own in self.depths):
            raise ValueError(f"feature_layers must name each block once, got {list(layers)}")

    @property
    def depths(self) -> list[int]:
        """Blocks of each encoder, images first."""
        if self.encoder == "shared":
            return [self.layers]
        return [self.layers] * self.image_modalities + [self.series_layers] * self.series_modalities

    def map_layers(self, depth: int) -> list[int] | None:
        """Which of an encoder's ``depth`` blocks are mixed, from 0; None if its end is read alone."""
        if not self.weighted_feature_maps:
            return None
        return list(range(depth)) if self.feature_layers is None else [layer % depth for layer in self.feature_layers]


PRESETS: dict[str, HydrologyMAEConfig] = {
    "tiny": HydrologyMAEConfig(
        patch_pixels=16, width=64, layers=1, series_layers=1, heads=4, decoder_width=32, decoder_layers=1,
        decoder_heads=2,
    ),
    "small": HydrologyMAEConfig(
        patch_pixels=16, width=128, layers=4, series_layers=3, decoder_width=64, decoder_layers=3, decoder_heads=4
    ),
    "paper": HydrologyMAEConfig(),
}  # fmt: skip
"""Sizes: two CPU cores, one GPU, the notes'. What the data has (modalities, pixels, attributes) is the task's business."""


class HydrologyMAE(nn.Module):
    """Separate or shared encoders of visible tokens, and a decoder for each modality."""

    config_class = HydrologyMAEConfig

    def __init__(self, config: HydrologyMAEConfig | None = None) -> None:
        super().__init__()
        self.config = c = HydrologyMAEConfig() if config is None else config
        images, series = c.image_modalities, c.series_modalities
        self.encoder_positions = TokenPositions(c.width, calendar=c.calendar)
        self.decoder_positions = TokenPositions(c.decoder_width, calendar=c.calendar)
        self.embeddings: Sequence[ModalityEmbedding] = nn.ModuleList(  # type: ignore[assignment]
            [ModalityEmbedding(c.patch_pixels, c.width) for _ in range(images)]
            + [ModalityEmbedding(1, c.width, c.static_attributes) for _ in range(series)]
        )
        self.modality = learned_token(images + series, c.width) if c.encoder == "shared" else None
        self.encoders: Sequence[ModalityEncoder] = nn.ModuleList(  # type: ignore[assignment]
            ModalityEncoder(
                c.width, depth, c.heads, map_layers=c.map_layers(depth), use_input=c.use_input, ragged=c.ragged
            )
            for depth in c.depths
        )
        depths = c.depths * (images + series) if c.encoder == "shared" else c.depths
        self.decoders: Sequence[ModalityDecoder] = nn.ModuleList(  # type: ignore[assignment]
            ModalityDecoder(
                c.decoder_width,
                c.width,
                c.decoder_layers,
                c.decoder_heads,
                c.patch_pixels if modality < images else 1,
                kind=c.decoder,
                self_attention=c.decoder_self_attention,
                maps=len(c.map_layers(depths[modality]) or ()) + c.use_input,
                ragged=c.ragged,
            )
            for modality in range(images + series)
        )
        xavier_init(self)

    def forward(self, *, predict_all: bool = False, **inputs: Tensor) -> dict[str, Tensor]:
        """Predict the masked tokens.

        Args:
            predict_all: predict all masked tokens whatever ``prediction_ratio`` is, and not only the first of them.
            **inputs: ``day_of_year`` [B, T], 0..365, and

                with images: ``patch_positions`` [B, N, 2], row and column of each patch; ``image_values`` [B, K, V, P],
                the pixels of the visible tokens, normalised; ``image_visible`` [B, K, V] int64, their flat indices
                day * N + patch; ``image_predicted`` [B, K, M] int64, those of the masked tokens, in random order;

                with series: ``series_values`` [B, S, Vs], the visible days, normalised; ``series_visible`` [B, S, Vs] and
                ``series_predicted`` [B, S, Ms] int64, the days; ``statics`` [B, A], normalised, unless A is 0;

                with padding: ``image_visible_mask`` [B, K, V], ``image_predicted_mask`` [B, K, M], ``series_visible_mask``
                [B, S, Vs] and ``series_predicted_mask`` [B, S, Ms], bool, False on padding, of which nothing is read.

        Returns:
            ``image_prediction`` [B, K, M', P] with images and ``series_prediction`` [B, S, Ms'] with series, of the first
            M' <= M masked tokens, normalised, fp32, zero on padding.

        Raises:
            ValueError: a field is missing, unknown or misshapen.
        """
        self._check(inputs)
        return self.decode(self.encode(inputs), inputs, predict_all=predict_all)

    def encode(self, inputs: Mapping[str, Tensor]) -> list[Encoded]:
        """What the decoder of each modality reads, images first; ``inputs`` as in `forward`.

        With a shared encoder it is the same for all.
        """
        config = self.config
        places = self.encoder_positions(inputs["day_of_year"], inputs.get("patch_positions"))
        decoder_places = None
        if config.decoder == "self":
            decoder_places = self.decoder_positions(inputs["day_of_year"], inputs.get("patch_positions"))
        tokens: list[Tensor] = []
        masks: list[Tensor | None] = []
        positions: list[Tensor | None] = []
        for kind in self._kinds:
            values, index = inputs[f"{kind}_values"], inputs[f"{kind}_visible"]
            mask = inputs.get(f"{kind}_visible_mask")
            if kind == "series":
                values = values[..., None]
            if mask is not None:
                values, index = values.masked_fill(~mask[..., None], 0), index.masked_fill(~mask, 0)
            embedded = _positions(kind, places, index)
            for one in range(index.shape[1]):
                statics = inputs["statics"] if kind == "series" and config.static_attributes else None
                tokens.append(self.embeddings[len(tokens)](values[:, one], embedded[:, one], statics))
                # The token that is put first is always there, and has no position.
                masks.append(None if mask is None else F.pad(mask[:, one], (1, 0), value=True))
            if decoder_places is not None:
                positions += F.pad(_positions(kind, decoder_places, index), (0, 0, 1, 0)).unbind(1)
            else:
                positions += [None] * index.shape[1]
        if self.modality is not None:
            tokens = [one + own for one, own in zip(tokens, self.modality, strict=True)]
            fused, mask = torch.cat(tokens, dim=1), _joined(tokens, masks)
            place = None if decoder_places is None else torch.cat([one for one in positions if one is not None], dim=1)
            return [Encoded(self.encoders[0](fused, mask), mask, place)] * len(tokens)
        return [
            Encoded(encoder(one, mask), mask, place)
            for encoder, one, mask, place in zip(self.encoders, tokens, masks, positions, strict=True)
        ]

    def decode(
        self, encoded: Sequence[Encoded], inputs: Mapping[str, Tensor], *, predict_all: bool = False
    ) -> dict[str, Tensor]:
        """Predict from what `encode` made; the rest as in `forward`."""
        places = self.decoder_positions(inputs["day_of_year"], inputs.get("patch_positions"))
        outputs, decoded = {}, zip(self.decoders, encoded, strict=True)
        for kind in self._kinds:
            count = self._predicted(inputs, kind, predict_all=predict_all)
            index, mask = inputs[f"{kind}_predicted"][:, :, :count], inputs.get(f"{kind}_predicted_mask")
            if mask is not None:
                mask = mask[:, :, :count]
                index = index.masked_fill(~mask, 0)
            positions = _positions(kind, places, index)
            predictions = []
            for one in range(index.shape[1]):
                decoder, source = next(decoded)
                predictions.append(decoder(positions[:, one], source, None if mask is None else mask[:, one]))
            prediction = torch.stack(predictions, dim=1)
            outputs[f"{kind}_prediction"] = prediction if kind == "image" else prediction.squeeze(-1)
        return outputs

    @property
    def _modalities(self) -> list[str]:
        """``image`` or ``series`` for each modality."""
        return ["image"] * self.config.image_modalities + ["series"] * self.config.series_modalities

    @property
    def _kinds(self) -> list[str]:
        """Which of ``image`` and ``series`` there are."""
        return list(dict.fromkeys(self._modalities))

    def _predicted(self, inputs: Mapping[str, Tensor], kind: str, *, predict_all: bool = False) -> int:
        """Number M' of masked tokens that are predicted."""
        # As plain numbers also under tracing, which makes tensors of sizes.
        visible, masked = (int(inputs[f"{kind}_{part}"].shape[2]) for part in ("visible", "predicted"))
        ratio = self.config.prediction_ratio
        if predict_all or ratio is None:
            return masked
        return min(masked, math.ceil((visible + masked) * Fraction(str(ratio))))

    def _check(self, inputs: Mapping[str, Tensor]) -> None:
        """Raise ValueError unless ``inputs`` are fields of this model, all of them, with its sizes."""
        config = self.config
        shapes: dict[str, tuple[int | str, ...]] = {"day_of_year": ("B", "T")}
        images, series = config.image_modalities, config.series_modalities
        if images:
            shapes["patch_positions"] = ("B", "N", 2)
            shapes["image_values"] = ("B", images, "V", config.patch_pixels)
            shapes |= {"image_visible": ("B", images, "V"), "image_predicted": ("B", images, "M")}
        if series:
            shapes |= {"series_values": ("B", series, "Vs"), "series_visible": ("B", series, "Vs")}
            shapes["series_predicted"] = ("B", series, "Ms")
            if config.static_attributes:
                shapes["statics"] = ("B", config.static_attributes)
        optional = {f"{name}_mask": shapes[name] for name in shapes if name.endswith(("_visible", "_predicted"))}
        sizes: dict[str, int] = {}
        for name, shape in (shapes | optional).items():
            if name not in inputs:
                if name in shapes:
                    raise ValueError(f"{name} must be given, {_axes(shape)}, for a model with {images} image and "
                                     f"{series} series modalities")  # fmt: skip
                continue
            found = tuple(inputs[name].shape)
            for axis, size in zip(shape, found, strict=False):
                sizes.setdefault(str(axis), size if isinstance(axis, str) else axis)
            if found != tuple(sizes.get(str(axis)) for axis in shape):
                raise ValueError(
                    f"{name} must be {_axes(shape)}, got {list(found)} where the fields before say {sizes}"
                )
        unknown = inputs.keys() - shapes.keys() - optional.keys() - {"statics", "patch_positions"}
        if unknown:
            raise ValueError(f"{sorted(unknown)[0]} is no field that this model reads: leave it out")

    def flops(self, batch: Mapping[str, Tensor]) -> int:
        """FLOPs of one training forward: 2 per multiply-add, matrix products and attention.

        Padding counts like the rest, as it is executed with ``ragged: padded``.

        Args:
            batch: the fields of `forward`; only their shapes are read.
        """
        return self.encode_flops(batch) + self.decode_flops(batch)

    def encode_flops(self, batch: Mapping[str, Tensor]) -> int:
        """The share of `encode` in `flops`."""
        samples, days = batch["day_of_year"].shape
        visible = self._visible(batch)
        flops = self.encoder_positions.flops(days)
        if self.config.decoder == "self":
            flops += self.decoder_positions.flops(days)
        flops += sum(embedding.flops(count) for embedding, count in zip(self.embeddings, visible, strict=True))
        return samples * (flops + sum(map(ModalityEncoder.flops, self.encoders, self._encoded(visible))))

    def decode_flops(self, batch: Mapping[str, Tensor]) -> int:
        """The share of `decode` in `flops`."""
        samples, days = batch["day_of_year"].shape
        predicted = [self._predicted(batch, kind) for kind in self._modalities]
        encoded = self._encoded(self._visible(batch)) * (len(predicted) if self.config.encoder == "shared" else 1)
        flops = sum(map(ModalityDecoder.flops, self.decoders, predicted, encoded))
        return samples * (flops + self.decoder_positions.flops(days))

    def _visible(self, batch: Mapping[str, Tensor]) -> list[int]:
        """Visible tokens of each modality."""
        return [batch[f"{kind}_visible"].shape[2] for kind in self._modalities]

    def _encoded(self, visible: Sequence[int]) -> list[int]:
        """Tokens that each encoder sees; every modality has one more than its visible ones."""
        return [sum(visible) + len(visible)] if self.config.encoder == "shared" else [count + 1 for count in visible]

    def unused_parameters(self) -> frozenset[str]:
        """Weights that the options leave without gradient: encoder blocks behind the last one that a feature map reads."""
        return frozenset(
            f"encoders.{number}.blocks.{layer}.{name}"
            for number, encoder in enumerate(self.encoders)
            for layer, block in enumerate(encoder.blocks)
            for name, _ in block.named_parameters()
            if layer >= encoder.layers_run
        )


def _positions(kind: str, places: PositionTables, index: Tensor) -> Tensor:
    """Embedding of the tokens at ``index`` [B, K, V] -> [B, K, V, width]."""
    return places.of_patches(index) if kind == "image" else places.of_days(index)


def _joined(tokens: Sequence[Tensor], masks: Sequence[Tensor | None]) -> Tensor | None:
    """Masks of all modalities one after the other, as their tokens are; None where no token is padding."""
    if all(mask is None for mask in masks):
        return None
    whole = [one.new_ones(one.shape[:2], dtype=torch.bool) if mask is None else mask
             for one, mask in zip(tokens, masks, strict=True)]  # fmt: skip
    return torch.cat(whole, dim=1)


def _axes(shape: Sequence[int | str]) -> str:
    return f"[{', '.join(map(str, shape))}]"
