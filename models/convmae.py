"""ConvMAE as a backbone for video object segmentation: a query frame reads frames in memory.

A frame in memory is embedded from five channels (the picture, an object's mask, the sum of the other objects' masks); all
other weights are shared between memory and query. Frames in memory attend to themselves alone, so the keys and values of
their tokens are made once, when a frame is written. The query frame attends to [itself : T memory frames], block by block.

The encoder alone is `ConvMAE`; what reading the memory means is in `models.layers.memory_read`.

Axes: B samples, O objects, T memory frames, H and W rows and columns of a picture in pixels, hw tokens of a frame, L
attention blocks, C1, C2 and C widths of the three stages, h heads, d = C / h.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.config import build_config, require_bool, require_choice, require_positive
from models.layers.convmae_encoder import (
    CHANNELS,
    INIT_STD,
    SIZES,
    ConvMAE,
    ConvMAEConfig,
    ConvMAEStages,
    QueryFeatures,
    encoder_weights,
)
from models.layers.memory_read import MEMORY_READS, TOPK_IMPLEMENTATIONS, TOPK_SCOPES, MemoryRead
from models.layers.vit import Block, block_flops
from models.reference import load_strictly, unwrap_keys

__all__ = [
    "PRESETS",
    "SIZES",
    "ConvMAE",
    "ConvMAEConfig",
    "ConvMAEMemoryBackbone",
    "ConvMAEMemoryConfig",
    "FrameMemory",
    "QueryFeatures",
    "ReadResult",
]

MASK_CHANNELS = 2
"""What a frame in memory has beside its picture: the object's mask and the sum of the others' masks."""

DESCENDANT = frozenset(["blocks4", "blocks5", "cls_token", "decoder", "patch_embed4_block4", "patch_embed4_block5"])
"""First parts of the keys that checkpoints of JointFormer, a descendant, have beside this model's: decoder, object token."""


@dataclass(frozen=True)
class ConvMAEMemoryConfig(ConvMAEConfig):
    """Size of the encoder, and how the query frame reads the memory."""

    memory_read: str = "dense"
    """``dense``; ``topk``: the K best memory keys of every query and head; ``shared-subset``: one subset of every memory
    frame's tokens for all queries and heads; ``flex``: blocks of keys for blocks of queries. See `models.layers.memory_read`."""
    topk: int | None = None
    """K of ``topk``; where there are fewer keys, all are kept."""
    topk_scope: str | None = None
    """Of ``topk``: K of ``all`` memory frames together, or K of ``each``."""
    topk_layers: str = "all"
    """Attention blocks that use a read-out other than dense: ``all``, the upper ``half``, the ``last``, ``none``."""
    topk_training: bool = True
    """Whether they use it in training too; otherwise training is dense."""
    implementation: str = "scatter"
    """How ``topk`` is computed: ``scatter`` (the reference), ``mask``, ``gather`` (slow to train) or ``bag``."""
    subset_ratio: float = 0.25
    """Share of the memory tokens that ``shared-subset`` keeps of each frame, and of the key blocks that ``flex`` keeps."""
    temperature: str = "fixed"
    """Scale of the query stream's logits: 1/sqrt(d), or that times a factor that every block and head learns."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice(self, "memory_read", MEMORY_READS)
        if self.memory_read == "topk":
            require_positive(self, "topk")
            require_choice(self, "topk_scope", TOPK_SCOPES)
        require_choice(self, "topk_layers", ("all", "half", "last", "none"))
        require_bool(self, "topk_training")
        require_choice(self, "implementation", TOPK_IMPLEMENTATIONS)
        require_choice(self, "temperature", ("fixed", "learned"))
        ratio = self.subset_ratio
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio <= 1:
            raise ValueError(f"subset_ratio must be a number above 0 and at most 1, got {ratio!r}")

    @property
    def first_sparse_layer(self) -> int:
        """First attention block that uses the read-out; those before it are dense."""
        depth = self.layers[2]
        return {"all": 0, "half": depth // 2, "last": depth - 1, "none": depth}[self.topk_layers]


PRESETS: dict[str, ConvMAEMemoryConfig] = {
    "tiny": ConvMAEMemoryConfig(image_size=64, widths=(32, 48, 96), layers=(1, 1, 4), heads=4),
    "small": ConvMAEMemoryConfig(image_size=128, widths=(128, 192, 384), layers=(2, 2, 6), heads=6),
    "paper": ConvMAEMemoryConfig(image_size=384, **SIZES["base"]),
}


class FrameMemory(NamedTuple):
    """What is kept of frames in memory: keys and values of every attention block, object b * O + o of sample b."""

    keys: Tensor
    """[L, B * O, h, T * hw, d]; T is 1 for a frame as written."""
    values: Tensor
    """Likewise."""


class ReadResult(NamedTuple):
    """What the query frame read of the memory."""

    f16: Tensor
    """[B, O, C, h16, w16], behind the attention blocks and the norm."""
    usage: Tensor | None
    """[L, B * O, T]: attention mass of each memory frame, mean over heads, summed over the hw queries; None unless asked
    for."""


class MemoryBlock(Block):
    """A ViT block that can attend to itself, or to itself and a memory."""

    def __init__(self, width: int, heads: int, learned_temperature: bool = False) -> None:
        super().__init__(width, heads)
        self.log_scale = nn.Parameter(torch.zeros(heads)) if learned_temperature else None

    def project(self, x: Tensor, first: int = 0) -> tuple[Tensor, ...]:
        """Tokens [N, hw, C] -> queries, keys, values [N, h, hw, d] each; those before ``first`` are left out."""
        qkv, start, normed = self.attn.qkv, first * x.shape[-1], self.norm1(x)
        # Whole, the weight is one that autocast converts once.
        parts = F.linear(normed, qkv.weight[start:], qkv.bias[start:]) if first else qkv(normed)
        return parts.unflatten(-1, (3 - first, self.attn.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def finish(self, x: Tensor, out: Tensor) -> Tensor:
        """Add a read-out [N, h, hw, d] to the tokens [N, hw, C], then the MLP."""
        x = x + self.attn.proj(out.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))

    def sharpen(self, queries: Tensor) -> Tensor:
        """Multiply the queries [N, h, hw, d] by their heads' learned factor, if there is one."""
        if self.log_scale is None:
            return queries
        return (queries * self.log_scale.exp()[:, None, None]).to(queries.dtype)


