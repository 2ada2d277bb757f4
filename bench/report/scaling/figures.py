"""The figure of a curve: a panel a quantity, points with intervals, and the laws through them; costs on a logarithmic scale."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.report import plots
from bench.report.scaling.fits import Fit
from bench.report.scaling.series import CurveData, Panel
from bench.stats import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TICKS = (1, 2, 5)
LETTERS_AN_INCH = 14
"""Of the title."""
FEW_DECADES = 300
"""A cost whose largest is no more than this times the smallest has three ticks a decade, others one."""
NAMED_PLACES = 7
"""A panel with no more places than this names each on its axis."""


def draw(data: CurveData, fits: list[Fit]) -> Figure:
    """Filled points were fitted, the hollow one is the largest, which the line predicts; one colour, marker and line an arm."""
    from matplotlib.figure import Figure

    columns = max(1, len(data.panels))
    figure = Figure(figsize=(max(4.6, 3.1 * columns), 3.9), layout="constrained")
    arms = list(dict.fromkeys(series.arm for panel in data.panels for series in panel.series))
    axes = np.atleast_1d(figure.subplots(1, columns))
    for ax, panel in zip(axes.flat, data.panels, strict=False):
        for fit in (fit for fit in fits if fit.quantity.key == panel.quantity.key):
            _draw_arm(ax, fit, look(arms.index(fit.series.arm), len(arms)))
        _label(ax, data, panel)
    _legend(figure, arms)
    note = "lines: power laws through the filled points; hollow: the largest point, not fitted; bars: 95 % intervals"
    width = LETTERS_AN_INCH * figure.get_figwidth()
    lines = [
        line for text in (f"{data.curve.title}, on {data.device}", note) for line in textwrap.wrap(text, int(width))
    ]
    figure.suptitle("\n".join(lines), fontsize=8.5)
    return figure


def look(index: int, count: int) -> tuple[Any, str, Any]:
    """Colour, marker and line of an arm."""
    import seaborn

    colour = seaborn.color_palette("colorblind", max(count, 3))[index]
    return colour, plots.MARKERS[index % len(plots.MARKERS)], plots.LINES[index % len(plots.LINES)]


def _draw_arm(ax: Axes, fit: Fit, style: tuple[Any, str, Any]) -> None:
    colour, marker, line = style
    points = fit.series.points
    for point in points:
        held_out = point is points[-1] and fit.law is not None
        middle = fit.quantity.at(point)
        ax.errorbar([point.x], [middle.value], yerr=_reach(middle), color=colour, marker=marker, markersize=5, capsize=2.5,
                    linewidth=1, markerfacecolor="white" if held_out else colour, zorder=3)  # fmt: skip
    if fit.law is not None:
        x = np.geomspace(points[0].x, points[-1].x, 100)
        ax.plot(x, fit.law.values(x), color=colour, linestyle=line, linewidth=1.2, zorder=2)


def _reach(middle: Estimate) -> list[list[float]] | None:
    value, interval, _ = middle
    return None if interval is None else [[value - interval.low], [interval.high - value]]


def _label(ax: Axes, data: CurveData, panel: Panel) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    places = sorted({point.x for series in panel.series for point in series.points})
    ax.set_xscale("log")
    if len(places) <= NAMED_PLACES:
        ax.xaxis.set_major_locator(FixedLocator(places))
        ax.xaxis.set_minor_locator(NullLocator())
    else:  # every arm has places of its own: parameters, FLOPs
        ax.xaxis.set_major_locator(LogLocator(subs=TICKS))
    ax.xaxis.set_major_formatter(FuncFormatter(_short))
    ax.xaxis.set_minor_formatter(NullFormatter())
    if data.curve.form == "saturating":  # a quality hardly spans a decade
        ax.yaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))
    else:
        ax.set_yscale("log")
        low, high = ax.get_ylim()
        ax.yaxis.set_major_locator(LogLocator(subs=TICKS if high < FEW_DECADES * low else (1,)))
        ax.yaxis.set_major_formatter(FuncFormatter(_short))
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel(data.curve.axis_label, fontsize=8.5)
    ax.set_ylabel(panel.quantity.label, fontsize=8.5)
    ax.tick_params(labelsize=8)
    ax.grid(which="major", linewidth=0.5, color="0.9")


def _short(value: float, _: int) -> str:
    """``0.5``, ``2,820``, ``1.2M``, ``3T``."""
    for factor, name in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= factor:
            return f"{value / factor:g}{name}"
    return f"{value:,g}" if value < 1e5 else f"{value:,.0f}"


def _legend(figure: Figure, arms: list[str]) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for index, arm in enumerate(arms):
        colour, marker, line = look(index, len(arms))
        handles.append(Line2D([], [], color=colour, marker=marker, linestyle=line, markersize=5, label=arm))
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, handlelength=3.2, fontsize=8)
