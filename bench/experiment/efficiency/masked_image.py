"""What is counted and timed for masked image modelling: MAE and CrossMAE at their published sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from bench import registry
from bench.contracts import Batch
from bench.experiment.efficiency.spec import Counted, Row, Sizes, TimedCall, backward_too, training_call

FIELDS = ("images", "noise")
SIZES: dict[str, dict[str, int]] = {
    "vit-s": {"patch_size": 16, "width": 384, "layers": 12, "heads": 6},
    "vit-b": {"patch_size": 16, "width": 768, "layers": 12, "heads": 12},
    "vit-l": {"patch_size": 16, "width": 1024, "layers": 24, "heads": 16},
    "vit-h": {"patch_size": 14, "width": 1280, "layers": 32, "heads": 16},
}
DECODER_WIDTHS = {"vit-s": 256}
DECODER_WIDTH = 512
HEAD_WIDTH = 32
"""Of the published decoders, at every width."""

MAE, CROSS, THIRD = "mae-8", "crossmae-12-maps", "crossmae-12-maps-p25"
"""The published designs. A label names the architecture, the decoder's blocks, and options: ``maps`` (weighted feature maps of
all layers and the encoder's input), ``self`` (self-attention in the decoder), ``pN`` (N % of the patches are predicted)."""
DEPTHS = range(1, 10)
"""Blocks of MAE's decoder, one of which costs what a CrossMAE does."""
DESIGNS = (
    *("crossmae-12", "crossmae-12-p25", CROSS, THIRD, "crossmae-12-maps-p15", "crossmae-12-maps-p50"),
    *("crossmae-8", "crossmae-8-p25", "crossmae-8-maps", "crossmae-8-self", "crossmae-12-maps-self"),
    *("crossmae-4-maps", "crossmae-1-maps", "crossmae-1-p25"),
)
TIMED = (MAE, "mae-3", "crossmae-8", "crossmae-12", CROSS, THIRD)
MASK_PERCENTS, WIDTHS = (40, 60, 90), (64, 128, 256, 768)
BATCH = {"tiny": 4, "small": 32, "paper": 128}


def _sizes(model: str, image_size: int = 224, mask_percent: int = 75, decoder_width: int = 0) -> dict[str, int]:
    width = decoder_width or DECODER_WIDTHS.get(model, DECODER_WIDTH)
    return {"image_size": image_size, "mask_percent": mask_percent, "decoder_width": width}


def _row(model: str, design: str, sizes: Sizes) -> Row:
    return Row(f"{model}/{design}", design.split("-")[0], sizes, _options(model, design, sizes))


def _options(model: str, design: str, sizes: Sizes) -> dict[str, Any]:
    """The options of an architecture that its label and its sizes stand for."""
    architecture, blocks, *flags = design.split("-")
    options: dict[str, Any] = {
        **SIZES[model],
        "image_size": sizes["image_size"],
        "mask_ratio": sizes["mask_percent"] / 100,
        "decoder_width": sizes["decoder_width"],
        "decoder_heads": sizes["decoder_width"] // HEAD_WIDTH,
        "decoder_layers": int(blocks),
    }
    if architecture == "crossmae":
        options |= {"weighted_feature_maps": "maps" in flags, "decoder_self_attention": "self" in flags}
        shares = [int(flag[1:]) / 100 for flag in flags if flag[1:].isdigit()]
        options |= {"prediction_ratio": shares[0] if shares else None}
    return options


def _rows() -> tuple[Row, ...]:
    rows = [_row("vit-b", f"mae-{depth}", _sizes("vit-b")) for depth in DEPTHS]
    rows += [_row("vit-b", design, _sizes("vit-b")) for design in DESIGNS]
    published = MAE, CROSS, THIRD
    rows += [_row("vit-b", design, _sizes("vit-b", 448)) for design in published]
    rows += [_row(model, design, _sizes(model)) for model in ("vit-s", "vit-l", "vit-h") for design in published]
    rows += [
        _row("vit-b", design, _sizes("vit-b", mask_percent=percent))
        for percent in MASK_PERCENTS
        for design in published
    ]
    rows += [_row("vit-b", design, _sizes("vit-b", decoder_width=width)) for width in WIDTHS for design in published]
    return tuple(rows)


class MaskedImage:
    """MAE and CrossMAE: a forward pass is counted, a training step is timed (ViT-B/16 at 224 px, whatever the preset)."""

    rows = _rows()
    training = True
    rounds = 6
    limit_seconds: ClassVar = {"cpu": 30.0, "cuda": 15.0}

    def groups(self, preset: str) -> tuple[Sizes, ...]:
        """One: all designs on a batch of the preset."""
        return ({**_sizes("vit-b"), "batch": BATCH[preset]},)

    def counted(self, row: Row) -> Counted:
        """Module and meta batch of a row."""
        with torch.device("meta"):
            batch = _batch(row.sizes["image_size"], int(row.options["patch_size"]), 1)
        return Counted(lambda: _build(row.architecture, row.options), batch, FIELDS)

    def setting(self, preset: str) -> dict[str, Any]:
        """The edge in pixels, of every preset."""
        return {"image_size": _sizes("vit-b")["image_size"]}

    def models(self, preset: str) -> dict[str, nn.Module]:
        """The timed designs at published size."""
        sizes = _sizes("vit-b")
        return {f"vit-b/{design}": _build(design.split("-")[0], _options("vit-b", design, sizes)) for design in TIMED}

    def calls(
        self, models: Mapping[str, nn.Module], sizes: Sizes, preset: str, device: torch.device, seed: int
    ) -> list[TimedCall]:
        """A training step of every design: masking, forward, the published loss, backward."""
        torch.manual_seed(seed)
        some: Any = next(iter(models.values()))
        batch = {
            name: value.to(device)
            for name, value in _batch(sizes["image_size"], some.config.patch_size, sizes["batch"]).items()
        }
        return [_step(label, model, batch) for label, model in models.items()]


def _step(label: str, model: Any, batch: Batch) -> TimedCall:
    samples = len(batch["images"])
    start = training_call(model, lambda: model.reference_loss(batch, model(**batch)))
    return TimedCall(label, "step", backward_too(model.flops(batch)), 0, samples, start)


def _build(architecture: str, options: Mapping[str, Any]) -> nn.Module:
    cls = registry.load_object(registry.architecture(architecture).target, "architecture")
    made: nn.Module = cls(registry.make_config(cls, options, architecture))
    return made


def _batch(image_size: int, patch_size: int, samples: int) -> Batch:
    return {
        "images": torch.randn(samples, 3, image_size, image_size),
        "noise": torch.rand(samples, (image_size // patch_size) ** 2),
    }
