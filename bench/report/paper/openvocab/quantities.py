"""What the tables and the figure of open-vocabulary segmentation read from the measurements."""

from __future__ import annotations

from bench.report.paper import quantities
from bench.stats import Estimate
from bench.store.efficiency import Call, Count, Efficiency

DESIGNS = {
    "2023": "2023",
    "2023-full-attention": "2023, full class attention",
    "2023-no-appearance": "2023, no appearance guidance",
    "2023-no-text": "2023, nor text guidance",
    "2023-no-guidance": "2023, no guidance at all",
    "2023-feature": "2023, feature volume",
    "2024": "2024, classes padded to 256",
    "2024-full-attention": "2024, padded, full class attention",
    "unpadded": "not padded",
    "unpadded-full-attention": "full class attention",
    "unpadded-feature": "feature volume",
    "unpadded-prompts-80": "80 prompts",
    "unpadded-no-appearance": "no appearance guidance",
    "unpadded-no-text": "no text guidance",
    "unpadded-no-decoder-guidance": "no decoder guidance",
    "unpadded-no-guidance": "no guidance at all",
    "unpadded-conv": "convolutions over space",
    "unpadded-no-spatial": "nothing over space",
    "unpadded-no-classes": "nothing over classes",
    "unpadded-no-decoder": "no decoder",
    "unpadded-pooled": "class layers pooled 2 x 2",
}
"""Aggregator -> its name; those without a year are of 2024 without class padding."""
BASE = "unpadded"
MODES = {
    "full": "",
    "published": "guidance projected anew",
    "folded": "fillers computed once",
    "chunked": "five classes at a time",
}
COUNTED_AT = ((20, 1), (150, 1), (171, 2), (847, 1))
"""Classes and pooling."""
TIMED_AT = (8, 20, 64, 150)
AT = 20
"""Classes at which all designs are timed."""
PIECES = {
    "cost": "cost volume",
    "embedding": "7 x 7 convolution",
    "guidance": "guidance projections",
    "spatial": "windowed blocks, both layers",
    "classes": "class blocks, both layers",
    "decoder1": "decoder, first",
    "decoder2": "decoder, second",
    "head": "head",
}
TOWERS = {
    ("clip-l", "image"): "CLIP ViT-L/14, image, 336 px",
    ("clip-b", "image"): "CLIP ViT-B/16, image, 384 px",
    ("clip-l", "text"): "CLIP ViT-L/14, 171 texts",
    ("clip-b", "text"): "CLIP ViT-B/16, 171 texts",
    ("swin-b", "image"): "Swin-B, three stages, 384 px",
}
LENGTHS = (77, 16)
"""Tokens of a text: as published, and as many as names need."""
MODELS = {
    "2024-l": "2024, ViT-L/14, queries and values",
    "2024-l-blocks": "2024, ViT-L/14, blocks",
    "2024-l-cached": "2024, ViT-L/14, text cached",
    "2024-l-unpadded": "2024, ViT-L/14, not padded",
    "2024-b": "2024, ViT-B/16, queries and values",
    "2024-b-cached": "2024, ViT-B/16, text cached",
    "2023-l": "2023, ViT-L/14 and Swin-B, attention",
}
"""Network -> its name, with what of CLIP is trained."""
CLASSES = {128: (20, 64, 150, 256, 512, 847), 32: (20, 64, 256)}
"""Hidden width -> numbers of classes at which class attention is timed."""
PLACES = 144
STEP, SMALL_STEP = {"classes": 171, "length": 77}, {"classes": 8, "length": 77}
PICTURE = {"classes": 20, "pixels": 256}


def aggregator(efficiency: Efficiency, label: str, classes: int, pooling: int = 1, mode: str = "full") -> Count | None:
    """The counted row of an aggregator, or of a piece of it."""
    return efficiency.count(label, {"classes": classes, "pooling": pooling}, mode)


def tower(efficiency: Efficiency, label: str, mode: str, length: int = 77) -> Count | None:
    """The counted row of a tower."""
    sizes = {"pixels": 384} if mode == "image" else {"classes": 171, "length": length}
    return efficiency.count(label, sizes, mode)


def step(efficiency: Efficiency, label: str, mode: str = "step") -> Count | None:
    """The counted row of a training step at the published size."""
    return efficiency.count(label, STEP, mode)


def picture(efficiency: Efficiency, label: str, windows: int = 5) -> Count | None:
    """The counted row of a picture of 150 classes."""
    return efficiency.count(label, {"classes": 150, "windows": windows}, "picture")


def picture_as_published(efficiency: Efficiency, label: str) -> float | None:
    """FLOPs of a picture in five windows whose aggregators project guidance anew for each class and place."""
    design = {"2024-l": "2024", "2024-l-unpadded": "unpadded", "2023-l": "2023"}.get(label)
    whole = picture(efficiency, label)
    if design is None or whole is None:
        return None
    ours, theirs = (aggregator(efficiency, design, 150, mode=mode) for mode in ("full", "published"))
    return None if ours is None or theirs is None else whole.flops + 5.0 * (theirs.flops - ours.flops)


def design(efficiency: Efficiency, label: str, classes: int, mode: str = "full") -> Call | None:
    """The timed call of an aggregator."""
    return efficiency.call(label, {"classes": classes, "grid": 24}, mode)


def attention(efficiency: Efficiency, kind: str, mode: str, classes: int, width: int = 128) -> Call | None:
    """The timed class attention (``attention``), or the block that it is in (``block``)."""
    return efficiency.call(f"class {kind}", {"classes": classes, "places": PLACES, "width": width}, mode)


def over(
    efficiency: Efficiency, label: str, base: str = BASE, classes: int = AT, mode: str = "full"
) -> Estimate | None:
    """A design over another, as timed."""
    return quantities.quotient(design(efficiency, label, classes, mode), design(efficiency, base, classes))


def gflop(row: Count | None) -> float | None:
    """Of a forward pass."""
    return None if row is None else row.flops / 1e9


def here(efficiency: Efficiency, call: str) -> str:
    """The sentence that says where and how times were measured."""
    return quantities.here(efficiency, f"the sizes that the table gives (preset {efficiency.record.preset})", call)
