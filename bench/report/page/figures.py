"""Figures that matplotlib laid out, read back as numbers and drawn anew: in the page's colours, with values to point at."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.report import plots
from bench.report.page.curves import BOTTOM, COLOURS, TOP
from bench.report.page.plot import Axis, Mark, Plot, Shape, draw, log_ticks, written
from bench.report.text import significant, with_interval

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis as TheirAxis
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend

SIZE = 430, 300
"""Of a panel's drawing."""
ROW, ROW_OF_BARS = (34, 10), (72, 31)
"""Height of a row that has a name instead of a number, and how far above its middle that stands."""
FEWEST = 3
"""Ticks of a logarithmic axis below which others are chosen."""
GREY = 0.2
"""Colours whose red, green and blue are no farther apart are drawn as text is."""


@dataclass(frozen=True)
class Entry:
    """One line of a legend."""

    title: str
    colour: int | None
    mark: int | None
    dash: int
    open: bool
    line: bool
    """Whether it has a line, or marks alone."""


@dataclass(frozen=True)
class FigurePage:
    """A figure as its panels, with one legend."""

    title: str
    note: str
    panels: tuple[Plot, ...]
    legend: tuple[Entry, ...]


def read(title: str, figure: Figure) -> FigurePage:
    """All panels of `figure`: points with intervals, lines, bands and bars, as far as the modules of `bench.report.paper` draw them."""
    shared = [entry for legend in figure.legends for entry in _entries(legend)]
    note = figure.get_suptitle().replace("\n", "; ")
    panels, legend = [], list(shared)
    label = ""
    for number, ax in enumerate(figure.axes):
        own = _entries(found) if (found := ax.get_legend()) is not None else []
        legend += own
        label = ax.get_ylabel() or label  # only the first of a row says what all of it shows
        panels.append(_panel(str(number), ax, own or shared, label, title))
    return FigurePage(title, note, tuple(panels), tuple(dict.fromkeys(legend)))


def _entries(legend: Legend) -> list[Entry]:
    told = zip(legend.legend_handles, legend.get_texts(), strict=True)
    return [_look(handle, text.get_text()) for handle, text in told]


def _panel(key: str, ax: Axes, entries: Sequence[Entry], label: str, title: str) -> Plot:
    across, up = _axis(ax.xaxis, ax.get_xlim(), ax.get_xlabel()), _axis(ax.yaxis, ax.get_ylim(), label)
    if rows := not all(_number(shown) for _, shown in up.ticks):
        up = replace(up, label="")
    shapes: list[Shape] = []
    within: set[int] = set()
    containers: list[Any] = list(ax.containers)
    for container in containers:
        within |= {id(child) for child in container.get_children()}
        if hasattr(container, "patches"):
            shapes.append(_bars(container, entries, across, up))
        elif container.lines[0] is not None:  # else the intervals of bars, which those know
            shapes.append(_errors(container, entries, across, up))
    level, upright = [], []
    for line in (line for line in ax.get_lines() if id(line) not in within):
        x, y = ([float(value) for value in np.atleast_1d(data)] for data in (line.get_xdata(), line.get_ydata()))
        if line.get_transform() == ax.transData:
            shapes.append(_line(line, entries, across, up))
        elif len(set(y)) == 1:
            level.append(y[0])
        else:
            upright.append(x[0])
    for band in (band for band in ax.collections if id(band) not in within):
        outline = [(float(x), float(y)) for path in band.get_paths() for x, y in np.asarray(path.vertices)]
        if len(set(outline)) > len(outline) / 2 + 1:  # otherwise there and back again: no width
            shapes.insert(0, Shape("", _colour(band.get_facecolor()[0]), None, 0, band=tuple(outline)))
    told = f"{title}: {up.label or 'rows'} over {across.label}."
    height, above = ROW_OF_BARS if any(shape.bars for shape in shapes) else ROW
    size = SIZE[0], height * len(up.ticks) + TOP + BOTTOM if rows else SIZE[1]
    above = above if rows else 0
    return draw(key, (across, up), _joined(shapes), size, told=told, level=level, upright=upright, above=above)


def _joined(shapes: Sequence[Shape]) -> list[Shape]:
    """Shapes of one look as one: measured points come singly."""
    found: dict[object, Shape] = {}
    for shape in shapes:
        look = (shape.title, shape.colour, shape.mark, shape.dash) if shape.marks and not shape.line else id(shape)
        before = found.get(look)
        found[look] = (
            replace(shape, marks=before.marks + shape.marks, bars=before.bars + shape.bars) if before else shape
        )
    return list(found.values())


def _axis(axis: TheirAxis, limits: tuple[float, float], label: str) -> Axis:
    low, high = sorted(map(float, limits))
    log = axis.get_scale() == "log"
    places = [float(place) for place in axis.get_majorticklocs() if low <= place <= high]
    shown = [text.replace("−", "-") for text in axis.get_major_formatter().format_ticks(places)]
    marked = [(place, text) for place, text in zip(places, shown, strict=True) if text]
    if log and (len(marked) < FEWEST or any("$" in text for _, text in marked)):
        marked = log_ticks(low, high)
    return Axis(label, float(limits[0]), float(limits[1]), log, tuple(marked))


