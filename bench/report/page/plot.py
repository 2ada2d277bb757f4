"""A plot of points with intervals, lines and bars, as coordinates of a drawing: scaling curves and figures of efficiency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.report.page.curves import BOTTOM, RIGHT, TOP, path, ticks

TICK, NAME, LETTER = 16, 22, 6.4
"""Room left of the drawing for ticks, for the axis' name, and for a letter of the longest tick."""
NARROW = 46
"""Two names on the horizontal axis are no nearer than this, a letter wider for each letter beyond four."""
MANY = 7
"""Ticks that an axis holds."""
PLAIN = (1e-3, 1e6)
"""Numbers in between are written without a power of ten."""

Place = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """One axis, in the unit of what is drawn; `first` may lie above `last`."""

    label: str
    first: float
    last: float
    log: bool
    ticks: tuple[tuple[float, str], ...]

    def along(self, value: float, start: float, end: float) -> float:
        """Place of `value` between `start`, where `first` is, and `end`."""
        first, last, here = (math.log10(each) if self.log else each for each in (self.first, self.last, value))
        return round(start + (end - start) * (here - first) / ((last - first) or 1.0), 1)


@dataclass(frozen=True)
class Mark:
    """A point in the unit of the axes."""

    x: float
    y: float
    tip: str
    ends: tuple[float, float] | None = None
    """Of its interval, along y unless `level`."""
    open: bool = False
    level: bool = False


@dataclass(frozen=True)
class Shape:
    """What belongs together: one colour, one mark, one kind of line; all in the unit of the axes."""

    title: str
    colour: int | None
    """Of the page's palette; None: as text."""
    mark: int | None
    dash: int
    marks: tuple[Mark, ...] = ()
    line: tuple[Place, ...] = ()
    band: tuple[Place, ...] = ()
    bars: tuple[tuple[float, float, float, float, str], ...] = ()
    """Left, right, one end across, the other, what it says."""


@dataclass(frozen=True)
class Dot:
    """A point of the drawing."""

    x: float
    y: float
    reach: str
    """Path of its interval, around it; empty without one."""
    open: bool
    tip: str


@dataclass(frozen=True)
class Trace:
    """A shape in the drawing."""

    shape: Shape
    path: str
    band: str
    dots: tuple[Dot, ...]
    bars: tuple[tuple[float, float, float, float, str], ...]
    """Left, top, width, height, what it says."""


@dataclass(frozen=True)
class Plot:
    """A drawing that is ready to be written."""

    key: str
    """What tells it from others beside it."""
    name: str
    told: str
    """The same for those who do not see it."""
    size: tuple[int, int]
    frame: tuple[float, float, float, float]
    """Left, right, top, bottom of what the axes enclose."""
    labels: tuple[str, str]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    traces: tuple[Trace, ...]
    above: int
    """How far above their places the ticks of y stand, within the drawing: names of rows; 0: beside the axis."""
    rules: tuple[str, ...] = ()
    """Paths of lines that help reading, such as at a ratio of 1."""
    sentences: tuple[str, ...] = ()


