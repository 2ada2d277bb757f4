"""LVSM, decoder-only: one bidirectional transformer over the input views and one target view.

Jin et al., "LVSM: A Large View Synthesis Model with Minimal 3D Inductive Bias", and its published code. For every target
view the sequence is the tokens of all input views and the query tokens of the target, made from its camera rays alone.
There is no positional embedding: rays are the only sign of position, so the order of the input views does not matter.

Axes: B scenes, Vi input and Vt target views, P patch tokens a view, D width, H x W pixels.
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
from models.layers.patches import ImageDecoder, PatchTokenizer
from models.layers.repa import Repa, RepaConfig
from models.layers.taps import Taps, require_taps
from models.layers.view_mask import token_mask
from models.layers.views import IMAGE_CHANNELS, POSE_CHANNELS, input_pixels, target_pixels
from models.reference import load_strictly, lvsm_subtrees


@dataclass(frozen=True)
class LVSMDecoderOnlyConfig:
    """Size of the model; the defaults are the published ones."""

    width: int = 768
    """Channels of a token."""
    head_dim: int = 64
    """Channels of an attention head; must divide the width."""
    layers: int = 24
    """Transformer blocks."""
    patch_size: int = 8
    """Edge of a patch in pixels; must divide the image's height and width."""
    gradient_checkpointing: bool = False
    """Compute each block anew in the backward pass: less memory, a third more work. (The published code always does.)"""
    repa: RepaConfig | None = None
    """Distillation from a trained image encoder in training; layers are counted from 1. An input token has a copy for every
    target view, of which the mean is read."""

    def __post_init__(self) -> None:
        require_positive(self, "width", "head_dim", "layers", "patch_size")
        require_heads(self.width, self.head_dim)
        require_bool(self, "gradient_checkpointing")
        require_nested(self, "repa", RepaConfig)
        layers = range(1, self.layers + 1)
        require_taps(self.repa, inputs=layers, targets=layers)


PRESETS: dict[str, LVSMDecoderOnlyConfig] = {
    "tiny": LVSMDecoderOnlyConfig(width=128, layers=4),
    "small": LVSMDecoderOnlyConfig(width=384, layers=6),
    "paper": LVSMDecoderOnlyConfig(width=768, layers=24),
}


@dataclass(frozen=True)
class LVSMScene:
    """What can be kept of the input views: their tokens and no more, for every target updates them anew."""

    tokens: Tensor
    """Normed input tokens, [B, Vi P, D]."""
    view_mask: Tensor | None
    """[B, Vi] bool, True where a view is there; None where all are."""
    image_size: tuple[int, int]
    """(H, W) in pixels."""


