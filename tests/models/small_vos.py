"""A small memory network, clips for it, and what it makes of them at once and frame by frame."""

import torch

from models.vos_memory import VOSMemory, VOSMemoryConfig
from tests.models.helpers import randomise

SMALL = {
    "image_size": 16,
    "strides": (2, 2, 2),
    "widths": (8, 12, 16),
    "layers": (1, 1, 2),
    "heads": 2,
    "decoder_width": 8,
}
FIELDS = ("frames", "first_masks", "start")
TOPK = {"memory_read": "topk", "topk": 3, "topk_scope": "all"}


def build(**options):
    """A small model in evaluation mode, with weights that all matter."""
    return randomise(VOSMemory(VOSMemoryConfig(**{**SMALL, **options}))).eval()


def clips(start=((0, 0, -1), (0, 2, 3)), frames=5, size=(16, 16), seed=0):
    """Random clips whose objects start in the given frames."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.tensor(start)
    samples, objects = start.shape
    owner = torch.randint(0, objects + 1, (samples, 1, *size), generator=generator)
    masks = (owner == torch.arange(1, objects + 1).view(1, -1, 1, 1)) & (start >= 0)[:, :, None, None]
    pictures = torch.randn(samples, frames, 3, *size, generator=generator)
    return {"frames": pictures, "first_masks": masks.float(), "start": start}


def logits_of(model, batch):
    with torch.no_grad():
        return model(**batch)["logits"]


def streamed(model, batch, **options):
    """The same, frame by frame, and the stream."""
    stream, found = model.stream(**options), []
    for number, frame in enumerate(batch["frames"].unbind(1)):
        given = batch["start"] == number
        masks = batch["first_masks"] if number == 0 or given.any() else None
        found.append(stream.step(frame, masks, None if masks is None else given))
    return torch.stack(found, dim=1), stream


POLICIES = {
    "default": {},
    "bounded": {"memory_every": 1, "max_memory_frames": 2},
    "first and last": {"max_memory_frames": 1},
    "every second": {"memory_every": 2, "include_last": False},
    "usage": {"memory_every": 1, "max_memory_frames": 3, "include_last": False, "eviction": "usage"},
    "usage and last": {"memory_every": 2, "max_memory_frames": 2, "eviction": "usage", **TOPK},
}