class ConvMAEMemoryBackbone(ConvMAEStages):
    """ConvMAE whose attention blocks read, for a query frame, the frames in memory too."""

    config_class: ClassVar[type[ConvMAEMemoryConfig]] = ConvMAEMemoryConfig
    config: ConvMAEMemoryConfig
    embeds: ClassVar[dict[str, int]] = {
        "patch_embed1_query": CHANNELS,
        "patch_embed1_memory": CHANNELS + MASK_CHANNELS,
    }

    def __init__(self, config: ConvMAEMemoryConfig) -> None:
        super().__init__(config)
        self.dense = MemoryRead()
        self.sparse = MemoryRead(
            config.memory_read, config.topk, config.topk_scope, config.implementation, config.subset_ratio
        )

    def make_block(self) -> MemoryBlock:
        """One attention block."""
        config = self.config
        return MemoryBlock(config.widths[2], config.heads, config.temperature == "learned")

    def memory_read(self, layer: int) -> MemoryRead:
        """The read-out of attention block ``layer``, which may differ in training."""
        sparse = layer >= self.config.first_sparse_layer and (self.config.topk_training or not self.training)
        return self.sparse if sparse else self.dense

    def encode_query(self, image: Tensor) -> QueryFeatures:
        """Run the convolution trunk on query frames [B, 3, H, W], once for all objects."""
        return self.trunk("patch_embed1_query", image)

    def write(self, image: Tensor, masks: Tensor) -> FrameMemory:
        """Make the keys and values of a frame, which attends to itself alone.

        Args:
            image: [B, 3, H, W].
            masks: soft masks of the O objects, [B, O, H, W], 0 to 1.

        Returns:
            keys and values [L, B * O, h, hw, d].
        """
        masks = masks.to(image.dtype)
        others = masks.sum(1, keepdim=True) - masks
        pictures = image[:, None].expand(-1, masks.shape[1], -1, -1, -1)
        tokens = self.trunk(
            "patch_embed1_memory", torch.cat([pictures, masks[:, :, None], others[:, :, None]], dim=2).flatten(0, 1)
        ).tokens
        kept = []
        for block in self.blocks3[:-1]:
            queries, keys, values = block.project(tokens)
            kept.append((keys, values))
            tokens = block.finish(tokens, F.scaled_dot_product_attention(queries, keys, values))
        kept.append(self.blocks3[-1].project(tokens, first=1))  # nothing reads what it would make of the tokens
        return FrameMemory(*(torch.stack(part) for part in zip(*kept, strict=True)))

    def read(
        self, query: QueryFeatures, memory: FrameMemory | Sequence[FrameMemory], frames: int, *, usage: bool = False
    ) -> ReadResult:
        """Let the query frame attend to itself and to the frames in memory.

        Args:
            query: of `encode_query`.
            memory: what `write` gave of each frame, or all of them in one, frame after frame.
            frames: number T of frames in memory, at least 1.
            usage: whether the usage of the memory frames is wanted.

        Raises:
            ValueError: a memory that does not hold ``frames`` frames of the query's size.
        """
        parts = [memory] if isinstance(memory, FrameMemory) else list(memory)
        tokens, samples = query.tokens, query.tokens.shape[0]
        held = sum(part.keys.shape[3] for part in parts)
        if frames < 1 or held != frames * tokens.shape[1]:
            raise ValueError(
                f"frames must be the number of frames in memory, at least 1, of the query's {tokens.shape[1]} tokens each, "
                f"got {frames} and {held} tokens in memory"
            )
        objects = parts[0].keys.shape[1] // samples
        usages = []
        for layer, block in enumerate(self.blocks3):
            projected = block.project(tokens)
            if layer == 0:  # so far all objects of a sample have the same query
                tokens, *projected = (part.repeat_interleave(objects, dim=0) for part in (tokens, *projected))
            queries, keys, values = projected
            out, used = self.memory_read(layer)(
                block.sharpen(queries),
                torch.cat([keys, *(part.keys[layer] for part in parts)], dim=2),
                torch.cat([values, *(part.values[layer] for part in parts)], dim=2),
                frames,
                usage,
            )
            tokens = block.finish(tokens, out)
            usages += [] if used is None else [used]
        f16 = self.to_map(tokens, query.f8).unflatten(0, (samples, objects))
        return ReadResult(f16, torch.stack(usages) if usages else None)

    def forward(self, query_image: Tensor, memory_images: Tensor, memory_masks: Tensor) -> dict[str, Tensor]:
        """Describe query frames in the light of frames whose masks are known.

        Args:
            query_image: [B, 3, H, W].
            memory_images: [B, T, 3, H, W].
            memory_masks: soft masks of the objects, [B, T, O, H, W], 0 to 1.

        Returns:
            ``f16`` [B, O, C, ..], ``f8`` [B, O, C2, ..] and ``f4`` [B, O, C1, ..]; the last two are the same for all objects.
        """
        samples, frames, objects = memory_masks.shape[:3]
        query = self.encode_query(query_image)
        written = self.write(memory_images.flatten(0, 1), memory_masks.flatten(0, 1))
        memory = FrameMemory(*(_frames_last(part, samples, objects) for part in written))
        result = self.read(query, memory, frames)
        f8, f4 = (part[:, None].expand(-1, objects, -1, -1, -1) for part in (query.f8, query.f4))
        return {"f16": result.f16, "f8": f8, "f4": f4}

    def flops_query(self, height: int, width: int) -> int:
        """FLOPs of `encode_query` on one picture of ``height`` x ``width`` pixels: 2 per multiply-add."""
        return self.trunk_flops(height, width)

    def flops_write(self, height: int, width: int, objects: int) -> int:
        """FLOPs of `write` on one frame, likewise."""
        tokens, channels = height * width // self.config.stride**2, self.config.widths[2]
        blocks = (self.config.layers[2] - 1) * block_flops(tokens, channels) + 4 * tokens * channels**2
        return objects * (self.trunk_flops(height, width, CHANNELS + MASK_CHANNELS) + blocks)

    def flops_read(self, height: int, width: int, frames: int, objects: int, *, usage: bool = False) -> int:
        """FLOPs of `read` on one query frame, likewise; in the mode, training or not, that the model is in."""
        heads = self.config.heads if usage else 0
        tokens, channels = height * width // self.config.stride**2, self.config.widths[2]
        layers = range(self.config.layers[2])
        shared = (len(layers) - 1) * objects + 1  # the first block projects the query once for all objects
        products = shared * 6 * tokens * channels**2 + len(layers) * objects * 18 * tokens * channels**2
        reads = sum(self.memory_read(layer).flops(tokens, frames, channels, heads) for layer in layers)
        return products + objects * reads

    def flops(self, batch: Mapping[str, Tensor]) -> int:
        """FLOPs of a forward pass: 2 per multiply-add, matrix products, convolutions and attention; reads shapes only."""
        samples, frames, objects, height, width = batch["memory_masks"].shape
        write = frames * self.flops_write(height, width, objects)
        return samples * (self.flops_query(height, width) + write + self.flops_read(height, width, frames, objects))

    @classmethod
    def from_reference(cls, state: Mapping[str, Any], **config: Any) -> Self:
        """Build the model from a checkpoint of the memory backbone, or of a descendant that has more around it.

        Args:
            state: its state dict, or the file's dict that holds it under ``model``. Wrapper prefixes and the prefix
                ``convmae`` are stripped, and exactly `DESCENDANT` is dropped. A memory embedding of four channels, of
                training with one object, gets a fifth one, drawn at random.
            **config: the options of the configuration. Learned temperatures that the checkpoint lacks start as ever.

        Raises:
            ValueError: an unknown option, or a key that is missing, superfluous, there twice or of another shape.
        """
        model = cls(build_config(cls.config_class, config))
        weights: dict[str, Tensor] = {}
        for key, value in unwrap_keys(state).items():
            bare = key.removeprefix("convmae.")
            if bare in weights:
                raise ValueError(
                    f"state[{bare!r}] is there with and without the prefix 'convmae.': keep one of the two"
                )
            if bare.split(".")[0] not in DESCENDANT:
                weights[bare] = value
        embedding = weights.get("patch_embed1_memory.proj.weight")
        if embedding is not None and embedding.ndim == 4 and embedding.shape[1] == CHANNELS + MASK_CHANNELS - 1:
            weights["patch_embed1_memory.proj.weight"] = _with_new_channels(embedding, 1)
        load_strictly(model, model.temperatures() | weights)
        return model

    @classmethod
    def from_convmae_encoder(cls, state: Mapping[str, Any], **config: Any) -> Self:
        """Build the model from a published checkpoint of the ConvMAE encoder.

        Both first embeddings start from the encoder's; the weights of the two mask channels are drawn at random.

        Args:
            state: as in `ConvMAE.from_reference`.
            **config: the options of the configuration.

        Raises:
            ValueError: as in `ConvMAE.from_reference`.
        """
        model = cls(build_config(cls.config_class, config))
        weights: dict[str, Tensor] = {}
        for key, value in encoder_weights(state).items():
            stage, _, rest = key.partition(".")
            if stage != "patch_embed1":
                weights[key] = value
                continue
            weights[f"patch_embed1_query.{rest}"] = value
            widened = rest == "proj.weight" and value.ndim == 4
            weights[f"patch_embed1_memory.{rest}"] = _with_new_channels(value, MASK_CHANNELS) if widened else value
        load_strictly(model, {"pos_embed": model.pos_embed} | model.temperatures() | weights)
        return model

    def temperatures(self) -> dict[str, Tensor]:
        """The learned temperatures, one [h] a block, by their names in the state dict; empty where they are fixed."""
        return {name: value for name, value in self.state_dict().items() if name.endswith(".log_scale")}


def _with_new_channels(weight: Tensor, channels: int) -> Tensor:
    """Append random input channels to the weight of a convolution."""
    new = weight.new_empty(weight.shape[0], channels, *weight.shape[2:])
    return torch.cat([weight, nn.init.trunc_normal_(new, std=INIT_STD)], dim=1)


def _frames_last(part: Tensor, samples: int, objects: int) -> Tensor:
    """[L, B * T * O, h, hw, d], as frames written in one go lie -> [L, B * O, h, T * hw, d]."""
    split = part.unflatten(1, (samples, -1, objects))  # [L, B, T, O, h, hw, d]
    return split.permute(0, 1, 3, 4, 2, 5, 6).flatten(4, 5).flatten(1, 2)
