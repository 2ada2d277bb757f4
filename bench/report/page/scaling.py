"""What a page shows of a folder of `isochron scaling-curve`: every curve as drawings, one a quantity, with its laws and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from bench.errors import UserError
from bench.report import text
from bench.report.page.curves import COLOURS, HEIGHT, MARKS, WIDTH, Look
from bench.report.page.plot import Mark, Plot, Shape, draw, spread
from bench.report.page.provenance import Origin, Source, of_source, origin, seeds, shown_folder
from bench.report.paper.layout import PaperTable, number
from bench.report.scaling.fits import Fit, fit_curve
from bench.report.scaling.series import CurveData, Panel, Point, Series, read_curve_data
from bench.report.scaling.tables import make_tables, sentences
from bench.stats import PowerLaw
from bench.store.efficiency import COUNTS, TIMINGS, open_efficiency
from bench.store.read import Comparison, open_comparison
from bench.store.scaling import COSTS, POINTS, CostCurve, QualityCurve, Scaling

NAMED_PLACES = 7
"""An axis with no more places than this names each."""
STEPS = 40
"""Points of a law's line."""
LAW_DASH = 1
"""Laws are dashed: nothing was measured between the points."""


@dataclass(frozen=True)
class CurvePage:
    """All that is shown of one curve."""

    name: str
    task: str
    title: str
    trained: bool
    looks: tuple[Look, ...]
    plots: tuple[Plot, ...]
    tables: tuple[tuple[PaperTable, tuple[int, ...]], ...]
    """Each with the numbers of its rows' sources."""
    source: int
    """Of all that is drawn."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ScalingPage:
    """All that is shown of one folder."""

    id: str
    title: str
    curves: tuple[CurvePage, ...]
    origin: Origin
    data: dict[str, Any]
    """What the script reads: where the numbers come from."""


def gather(scaling: Scaling, name: str) -> ScalingPage:
    """Fit the laws anew and lay all curves out; `name` is the address of its part of the page.

    Raises:
        UserError: the curves are unfinished, or a folder below is missing or damaged.
    """
    record, folder = scaling.record, scaling.folder
    if record.status != "finished":
        raise UserError(
            f"{folder}: is {record.status}, not finished; go on with `isochron scaling-curve --out {folder}`"
        )
    sources: dict[Source, int] = {}
    curves = []
    for curve in record.curves:
        data = read_curve_data(scaling, curve)
        known: _Sources = _CostSources(scaling, curve) if isinstance(curve, CostCurve) else _RunSources(scaling, curve)
        curves.append(_curve(data, fit_curve(data), known, sources))
    told = next(iter(sources)).origin
    assert told is not None  # a record names at least one curve
    return ScalingPage(
        id=name,
        title=f"{record.name} ({record.preset})",
        curves=tuple(curves),
        origin=replace(told, folder=shown_folder(folder)),
        data={"origin": asdict(told), "sources": [of_source(source) for source in sources]},
    )


class _CostSources:
    """Where the numbers of a cost curve come from: two files, whichever row it is."""

    def __init__(self, scaling: Scaling, curve: CostCurve) -> None:
        measured = open_efficiency(scaling.costs(curve))
        self.task = curve.task
        told = origin(measured.folder, measured.record.device, measured.record.protocol)
        told = replace(told, folder=f"{shown_folder(scaling.folder)}/{COSTS}/{curve.name}")
        self._source = Source((COUNTS, TIMINGS), ("nothing is trained",), told)

    def of(self, row: Mapping[str, Any]) -> Source:
        return self._source


class _RunSources:
    """Where the numbers of a quality curve come from: the runs of an arm, at one point or at all."""

    def __init__(self, scaling: Scaling, curve: QualityCurve) -> None:
        self._points = {point.value: open_comparison(scaling.point(curve, point)) for point in curve.points}
        first = next(iter(self._points.values()))
        self.task = first.record.task.name
        told = origin(first.folder, first.record.device, first.record.protocol)
        self._origin = replace(told, folder=f"{shown_folder(scaling.folder)}/{POINTS}/{curve.name}")

    def of(self, row: Mapping[str, Any]) -> Source:
        """Of a row with its ``arm`` and, where it stands for one point, its ``value``."""
        points = {row["value"]: self._points[row["value"]]} if row.get("value") in self._points else self._points
        found = [
            (f"{value:g}", arm, named)
            for value, comparison in points.items()
            for arm, named in _finished(comparison, row.get("arm"))
        ]
        files = tuple(
            f"{value}/runs/{arm}/seed-*/evals.jsonl: records of the last evaluation" for value, arm, _ in found
        )
        runs = tuple(f"{value}, {arm}: {named}" for value, arm, named in found)
        return Source(files, runs, self._origin)


_Sources = _CostSources | _RunSources


def _finished(comparison: Comparison, named: str | None) -> list[tuple[str, str]]:
    """Name and finished seeds of the arms that are called `named` in a table; of all without a name."""
    found = []
    for arm in comparison.arms:
        if named in (None, arm.label, f"{arm.label} ({arm.policy})"):
            found.append((arm.name, seeds([run for run in comparison.runs_of(arm) if run.finished])))
    return found


def _curve(data: CurveData, fits: Sequence[Fit], known: _Sources, sources: dict[Source, int]) -> CurvePage:
    def place(row: Mapping[str, Any]) -> int:
        return sources.setdefault(known.of(row), len(sources))

    source = place({})
    arms = list(dict.fromkeys(series.arm for panel in data.panels for series in panel.series))
    points, laws = make_tables(data, list(fits))
    said = set(sentences(data, list(fits)))  # each stands below its drawing
    points = replace(points, title="The points")
    laws = replace(laws, title="The laws", notes=tuple(note for note in laws.notes if note not in said))
    return CurvePage(
        name=data.curve.name,
        task=known.task,
        title=data.curve.title,
        trained=isinstance(data.curve, QualityCurve),
        looks=tuple(Look(arm, *_look(index), dash=LAW_DASH, seeds=0) for index, arm in enumerate(arms)),
        plots=tuple(
            _plot(data, panel, [fit for fit in fits if fit.quantity.key == panel.quantity.key], arms)
            for panel in data.panels
        ),
        tables=tuple((table, tuple(place(row) for row in table.rows)) for table in (points, laws)),
        source=source,
        notes=data.missing,
    )


def _look(index: int) -> tuple[int, int]:
    """Colour and mark of an arm."""
    return index % COLOURS, index % len(MARKS)


def _plot(data: CurveData, panel: Panel, fits: Sequence[Fit], arms: Sequence[str]) -> Plot:
    """Points with intervals and the dashed law through all of an arm but the hollow largest one."""
    by_arm = {fit.series.arm: fit for fit in fits}
    shapes = [
        _shape(data, panel, series, by_arm[series.arm], *_look(arms.index(series.arm))) for series in panel.series
    ]
    places = sorted({point.x for series in panel.series for point in series.points})
    heights = [height for shape in shapes for _, height in shape.line]
    for mark in (mark for shape in shapes for mark in shape.marks):
        heights += [mark.y, *(mark.ends or ())]
    measured = [mark.y for shape in shapes for mark in shape.marks]
    log = data.curve.form != "saturating" and min(measured) > 0
    heights = [height for height in heights if height > 0] if log else heights
    label = panel.quantity.label
    return draw(
        panel.quantity.key,
        (
            spread(data.curve.axis_label, places, log=True, places=places if len(places) <= NAMED_PLACES else ()),
            spread(label, heights, log=log),
        ),
        shapes,
        (WIDTH, HEIGHT),
        name=label.partition(" (")[0],
        told=f"{data.curve.title}: {label} over {data.curve.axis_label}, {'both axes logarithmic' if log else 'logarithmic across'}. "
        f"{'; '.join(shape.title for shape in shapes)}: a point a measurement, with its 95 % interval; a dashed line a fitted law.",
        sentences=sentences(data, list(fits)),
    )


def _shape(data: CurveData, panel: Panel, series: Series, fit: Fit, colour: int, mark: int) -> Shape:
    held_out = series.points[-1] if fit.law else None
    return Shape(
        series.arm,
        colour,
        mark,
        LAW_DASH,
        marks=tuple(_mark(data, panel, series, point, fit if point is held_out else None) for point in series.points),
        line=_law(fit.law, series.points[0].x, series.points[-1].x) if fit.law else (),
    )


def _mark(data: CurveData, panel: Panel, series: Series, point: Point, left_out: Fit | None) -> Mark:
    estimate = panel.quantity.at(point)
    value, interval, _ = estimate
    digits = panel.quantity.digits
    shown = partial(text.estimate, digits=digits) if isinstance(data.curve, QualityCurve) else number(digits)
    lines = [
        series.arm,
        f"{panel.quantity.label} {shown(value if panel.quantity.exact else estimate)}",
        f"at {point.x:,g}, {data.curve.axis_label}",
    ]
    if left_out and left_out.held:
        miss = left_out.miss
        predicted = f"not fitted; the law says {number(3)(left_out.held.predicted)}"
        lines.append(predicted if miss is None else f"{predicted}: missed by {100 * miss.value:+.1f} %")
    ends = None if interval is None or panel.quantity.exact else (interval.low, interval.high)
    return Mark(point.x, value, "\n".join(lines), ends, open=left_out is not None)


def _law(law: PowerLaw, first: float, last: float) -> tuple[tuple[float, float], ...]:
    x = np.geomspace(first, last, STEPS)
    return tuple(zip(x.tolist(), law.values(x).tolist(), strict=True))
