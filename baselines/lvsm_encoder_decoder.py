"""LVSM, encoder-decoder: the input views pressed into a fixed number of latent tokens, which every target reads.

Jin et al., "LVSM: A Large View Synthesis Model with Minimal 3D Inductive Bias", and its published code. The encoder is a
bidirectional transformer over learned latents and the tokens of all input views, of which only the latents are kept; the
decoder is one over the query tokens of one target view, made from its camera rays alone, and these latents. Rendering
costs the same however many views were encoded.

Axes: B scenes, Vi input and Vt target views, P patch tokens a view, L latents, D width, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.blocks import SelfBlock, init_depth_scaled, layer_norm, run_block
from models.layers.config import build_config, require_bool, require_heads, require_nested, require_positive
from models.layers.patches import TOKEN_STD, ImageDecoder, PatchTokenizer
from models.layers.repa import Repa, RepaConfig
from models.layers.taps import Taps, require_taps
from models.layers.view_mask import token_mask
from models.layers.views import IMAGE_CHANNELS, POSE_CHANNELS, input_pixels, target_pixels
from models.reference import load_strictly, lvsm_subtrees


@dataclass(frozen=True)
class LVSMEncoderDecoderConfig:
    """Size of the model; the defaults are the published ones."""

    width: int = 768
    """Channels of a token."""
    head_dim: int = 64
    """Channels of an attention head; must divide the width."""
    encoder_layers: int = 12
    """Transformer blocks over latents and input tokens."""
    decoder_layers: int = 12
    """Transformer blocks over query tokens and latents."""
    latents: int = 3072
    """Learned tokens that hold a scene."""
    patch_size: int = 8
    """Edge of a patch in pixels; must divide the image's height and width."""
    gradient_checkpointing: bool = False
    """Compute each block anew in the backward pass: less memory, a third more work. (The published code always does.)"""
    repa: RepaConfig | None = None
    """Distillation from a trained image encoder in training; layers are counted from 1, input tokens in the encoder, target
    tokens in the decoder."""

    def __post_init__(self) -> None:
        require_positive(self, "width", "head_dim", "encoder_layers", "decoder_layers", "latents", "patch_size")
        require_heads(self.width, self.head_dim)
        require_bool(self, "gradient_checkpointing")
        require_nested(self, "repa", RepaConfig)
        inputs, targets = range(1, self.encoder_layers + 1), range(1, self.decoder_layers + 1)
        require_taps(self.repa, inputs, targets)


# Three latents for every patch token of a view, at the image sizes of the task's presets: as published.
PRESETS: dict[str, LVSMEncoderDecoderConfig] = {
    "tiny": LVSMEncoderDecoderConfig(width=128, encoder_layers=2, decoder_layers=2, latents=192),
    "small": LVSMEncoderDecoderConfig(width=384, encoder_layers=3, decoder_layers=3, latents=768),
    "paper": LVSMEncoderDecoderConfig(width=768, encoder_layers=12, decoder_layers=12, latents=3072),
}


@dataclass(frozen=True)
class LatentScene:
    """What is kept of the input views."""

    latents: Tensor
    """[B, L, D]"""
    image_size: tuple[int, int]
    """(H, W) of the input images in pixels."""


