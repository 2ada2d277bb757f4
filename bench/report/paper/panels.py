"""Panels that show ratios over one quantity: lines for what is counted, points with intervals for what is measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bench.report import plots
from bench.report.paper.ratios import Series
from bench.stats import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))


RATIOS = (0.5, 0.7, 1, 1.2, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 40)
NAMES = ("attention only", "decoder", "step", "decoder, a third predicted", "step, a third predicted", "published time")
"""Every series that a figure may hold, in the order of its colours."""


def draw(ax: Axes, counted: Mapping[str, Series], xlabel: str, ylabel: str = "") -> None:
    """Draw a line for every named series (of `NAMES`) over a logarithmic axis of ratios, and label the axes."""
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    for name, series in counted.items():
        if series:
            colour, marker, line = look(name)
            ax.plot(list(series), list(series.values()), color=colour, linestyle=line, marker=marker, markersize=3.5,
                    linewidth=1.2, markerfacecolor="white")  # fmt: skip
    ax.axhline(1.0, color="0.6", linewidth=0.7, zorder=0)
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(FixedLocator(RATIOS))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.set_xlabel(xlabel, fontsize=8.5)
    ax.set_ylabel(ylabel, fontsize=8.5)
    ax.tick_params(labelsize=8)
    ax.grid(axis="y", which="major", linewidth=0.5, color="0.9")


def points(ax: Axes, name: str, measured: Mapping[float, Estimate]) -> None:
    """Draw filled points, with their intervals where they have one, in the look of the series `name`."""
    colour, marker, _ = look(name)
    for place, (value, interval, _) in measured.items():
        reach = None if interval is None else [[value - interval.low], [interval.high - value]]
        ax.errorbar([place], [value], yerr=reach, color=colour, marker=marker, markersize=4.5, capsize=2.5, linewidth=1)


def look(name: str) -> tuple[Any, str, Any]:
    """Colour, marker and line of a series."""
    import seaborn

    index = NAMES.index(name)
    colour = seaborn.color_palette("colorblind", len(NAMES))[index]
    return colour, plots.MARKERS[index], STYLES[index % len(STYLES)]


def legend(figure: Figure, names: tuple[str, ...], measured: tuple[str, ...]) -> None:
    """One entry a series below the figure; measured ones are filled."""
    from matplotlib.lines import Line2D

    handles = []
    for name in names:
        colour, marker, line = look(name)
        handles.append(Line2D([], [], color=colour, marker=marker, linestyle=line, markersize=4, linewidth=1.2,
                              markerfacecolor="white", label=f"{name}, by FLOPs"))  # fmt: skip
    for name in measured:
        colour, marker, _ = look(name)
        label = name if name == "published time" else f"{name}, measured"
        handles.append(Line2D([], [], color=colour, marker=marker, linestyle="none", markersize=4.5, label=label))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, handlelength=3.4, fontsize=7.5)


def name_places(ax: Axes, places: Mapping[float, str]) -> None:
    """Put these names, and nothing else, on the horizontal axis."""
    from matplotlib.ticker import FixedLocator, NullLocator

    ax.xaxis.set_major_locator(FixedLocator(list(places)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticklabels(list(places.values()))
