"""Power laws through the series of a curve: fitted without the largest point, held against it, and against one another."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bench.report.scaling.series import CurveData, Panel, Point, Quantity, Series
from bench.stats import Estimate, Form, HeldOut, PowerLaw, fit_power_law, mean_interval, predict_largest

EXACT = 0.01
"""A law describes numbers without scatter where it misses the largest by no more than this share of it."""


@dataclass(frozen=True)
class Fit:
    """A law through all points of a series but the largest."""

    quantity: Quantity
    series: Series
    form: Form
    held: HeldOut | None
    """None where the points are too few, or all alike."""
    difference: Estimate | None
    """Exponent minus the reference's, round by round or seed by seed; None for the reference."""
    end: Estimate | None
    """Slope of log value over log x between the two largest points; of costs only."""

    @property
    def law(self) -> PowerLaw | None:
        """The law itself."""
        return self.held.law if self.held else None

    @property
    def miss(self) -> Estimate | None:
        """Measured minus predicted as a share of what was measured."""
        if self.held is None or not self.held.measured:
            return None
        value, interval, number = self.held.miss
        scale = abs(self.held.measured)
        return Estimate(value / scale, interval and type(interval)(interval.low / scale, interval.high / scale), number)

    @property
    def describes(self) -> bool | None:
        """Whether the largest point allows that one law describes all of them; None where nothing tells."""
        if self.held is None or self.miss is None:
            return None
        if self.quantity.exact:
            return abs(self.miss.value) <= EXACT
        return self.held.miss.interval.contains(0.0) if self.held.miss.interval else None

    @property
    def verdict(self) -> str:
        """The same in words."""
        if self.held is None:
            return "too few points, or all alike: no fit"
        if self.held.law.at_bound:
            return "no power law: the exponent lies at the end of its range"
        if self.describes is None:
            return "one replicate a point: no interval to judge by"
        return "not contradicted" if self.describes else "contradicted"


def fit_curve(data: CurveData) -> list[Fit]:
    """A fit for every quantity and arm."""
    return [fit for panel in data.panels for fit in fit_panel(data, panel)]


def fit_panel(data: CurveData, panel: Panel) -> list[Fit]:
    """A fit for every arm of one quantity."""
    form: Form = data.curve.form
    reference = next((series for series in panel.series if series.arm == data.reference), None)
    made = []
    for series in panel.series:
        held = predict_largest(
            [point.x for point in series.points],
            [list(point.replicates.values()) for point in series.points],
            form=form,
        )
        other = None if reference is None or series is reference else difference(series, reference, form)
        made.append(Fit(panel.quantity, series, form, held, other, None if form == "saturating" else end_slope(series)))
    return made


def difference(series: Series, reference: Series, form: Form) -> Estimate | None:
    """Exponent of `series` minus that of `reference`, fitted for every round or seed that all points have.

    Both are fitted at the values that both have, without the largest. None where no round allows a fit.
    """
    ours = {point.value: point for point in series.points}
    theirs = {point.value: point for point in reference.points}
    shared = sorted(ours.keys() & theirs.keys())[:-1]
    if len(shared) < 3:
        return None
    pair = [ours[value] for value in shared], [theirs[value] for value in shared]
    rounds = set.intersection(*(set(point.replicates) for points in pair for point in points))
    found = []
    for number in sorted(rounds):
        laws = [_single(points, number, form) for points in pair]
        if all(law is not None and not law.at_bound for law in laws):
            found.append(laws[0].exponent.value - laws[1].exponent.value)  # type: ignore[union-attr]
    return mean_interval(found) if found else None


def end_slope(series: Series) -> Estimate | None:
    """Slope of log value over log x between the two largest points, over the rounds that both have."""
    if len(series.points) < 2:
        return None
    before, last = series.points[-2:]
    run = math.log(last.x / before.x)
    rounds = sorted(before.replicates.keys() & last.replicates.keys())
    slopes = [float(np.log(last.replicates[each] / before.replicates[each])) / run for each in rounds]
    return mean_interval(slopes) if slopes else None


def _single(points: list[Point], number: int, form: Form) -> PowerLaw | None:
    return fit_power_law([point.x for point in points], [point.replicates[number] for point in points], form=form)
