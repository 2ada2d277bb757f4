"""Published differences beside ours with their intervals: a figure a family of tables, a panel a table, a column of a page wide.

The same lines give the same bytes. Ours and theirs differ in marker and filling, so that a figure also reads in grey.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.report import plots
from bench.report.paper.trained.lines import Line
from bench.report.paper.trained.published import PublishedTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 3.5
"""Inches: a column of a two-column page."""
LEFT, RIGHT = 1.28, 0.12
"""Inches beside the axes: for the labels, and for the end of the last number."""
ROW, LINE = 0.3, 0.115
"""Inches that a row takes at least, and each line of its label."""
TITLE, BELOW, LEGEND = 0.36, 0.4, 0.22
"""Inches for the title above a panel, for its axis below, and for the legend of the figure."""
LETTERS = 24
"""Of a label in a line."""
OURS, THEIRS = "#0173b2", "#262626"
APART = 0.16
"""Of a row's height, from its middle to either marker."""
TICKS = 5

Panel = tuple[PublishedTable, Sequence[Line]]


def write_figures(families: Mapping[str, Sequence[Panel]], out: Path) -> list[Path]:
    """Write ``FAMILY.png`` and ``FAMILY.pdf`` for each family that has a difference to show, and return their paths."""
    paths = []
    with plots.style():
        for family, tables in families.items():
            panels = [(table, shown) for table, lines in tables if (shown := comparable_lines(lines))]
            if panels:
                figure = draw(panels)
                paths += plots.save(figure, out / family)
    return paths


def comparable_lines(lines: Sequence[Line]) -> list[Line]:
    """Those with a difference of theirs and of ours, in the unit of the first: they share an axis."""
    both = [line for line in lines if line.published_difference is not None and line.difference is not None]
    return [line for line in both if line.measure.unit == both[0].measure.unit]


def draw(panels: Sequence[Panel]) -> Figure:
    """Hollow diamonds: published; filled circles with 95 % intervals: ours; both less the reference that the title names."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    sizes = [_size(lines) for _, lines in panels]
    height = LEGEND + sum(TITLE + size + BELOW for size in sizes)
    figure = Figure(figsize=(WIDTH, height))
    top = height
    for (table, lines), size in zip(panels, sizes, strict=True):
        top -= TITLE + size
        place = (LEFT / WIDTH, top / height, (WIDTH - LEFT - RIGHT) / WIDTH, size / height)
        _draw_panel(figure.add_axes(place), lines)
        title = (0.05 / WIDTH, (top + size + 0.05) / height)
        figure.text(*title, f"{table.title}\nreference: {table.reference}", fontsize=7, va="bottom", linespacing=1.15)
        top -= BELOW
    handles = [
        Line2D([], [], marker="D", markersize=4, color=THEIRS, markerfacecolor="white", linestyle="none",
               label="published"),
        Line2D([], [], marker="o", markersize=4, color=OURS, linewidth=1, label="ours, 95 % interval"),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="lower center", ncols=2, frameon=False, fontsize=7, borderaxespad=0.1)
    return figure


def _draw_panel(ax: Axes, lines: Sequence[Line]) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.axvline(0.0, color="0.6", linewidth=0.7, zorder=0)
    for place, line in enumerate(lines):
        assert line.published_difference is not None
        assert line.difference is not None
        value, interval, _ = line.difference
        reach = None if interval is None else [[value - interval.low], [interval.high - value]]
        ax.errorbar([value], [place + APART], xerr=reach, color=OURS, marker="o", markersize=4, capsize=2, linewidth=1)
        ax.plot([line.published_difference], [place - APART], "D", color=THEIRS, markerfacecolor="white", markersize=4)
    ax.set_yticks(range(len(lines)), _labels(lines), fontsize=6.5)
    ax.set_ylim(len(lines) - 0.5, -0.5)
    ax.margins(x=0.08)
    ax.xaxis.set_major_locator(MaxNLocator(TICKS))
    ax.tick_params(axis="x", labelsize=6.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", linewidth=0.5, color="0.92")
    ax.set_axisbelow(True)
    ax.set_xlabel(_axis_label(lines), fontsize=6.5, labelpad=1.5)


def _size(lines: Sequence[Line]) -> float:
    """Inches that the rows of a panel take."""
    most = max(label.count("\n") + 1 for label in _labels(lines))
    return len(lines) * max(ROW, LINE * most + 0.05)


def _several(lines: Sequence[Line]) -> bool:
    return len({line.measure.column for line in lines}) > 1


def _axis_label(lines: Sequence[Line]) -> str:
    unit = lines[0].measure.unit
    unit = f" ({'points' if unit == '%' else unit})" if unit else ""
    return f"difference{unit}" if _several(lines) else f"{lines[0].measure.column}, difference{unit}"


def _labels(lines: Sequence[Line]) -> list[str]:
    """Row, its column where there are several, and what it is compared with where that is not the reference."""
    labels = []
    for line in lines:
        parts = textwrap.wrap(line.row.label, LETTERS)
        parts += textwrap.wrap(line.measure.column, LETTERS) if _several(lines) else []
        parts += [f"reference: {line.row.against}"] if line.row.against else []
        labels.append("\n".join(parts))
    return labels
