"""Small CAT-Segs, on towers of their own and on a small CLIP, and pictures with names for them."""

import pytest
import torch

from models.catseg import CAT_SEG_2023, CATSeg, CATSegConfig
from tests.models.helpers import randomise

HEAD = {
    "hidden_width": 16,
    "layers": 1,
    "heads": 2,
    "resolution": (4, 4),
    "window_size": 2,
    "decoder_widths": (16, 16),
    "class_padding": None,
    "test_pooling_size": (1, 1),
}
SMALL = {
    **HEAD,
    "feature_width": 12,
    "text_guidance": (12, 8),
    "appearance_guidance": (12, 8),
    "decoder_guidance": ((10, 6), (8, 4)),
    "crop_size": 16,
    "class_list": "drawn",
    "tokenizer": "bytes",
    "towers": "small",
    "train_towers": "all",
    "image_widths": (6, 10, 16),
    "image_layers": 1,
    "text_width": 16,
    "tower_heads": 2,
}
MINILM = {"tokenizer": "minilm", "text_width": 64}
CLIP_2024 = {
    **HEAD,
    "feature_width": 20,
    "text_guidance": (20, 8),
    "appearance_guidance": (20, 8),
    "decoder_guidance": ((8, 6), (8, 4)),
    "class_padding": 6,
    "crop_size": 16,
    "clip_model": "small-clip",
    "clip_weights": "random",
}
CLIP_2023 = {
    **CLIP_2024,
    **CAT_SEG_2023,
    "prompts": 3,
    "appearance_guidance": (64, 8),
    "decoder_guidance": ((32, 16), (8, 4)),
    "guidance_weights": "random",
}


@pytest.fixture
def narrow(small_clip, small_swin, monkeypatch):
    """CLIP and Swin are small ones, of other widths than the published."""
    monkeypatch.setattr("models.layers.catseg_config.CHANNELS", (64, 32, 16))


def small(**changes):
    torch.manual_seed(0)
    return randomise(CATSeg(CATSegConfig(**{**SMALL, **changes})))


def inputs(samples=2, classes=5, prompts=1, length=7, seed=0, size=16, highest=99):
    generator = torch.Generator().manual_seed(seed)
    names = torch.randint(1, highest, (samples, classes, prompts, length), generator=generator)
    names[..., -2:] = 0
    return {"image": torch.rand(samples, 3, size, size, generator=generator), "names": names}


def step(model, batch):
    """One step of training, so large that it is seen."""
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
    model.train()(**batch)["logits"].square().mean().backward()
    optimizer.step()
    model.eval()
