"""The figures of the efficiency measurements: cost over views, and what adding a view costs.

One colour and marker an architecture, one line style a mode, so that they read in grey. The same folder gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.report import plots
from bench.report.paper.nvs.quantities import (
    CALLS,
    FAMILIES,
    INCREMENTAL,
    INPUTS,
    LATENTS,
    LVSM,
    OURS,
    TARGETS,
    sweep,
    tflop,
    views,
)
from bench.report.paper.published import Published
from bench.report.paper.quantities import latency, memory, over, quotient
from bench.store.efficiency import Call, Efficiency

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MODES = {"full": "-", "add": (0, (5, 1.5, 1, 1.5)), "render": (0, (5, 2))}


def write(efficiency: Efficiency, published: Mapping[str, Published], out: Path) -> list[Path]:
    """Write ``views`` and ``incremental`` as PNG and PDF into `out` and return their paths."""
    paths = []
    with plots.style():
        for name, figure in (
            ("views", draw_views(efficiency)),
            ("incremental", draw_incremental(efficiency, published)),
        ):
            paths += plots.save(figure, out / name)
    return paths


def draw_views(efficiency: Efficiency) -> Figure:
    """Latency, memory and FLOPs (columns) over input and target views (rows), both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 5.6), layout="constrained")
    axes = figure.subplots(2, 3, sharex="row")
    for row, (vary, label) in enumerate(
        (("input_views", f"input views, {TARGETS} targets"), ("target_views", f"target views, {INPUTS} inputs"))
    ):
        series = sweep(efficiency, vary)
        for ax, quantity in zip(axes[row], ("latency (ms)", "memory (MiB)", "GFLOP"), strict=True):
            for key in CALLS:
                _draw(ax, key, {count: calls[key] for count, calls in series.items() if key in calls}, quantity)
            _log_axes(ax, list(series))
            ax.set_xlabel(label, fontsize=8.5)
            ax.set_ylabel(quantity, fontsize=8.5)
    handles = [_handle(key, name) for key, name in CALLS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, handlelength=3.4, fontsize=8)
    _title(figure, efficiency, "one scene; latency: median and 95 % interval; memory: beyond the weights")
    return figure


def _draw(ax: Axes, key: tuple[str, str], calls: Mapping[int, Call], quantity: str) -> None:
    values: dict[int, tuple[float, float, float]] = {}
    for count, call in calls.items():
        if quantity.startswith("latency"):
            measured = latency(call)
            if measured is not None:
                low, high = measured.interval or (measured.value, measured.value)
                values[count] = measured.value, low, high
        else:
            taken = memory(call) if quantity.startswith("memory") else float(call.flops)
            scale = 2.0**20 if quantity.startswith("memory") else 1e9
            if taken is not None:
                values[count] = (taken / scale,) * 3
    if not values:
        return
    colour, marker, line = _look(key)
    middle, lows, highs = zip(*values.values(), strict=True)
    ax.fill_between(list(values), lows, highs, color=colour, alpha=0.16, linewidth=0)
    ax.plot(list(values), middle, color=colour, linestyle=line, marker=marker, markersize=3.5, linewidth=1.2)


def draw_incremental(efficiency: Efficiency, published: Mapping[str, Published]) -> Figure:
    """Left: computation at full size of adding a view. Right: speed-up over LVSM, published, by FLOPs, measured."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    lines = {key: CALLS[key] for key in ((LVSM, "full"), (LATENTS, "full"), (OURS, "full"), (OURS, "add"))}
    for key, name in lines.items():
        label, mode = key
        counted = {
            inputs: count
            for inputs in INCREMENTAL
            if (count := tflop(efficiency, label, views(inputs), mode)) is not None
        }
        if not counted:
            continue
        colour, marker, line = _look(key)
        left.plot(list(counted), list(counted.values()), color=colour, linestyle=line, marker=marker, markersize=3.5,
                  linewidth=1.2, label=name)  # fmt: skip
    left.set_ylabel("TFLOP at full size, 256 px", fontsize=8.5)
    if left.lines:
        left.legend(frameon=False, fontsize=7, handlelength=3.4)

    readme = published["incremental-speed-up"]
    by_flops: dict[int, float] = {}
    by_flops_here: dict[int, float] = {}
    here: dict[int, float] = {}
    for inputs in INCREMENTAL:
        sizes = views(inputs)
        if (count := over(tflop(efficiency, LVSM, sizes), tflop(efficiency, OURS, sizes, "add"))) is not None:
            by_flops[inputs] = count
        lvsm, cached = efficiency.call(LVSM, sizes), efficiency.call(OURS, sizes, "add")
        if lvsm is not None and cached is not None:
            by_flops_here[inputs] = lvsm.flops / cached.flops
        if (measured := quotient(lvsm, cached)) is not None:
            here[inputs] = measured.value
    preset = efficiency.record.preset
    kinds: tuple[tuple[dict[int, float], str, Any, str], ...] = (
        (by_flops, "s", "-", "by FLOPs, full size"),
        ({inputs: readme[str(inputs)] for inputs in INCREMENTAL}, "o", (0, (5, 2)), "published latency [README]"),
        (by_flops_here, "v", (0, (5, 1.5, 1, 1.5)), f"by FLOPs, {preset}"),
        (here, "D", (0, (1, 1.2)), f"latency here, {preset}"),
    )
    for values, marker, line, name in kinds:
        if not values:  # a logarithmic axis cannot take an empty line
            continue
        right.plot(list(values), list(values.values()), color="0.15", marker=marker, linestyle=line, markersize=4,
                   markerfacecolor="white", linewidth=1.2, label=name)  # fmt: skip
    right.set_ylabel("LVSM / Efficient-LVSM with cache", fontsize=8.5)
    right.legend(frameon=False, fontsize=7, handlelength=3.4)
    for ax in (left, right):
        _log_axes(ax, list(INCREMENTAL))
        ax.set_xlabel(f"input views with the added one, {TARGETS} targets", fontsize=8.5)
    _title(figure, efficiency, "a view is added and the targets are rendered")
    return figure


def _look(key: tuple[str, str]) -> tuple[Any, str, Any]:
    import seaborn

    index = FAMILIES.index(key[0])
    return seaborn.color_palette("colorblind", 3)[index], plots.MARKERS[index], MODES[key[1]]


def _handle(key: tuple[str, str], name: str) -> Any:
    from matplotlib.lines import Line2D

    colour, marker, line = _look(key)
    return Line2D([], [], color=colour, marker=marker, linestyle=line, markersize=3.5, linewidth=1.2, label=name)


def _log_axes(ax: Axes, shown: list[int]) -> None:
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator, ScalarFormatter, StrMethodFormatter

    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.xaxis.set_major_locator(FixedLocator([count for count in shown if count & (count - 1) == 0]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(labelsize=8)
    ax.grid(axis="y", which="major", linewidth=0.5, color="0.9")


def _title(figure: Figure, efficiency: Efficiency, what: str) -> None:
    record = efficiency.record
    skipped = sum(bool(call.skipped) for group in efficiency.groups for call in group.calls)
    left_out = f"; not timed: {skipped} calls (see the table)" if skipped else ""
    figure.suptitle(f"{record.device.name}, preset {record.preset}, {record.precision}{left_out}\n{what}", fontsize=9)
