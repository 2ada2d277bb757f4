"""The figure of a curve: a panel a quantity, both axes logarithmic, points with intervals, and the laws through them."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.report import plots
from bench.report.scaling.fits import Fit
from bench.report.scaling.series import CurveData, Panel, Point
from bench.stats import PowerLaw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TICKS = (1, 2, 5)
LETTERS_AN_INCH = 14
"""Of the title."""
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
        held_out = point is points[-1] and fit.held is not None
        reach = _reach(point)
        ax.errorbar([point.x], [point.estimate.value], yerr=reach, color=colour, marker=marker, markersize=5, capsize=2.5,
                    linewidth=1, markerfacecolor="white" if held_out else colour, zorder=3)  # fmt: skip
    if fit.law is not None:
        x = np.geomspace(points[0].x, points[-1].x, 100)
        ax.plot(x, _curve(fit.law, x), color=colour, linestyle=line, linewidth=1.2, zorder=2)


def _reach(point: Point) -> list[list[float]] | None:
    value, interval, _ = point.estimate
    return None if interval is None else [[value - interval.low], [interval.high - value]]


def _curve(law: PowerLaw, x: Any) -> Any:
    sign = -1.0 if law.form == "saturating" else 1.0
    return law.offset.value + law.scale.value * x ** (sign * law.exponent.value)


def _label(ax: Axes, data: CurveData, panel: Panel) -> None:
    from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullFormatter, NullLocator, StrMethodFormatter

    cost = data.curve.form != "saturating"
    places = sorted({point.x for series in panel.series for point in series.points})
    positive = all(point.estimate.value > 0 for series in panel.series for point in series.points)
    ax.set_xscale("log")
    if len(places) <= NAMED_PLACES:
        ax.xaxis.set_major_locator(FixedLocator(places))
        ax.xaxis.set_minor_locator(NullLocator())
    else:  # every arm has places of its own: parameters, FLOPs
        ax.xaxis.set_major_locator(LogLocator(subs=TICKS))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}" if places[-1] < 1e5 else "{x:.0e}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    if positive:
        ax.set_yscale("log")
    if not cost:  # a quality hardly spans a decade: ticks at round numbers
        ax.yaxis.set_major_locator(MaxNLocator(6))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel(data.curve.axis_label, fontsize=8.5)
    ax.set_ylabel(panel.quantity.label, fontsize=8.5)
    ax.tick_params(labelsize=8)
    ax.grid(which="major", linewidth=0.5, color="0.9")


def _legend(figure: Figure, arms: list[str]) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for index, arm in enumerate(arms):
        colour, marker, line = look(index, len(arms))
        handles.append(Line2D([], [], color=colour, marker=marker, linestyle=line, markersize=5, label=arm))
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, handlelength=3.2, fontsize=8)
