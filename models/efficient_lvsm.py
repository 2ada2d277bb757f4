"""Efficient-LVSM: two streams of tokens, the targets reading the inputs at every layer.

"Efficient-LVSM" and its published code, with the variants of its development. In layer l the input stream is updated first,
by attention within each input view; then each target view attends to itself and reads, by cross-attention, the input
tokens that this same layer made. Inputs never read targets, and by default never one another: the keys and values of a
view can be kept (`ViewCache`). There is no positional embedding: camera rays are the only sign of position.

Axes: B scenes, Vi input and Vt target views, P patch tokens a view, R registers, T = R + P tokens a view, D width,
H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from models.layers.blocks import (
    CrossBlock,
    FeedForwardBlock,
    SelfBlock,
    SelfCrossBlock,
    SharedInputBlock,
    init_depth_scaled,
    layer_norm,
    run_block,
)
from models.layers.config import (
    build_config,
    require_bool,
    require_choice,
    require_count,
    require_heads,
    require_nested,
    require_positive,
)
from models.layers.image_encoder import FeatureFusion, ImageEncoder, ImageEncoderConfig
from models.layers.patches import TOKEN_STD, ImageDecoder, PatchTokenizer, patch_grid, prepend
from models.layers.repa import Repa, RepaConfig
from models.layers.taps import Taps, require_taps
from models.layers.trained_networks import NETWORKS
from models.layers.view_cache import ViewCache
from models.layers.view_mask import drop_views, reading, token_mask
from models.layers.views import IMAGE_CHANNELS, POSE_CHANNELS, input_pixels, target_pixels
from models.reference import load_strictly, lvsm_subtrees

InputUpdate = Literal["per-layer", "encode-first", "ffn", "none"]
TargetBlock = Literal["self-cross", "cross"]
InputScope = Literal["local", "global"]
LogScale = Literal["none", "fixed", "learned"]
ViewMasking = Literal["none", "unified", "individual"]


FIRST_EXTRA = 101
"""Number of the first extra encoder layer, where layers are named by number."""


@dataclass(frozen=True)
class EfficientLVSMConfig:
    """Size and variant of the model; the defaults are the published ones."""

    width: int = 768
    """Channels of a token."""
    head_dim: int = 64
    """Channels of an attention head; must divide the width."""
    layers: int = 12
    """Blocks in each of the two streams."""
    patch_size: int = 8
    """Edge of a patch in pixels; must divide the image's height and width."""
    input_update: InputUpdate = "per-layer"
    """``per-layer``: layer l of the input stream runs before layer l of the targets, which reads its result.
    ``encode-first``: the whole input stream runs first, every target layer reads its end. ``ffn``: per layer, by an MLP
    without attention. ``none``: no input stream, every target layer reads the input tokens as they are."""
    target_block: TargetBlock = "self-cross"
    """``self-cross``: self-attention within a target view, then cross-attention. ``cross``: cross-attention alone."""
    extra_encoder_layers: int = 0
    """Self-attention blocks on the input tokens before layer 1."""
    registers: int = 0
    """Learned tokens put before the tokens of each view in both streams, and dropped at the end."""
    input_rgb: bool = True
    """Whether input tokens are made from colour and rays, or from rays alone."""
    input_scope: InputScope = "local"
    """What an input token attends to: its own view, or all input views of the scene. ``global`` has no exact cache."""
    log_scale: LogScale = "none"
    """Sharpen the cross-attention with the number of views that are read: queries and keys are multiplied by
    log(max(views, 2)) - s + 1, with s = log(train_input_views) (``fixed``), or learned for each layer from there."""
    train_input_views: int = 2
    """Number of input views at which ``log_scale`` changes nothing."""
    view_masking: ViewMasking = "none"
    """In training, hide a random subset of the input views, the same for all targets of a scene (``unified``) or drawn
    for each (``individual``)."""
    shared_weights: bool = False
    """Let the input stream use the self-attention and the MLP of the target blocks."""
    gradient_checkpointing: bool = False
    """Compute each block anew in the backward pass: less memory, a third more work."""
    encoder: ImageEncoderConfig | None = None
    """Trained image encoder, whose features of the input images join their tokens."""
    align_input: bool = False
    """Make the input tokens at the resolution at which ``encoder`` sees the images (448 x 448 pixels in patches of 14 x 14
    for 32 x 32 tokens, say): colour is resized, rays are computed there. Targets keep their size and patches."""
    repa: RepaConfig | None = None
    """Distillation from a trained image encoder in training; layers are counted from 1, extra encoder layers from 101."""

    def __post_init__(self) -> None:
        require_positive(self, "width", "head_dim", "layers", "patch_size", "train_input_views")
        require_count(self, "extra_encoder_layers", "registers")
        require_heads(self.width, self.head_dim)
        require_choice(self, "input_update", get_args(InputUpdate))
        require_choice(self, "target_block", get_args(TargetBlock))
        require_choice(self, "input_scope", get_args(InputScope))
        require_choice(self, "log_scale", get_args(LogScale))
        require_choice(self, "view_masking", get_args(ViewMasking))
        require_bool(self, "input_rgb", "shared_weights", "gradient_checkpointing", "align_input")
        require_nested(self, "encoder", ImageEncoderConfig)
        require_nested(self, "repa", RepaConfig)
        updates = range(1, self.layers + 1) if self.input_update != "none" else ()
        extra = range(FIRST_EXTRA, FIRST_EXTRA + self.extra_encoder_layers)
        require_taps(self.repa, inputs=(*updates, *extra), targets=range(1, self.layers + 1))
        if self.align_input and (self.encoder is None or not self._encoder_patch or self.encoder.resize != "image"):
            name = "none" if self.encoder is None else f"{self.encoder.name!r} with resize {self.encoder.resize!r}"
            raise ValueError(
                f"align_input needs an encoder whose patches lie on the tokens, got {name}: set encoder to one with patches "
                f"({', '.join(key for key, network in NETWORKS.items() if network.patch_size)}) and resize: image"
            )
        if self.shared_weights and (self.input_update, self.target_block) != ("per-layer", "self-cross"):
            raise ValueError(
                "shared_weights needs input_update 'per-layer' and target_block 'self-cross', got "
                f"{self.input_update!r} and {self.target_block!r}: only these have the same parts in both streams"
            )
        if self.input_scope == "global":
            if self.view_masking == "individual":
                raise ValueError(
                    "view_masking 'individual' does not go with input_scope 'global', where inputs read one another for "
                    "all targets at once: use 'unified', or input_scope 'local'"
                )
            if self.input_update in ("ffn", "none") and not self.extra_encoder_layers:
                raise ValueError(
                    f"input_scope 'global' needs attention in the input stream, which input_update {self.input_update!r} "
                    "lacks: use 'per-layer' or 'encode-first', or add extra_encoder_layers"
                )

    @property
    def input_patch_size(self) -> int:
        """Edge of a patch of the input tokens in pixels, of the resized images with ``align_input``."""
        return self._encoder_patch if self.align_input else self.patch_size

    @property
    def _encoder_patch(self) -> int:
        return 0 if self.encoder is None else NETWORKS[self.encoder.name].patch_size


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
        width, head_dim, patch_size, layers = config.width, config.head_dim, config.patch_size, config.layers
        self.input_channels = IMAGE_CHANNELS if config.input_rgb else POSE_CHANNELS
        self.rgbp_tokenizer = PatchTokenizer(self.input_channels, config.input_patch_size, width)
        self.target_pose_tokenizer = PatchTokenizer(POSE_CHANNELS, patch_size, width)
        if config.registers:
            self.register_input = nn.Parameter(torch.randn(1, config.registers, width) * TOKEN_STD)
            self.register_output = nn.Parameter(torch.randn(1, config.registers, width) * TOKEN_STD)
        if config.extra_encoder_layers:
            self.extra_enc = nn.ModuleList(
                SelfBlock(width, head_dim, affine_norm=False) for _ in range(config.extra_encoder_layers)
            )
            for index, block in enumerate(self.extra_enc):
                init_depth_scaled(block, index)
        # The published code never initialises the input blocks itself: they keep torch's uniform default.
        if config.input_update == "ffn":
            self.input_self_attn_blocks = nn.ModuleList(FeedForwardBlock(width) for _ in range(layers))
        elif config.input_update != "none" and not config.shared_weights:
            self.input_self_attn_blocks = nn.ModuleList(
                SelfBlock(width, head_dim, affine_norm=False) for _ in range(layers)
            )
        reading = {"log_scale": config.log_scale, "train_views": config.train_input_views}
        if config.target_block == "cross":
            self.cross_attn_blocks = nn.ModuleList(CrossBlock(width, head_dim, **reading) for _ in range(layers))
        else:
            self.self_cross_blocks = nn.ModuleList(SelfCrossBlock(width, head_dim, **reading) for _ in range(layers))
            if config.shared_weights:
                self.input_self_attn_blocks = nn.ModuleList(
                    SharedInputBlock(block)  # type: ignore[arg-type]
                    for block in self.self_cross_blocks
                )
        self.image_token_decoder = ImageDecoder(layer_norm(width, affine=False), patch_size, width)
        for index, block in enumerate(self._target_blocks):
            init_depth_scaled(block, index)
        # Last, so that their draws leave the weights of the rest as they are without them.
        self.image_encoder = self.feature_fusion = self.repa_projector = None
        if config.encoder is not None:
            self.image_encoder = ImageEncoder(config.encoder)
            self.feature_fusion = FeatureFusion(self.image_encoder.channels, width, config.encoder.zero_init)
        if config.repa is not None:
            self.repa_projector = Repa(config.repa, width)
            self.auxiliary_loss = self.repa_projector.loss

    @property
    def incremental(self) -> bool:
        """Whether views can be added to a cache and removed from it, with the same result as encoding them at once."""
        return self.config.input_scope == "local"

    def forward(
        self,
        input_images: Tensor,
        input_c2w: Tensor,
        input_intrinsics: Tensor,
        target_c2w: Tensor,
        target_intrinsics: Tensor,
        input_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Render the target views, each for itself: `encode` and `render` layer by layer, so that nothing need be kept.

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
        inputs, image_size = self._input_tokens(input_images, input_c2w, input_intrinsics, input_mask)
        targets = self._target_tokens(target_c2w, target_intrinsics, inputs.shape[0], image_size)
        _, views, length, _ = targets.shape
        visible = input_mask
        if self.training and self.config.view_masking != "none":
            individual = self.config.view_masking == "individual"
            visible = drop_views(input_mask, input_images, views if individual else None)
        what = reading(visible, inputs.shape[1], length)
        stream = self._input_stream(inputs, visible, taps)
        for layer, (block, source) in enumerate(zip(self._target_blocks, stream, strict=True), 1):
            targets = run_block(block, targets, source, *what, checkpointed=self.config.gradient_checkpointing)
            if taps.wants("target", layer):
                taps.keep("target", layer, targets[:, :, self.config.registers :])
        return self._decode(targets, image_size) | taps.outputs

    def encode(
        self, input_images: Tensor, input_c2w: Tensor, input_intrinsics: Tensor, input_mask: Tensor | None = None
    ) -> ViewCache:
        """Make what the target blocks read of the input views; arguments and errors as in `forward`.

        Nothing is hidden here by ``view_masking``, which draws where targets are known, in `forward`.
        """
        inputs, image_size = self._input_tokens(input_images, input_c2w, input_intrinsics, input_mask)
        keys, values = [], []
        for block, source in zip(self._target_blocks, self._input_stream(inputs, input_mask, Taps()), strict=True):
            layer_keys, layer_values = block.keys_values(source)
            keys.append(layer_keys)
            values.append(layer_values.contiguous())  # not a part of the projection, which would be kept with it
        return ViewCache(tuple(keys), tuple(values), input_mask, inputs.shape[1], image_size, self.incremental)

    def render(self, scene: ViewCache, target_c2w: Tensor, target_intrinsics: Tensor) -> dict[str, Tensor]:
        """Render target views of encoded scenes; arguments, result and errors as in `forward`."""
        targets = self._target_tokens(target_c2w, target_intrinsics, scene.keys[0].shape[0], scene.image_size)
        length, head_dim = targets.shape[2], self.config.head_dim
        scene.require(self.config.layers, self.config.width // head_dim, head_dim, length)
        what = reading(scene.view_mask, scene.num_views, length)
        for block, keys, values in zip(self._target_blocks, scene.keys, scene.values, strict=True):
            targets = block.read(targets, keys, values, *what)
        return self._decode(targets, scene.image_size)

    @property
    def _target_blocks(self) -> Sequence[SelfCrossBlock | CrossBlock]:
        blocks = self.cross_attn_blocks if self.config.target_block == "cross" else self.self_cross_blocks
        return blocks  # type: ignore[return-value]

    def _input_tokens(
        self, images: Tensor, c2w: Tensor, intrinsics: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, tuple[int, int]]:
        """Tokens of the input views, [B, Vi, T, D], and the image size."""
        height, width = images.shape[-2:]
        size = None
        if self.config.align_input:
            rows, columns = self._grid(height, width)
            size = rows * self.config.input_patch_size, columns * self.config.input_patch_size
        pixels = input_pixels(images, c2w, intrinsics, mask, rgb=self.config.input_rgb, size=size)
        tokens = self.rgbp_tokenizer(pixels)
        if self.image_encoder is not None and self.feature_fusion is not None:
            if mask is not None:  # as in `input_pixels`
                images = images.masked_fill(~mask[:, :, None, None, None], 0)
            features = self.image_encoder(images.flatten(0, 1), self._grid(height, width))
            tokens = self.feature_fusion(tokens, features.unflatten(0, tokens.shape[:2]))
        if self.config.registers:
            tokens = prepend(self.register_input, tokens)
        return tokens, (height, width)

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches."""
        return patch_grid(height, width, self.config.patch_size)

    def _target_tokens(self, c2w: Tensor, intrinsics: Tensor, scenes: int, image_size: tuple[int, int]) -> Tensor:
        """Query tokens of the target views, [B, Vt, T, D]."""
        tokens = self.target_pose_tokenizer(target_pixels(c2w, intrinsics, scenes, image_size))
        return prepend(self.register_output, tokens) if self.config.registers else tokens

    def _input_stream(self, tokens: Tensor, visible: Tensor | None, taps: Taps) -> Iterator[Tensor]:
        """Yield, for each target block, the input tokens that it reads, [B, Vi T, D]; computed as they are asked for.

        Args:
            tokens: [B, Vi, T, D].
            visible: [B, Vi] bool, True where a view may be read by another; None where all may.
            taps: picks up tokens for REPA on the way.
        """
        config, shape = self.config, tokens.shape
        mask = None
        if config.input_scope == "global":
            tokens = tokens.flatten(1, 2)  # [B, Vi T, D]
            if visible is not None:
                mask = token_mask(visible, shape[2])[:, None, None]
        else:
            tokens = tokens.flatten(0, 1)  # [B Vi, T, D]: a view reads itself alone, whichever are hidden

        def run(block: Callable[..., Tensor], layer: int) -> Tensor:
            updated = run_block(block, tokens, mask, checkpointed=config.gradient_checkpointing)
            if taps.wants("input", layer):
                taps.keep("input", layer, updated.view(shape)[:, :, config.registers :])
            return updated

        if config.extra_encoder_layers:
            for layer, block in enumerate(self.extra_enc, FIRST_EXTRA):
                tokens = run(block, layer)
        updates: list[Callable[..., Tensor]] = []
        if config.input_update != "none":
            updates = [*self.input_self_attn_blocks]
        if config.input_update == "encode-first":
            for layer, update in enumerate(updates, 1):
                tokens = run(update, layer)
            updates = []
        for layer in range(1, config.layers + 1):
            if updates:
                tokens = run(updates[layer - 1], layer)
            yield tokens.view(shape).flatten(1, 2)

    def _decode(self, targets: Tensor, image_size: tuple[int, int]) -> dict[str, Tensor]:
        """Target tokens [B, Vt, T, D] -> images."""
        return {"images": self.image_token_decoder(targets[:, :, self.config.registers :], *image_size)}

    def flops(self, batch: Mapping[str, Tensor]) -> int:
        """FLOPs of one forward pass: 2 per multiply-add, matrix products and attention, tokenisers and head included.

        What a mask hides counts like the rest.

        Args:
            batch: ``input_images`` [B, Vi, 3, H, W] and ``target_c2w`` [B, Vt, 4, 4]; only their shapes are read.
        """
        return self.encode_flops(batch) + self.render_flops(batch)

    def encode_flops(self, batch: Mapping[str, Tensor]) -> int:
        """The share of `encode` in `flops`; for views that are added to a cache, of theirs alone."""
        scenes, views, _, height, width = batch["input_images"].shape
        config, d = self.config, self.config.width
        patches = height * width // config.patch_size**2
        tokens = views * (patches + config.registers)
        seen = tokens if config.input_scope == "global" else tokens // views
        block = 24 * d**2 * tokens + 4 * d * tokens * seen
        update = {"per-layer": block, "encode-first": block, "ffn": 16 * d**2 * tokens, "none": 0}[config.input_update]
        keys_values = 4 * d**2 * tokens
        start = 2 * views * patches * config.input_patch_size**2 * self.input_channels * d
        if self.image_encoder is not None and self.feature_fusion is not None:
            start += self.image_encoder.flops(views, self._grid(height, width), (height, width))
            start += self.feature_fusion.flops(views * patches)
        return scenes * (start + config.extra_encoder_layers * block + config.layers * (update + keys_values))

    def render_flops(self, batch: Mapping[str, Tensor]) -> int:
        """The share of `render` in `flops`."""
        scenes, input_views, _, height, width = batch["input_images"].shape
        views = scenes * batch["target_c2w"].shape[1]
        config, d = self.config, self.config.width
        tokens = height * width // config.patch_size**2 + config.registers
        block = 20 * d**2 * tokens + 4 * d * tokens**2 * input_views
        if config.target_block == "self-cross":
            block += 8 * d**2 * tokens + 4 * d * tokens**2
        return views * (config.layers * block + 2 * height * width * (POSE_CHANNELS + 3) * d)

    def token_parts(self, stack: str, tokens: Tensor, patches: int) -> dict[str, Tensor]:
        """What stands in [N, T, D] behind a block of ``stack``, view by view: registers, and one token for each patch."""
        views = tokens.reshape(-1, self.config.registers + patches, tokens.shape[-1])
        own = "targets" if stack in ("self_cross_blocks", "cross_attn_blocks") else "inputs"
        if not self.config.registers:
            return {own: views}
        return {"registers": views[:, :-patches], own: views[:, -patches:]}

    def pretrained_parts(self) -> list[dict[str, Any]]:
        """What was trained elsewhere: the image encoder and the teacher of REPA."""
        teacher = None if self.repa_projector is None else self.repa_projector.teacher
        return [part.identity() for part in (self.image_encoder, teacher) if part is not None]

    def unused_parameters(self) -> frozenset[str]:
        """Weights that the options leave without gradient: target registers that no other token reads."""
        idle = self.config.registers and self.config.target_block == "cross"
        return frozenset({"register_output"} if idle else ())

    @classmethod
    def from_reference(cls, state: Mapping[str, Any], **config: Any) -> EfficientLVSM:
        """Build the model from a checkpoint of the published code.

        Args:
            state: its state dict, or the file's dict that holds it under ``model``; wrapper prefixes are stripped and the
                subtrees ``loss_computer``, ``repa_encoder`` and, unless the option ``repa`` is on, ``repa_projector``
                dropped.
            **config: the fields of `EfficientLVSMConfig`.

        Raises:
            ValueError: an unknown option, or a key that is missing, superfluous or of another shape.
        """
        model = cls(build_config(EfficientLVSMConfig, config))
        load_strictly(model, state, dropped=lvsm_subtrees(repa=model.config.repa is not None))
        return model
