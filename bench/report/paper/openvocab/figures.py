"""The figure of CAT-Seg: linear against full class attention, and the designs of the aggregator beside their FLOPs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.report import plots
from bench.report.paper.openvocab.quantities import AT, BASE, CLASSES, DESIGNS, MODES, attention, design
from bench.report.paper.quantities import Theirs, quotient
from bench.store.efficiency import Efficiency

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS = {"attention": "attention alone", "block": "class block"}


def write(efficiency: Efficiency, published: Theirs, out: Path) -> list[Path]:
    """Write ``ratios`` as PNG and PDF into `out` and return their paths."""
    with plots.style():
        figure = draw(efficiency)
        return plots.save(figure, out / "ratios")


def draw(efficiency: Efficiency) -> Figure:
    """Full over linear attention by classes; designs over the one that is not padded: measured, and by FLOPs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    by_classes, designs = figure.subplots(1, 2)
    _draw_attention(by_classes, efficiency)
    _draw_designs(designs, efficiency)
    record = efficiency.record
    figure.suptitle(
        f"CAT-Seg's aggregator, one crop; filled, with 95 % interval: measured on {record.device.name}, {record.precision}; "
        "open: by FLOPs",
        fontsize=8.5,
    )
    return figure


def _draw_attention(ax: Axes, efficiency: Efficiency) -> None:
    import seaborn
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    colours = seaborn.color_palette("colorblind", len(PARTS))
    for colour, marker, (mode, name) in zip(colours, plots.MARKERS, PARTS.items(), strict=False):
        flops = {}
        for classes in CLASSES[128]:
            calls = [attention(efficiency, kind, mode, classes) for kind in ("full", "linear")]
            if calls[0] is not None and calls[1] is not None:
                flops[classes] = calls[0].flops / calls[1].flops
            ratio = quotient(*calls)
            if ratio is not None:
                value, interval, _ = ratio
                reach = None if interval is None else [[value - interval.low], [interval.high - value]]
                ax.errorbar([classes], [value], yerr=reach, color=colour, marker=marker, markersize=4.5, capsize=2.5)
        ax.plot(list(flops), list(flops.values()), color=colour, marker=marker, markersize=3.5, linewidth=1,
                markerfacecolor="white", label=name)  # fmt: skip
    ax.axhline(1.0, color="0.6", linewidth=0.7, zorder=0)
    ax.set_xscale("log")
    ax.set_yscale("log")
    for axis, places in ((ax.xaxis, CLASSES[128]), (ax.yaxis, (0.25, 0.5, 1, 2, 4, 8, 16, 32))):
        axis.set_major_locator(FixedLocator(list(places)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.set_xlabel("classes", fontsize=8.5)
    ax.set_ylabel("full / linear class attention", fontsize=8.5)
    ax.tick_params(labelsize=7.5)
    ax.legend(frameon=False, fontsize=7.5)


def _draw_designs(ax: Axes, efficiency: Efficiency) -> None:
    base = design(efficiency, BASE, AT)
    names: list[str] = []
    for label, name in DESIGNS.items():
        for mode, way in MODES.items():
            call = design(efficiency, label, AT, mode)
            if call is None or base is None or call is base:
                continue
            place = len(names)
            names.append(f"{name}, {way}" if way else name)
            ax.plot([call.flops / base.flops], [place], "o", markersize=4, color="0.4", markerfacecolor="white")
            ratio = quotient(call, base)
            if ratio is not None:
                value, interval, _ = ratio
                reach = None if interval is None else [[value - interval.low], [interval.high - value]]
                ax.errorbar([value], [place], xerr=reach, color="C0", marker="o", markersize=4, capsize=2)
    ax.axvline(1.0, color="0.6", linewidth=0.7, zorder=0)
    ax.set_yticks(range(len(names)), names, fontsize=7)
    ax.invert_yaxis()
    if names:
        ax.set_xscale("log")
    ax.set_xlabel(f"over 2024 not padded, {AT} classes", fontsize=8.5)
    ax.tick_params(axis="x", labelsize=7.5)
