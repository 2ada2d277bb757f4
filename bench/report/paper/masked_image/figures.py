"""The figure of MAE and CrossMAE on images: what is saved, over what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bench.report import plots
from bench.report.paper import panels
from bench.report.paper.masked_image.quantities import CROSS, MAE, MODELS, THIRD, count, step
from bench.report.paper.masked_image.tables import MASKS, WIDTHS
from bench.report.paper.quantities import Theirs, quotient
from bench.report.paper.ratios import counted_ratio
from bench.stats import Estimate
from bench.store.efficiency import Efficiency

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARES = {15: f"{CROSS}-p15", 25: THIRD, 50: f"{CROSS}-p50", 75: CROSS}
"""Percent of the patches that are predicted -> design."""
LINES = ("decoder", "step", "decoder, a third predicted", "step, a third predicted")


def write(efficiency: Efficiency, published: Theirs, out: Path) -> list[Path]:
    """Write ``ratios`` as PNG and PDF into `out` and return their paths."""
    with plots.style():
        figure = draw(efficiency, published)
        return plots.save(figure, out / "ratios")


def draw(efficiency: Efficiency, published: Theirs) -> Figure:
    """MAE over CrossMAE by predicted share, mask ratio, size of the encoder and width of the decoder."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 5.6), layout="constrained")
    shares, masks, models, widths = figure.subplots(2, 2).flat
    epochs = published["epoch-2"]
    theirs = {
        percent / 100: Estimate(epochs[f"vit-b/{MAE}"] / minutes, None, 1)
        for percent, design in SHARES.items()
        if (minutes := epochs.get(f"vit-b/{design}")) is not None
    }
    here = {
        percent / 100: ratio
        for percent, design in SHARES.items()
        if (ratio := quotient(step(efficiency, MAE), step(efficiency, design))) is not None
    }
    panels.draw(shares, _shares(efficiency), "share of the patches that is predicted, γ", "MAE / CrossMAE")
    panels.points(shares, "step", here)
    panels.points(shares, "published time", theirs)
    panels.draw(masks, _lines(efficiency, {mask / 100: {"mask": mask} for mask in MASKS}), "mask ratio")
    order = {float(place): model for place, model in enumerate(MODELS)}
    panels.draw(models, _lines(efficiency, {place: {} for place in order}, order), "encoder",
                "MAE / CrossMAE")  # fmt: skip
    panels.name_places(models, {place: MODELS[model] for place, model in order.items()})
    panels.draw(widths, _lines(efficiency, {width: {"width": width} for width in WIDTHS}), "width of the decoder")
    panels.legend(figure, LINES, ("step", "published time"))
    record = efficiency.record
    figure.suptitle(
        f"FLOPs of MAE (8 blocks) over CrossMAE (12 blocks, feature maps)\nViT-B/16 at 224 px, mask ratio 0.75; step measured "
        f"on {record.device.name}, {record.precision}",
        fontsize=9,
    )
    return figure


def _shares(efficiency: Efficiency) -> dict[str, dict[float, float]]:
    """Ratios of decoder and step by the predicted share."""
    made: dict[str, dict[float, float]] = {"decoder": {}, "step": {}}
    for percent, design in SHARES.items():
        for name, what in (("decoder", "decoder"), ("step", "training")):
            if (value := counted_ratio(count(efficiency, MAE), count(efficiency, design), what)) is not None:
                made[name][percent / 100] = value
    return made


def _lines(
    efficiency: Efficiency, settings: Mapping[float, Mapping[str, int]], models: Mapping[float, str] | None = None
) -> dict[str, dict[float, float]]:
    """The four counted series over settings: place on the axis -> sizes that differ there, and maybe the encoder's."""
    made: dict[str, dict[float, float]] = {name: {} for name in LINES}
    for place, changed in settings.items():
        model = (models or {}).get(place, "vit-b")
        mae = count(efficiency, MAE, model, **changed)
        for design, suffix in ((CROSS, ""), (THIRD, ", a third predicted")):
            other = count(efficiency, design, model, **changed)
            for name, what in (("decoder", "decoder"), ("step", "training")):
                if (value := counted_ratio(mae, other, what)) is not None:
                    made[name + suffix][place] = value
    return made
