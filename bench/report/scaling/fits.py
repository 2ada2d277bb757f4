"""Power laws through the series of a curve: fitted without the largest point, held against it, and against one another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.report.scaling.series import CurveData, Panel, Point, Quantity, Series
from bench.stats import Estimate, Form, HeldOut, Interval, PowerLaw, fit_power_law, median_interval, predict_largest
from bench.store.scaling import FEWEST

EXACT = 0.01
"""A law describes numbers without scatter where it misses the largest by no more than this share of it."""
PARAMETERS = {"cost": 2, "cost-with-offset": 3, "saturating": 3}


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
        """The law itself; None where the points are a step, which no law predicts anything of."""
        return None if self.held is None or self.is_step else self.held.law

    @property
    def is_step(self) -> bool:
        """Whether the exponent lies at the upper end of its range: flat, and then a single rise."""
        return self.held is not None and self.held.law.at_bound and self.held.law.exponent.value > 1

    @property
    def is_logarithm(self) -> bool:
        """Whether the exponent lies at the lower end of its range, where a law is a logarithm and has none to tell."""
        return self.held is not None and self.held.law.at_bound and not self.is_step

    @property
    def freedom(self) -> int | None:
        """Fitted points less parameters: with 0 the law goes through all of them, and the largest point alone tests it."""
        return None if self.law is None else self.law.points - PARAMETERS[self.form]

    @property
    def miss(self) -> Estimate | None:
        """Measured minus predicted as a share of what was measured."""
        if self.held is None or self.is_step or not self.held.measured:
            return None
        return self.held.miss.times(1 / abs(self.held.measured))

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
            few = len(self.series.points) < FEWEST
            return "too few points: no fit" if few else "the same at every fitted point: no fit"
        if self.is_step:
            return "no power law: flat, then a step"
        kind = "a logarithm: " if self.is_logarithm else ""
        if self.describes is None:
            return f"{kind}too few replicates a point: no interval to judge by"
        return f"{kind}{'not contradicted' if self.describes else 'contradicted'}"


def fit_curve(data: CurveData) -> list[Fit]:
    """A fit for every quantity and arm."""
    return [fit for panel in data.panels for fit in fit_panel(data, panel)]


def fit_panel(data: CurveData, panel: Panel) -> list[Fit]:
    """A fit for every arm of one quantity."""
    form: Form = data.curve.form
    reference = next((series for series in panel.series if series.arm == data.reference), None)
    made = []
    for series in panel.series:
        held = _of_rounds(series, form) if panel.quantity.centre is median_interval else _of_seeds(series, form)
        other = None
        if reference is not None and series is not reference:
            other = difference(series, reference, form, panel.quantity)
        end = None if form == "saturating" else end_slope(series, panel.quantity)
        made.append(Fit(panel.quantity, series, form, held, other, end))
    return made


def difference(series: Series, reference: Series, form: Form, quantity: Quantity) -> Estimate | None:
    """Exponent of `series` minus that of `reference`, fitted for every round or seed that all points have.

    Both are fitted at the values that both have, without the largest. None unless each of them allows a fit.
    """
    ours = {point.value: point for point in series.points}
    theirs = {point.value: point for point in reference.points}
    shared = sorted(ours.keys() & theirs.keys())[:-1]
    if len(shared) < 3:
        return None
    pair = [ours[value] for value in shared], [theirs[value] for value in shared]
    numbers, found = _shared([*pair[0], *pair[1]]), []
    for number in numbers:
        laws = [_single(points, number, form) for points in pair]
        if all(law is not None and not law.at_bound for law in laws):
            found.append(laws[0].exponent.value - laws[1].exponent.value)  # type: ignore[union-attr]
    # leaving out those that allow no fit would choose by the result
    return quantity.centre(found) if found and len(found) == len(numbers) else None


def end_slope(series: Series, quantity: Quantity) -> Estimate | None:
    """Slope of log value over log x between the two largest points, over the rounds that both have."""
    if len(series.points) < 2:
        return None
    before, last = series.points[-2:]
    run = math.log(last.x / before.x)
    slopes = [float(np.log(last.replicates[each] / before.replicates[each])) / run for each in _shared([before, last])]
    return quantity.centre(slopes) if slopes else None


def _of_seeds(series: Series, form: Form) -> HeldOut | None:
    """A law through the means, whose intervals come from drawing the seeds anew."""
    return predict_largest(_x(series), [list(point.replicates.values()) for point in series.points], form=form)


def _of_rounds(series: Series, form: Form) -> HeldOut | None:
    """A law through the medians. Every round gives a law of its own, and they the intervals, as of a median."""
    x, points = _x(series), series.points
    held = predict_largest(x, [float(np.median(list(point.replicates.values()))) for point in points], form=form)
    if held is None:
        return None
    fitted = [predict_largest(x, [point.replicates[each] for point in points], form=form) for each in _shared(points)]
    rounds = [each for each in fitted if each is not None]

    def spread(middle: Estimate, values: Sequence[float]) -> Estimate:
        found = median_interval(values).interval
        interval = found and Interval(min(found.low, middle.value), max(found.high, middle.value))
        return Estimate(middle.value, interval, len(values))

    law = replace(
        held.law,
        offset=spread(held.law.offset, [each.law.offset.value for each in rounds]),
        scale=spread(held.law.scale, [each.law.scale.value for each in rounds]),
        exponent=spread(held.law.exponent, [each.law.exponent.value for each in rounds]),
    )
    return replace(
        held,
        law=law,
        predicted=spread(held.predicted, [each.predicted.value for each in rounds]),
        miss=spread(held.miss, [each.miss.value for each in rounds]),
    )


def _x(series: Series) -> list[float]:
    return [point.x for point in series.points]


def _shared(points: Sequence[Point]) -> list[int]:
    """Rounds or seeds that all of them have."""
    return sorted(set.intersection(*(set(point.replicates) for point in points)))


def _single(points: list[Point], number: int, form: Form) -> PowerLaw | None:
    return fit_power_law([point.x for point in points], [point.replicates[number] for point in points], form=form)
