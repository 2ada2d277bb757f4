"""What the tables and the figure of tracking read from the measurements."""

from __future__ import annotations

from bench.report.paper import quantities
from bench.store.efficiency import Call, Count, Efficiency

MODELS = {"cvt-21": "MixCvT, CvT-21", "cvt-w24": "MixCvT-L, CvT-w24", "tiny": "tiny", "vit-b": "MixViT, ViT-B"}
SYMMETRIC = "-symmetric"
LABELS = tuple(f"{model}{suffix}" for model in MODELS for suffix in ("", SYMMETRIC))
MODES = {"full": "all at once", "templates": "templates, once", "track": "a frame, templates kept"}


def name(label: str) -> str:
    """Of a model and its attention."""
    attention = "symmetric" if label.endswith(SYMMETRIC) else "asymmetric"
    return f"{MODELS[label.removesuffix(SYMMETRIC)]}, {attention}"


def sizes(label: str) -> dict[str, int]:
    """Edges of the pictures that a model sees."""
    search = {"tiny": 96, "vit-b": 288}.get(label.removesuffix(SYMMETRIC), 320)
    return {"search_size": search, "template_size": 32 if search == 96 else 128}


def count(efficiency: Efficiency, label: str, mode: str) -> Count | None:
    """The counted row of a mode."""
    return efficiency.count(label, sizes(label), mode)


def call(efficiency: Efficiency, label: str, mode: str) -> Call | None:
    """The timed call of a mode."""
    return efficiency.call(f"{label} templates" if mode == "templates" else label, sizes(label), mode)


def here(efficiency: Efficiency) -> str:
    """The sentence that says where and how times were measured."""
    size = f"each model at its own size (preset {efficiency.record.preset})"
    return quantities.here(efficiency, size, "one target, network alone: no cropping, no decoding of pictures")
