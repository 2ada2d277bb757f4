"""The figure of memory reading: attention over frames in memory and K, and what caching saves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.report import plots
from bench.report.paper.quantities import Theirs, quotient
from bench.report.paper.vos.quantities import DENSE, FRAMES, K_SWEEP, NAMES, SWEPT_AT, Method, count, frame, operation
from bench.stats import Estimate
from bench.store.efficiency import Efficiency

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN: tuple[Method, ...] = (
    ("dense", "eager"), ("topk-all", "full"), ("topk-each", "full"), ("topk-all", "gather"), ("topk-all", "bag"),
    ("shared-subset", "full"),
)  # fmt: skip
RATIOS = (0.25, 0.5, 1, 2, 3, 5, 7, 10, 15, 20)


def write(efficiency: Efficiency, published: Theirs, out: Path) -> list[Path]:
    """Write ``ratios`` as PNG and PDF into `out` and return their paths."""
    with plots.style():
        figure = draw(efficiency, published)
        return plots.save(figure, out / "ratios")


def draw(efficiency: Efficiency, published: Theirs) -> Figure:
    """Attention over fused dense attention by T (two sizes) and by K; the published read over the cached one by T."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 5.8), layout="constrained")
    small, large, by_k, frames = figure.subplots(2, 2).flat
    theirs = published["operation"]
    for ax, tokens in ((small, 144), (large, 576)):
        for method in SHOWN:
            measured = {
                float(number): ratio
                for number in FRAMES
                if (ratio := quotient(*(operation(efficiency, each, tokens, number) for each in (method, DENSE))))
                is not None
            }
            reference = {
                float(number): theirs[f"{'/'.join(method)} {tokens} {number}"] / theirs[f"dense/full {tokens} {number}"]
                for number in FRAMES
                if f"{'/'.join(method)} {tokens} {number}" in theirs.values
            }
            _series(ax, SHOWN.index(method), measured, reference)
        _axes(ax, FRAMES, f"frames in memory, {tokens} tokens each", "attention / fused dense")
    for method in SHOWN:
        measured = {
            float(topk): ratio
            for topk in K_SWEEP
            if (ratio := quotient(*(operation(efficiency, each, *SWEPT_AT, topk) for each in (method, DENSE))))
            is not None
        }
        if method[0] == "topk-all":
            _series(by_k, SHOWN.index(method), measured, {})
    _axes(by_k, K_SWEEP, f"K, {SWEPT_AT[0]} tokens, {SWEPT_AT[1]} frames", "attention / fused dense")
    for index, tokens in enumerate((144, 576)):
        calls = {
            number: [frame(efficiency, "dense", mode, tokens, number) for mode in ("full", "read")] for number in FRAMES
        }
        measured = {float(number): ratio for number, pair in calls.items() if (ratio := quotient(*pair)) is not None}
        rows = {
            number: [count(efficiency, "dense", mode, tokens, number) for mode in ("recompute", "read")]
            for number in FRAMES
        }
        counted = {float(number): one.flops / two.flops for number, (one, two) in rows.items() if one and two}
        _series(frames, len(SHOWN) + index, measured, counted)
    _axes(frames, FRAMES, "frames in memory", "published / cached frame")
    _legend(figure)
    record = efficiency.record
    figure.suptitle(
        "What reading the memory costs: 12 heads of 64, one object\n"
        f"filled, with 95 % interval: measured on {record.device.name}, {record.precision}; lines: published runs, or FLOPs of a frame",
        fontsize=9,
    )
    return figure


def _series(ax: Axes, index: int, measured: dict[float, Estimate], line: dict[float, float]) -> None:
    colour, marker = _look(index)
    if line:
        ax.plot(list(line), list(line.values()), color=colour, marker=marker, markersize=3.5, linewidth=1,
                markerfacecolor="white")  # fmt: skip
    for place, (value, interval, _) in measured.items():
        reach = None if interval is None else [[value - interval.low], [interval.high - value]]
        ax.errorbar([place], [value], yerr=reach, color=colour, marker=marker, markersize=4.5, capsize=2.5, linewidth=1)


def _look(index: int) -> tuple[str, str]:
    import seaborn

    return seaborn.color_palette("colorblind", len(SHOWN) + 2)[index], plots.MARKERS[index % len(plots.MARKERS)]


def _axes(ax: Axes, places: tuple[int, ...], xlabel: str, ylabel: str) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    ax.set_xscale("log")
    ax.set_yscale("log")
    for axis, ticks in ((ax.xaxis, places), (ax.yaxis, RATIOS)):
        axis.set_major_locator(FixedLocator(list(ticks)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.axhline(1.0, color="0.6", linewidth=0.7, zorder=0)
    ax.set_xlabel(xlabel, fontsize=8.5)
    ax.set_ylabel(ylabel, fontsize=8.5)
    ax.tick_params(labelsize=8)
    ax.grid(axis="y", which="major", linewidth=0.5, color="0.9")


def _legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D

    names = [*(NAMES[method] for method in SHOWN), "published / cached, 144 tokens", "published / cached, 576 tokens"]
    handles = []
    for index, name in enumerate(names):
        colour, marker = _look(index)
        handles.append(Line2D([], [], color=colour, marker=marker, markersize=4, linewidth=1, label=name))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=7.5)
