"""Quality over charged time, steps, samples and FLOPs as coordinates of a drawing: mean over seeds, band of all seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.report import text
from bench.report.sentences import VIEW_NAMES
from bench.report.summary import VIEWS, ArmSummary, Summary, View
from bench.stats import Array

WIDTH, HEIGHT = 640, 380
LEFT, RIGHT, TOP, BOTTOM = 66, 14, 16, 52
"""Margins of the drawing, in its own units."""
MARKS = (
    "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
    "M-4-4h8v8h-8z",
    "M0-5.4L5.4 0L0 5.4L-5.4 0z",
    "M0-5L4.8 3.8H-4.8z",
    "M0 5L4.8-3.8H-4.8z",
    "M-1.7-5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",
    "M-2.4-5L0-2.6L2.4-5L5-2.4L2.6 0L5 2.4L2.4 5L0 2.6L-2.4 5L-5 2.4L-2.6 0L-5-2.4z",
    "M0-5.6L1.3-1.8H5.3L2.1.6L3.3 4.5L0 2.2L-3.3 4.5L-2.1.6L-5.3-1.8H-1.3z",
)
"""Circle, square, diamond, triangles, plus, cross, star, around the origin: the marks of the figures."""
COLOURS = 10
DASHES = 4
TICKS = 6
POWERS = dict(zip(range(9, 22, 3), "GTPEZ", strict=True))
START = 0.01
"""An evaluation within this share of the axis is the untrained one."""
MOST_START = 3.0
"""The untrained start is cut off where it would make the range of values so many times as large."""
REACH = 1.0
"""A baseline farther from the curves than this share of their height is told beside the drawing, not drawn."""


@dataclass(frozen=True)
class Point:
    """One evaluation, mean over seeds."""

    x: float
    y: float
    annealed: bool
    position: str
    mean: str
    lowest: str
    highest: str


@dataclass(frozen=True)
class Look:
    """How an arm is told from others: colour and mark are the label's, the dash the batch policy's."""

    title: str
    colour: int
    mark: int
    dash: int
    seeds: int


@dataclass(frozen=True)
class Line:
    """One arm."""

    look: Look
    path: str
    band: str
    """Outline of what lies between the lowest and the highest seed; empty with one seed."""
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Chart:
    """One view."""

    view: View
    name: str
    x_label: str
    y_label: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    lines: tuple[Line, ...]
    references: tuple[tuple[float, float, str], ...]
    """Height of the line, height of its name, name."""
    beyond: tuple[str, ...]
    """Baselines that lie far from the curves, with their values."""
    cut: bool
    """Whether the untrained start lies outside of the drawing."""


@dataclass(frozen=True)
class _Data:
    """Means of one arm along one view, [N] each."""

    look: Look
    x: Array
    mean: Array
    lowest: Array
    highest: Array
    annealed: tuple[bool, ...]


def looks(summary: Summary) -> dict[str, Look]:
    """Name of an arm -> its look, as in the figures."""
    labels = list(dict.fromkeys(arm.arm.label for arm in summary.arms))
    policies = summary.comparison.policies
    found = {}
    for arm in summary.arms:
        index = labels.index(arm.arm.label)
        dash = policies.index(arm.arm.policy) % DASHES
        found[arm.arm.name] = Look(arm.title, index % COLOURS, index % len(MARKS), dash, len(arm.finished))
    return found


def charts(summary: Summary) -> tuple[Chart, ...]:
    """The four views; none where no run has finished."""
    look = looks(summary)
    drawn = [arm for arm in summary.arms if summary.curves[arm.arm.name]]
    return tuple(_chart(summary, view, [_means(summary, arm, view, look) for arm in drawn]) for view in VIEWS if drawn)


def _means(summary: Summary, arm: ArmSummary, view: View, look: dict[str, Look]) -> _Data:
    curves = list(summary.curves[arm.arm.name].values())
    shared = min(len(curve.quality) for curve in curves)
    quality = np.array([curve.quality[-shared:] for curve in curves])
    x = np.mean([curve.positions[view][-shared:] for curve in curves], axis=0)
    annealed = curves[0].annealed[-shared:]
    return _Data(look[arm.arm.name], x, quality.mean(axis=0), quality.min(axis=0), quality.max(axis=0), annealed)


def _chart(summary: Summary, view: View, arms: Sequence[_Data]) -> Chart:
    metric = summary.comparison.headline
    x_scale, x_label = _axis(summary, view, max(float(arm.x.max()) for arm in arms))
    low, high, cut = _range(arms)
    reach = REACH * max(high - low, 1e-9)
    found = [
        (entry.label, entry.value(metric, summary.curve_samples or None)) for entry in summary.comparison.learn_nothing
    ]
    baselines = sorted(((label, value) for label, value in found if value is not None), key=lambda item: item[1])
    near = [(label, value) for label, value in baselines if low - reach <= value <= high + reach]
    beyond = tuple(
        f"{label}: {text.fixed(value, metric.digits)}" for label, value in baselines if (label, value) not in near
    )
    low, high = min([low, *(value for _, value in near)]), max([high, *(value for _, value in near)])
    pad = 0.05 * max(high - low, 1e-9)
    low, high = low - pad, high + pad
    right = 1.03 * max(float(arm.x.max()) for arm in arms) * x_scale or 1.0

    def across(value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * value * x_scale / right, 1)

    def up(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low), 1)

    def line(arm: _Data) -> Line:
        xs = [across(float(x)) for x in arm.x]
        ends = [[up(float(value)) for value in side] for side in (arm.mean, arm.lowest, arm.highest)]
        band = (
            [*zip(xs, ends[2], strict=True), *reversed([*zip(xs, ends[1], strict=True)])] if arm.look.seeds > 1 else []
        )
        points = tuple(
            Point(
                x,
                y,
                annealed,
                _number(float(position) * x_scale),
                *(text.fixed(float(v), metric.digits) for v in values),
            )
            for x, y, annealed, position, *values in zip(
                xs, ends[0], arm.annealed, arm.x, arm.mean, arm.lowest, arm.highest, strict=True
            )
        )
        return Line(arm.look, path([*zip(xs, ends[0], strict=True)]), path(band), points)

    heights = [up(value) for _, value in near]
    return Chart(
        view=view,
        name=VIEW_NAMES[view],
        x_label=x_label,
        y_label=metric.label,
        x_ticks=tuple((across(value / x_scale), shown) for value, shown in ticks(0.0, right)),
        y_ticks=tuple((up(value), shown) for value, shown in ticks(low, high)),
        lines=tuple(line(arm) for arm in arms),
        references=tuple(zip(heights, _apart(heights), (label for label, _ in near), strict=True)),
        beyond=beyond,
        cut=cut,
    )


def _range(arms: Sequence[_Data]) -> tuple[float, float, bool]:
    """Lowest and highest value to show; without the untrained start where that would leave the rest too little room."""
    low, high = (float(end) for end in (_least(arms, slice(None)), _most(arms, slice(None))))
    if any(len(arm.x) < 2 or arm.x[0] > START * arm.x[-1] for arm in arms):
        return low, high, False
    later = float(_least(arms, slice(1, None))), float(_most(arms, slice(1, None)))
    if high - low <= MOST_START * (later[1] - later[0]):
        return low, high, False
    return *later, True


def _least(arms: Sequence[_Data], which: slice) -> float:
    return min(np.nanmin(arm.lowest[which]) for arm in arms)


def _most(arms: Sequence[_Data], which: slice) -> float:
    return max(np.nanmax(arm.highest[which]) for arm in arms)


def _axis(summary: Summary, view: View, end: float) -> tuple[float, str]:
    """Factor and label of the horizontal axis."""
    if view == "time":
        time = text.TimeScale(summary.comparison.span_s)
        return 1 / time.divisor, f"charged time ({time.unit})"
    if view == "flops":
        power = int(np.clip(math.log10(max(end, 1.0)) // 3 * 3, min(POWERS), max(POWERS)))
        return 10.0**-power, f"training {POWERS[power]}FLOPs (1 MAC = 2 FLOPs)"
    return 1.0, "training samples" if view == "samples" else "optimizer steps"


def ticks(low: float, high: float) -> list[tuple[float, str]]:
    """About `TICKS` round numbers within [low, high], as they are written."""
    raw = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    digits = max(0, -math.floor(math.log10(step) + 1e-9) + (round(step / power, 3) == 2.5))
    first = math.ceil(low / step - 1e-9)
    return [
        (number * step, text.fixed(number * step, digits))
        for number in range(first, math.floor(high / step + 1e-9) + 1)
    ]


def _number(value: float) -> str:
    return text.fixed(value, 0) if value >= 1000 else text.significant(value)


def path(points: Sequence[tuple[float, float]]) -> str:
    """A line through `points` as SVG writes it; empty without any."""
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points) if points else ""


def _apart(heights: Sequence[float], gap: float = 15.0) -> list[float]:
    """Heights of names, lowest first (largest number), pushed apart where two would overlap, within the drawing."""
    placed: list[float] = []
    for height in heights:
        placed.append(min(height, placed[-1] - gap) if placed else height)
    highest = TOP + gap
    for index in reversed(range(len(placed))):
        placed[index] = max(placed[index], highest)
        highest = placed[index] + gap
    return placed
