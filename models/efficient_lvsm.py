"""Efficient-LVSM: two streams of tokens, the targets reading the inputs at every layer.

The released form of "Efficient-LVSM" and its published code. In layer l the input stream is updated first, by attention
within each input view; then each target view attends to itself and reads, by cross-attention, the input tokens that this
same layer made. Inputs never read targets, and never one another. There is no positional embedding: camera rays are the
only sign of position.

Axes: B scenes, Vi input and Vt target views, P patch tokens a view, D width, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from models.layers.blocks import SelfBlock, SelfCrossBlock, init_depth_scaled, layer_norm, run_block
from models.layers.config import build_config, require_bool, require_heads, require_positive
from models.layers.patches import ImageDecoder, PatchTokenizer
from models.layers.views import IMAGE_CHANNELS, POSE_CHANNELS, input_pixels, target_pixels
from models.reference import LVSM_SUBTREES, load_strictly


@dataclass(frozen=True)
class EfficientLVSMConfig:
    """Size of the model; the defaults are the published ones."""

    width: int = 768
    """Channels of a token."""
    head_dim: int = 64
    """Channels of an attention head; must divide the width."""
    layers: int = 12
    """Blocks in each of the two streams."""
    patch_size: int = 8
    """Edge of a patch in pixels; must divide the image's height and width."""
    gradient_checkpointing: bool = False
    """Compute each block anew in the backward pass: less memory, a third more work."""

    def __post_init__(self) -> None:
        require_positive(self, "width", "head_dim", "layers", "patch_size")
        require_heads(self.width, self.head_dim)
        require_bool(self, "gradient_checkpointing")


PRESETS: dict[str, EfficientLVSMConfig] = {
    "tiny": EfficientLVSMConfig(width=128, layers=4),
    "small": EfficientLVSMConfig(width=384, layers=6),
    "paper": EfficientLVSMConfig(width=768, layers=12),
}


class EfficientLVSM(nn.Module):
    """The dual-stream model; parameters bear the names of the published checkpoints."""

    config_class = EfficientLVSMConfig

    def __init__(self, config: EfficientLVSMConfig) -> None:
        super().__init__()
        self.config = config
        width, head_dim, patch_size = config.width, config.head_dim, config.patch_size
        self.rgbp_tokenizer = PatchTokenizer(IMAGE_CHANNELS, patch_size, width)
        self.target_pose_tokenizer = PatchTokenizer(POSE_CHANNELS, patch_size, width)
        # The published code never initialises the input blocks itself: they keep torch's uniform default.
        self.input_self_attn_blocks = nn.ModuleList(
            SelfBlock(width, head_dim, affine_norm=False) for _ in range(config.layers)
        )
        self.self_cross_blocks = nn.ModuleList(SelfCrossBlock(width, head_dim) for _ in range(config.layers))
        self.image_token_decoder = ImageDecoder(layer_norm(width, affine=False), patch_size, width)
        for index, block in enumerate(self.self_cross_blocks):
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
        scenes, (height, width) = rays.shape[0], rays.shape[-2:]
        inputs = self.rgbp_tokenizer(pixels).flatten(0, 1)  # [B Vi, P, D]
        targets = self.target_pose_tokenizer(rays)  # [B, Vt, P, D]
        checkpointed = self.config.gradient_checkpointing
        for input_block, target_block in zip(self.input_self_attn_blocks, self.self_cross_blocks, strict=True):
            inputs = run_block(input_block, inputs, checkpointed=checkpointed)
            source = inputs.unflatten(0, (scenes, -1)).flatten(1, 2)  # [B, Vi P, D]
            targets = run_block(target_block, targets, source, checkpointed=checkpointed)
        return {"images": self.image_token_decoder(targets, height, width)}

    def flops(self, batch: Mapping[str, Tensor]) -> int:
        """FLOPs of one forward pass: 2 per multiply-add, matrix products and attention, tokenisers and head included.

        Args:
            batch: ``input_images`` [B, Vi, 3, H, W] and ``target_c2w`` [B, Vt, 4, 4]; only their shapes are read.
        """
        scenes, input_views, _, height, width = batch["input_images"].shape
        target_views = batch["target_c2w"].shape[1]
        d, p = self.config.width, self.config.patch_size
        patches = (height // p) * (width // p)
        # Per view of either stream 28 d² P: a target's second output and query projections weigh what the key and value
        # projections of an input do.
        within = (input_views + target_views) * (28 * d**2 * patches + 4 * d * patches**2)
        across = target_views * 4 * d * patches**2 * input_views
        ends = 2 * patches * d * p**2 * (IMAGE_CHANNELS * input_views + (POSE_CHANNELS + 3) * target_views)
        return scenes * (self.config.layers * (within + across) + ends)

    def unused_parameters(self) -> frozenset[str]:
        """Weights that the options leave without gradient: none."""
        return frozenset()

    @classmethod
    def from_reference(cls, state: Mapping[str, Any], **config: Any) -> EfficientLVSM:
        """Build the model from a checkpoint of the published code.

        Args:
            state: its state dict, or the file's dict that holds it under ``model``; wrapper prefixes are stripped and the
                subtrees ``loss_computer``, ``repa_projector`` and ``repa_encoder`` dropped.
            **config: the fields of `EfficientLVSMConfig`.

        Raises:
            ValueError: an unknown option, or a key that is missing, superfluous or of another shape.
        """
        model = cls(build_config(EfficientLVSMConfig, config))
        load_strictly(model, state, dropped=LVSM_SUBTREES)
        return model