def _number(shown: str) -> bool:
    try:
        float(shown.replace(",", ""))
    except ValueError:
        return False
    return True


def _errors(container: Any, entries: Sequence[Entry], across: Axis, up: Axis) -> Shape:
    """What `Axes.errorbar` drew: points with intervals."""
    points, _, bars = container.lines
    level = bool(container.has_xerr)
    ends = [_ends(segment, 0 if level else 1) for bar in bars for segment in bar.get_segments()]
    entry = _entry(points, entries)
    places = [(float(x), float(y)) for x, y in points.get_xydata()]
    marks = tuple(
        Mark(place[0], place[1], _tip(entry.title, place, end, across, up), end, entry.open, level)
        for place, end in itertools.zip_longest(places, ends)
    )
    return Shape(entry.title, entry.colour, entry.mark, entry.dash, marks)


def _ends(segment: Any, axis: int) -> tuple[float, float]:
    low, high = sorted(float(end[axis]) for end in segment)
    return low, high


def _line(line: Any, entries: Sequence[Entry], across: Axis, up: Axis) -> Shape:
    entry = _entry(line, entries)
    places = tuple((float(x), float(y)) for x, y in line.get_xydata())
    marks = tuple(Mark(*place, _tip(entry.title, place, None, across, up), open=entry.open) for place in places)
    drawn = () if line.get_linestyle() == "None" else places
    return Shape(entry.title, entry.colour, entry.mark, entry.dash, marks, drawn)


def _bars(container: Any, entries: Sequence[Entry], across: Axis, up: Axis) -> Shape:
    """What `Axes.barh` drew, with its intervals."""
    entry = _entry(container.patches[0], entries)
    segments: list[Any] = []
    if container.errorbar is not None:
        segments = [segment for bar in container.errorbar.lines[2] for segment in bar.get_segments()]
    bars, marks = [], []
    for number, bar in enumerate(container.patches):
        left, low = float(bar.get_x()), float(bar.get_y())
        right, high = left + float(bar.get_width()), low + float(bar.get_height())
        row = min((place for place, _ in up.ticks), key=lambda place: abs(place - (low + high) / 2))
        ends = _ends(segments[number], 0) if segments else None
        tip = _tip(entry.title, (right, row), ends, across, up)
        bars.append((left, right, low, high, tip))
        if ends:
            marks.append(Mark(right, (low + high) / 2, tip, ends, level=True))
    return Shape(entry.title, entry.colour, None, 0, tuple(marks), bars=tuple(bars))


def _tip(title: str, place: tuple[float, float], ends: Sequence[float] | None, across: Axis, up: Axis) -> str:
    """What a point says; of an axis of rows the value is what lies across."""
    value, label = (place[1], up.label) if up.label else (place[0], across.label)
    shown = with_interval(significant(value), None if ends is None else [significant(end) for end in ends])
    named = {written(number): text for number, text in (across if up.label else up).ticks}
    if up.label:
        where = f"at {named.get(written(place[0]), written(place[0]))}, {across.label}"
    else:
        where = named.get(written(place[1]), "")
    return "\n".join(line for line in (title, f"{shown}, {label}", where) if line)


def _entry(artist: Artist, entries: Sequence[Entry]) -> Entry:
    """The line of the legend that looks most like `artist`, with the artist's own look."""
    look = _look(artist)
    alike = [entry for entry in entries if (entry.colour, entry.mark) == (look.colour, look.mark)]
    best = max(alike, key=lambda entry: (entry.open == look.open, entry.dash == look.dash), default=look)
    return replace(look, title=best.title)


def _look(artist: Any, title: str = "") -> Entry:
    """Colour, mark and line of an artist."""
    if not hasattr(artist, "get_marker"):
        return Entry(title, _colour(artist.get_facecolor()), None, 0, open=False, line=False)
    marker, dashes = artist.get_marker(), artist._unscaled_dash_pattern[1]  # no public way says which dashes
    mark = plots.MARKERS.index(marker) if marker in plots.MARKERS else None
    known = [line[1] if isinstance(line, tuple) else None for line in plots.LINES]
    dash = known.index(tuple(dashes)) if dashes is not None and tuple(dashes) in known else 0
    hollow = mark is not None and artist.get_markerfacecolor() == "white"
    return Entry(title, _colour(artist.get_color()), mark, dash, hollow, line=artist.get_linestyle() != "None")


def _colour(colour: Any) -> int | None:
    """The nearest of the page's colours, which are those of the figures; None for greys."""
    import seaborn
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(colour)
    if max(red, green, blue) - min(red, green, blue) < GREY:
        return None
    palette = seaborn.color_palette("colorblind", COLOURS)
    return min(range(COLOURS), key=lambda index: math.dist((red, green, blue), palette[index]))
