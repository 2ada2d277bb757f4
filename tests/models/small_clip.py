"""A CLIP and a Swin transformer that are small enough to be run, under names that open_clip and timm know."""

import pytest

from tests.models.helpers import randomise

CLIP = {
    "embed_dim": 20,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 16, "layers": 4, "width": 32, "head_width": 16, "patch_size": 4},
    "text_cfg": {"context_length": 12, "vocab_size": 99, "width": 24, "heads": 2, "layers": 2},
}
SWIN = {"embed_dim": 16, "depths": (2, 2, 2, 1), "num_heads": (1, 2, 4, 8), "window_size": 4, "num_classes": 5}


@pytest.fixture
def small_clip(monkeypatch):
    """Name of a CLIP model with 4 image blocks of width 32 and a grid of 4 x 4."""
    import open_clip

    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "small-clip", CLIP)
    return "small-clip"


@pytest.fixture
def small_swin(monkeypatch):
    """timm's Swin-B becomes a small one; its constructor."""
    import timm

    make = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: make(name, **{**SWIN, **options}))
    return timm.create_model


def shaken(model):
    """`randomise`, but for single numbers."""
    scalars = {name: weight for name, weight in model.named_parameters() if weight.ndim == 0}
    for name in scalars:
        model.register_parameter(name, None)
    randomise(model)
    for name, weight in scalars.items():
        model.register_parameter(name, weight)
    return model
