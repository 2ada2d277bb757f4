"""Small memory backbones, random clips, and the published way to read a memory."""

from itertools import product

import torch

from models.convmae import ConvMAEMemoryBackbone, ConvMAEMemoryConfig, FrameMemory
from models.layers.memory_read import TOPK_IMPLEMENTATIONS
from tests.models.helpers import randomise

SMALL = {"image_size": 32, "widths": (12, 16, 24), "layers": (1, 2, 3), "heads": 2}
"""A grid of 2 x 2; the pictures of most tests are larger, so that the table is resized."""

READS = {
    "dense": {},
    "learned": {"temperature": "learned"},
    **{
        f"topk {scope} {name}": {"memory_read": "topk", "topk": 3, "topk_scope": scope, "implementation": name}
        for scope, name in product(("all", "each"), TOPK_IMPLEMENTATIONS)
    },
    "shared-subset": {"memory_read": "shared-subset", "subset_ratio": 0.4},
    "flex": {"memory_read": "flex", "subset_ratio": 0.5},
}


def build(read="dense", **options):
    """A small backbone whose weights all matter, in evaluation mode."""
    model = ConvMAEMemoryBackbone(ConvMAEMemoryConfig(**{**SMALL, **READS[read], **options}))
    randomise(model)
    with torch.no_grad():  # logits large enough that it matters which keys are read
        for block in model.blocks3:
            block.attn.qkv.weight[: 2 * SMALL["widths"][2]] *= 4
    return model.eval()


def clip(samples=2, frames=3, objects=2, size=(48, 64), seed=0):
    """Inputs of the backbone: 3 x 4 tokens a frame by default."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "query_image": torch.randn(samples, 3, *size, generator=generator),
        "memory_images": torch.randn(samples, frames, 3, *size, generator=generator),
        "memory_masks": torch.rand(samples, frames, objects, *size, generator=generator),
    }


def write_all(model, batch):
    """Each memory frame written by itself."""
    frames = range(batch["memory_images"].shape[1])
    return [model.write(batch["memory_images"][:, frame], batch["memory_masks"][:, frame]) for frame in frames]


def joined(written):
    return FrameMemory(*(torch.cat(part, dim=3) for part in zip(*written, strict=True)))


def recompute(model, batch):
    """The published way: tokens of query and memory go through the blocks together, for every object; dense, in one.

    Temperatures, where they are learned, are those of the query stream.

    Returns f16 [B, O, C, ..] and usage [L, B * O, T], from the whole matrix of weights.
    """
    images, masks = batch["memory_images"], batch["memory_masks"]
    (samples, frames, objects), heads = masks.shape[:3], model.config.heads
    outputs, usages = [], []
    for sample, index in product(range(samples), range(objects)):
        own, others = masks[sample, :, index], masks[sample].sum(1) - masks[sample, :, index]
        memory = torch.cat([images[sample], own[:, None], others[:, None]], dim=1)
        x = model.trunk("patch_embed1_query", batch["query_image"][sample : sample + 1]).tokens
        m = model.trunk("patch_embed1_memory", memory).tokens
        tally = []
        for block in model.blocks3:
            qx, kx, vx = block.attn.qkv(block.norm1(x)).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
            qm, km, vm = block.attn.qkv(block.norm1(m)).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
            keys, values = (
                torch.cat([query, kept.transpose(0, 1).flatten(1, 2)[None]], dim=2)
                for query, kept in ((kx, km), (vx, vm))
            )
            if block.log_scale is not None:  # of the query stream alone
                qx = qx * block.log_scale.exp().view(-1, 1, 1)
            weights = (qx @ keys.transpose(-2, -1) / qx.shape[-1] ** 0.5).softmax(-1)
            tally.append(weights[..., x.shape[1] :].mean(1).unflatten(-1, (frames, -1)).sum((0, 1, 3)))
            own_read = (qm @ km.transpose(-2, -1) / qm.shape[-1] ** 0.5).softmax(-1) @ vm
            for tokens, read in ((x, weights @ values), (m, own_read)):
                tokens += block.attn.proj(read.transpose(1, 2).flatten(2))
                tokens += block.mlp(block.norm2(tokens))
        outputs.append(model.norm(x).transpose(1, 2))
        usages.append(torch.stack(tally))
    grid = [side // model.config.stride for side in batch["query_image"].shape[2:]]
    return torch.cat(outputs).unflatten(0, (samples, objects)).unflatten(-1, grid), torch.stack(usages, dim=1)
