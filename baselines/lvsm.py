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
from torch import Tensor, nn

from models.layers.blocks import SelfBlock, init_depth_scaled, layer_norm, run_block
from models.layers.config import build_config, require_bool, require_heads, require_positive
from models.layers.patches import ImageDecoder, PatchTokenizer
from models.layers.views import IMAGE_CHANNELS, POSE_CHANNELS, input_pixels, target_pixels
from models.reference import LVSM_SUBTREES, load_strictly


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

    def __post_init__(self) -> None:
        require_positive(self, "width", "head_dim", "layers", "patch_size")
        require_heads(self.width, self.head_dim)
        require_bool(self, "gradient_checkpointing")


PRESETS: dict[str, LVSMDecoderOnlyConfig] = {
    "tiny": LVSMDecoderOnlyConfig(width=128, layers=4),
    "small": LVSMDecoderOnlyConfig(width=384, layers=6),
    "paper": LVSMDecoderOnlyConfig(width=768, layers=24),
}


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

    def forward(
        self,
        input_images: Tensor,
        input_c2w: Tensor,
        input_intrinsics: Tensor,
        target_c2w: Tensor,
        target_intrinsics: Tensor,
    ) -> dict[str, Tensor]:
        """Render the target views, each for itself.

        Args:
            input_images: RGB in 0..1, [B, Vi, 3, H, W].
            input_c2w: OpenCV camera-to-world, [B, Vi, 4, 4].
            input_intrinsics: (fx, fy, cx, cy) in pixels, [B, Vi, 4].
            target_c2w: [B, Vt, 4, 4].
            target_intrinsics: for an image of the inputs' size, [B, Vt, 4].

        Returns:
            ``images``: RGB in 0..1, fp32, [B, Vt, 3, H, W].

        Raises:
            ValueError: shapes that do not fit, or an image that does not divide into patches.
        """
        pixels = input_pixels(input_images, input_c2w, input_intrinsics)
        rays = target_pixels(target_c2w, target_intrinsics, like=input_images)
        views, (height, width) = rays.shape[1], rays.shape[-2:]
        # Tokens and their first norm are made once a scene; only then are the inputs repeated for every target view.
        inputs = self.transformer_input_layernorm(self.image_tokenizer(pixels)).flatten(1, 2)  # [B, Vi P, D]
        queries = self.transformer_input_layernorm(self.target_pose_tokenizer(rays))  # [B, Vt, P, D]
        tokens = torch.cat([inputs[:, None].expand(-1, views, -1, -1), queries], dim=2).flatten(0, 1)
        for block in self.transformer_blocks:
            tokens = run_block(block, tokens, checkpointed=self.config.gradient_checkpointing)
        rendered = tokens[:, inputs.shape[1] :].unflatten(0, (-1, views))  # [B, Vt, P, D]
        return {"images": self.image_token_decoder(rendered, height, width)}

    def flops(self, batch: Mapping[str, Tensor]) -> int:
        """FLOPs of one forward pass: 2 per multiply-add, matrix products and attention, tokenisers and head included.

        Args:
            batch: ``input_images`` [B, Vi, 3, H, W] and ``target_c2w`` [B, Vt, 4, 4]; only their shapes are read.
        """
        scenes, input_views, _, height, width = batch["input_images"].shape
        target_views = batch["target_c2w"].shape[1]
        d, p = self.config.width, self.config.patch_size
        patches = (height // p) * (width // p)
        tokens = (input_views + 1) * patches
        blocks = self.config.layers * target_views * (24 * d**2 * tokens + 4 * d * tokens**2)
        ends = 2 * patches * d * p**2 * (IMAGE_CHANNELS * input_views + (POSE_CHANNELS + 3) * target_views)
        return scenes * (blocks + ends)

    def unused_parameters(self) -> frozenset[str]:
        """Weights that the options leave without gradient: none."""
        return frozenset()

    @classmethod
    def from_reference(cls, state: Mapping[str, Any], **config: Any) -> LVSMDecoderOnly:
        """Build the model from a checkpoint of the published code.

        Args:
            state: its state dict, or the file's dict that holds it under ``model``; wrapper prefixes are stripped and the
                subtrees ``loss_computer``, ``repa_projector`` and ``repa_encoder`` dropped.
            **config: the fields of `LVSMDecoderOnlyConfig`.

        Raises:
            ValueError: an unknown option, or a key that is missing, superfluous or of another shape.
        """
        model = cls(build_config(LVSMDecoderOnlyConfig, config))
        load_strictly(model, state, dropped=LVSM_SUBTREES)
        return model