class LVSMEncoderDecoder(nn.Module):
    """Encoder-decoder LVSM; parameters bear the names of the published checkpoints."""

    config_class = LVSMEncoderDecoderConfig

    def __init__(self, config: LVSMEncoderDecoderConfig) -> None:
        super().__init__()
        self.config = config
        width, head_dim, patch_size = config.width, config.head_dim, config.patch_size
        self.image_tokenizer = PatchTokenizer(IMAGE_CHANNELS, patch_size, width)
        self.target_pose_tokenizer = PatchTokenizer(POSE_CHANNELS, patch_size, width)
        self.n_light_field_latent = nn.Parameter(
            nn.init.trunc_normal_(torch.empty(config.latents, width), std=TOKEN_STD)
        )
        self.transformer_encoder = nn.ModuleList(
            SelfBlock(width, head_dim, affine_norm=True) for _ in range(config.encoder_layers)
        )
        self.transformer_input_layernorm_decoder = layer_norm(width, affine=True)
        self.transformer_decoder = nn.ModuleList(
            SelfBlock(width, head_dim, affine_norm=True) for _ in range(config.decoder_layers)
        )
        self.image_token_decoder = ImageDecoder(layer_norm(width, affine=True), patch_size, width)
        # The published code counts the blocks of the decoder from the first again.
        for stack in (self.transformer_encoder, self.transformer_decoder):
            for index, block in enumerate(stack):
                init_depth_scaled(block, index)

        self.repa_projector = None if config.repa is None else Repa(config.repa, width)
        if self.repa_projector is not None:
            self.auxiliary_loss = self.repa_projector.loss

    def forward(
        self,
        input_images: Tensor,
        input_c2w: Tensor,
        input_intrinsics: Tensor,
        target_c2w: Tensor,
        target_intrinsics: Tensor,
        input_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Render the target views, each for itself.

        Args:
            input_images: RGB in 0..1, [B, Vi, 3, H, W].
            input_c2w: OpenCV camera-to-world, [B, Vi, 4, 4].
            input_intrinsics: (fx, fy, cx, cy) in pixels, [B, Vi, 4].
            target_c2w: [B, Vt, 4, 4].
            target_intrinsics: for an image of the inputs' size, [B, Vt, 4].
            input_mask: True where an input view is there, at least one a scene, [B, Vi] bool; None where all are.

        Returns:
            ``images``: RGB in 0..1, fp32, [B, Vt, 3, H, W]; with REPA in training mode also the tokens that it reads.

        Raises:
            ValueError: shapes that do not fit, or an image that does not divide into patches.
        """
        taps = Taps(self.repa_projector, training=self.training)
        scene = self.encode(input_images, input_c2w, input_intrinsics, input_mask, taps)
        return self.render(scene, target_c2w, target_intrinsics, taps) | taps.outputs

    def encode(
        self,
        input_images: Tensor,
        input_c2w: Tensor,
        input_intrinsics: Tensor,
        input_mask: Tensor | None = None,
        taps: Taps | None = None,
    ) -> LatentScene:
        """Press the input views into latents; arguments and errors as in `forward`."""
        taps = taps or Taps()
        pixels = input_pixels(input_images, input_c2w, input_intrinsics, input_mask)
        inputs = self.image_tokenizer(pixels)  # [B, Vi, P, D]
        scenes, _, patches, _ = inputs.shape
        latents = self.config.latents
        tokens = torch.cat([self.n_light_field_latent.expand(scenes, -1, -1), inputs.flatten(1, 2)], dim=1)
        mask = None
        if input_mask is not None:
            mask = F.pad(token_mask(input_mask, patches), (latents, 0), value=True)[:, None, None]
        for layer, block in enumerate(self.transformer_encoder, 1):
            tokens = run_block(block, tokens, mask, checkpointed=self.config.gradient_checkpointing)
            if taps.wants("input", layer):
                taps.keep("input", layer, tokens[:, latents:].unflatten(1, (-1, patches)))
        # A copy, so that a scene that is kept does not keep the input tokens too.
        return LatentScene(tokens[:, :latents].clone(), (pixels.shape[-2], pixels.shape[-1]))

    def render(
        self, scene: LatentScene, target_c2w: Tensor, target_intrinsics: Tensor, taps: Taps | None = None
    ) -> dict[str, Tensor]:
        """Render target views of encoded scenes; arguments, result and errors as in `forward`."""
        taps = taps or Taps()
        rays = target_pixels(target_c2w, target_intrinsics, scene.latents.shape[0], scene.image_size)
        # Normed once a scene; only then are the latents repeated for every target view.
        queries = self.transformer_input_layernorm_decoder(self.target_pose_tokenizer(rays))  # [B, Vt, P, D]
        latents = self.transformer_input_layernorm_decoder(scene.latents)  # [B, L, D]
        views, patches = queries.shape[1:3]
        tokens = torch.cat([queries, latents[:, None].expand(-1, views, -1, -1)], dim=2).flatten(0, 1)
        for layer, block in enumerate(self.transformer_decoder, 1):
            tokens = run_block(block, tokens, checkpointed=self.config.gradient_checkpointing)
            if taps.wants("target", layer):
                taps.keep("target", layer, tokens[:, :patches].unflatten(0, (-1, views)))
        rendered = tokens[:, :patches].unflatten(0, (-1, views))  # [B, Vt, P, D]
        return {"images": self.image_token_decoder(rendered, *scene.image_size)}

    def flops(self, batch: Mapping[str, Tensor]) -> int:
        """FLOPs of one forward pass: 2 per multiply-add, matrix products and attention, tokenisers and head included.

        Args:
            batch: ``input_images`` [B, Vi, 3, H, W] and ``target_c2w`` [B, Vt, 4, 4]; only their shapes are read.
        """
        return self.encode_flops(batch) + self.render_flops(batch)

    def encode_flops(self, batch: Mapping[str, Tensor]) -> int:
        """The share of `encode` in `flops`."""
        scenes, views, _, height, width = batch["input_images"].shape
        d = self.config.width
        tokens = self.config.latents + views * (height * width // self.config.patch_size**2)
        tokeniser = 2 * views * height * width * IMAGE_CHANNELS * d
        return scenes * (self.config.encoder_layers * (24 * d**2 * tokens + 4 * d * tokens**2) + tokeniser)

    def render_flops(self, batch: Mapping[str, Tensor]) -> int:
        """The share of `render` in `flops`."""
        scenes, _, _, height, width = batch["input_images"].shape
        views = scenes * batch["target_c2w"].shape[1]
        d = self.config.width
        tokens = self.config.latents + height * width // self.config.patch_size**2
        ends = 2 * height * width * (POSE_CHANNELS + 3) * d
        return views * (self.config.decoder_layers * (24 * d**2 * tokens + 4 * d * tokens**2) + ends)

    def token_parts(self, stack: str, tokens: Tensor, patches: int) -> dict[str, Tensor]:
        """What stands in [N, T, D] behind a block of ``stack``: latents, and for each view one token for each patch."""
        if stack == "transformer_decoder":
            return {"targets": tokens[:, :patches], "latents": tokens[:, patches:]}
        latents = self.config.latents
        return {
            "latents": tokens[:, :latents],
            "inputs": tokens[:, latents:].reshape(-1, patches, tokens.shape[-1]),
        }

    def pretrained_parts(self) -> list[dict[str, Any]]:
        """What was trained elsewhere: the teacher of REPA."""
        return [] if self.repa_projector is None else [self.repa_projector.teacher.identity()]

    def unused_parameters(self) -> frozenset[str]:
        """Weights that the options leave without gradient: none."""
        return frozenset()

    @classmethod
    def from_reference(cls, state: Mapping[str, Any], **config: Any) -> LVSMEncoderDecoder:
        """Build the model from a checkpoint of the published code.

        Args:
            state: its state dict, or the file's dict that holds it under ``model``; wrapper prefixes are stripped and the
                subtrees ``loss_computer``, ``repa_encoder`` and, unless the option ``repa`` is on, ``repa_projector``
                dropped.
            **config: the fields of `LVSMEncoderDecoderConfig`.

        Raises:
            ValueError: an unknown option, or a key that is missing, superfluous or of another shape.
        """
        model = cls(build_config(LVSMEncoderDecoderConfig, config))
        load_strictly(model, state, dropped=lvsm_subtrees(repa=model.config.repa is not None))
        return model
