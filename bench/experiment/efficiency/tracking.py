"""What is counted and timed for tracking: MixFormer on CvT and on ViT, each attention, with templates kept and not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bench import registry
from bench.contracts import Batch
from bench.experiment.efficiency.spec import Counted, Row, Sizes, Started, TimedCall

FIELDS = ("template", "online_template", "search")

PUBLISHED = {"search_size": 320, "template_size": 128}
PUBLISHED_VIT = {"search_size": 288, "template_size": 128}
SMALL = {"search_size": 96, "template_size": 32}
DESIGNS: dict[str, dict[str, Any]] = {
    "cvt-21": {},
    "cvt-w24": {"widths": (192, 768, 1024), "layers": (2, 2, 12), "heads": (3, 12, 16)},
    "tiny": {"widths": (16, 48, 96), "layers": (1, 1, 3), "heads": (1, 3, 6), "head_width": 48},
    "vit-b": {},
}
"""Model -> what differs from the published one on CvT-21 or ViT-B; ``tiny`` is on CvT and sees smaller pictures."""
SYMMETRIC = "-symmetric"
"""Suffix of a label: everything reads everything."""
LABELS = tuple(f"{model}{suffix}" for model in DESIGNS for suffix in ("", SYMMETRIC))
TIMED = ("cvt-21", f"cvt-21{SYMMETRIC}", "cvt-w24", "tiny", f"tiny{SYMMETRIC}", "vit-b")


def sizes_of(label: str) -> dict[str, int]:
    """Edges of the pictures that a model sees."""
    return {"tiny": SMALL, "vit-b": PUBLISHED_VIT}.get(label.removesuffix(SYMMETRIC), PUBLISHED)


def architecture_of(label: str) -> str:
    """Registered name of a model's architecture."""
    return "mixformer-vit" if label.startswith("vit") else "mixformer-cvt"


def _options(label: str) -> dict[str, Any]:
    model = label.removesuffix(SYMMETRIC)
    attention = "symmetric" if label.endswith(SYMMETRIC) else "asymmetric"
    return {**sizes_of(label), **DESIGNS[model], "attention": attention}


class Tracking:
    """Everything at once, templates alone, a search picture from kept templates.

    Modes: ``full`` (both templates and the search picture), ``templates`` (both, to be kept), ``track`` (the search picture).
    Weights are random, which does not change the cost.
    """

    rows = tuple(
        Row(label, architecture_of(label), sizes_of(label), _options(label), mode)
        for label in LABELS
        for mode in ("full", "templates", "track")
    )
    training = False
    rounds = 6
    limit_seconds: ClassVar = {"cpu": 10.0, "cuda": 15.0}

    def groups(self, preset: str) -> tuple[Sizes, ...]:
        """The tiny and the published sizes, whatever the preset."""
        return SMALL, PUBLISHED, PUBLISHED_VIT

    def counted(self, row: Row) -> Counted:
        """Module and meta batch of a row."""
        batch = _batch(row.sizes, torch.device("meta"), 0)
        part, fields = PARTS[row.mode]
        return Counted(lambda: part(_build(row.architecture, row.options), batch), batch, fields)

    def setting(self, preset: str) -> dict[str, Any]:
        """Nothing: the sizes of the groups say it all."""
        return {}

    def models(self, preset: str) -> dict[str, nn.Module]:
        """The timed models, each at its own size."""
        return {label: _build(architecture_of(label), _options(label)) for label in TIMED}

    def calls(
        self, models: Mapping[str, nn.Module], sizes: Sizes, preset: str, device: torch.device, seed: int
    ) -> list[TimedCall]:
        """Every mode of the models of this size."""
        batch = _batch(sizes, device, seed)
        made = []
        for label, model in models.items():
            if sizes_of(label) == sizes:
                made += [_call(label, mode, model, batch) for mode in PARTS]
        return made


class Full(nn.Module):
    """Both templates and the search picture at once."""

    def __init__(self, model: nn.Module, batch: Batch) -> None:
        """Take the model; nothing is kept of the batch."""
        super().__init__()
        self.model: Any = model

    def forward(self, **inputs: Tensor) -> Tensor:
        """The box [1, 4]."""
        boxes: Tensor = self.model(**inputs)["boxes_cxcywh"]
        return boxes

    def flops(self, batch: Batch) -> int:
        """Closed form."""
        return int(self.model.flops(batch))


class Templates(Full):
    """What is kept of both templates."""

    def forward(self, **inputs: Tensor) -> Tensor:
        """All that is kept, in one row."""
        return torch.cat([kept.flatten() for kept in held(self.model.set_templates(**inputs))])

    def flops(self, batch: Batch) -> int:
        """Closed form."""
        return int(self.model.flops_templates())


class Track(Full):
    """The search picture, from templates that are kept."""

    def __init__(self, model: nn.Module, batch: Batch) -> None:
        """Keep the templates of `batch`."""
        super().__init__(model, batch)
        with torch.no_grad():
            self.cache = self.model.eval().set_templates(batch["template"], batch["online_template"])

    def forward(self, **inputs: Tensor) -> Tensor:
        """The box [1, 4]."""
        boxes: Tensor = self.model.track(inputs["search"], self.cache)
        return boxes

    def flops(self, batch: Batch) -> int:
        """Closed form."""
        return int(self.model.flops_track())


PARTS: dict[str, tuple[Callable[..., Full], tuple[str, ...]]] = {
    "full": (Full, FIELDS),
    "templates": (Templates, FIELDS[:2]),
    "track": (Track, FIELDS[2:]),
}
"""Mode -> its module, and what goes into it."""


def held(cache: Any) -> list[Tensor]:
    """The tensors of what a model keeps of its templates."""
    if isinstance(cache, Tensor):
        return [cache] if cache.ndim else []  # while a model is traced, its whole numbers are tensors without axes
    return [tensor for part in cache for tensor in held(part)] if isinstance(cache, tuple) else []


def _call(label: str, mode: str, model: Any, batch: Batch) -> TimedCall:
    part, fields = PARTS[mode]
    flops = Full(model, batch).flops(batch) if mode == "full" else getattr(model, f"flops_{mode}")()

    def start() -> Started:
        made: Any = part(model, batch)
        inputs = {name: batch[name] for name in fields}
        kept = held(made.cache) if mode == "track" else []
        return Started(lambda: made(**inputs), sum(tensor.numel() * tensor.element_size() for tensor in kept))

    # What is kept is no box: under a name of its own it is not compared with those of a full pass.
    name = f"{label} templates" if mode == "templates" else label
    return TimedCall(name, mode, int(flops), 0, 1, start)


def _batch(sizes: Sizes, device: torch.device, seed: int) -> Batch:
    """Noise in the shapes of the task's fields."""
    generator = torch.Generator().manual_seed(seed)
    edges = {name: sizes["search_size" if name == "search" else "template_size"] for name in FIELDS}
    return {name: torch.randn(1, 3, edge, edge, generator=generator).to(device) for name, edge in edges.items()}


def _build(architecture: str, options: Mapping[str, Any]) -> nn.Module:
    cls = registry.load_object(registry.architecture(architecture).target, "architecture")
    made: nn.Module = cls(registry.make_config(cls, options, architecture))
    return made.eval()
