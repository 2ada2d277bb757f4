"""Both of MixFormer's trackers at small sizes, random batches, and a training step."""

from types import ModuleType
from typing import Any, NamedTuple

import torch

from models import mixformer, mixformer_vit
from tests.models.helpers import randomise

INPUTS = ("template", "online_template", "search")


class Tracker(NamedTuple):
    """An architecture and its options at a small size."""

    module: ModuleType
    model: Any
    small: dict[str, Any]

    def config(self, **options):
        """The small options but for those that are named."""
        return self.model.config_class(**{**self.small, **options})

    def build(self, **options):
        """A small model in evaluation mode with weights that all matter."""
        model = randomise(self.model(self.config(**options))).eval()
        if self is VIT:  # scores in the hundreds would magnify rounding
            with torch.no_grad():
                for weight in model.box_head.parameters():
                    weight.mul_(1 / 3 if weight.shape[2:] == (3, 3) else 1)
        return model


CVT = Tracker(mixformer, mixformer.MixFormerCvT, {
    "search_size": 48, "template_size": 32, "widths": (8, 12, 24), "layers": (1, 2, 2), "heads": (1, 3, 6), "head_width": 16,
})  # fmt: skip
VIT = Tracker(mixformer_vit, mixformer_vit.MixFormerViT, {
    "search_size": 40, "template_size": 24, "patch_size": 8, "width": 24, "layers": 3, "heads": 3, "head_width": 16,
    "drop_path": 0.0,
})  # fmt: skip


def random_batch(config, samples=2, online=None, seed=0):
    """The input fields of `tracking`, with several online templates where ``online`` says how many."""
    generator = torch.Generator().manual_seed(seed)
    edges = (config.template_size, config.template_size, config.search_size)
    shapes = [(samples, 3, edge, edge) for edge in edges]
    if online is not None:
        shapes[1] = (samples, online, *shapes[1][1:])
    return {name: torch.randn(shape, generator=generator) for name, shape in zip(INPUTS, shapes, strict=True)}


def train_once(model, batch):
    """Gradients of a random sum of all outputs, and that sum."""
    outputs = model.train()(**batch)
    generator = torch.Generator().manual_seed(0)
    loss = sum((value.float() * torch.randn(value.shape, generator=generator)).sum() for value in outputs.values())
    loss.backward()
    return loss


def million(parameters):
    """How many there are, in millions."""
    return round(sum(parameter.numel() for parameter in parameters) / 1e6, 2)