def draw(
    key: str,
    axes: tuple[Axis, Axis],
    shapes: Sequence[Shape],
    size: tuple[int, int],
    *,
    name: str = "",
    told: str = "",
    level: Sequence[float] = (),
    upright: Sequence[float] = (),
    above: int = 0,
    sentences: Sequence[str] = (),
) -> Plot:
    """Lay `shapes` out in a drawing of `size`, with lines at these values of y (`level`) and of x (`upright`)."""
    across, up = axes
    longest = 0 if above else max((len(shown) for _, shown in up.ticks), default=0)
    left = TICK + LETTER * longest + (NAME if up.label else 0)
    frame = round(left, 1), size[0] - RIGHT, TOP, size[1] - BOTTOM

    def at(x: float, y: float) -> Place:
        return across.along(x, frame[0], frame[1]), up.along(y, frame[3], frame[2])

    def dot(mark: Mark) -> Dot:
        x, y = at(mark.x, mark.y)
        reach = ""
        if mark.ends is not None:
            ends = [_held(end, across if mark.level else up) for end in mark.ends]
            if mark.level:
                low, high = (round(at(end, mark.y)[0] - x, 1) for end in ends)
                reach = f"M{low:g} 0H{high:g}M{low:g}-3v6M{high:g}-3v6"
            else:
                low, high = (round(at(mark.x, end)[1] - y, 1) for end in ends)
                reach = f"M0 {low:g}V{high:g}M-3 {low:g}h6M-3 {high:g}h6"
        return Dot(x, y, reach, mark.open, mark.tip)

    def bar(left: float, right: float, one: float, other: float, tip: str) -> tuple[float, float, float, float, str]:
        (x, y), (end, low) = at(_held(left, across), one), at(right, other)
        return x, min(y, low), round(max(end - x, 0.5), 1), round(abs(low - y), 1), tip

    traces = tuple(
        Trace(
            shape,
            path([at(*place) for place in shape.line]),
            path([at(*place) for place in shape.band]),
            tuple(dot(mark) for mark in shape.marks),
            tuple(bar(*each) for each in shape.bars),
        )
        for shape in shapes
    )
    rules = [f"M{frame[0]:g} {at(across.first, value)[1]:g}H{frame[1]:g}" for value in level]
    rules += [f"M{at(value, up.first)[0]:g} {frame[2]:g}V{frame[3]:g}" for value in upright]
    return Plot(
        key,
        name,
        told,
        size,
        frame,
        (across.label, up.label),
        tuple(_apart([(at(value, up.first)[0], shown) for value, shown in across.ticks])),
        tuple((at(across.first, value)[1], shown) for value, shown in up.ticks),
        traces,
        above,
        tuple(rules),
        tuple(sentences),
    )


def spread(label: str, values: Sequence[float], *, log: bool, places: Sequence[float] = ()) -> Axis:
    """An axis that holds all `values`, with a margin; its ticks are `places` where given, else round numbers."""
    low, high = min(values), max(values)
    if log:
        factor = max((high / low) ** 0.06, 1.02)
        low, high = low / factor, high * factor
    else:
        margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
        low, high = low - margin, high + margin
    if places:
        marked = [(value, written(value)) for value in places]
    else:
        marked = log_ticks(low, high) if log else ticks(low, high)
    return Axis(label, low, high, log, tuple(marked))


def log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Round numbers within [low, high], low > 0: 1, 2 and 5 times powers of ten, fewer over many decades, evenly spaced ones over few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors, step in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 3)):
        found = [factor * 10.0**power for power in powers if power % step == 0 for factor in factors]
        found = [value for value in found if low <= value <= high]
        if len(found) <= MANY:
            break
    return [(value, written(value)) for value in found] if len(found) >= 3 else ticks(low, high)


def written(value: float) -> str:
    """A tick as it is written: 1,000 and 1e7."""
    if value == 0 or PLAIN[0] <= abs(value) < PLAIN[1]:
        return f"{value:,.6g}"
    digits, power = f"{value:.3e}".split("e")
    return f"{float(digits):g}e{int(power)}"


def _held(value: float, axis: Axis) -> float:
    """`value` within the axis: an interval that leaves it, or that holds 0 on a logarithmic one, ends where it does."""
    low, high = sorted((axis.first, axis.last))
    return min(max(value, low), high)


def _apart(marked: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Those names that do not run into the one before; the last always."""
    kept: list[tuple[float, str]] = []
    for place, shown in reversed(marked):
        room = NARROW + LETTER * max(0, len(shown) - 4)
        if not kept or abs(kept[-1][0] - place) >= room / (1 if len(shown) > 2 else 2):
            kept.append((place, shown))
    return kept[::-1]
