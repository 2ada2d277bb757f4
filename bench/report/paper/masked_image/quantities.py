"""What the tables and figures of masked image modelling read from the measurements."""

from __future__ import annotations

from collections.abc import Mapping

from bench.report.paper import quantities
from bench.store.efficiency import Call, Count, Efficiency

MAE, CROSS, THIRD = "mae-8", "crossmae-12-maps", "crossmae-12-maps-p25"
"""The published designs."""
NAMES = {
    "mae-8": "MAE, 8 blocks",
    "mae-3": "MAE, 3 blocks",
    "crossmae-12": "CrossMAE, 12 blocks",
    "crossmae-12-p25": "CrossMAE, 12 blocks, γ 0.25",
    "crossmae-12-maps": "CrossMAE, 12 blocks, feature maps",
    "crossmae-12-maps-p15": "CrossMAE, 12 blocks, feature maps, γ 0.15",
    "crossmae-12-maps-p25": "CrossMAE, 12 blocks, feature maps, γ 0.25",
    "crossmae-12-maps-p50": "CrossMAE, 12 blocks, feature maps, γ 0.5",
    "crossmae-12-maps-self": "CrossMAE, 12 blocks, feature maps, self-attention",
    "crossmae-8": "CrossMAE, 8 blocks",
    "crossmae-8-p25": "CrossMAE, 8 blocks, γ 0.25",
    "crossmae-8-maps": "CrossMAE, 8 blocks, feature maps",
    "crossmae-8-self": "CrossMAE, 8 blocks, self-attention",
    "crossmae-4-maps": "CrossMAE, 4 blocks, feature maps",
    "crossmae-1-maps": "CrossMAE, 1 block, feature maps",
    "crossmae-1-p25": "CrossMAE, 1 block, γ 0.25",
}
"""Design -> its name in tables. γ: share of the patches that is predicted; all that are masked where none is named."""
DEPTHS = range(1, 10)
"""Blocks of the MAE decoders that are counted."""
MODELS = {"vit-s": "ViT-S/16", "vit-b": "ViT-B/16", "vit-l": "ViT-L/16", "vit-h": "ViT-H/14"}
WIDTHS = {"vit-s": (384, 256), "vit-b": (768, 512), "vit-l": (1024, 512), "vit-h": (1280, 512)}
"""Of encoder and decoder."""
MASK_PERCENT = 75


def sizes(model: str = "vit-b", image_size: int = 224, mask: int = MASK_PERCENT, width: int = 0) -> dict[str, int]:
    """Sizes of a counted row."""
    return {"image_size": image_size, "mask_percent": mask, "decoder_width": width or WIDTHS[model][1]}


def count(efficiency: Efficiency, design: str, model: str = "vit-b", /, **changed: int) -> Count | None:
    """The counted row of a design."""
    return efficiency.count(f"{model}/{design}", sizes(model, **changed), "full")


def step(efficiency: Efficiency, design: str) -> Call | None:
    """The timed training step of a design (ViT-B/16)."""
    return efficiency.call(f"vit-b/{design}", sizes(), "step")


def batch(efficiency: Efficiency) -> int | None:
    """Images of the timed step."""
    return efficiency.groups[0].sizes["batch"] if efficiency.groups else None


def tokens(design: str, image_size: int = 224, mask: int = MASK_PERCENT) -> tuple[int, int, int]:
    """Patches of an image (ViT-B/16), those that are predicted and those that are visible."""
    patches = (image_size // 16) ** 2
    shares = [int(flag[1:]) for flag in design.split("-")[2:] if flag[1:].isdigit()]
    visible = patches * (100 - mask) // 100
    ignored = patches * (mask - shares[0]) // 100 if shares else 0
    return patches, patches - visible - ignored, visible


def design_sizes(design: str) -> Mapping[str, int]:
    """L, M, V, D, E and blocks of a timed design, for its row."""
    patches, predicted, visible = tokens(design)
    encoder, decoder = WIDTHS["vit-b"]
    blocks = int(design.split("-")[1])
    return {"L": patches, "M": predicted, "V": visible, "D": decoder, "E": encoder, "blocks": blocks}


def here(efficiency: Efficiency) -> str:
    """The sentence that says where and how steps were measured."""
    images = batch(efficiency) or 0
    size = f"ViT-B/16 at {efficiency.record.image_size} px (preset {efficiency.record.preset})"
    return quantities.here(efficiency, size, f"forward and backward of {images} image{'' if images == 1 else 's'}")