class LVSMDecoderOnly(nn.Module):
    """Decoder-only LVSM; parameters bear the names of the published checkpoints."""

    config_class = LVSMDecoderOnlyConfig

    def __init__(self, config: LVSMDecoderOnlyConfig) -> None:
        super().__init__()
        self.config = config
        width, patch_size = config.width, config.patch_size
        self.image_tokenizer = PatchTokenizer(IMAGE_CHANNELS, patch_size, width)
        self.target_pose_tokenizer = PatchTokenizer(POSE_CHANNELS, patch_size, width)
        self.transformer_input_layernorm = layer_norm(width, affine=True)
        self.transformer_blocks = nn.ModuleList(
            SelfBlock(width, config.head_dim, affine_norm=True) for _ in range(config.layers)
        )
        self.image_token_decoder = ImageDecoder(layer_norm(width, affine=True), patch_size, width)
        for index, block in enumerate(self.transformer_blocks):
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
        scene = self.encode(input_images, input_c2w, input_intrinsics, input_mask)
        taps = Taps(self.repa_projector, training=self.training)
        return self.render(scene, target_c2w, target_intrinsics, taps) | taps.outputs

    def encode(
        self, input_images: Tensor, input_c2w: Tensor, input_intrinsics: Tensor, input_mask: Tensor | None = None
    ) -> LVSMScene:
        """Turn the input views into tokens; arguments and errors as in `forward`."""
        pixels = input_pixels(input_images, input_c2w, input_intrinsics, input_mask)
        tokens = self.transformer_input_layernorm(self.image_tokenizer(pixels)).flatten(1, 2)
        return LVSMScene(tokens, input_mask, (pixels.shape[-2], pixels.shape[-1]))

    def render(
        self, scene: LVSMScene, target_c2w: Tensor, target_intrinsics: Tensor, taps: Taps | None = None
    ) -> dict[str, Tensor]:
        """Render target views of encoded scenes; arguments, result and errors as in `forward`."""
        taps = taps or Taps()
        inputs = scene.tokens
        rays = target_pixels(target_c2w, target_intrinsics, inputs.shape[0], scene.image_size)
        # Tokens and their first norm are made once a scene; only then are the inputs repeated for every target view.
        queries = self.transformer_input_layernorm(self.target_pose_tokenizer(rays))  # [B, Vt, P, D]
        views, patches = queries.shape[1:3]
        tokens = torch.cat([inputs[:, None].expand(-1, views, -1, -1), queries], dim=2).flatten(0, 1)
        mask = None
        if scene.view_mask is not None:
            seen = F.pad(token_mask(scene.view_mask, patches), (0, patches), value=True)  # [B, Vi P + P]
            mask = seen.repeat_interleave(views, dim=0)[:, None, None]
        for layer, block in enumerate(self.transformer_blocks, 1):
            tokens = run_block(block, tokens, mask, checkpointed=self.config.gradient_checkpointing)
            sequences = tokens.unflatten(0, (-1, views))  # [B, Vt, Vi P + P, D]
            if taps.wants("input", layer):
                taps.keep("input", layer, sequences[:, :, :-patches].mean(1).unflatten(1, (-1, patches)))
            if taps.wants("target", layer):
                taps.keep("target", layer, sequences[:, :, -patches:])
        rendered = tokens[:, inputs.shape[1] :].unflatten(0, (-1, views))  # [B, Vt, P, D]
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
        return 2 * scenes * views * height * width * IMAGE_CHANNELS * self.config.width

    def render_flops(self, batch: Mapping[str, Tensor]) -> int:
        """The share of `render` in `flops`."""
        scenes, input_views, _, height, width = batch["input_images"].shape
        views = scenes * batch["target_c2w"].shape[1]
        d = self.config.width
        tokens = (input_views + 1) * (height * width // self.config.patch_size**2)
        ends = 2 * height * width * (POSE_CHANNELS + 3) * d
        return views * (self.config.layers * (24 * d**2 * tokens + 4 * d * tokens**2) + ends)

    def pretrained_parts(self) -> list[dict[str, Any]]:
        """What was trained elsewhere: the teacher of REPA."""
        return [] if self.repa_projector is None else [self.repa_projector.teacher.identity()]

    def unused_parameters(self) -> frozenset[str]:
        """Weights that the options leave without gradient: none."""
        return frozenset()

    @classmethod
    def from_reference(cls, state: Mapping[str, Any], **config: Any) -> LVSMDecoderOnly:
        """Build the model from a checkpoint of the published code.

        Args:
            state: its state dict, or the file's dict that holds it under ``model``; wrapper prefixes are stripped and the
                subtrees ``loss_computer``, ``repa_encoder`` and, unless the option ``repa`` is on, ``repa_projector``
                dropped.
            **config: the fields of `LVSMDecoderOnlyConfig`.

        Raises:
            ValueError: an unknown option, or a key that is missing, superfluous or of another shape.
        """
        model = cls(build_config(LVSMDecoderOnlyConfig, config))
        load_strictly(model, state, dropped=lvsm_subtrees(repa=model.config.repa is not None))
        return model
