"""Power laws through scaling curves, and the test they have to pass: the largest point, left out and predicted.

For a given exponent a power law is linear in what is left of it, so the best fit is found by a search over the exponent alone
(variable projection, Golub and Pereyra, SIAM Journal on Numerical Analysis 10(2), 1973): on a grid, then by golden sections.
There are no starting values, no random starts and no local optimum in which to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from bench.errors import UserError
from bench.stats.intervals import NUMBERS_AT_ONCE, Array, Estimate, Interval, pull_apart, quantile_interval

Form = Literal["saturating", "cost", "cost-with-offset"]
"""``a + b * x**-c`` (quality over budget or size), ``b * x**c`` and ``a + b * x**c`` (cost over an axis); always c > 0."""
EXPONENTS = (0.01, 8.0)
"""Where the exponent is looked for."""
GRID = 64
SECTIONS = 32
"""Golden sections after the grid: they narrow the exponent down to 1e-7 of itself."""
POWER_LAW_RESAMPLES = 2000


class Draws(NamedTuple):
    """Bootstrap of the points of a curve, and the fits through them."""

    means: Array
    """[resamples, N]: the points."""
    fits: Array
    """[resamples, 3]: offset, scale and exponent."""
    counts: Array
    """[N]: replicates of each point, >= 2."""


@dataclass(frozen=True)
class PowerLaw:
    """A fitted curve. Intervals are None where a point has a single replicate."""

    form: Form
    offset: Estimate
    """a: where a saturating curve ends, or the cost that does not grow; 0 without an interval in ``b * x**c``."""
    scale: Estimate
    """b: negative where a quality rises."""
    exponent: Estimate
    """c > 0."""
    points: int
    at_bound: bool
    """Whether the exponent lies at an end of `EXPONENTS`: then the points are no power law that this can tell from a logarithm
    or from a single step, and offset and scale mean nothing by themselves."""
    draws: Draws | None = field(repr=False, compare=False)
    """The resampled fits; None where a point has a single replicate."""

    def values(self, x: float | Array) -> Array:
        """The curve at `x` [...]."""
        return _at(np.array([self.offset.value, self.scale.value, self.exponent.value]), x, self.form)

    def predict(self, x: float) -> Estimate:
        """The curve at `x` > 0 with the interval of the curve itself, not of a single run there."""
        _above_zero("x", [x])
        value = float(self.values(x))
        interval = None
        if self.draws:
            interval = _interval(_at(self.draws.fits, x, self.form), self.draws.means, self.draws.counts)
        return Estimate(value, interval, self.points)


@dataclass(frozen=True)
class HeldOut:
    """How a law fitted without the largest point predicts it."""

    law: PowerLaw
    x: float
    predicted: Estimate
    measured: float
    """Mean of the replicates at `x`."""
    miss: Estimate
    """Measured minus predicted. Its interval holds the scatter of all points, the largest one included: where it excludes 0,
    the points do not follow the law."""


def fit_power_law(
    x: ArrayLike,
    y: Sequence[ArrayLike] | ArrayLike,
    *,
    form: Form,
    sigma: ArrayLike | None = None,
    resamples: int = POWER_LAW_RESAMPLES,
    seed: int = 0,
) -> PowerLaw | None:
    """Least-squares fit of one of `Form` to the means of points, with intervals over their replicates.

    The intervals come from a seeded bootstrap that draws the replicates of each point anew, put right for few replicates as in
    `bootstrap_interval`. They hold the scatter of seeds or rounds, not whether the curve has this form: see `predict_largest`.

    Args:
        x: positions [N], > 0, each once.
        y: replicates (seeds, rounds) of each point: N numbers, or N lists that may differ in length. > 0 for costs.
        form: which law.
        sigma: standard error of each point's mean [N], > 0, for the weights. By default all points of a saturating curve
            weigh the same, and costs by their relative errors.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        None where there is nothing to fit: fewer than 3 points, or the same value at all of them.

    Raises:
        UserError: a number out of its range, or lists of different lengths.
    """
    positions = _positions(x)
    points = _replicates(y, len(positions), form)
    means = np.array([point.mean() for point in points])
    weights = _above_zero("sigma", sigma) if sigma is not None else np.ones_like(means)
    if weights.shape != means.shape:
        raise UserError(f"sigma must have one value a point, got {weights.size} for {means.size}")
    if sigma is None and form != "saturating":
        weights = means
    if means.size < 3 or np.ptp(means) <= 1e-12 * np.abs(means).max():
        return None
    best = _fit(positions, means[None], weights, form)[0]
    draws: Draws | None = None
    intervals: list[Interval | None] = [None] * 3
    if all(point.size >= 2 for point in points):
        counts = np.array([point.size for point in points], dtype=np.float64)
        around = _resampled(points, resamples, seed)
        draws = Draws(around, _fit(positions, around, weights, form), counts)
        intervals = [_interval(column, around, counts) for column in draws.fits.T]
    offset, scale, exponent = (
        Estimate(float(value), interval, means.size) for value, interval in zip(best, intervals, strict=True)
    )
    if form == "cost":
        offset = Estimate(0.0, None, means.size)
    low, high = EXPONENTS
    at_bound = not 1.001 * low < exponent.value < high / 1.001
    return PowerLaw(form, offset, scale, exponent, means.size, at_bound, draws)


def predict_largest(
    x: ArrayLike,
    y: Sequence[ArrayLike] | ArrayLike,
    *,
    form: Form,
    sigma: ArrayLike | None = None,
    resamples: int = POWER_LAW_RESAMPLES,
    seed: int = 0,
) -> HeldOut | None:
    """Fit `fit_power_law` without the point of the largest `x`, and predict that point. Arguments and errors as there.

    Returns:
        None where what is left cannot be fitted: fewer than 3 points without the largest, or the same value at all of them.
    """
    positions = _positions(x)
    points = _replicates(y, len(positions), form)
    if not len(positions):
        return None
    last = int(np.argmax(positions))
    rest = [index for index in range(len(positions)) if index != last]
    errors = None if sigma is None else _above_zero("sigma", sigma)
    if errors is not None and errors.shape != positions.shape:
        raise UserError(f"sigma must have one value a point, got {errors.size} for {positions.size}")
    law = fit_power_law(
        positions[rest],
        [points[index] for index in rest],
        form=form,
        sigma=None if errors is None else errors[rest],
        resamples=resamples,
        seed=seed,
    )
    if law is None:
        return None
    at, measured = float(positions[last]), float(points[last].mean())
    predicted = law.predict(at)
    interval = None
    if law.draws and points[last].size >= 2:
        there = _resampled([points[last]], resamples, seed + 1)
        means, counts = np.hstack([law.draws.means, there]), np.append(law.draws.counts, points[last].size)
        interval = _interval(there[:, 0] - _at(law.draws.fits, at, form), means, counts)
    miss = Estimate(measured - predicted.value, interval, law.points)
    return HeldOut(law, at, predicted, measured, miss)


def _at(parameters: Array, x: float | Array, form: Form) -> Array:
    """Value [...] of curves with `parameters` [..., 3] at x; of one curve at all `x`."""
    sign = -1.0 if form == "saturating" else 1.0
    return np.asarray(parameters[..., 0] + parameters[..., 1] * x ** (sign * parameters[..., 2]), dtype=np.float64)


def _fit(x: Array, y: Array, sigma: Array, form: Form) -> Array:
    """Offset, scale and exponent [B, 3] of the best curves through `y` [B, N]."""
    step = max(1, NUMBERS_AT_ONCE // (GRID * x.size))
    if len(y) > step:
        return np.concatenate([_fit(x, y[i : i + step], sigma, form) for i in range(0, len(y), step)])
    middle = float(np.exp(np.log(x).mean()))  # powers of x / middle are of one order of magnitude
    u, sign = np.log(x / middle), -1.0 if form == "saturating" else 1.0
    share = sigma**-2 / (sigma**-2).sum()

    def project(log_exponent: Array) -> tuple[Array, Array, Array]:
        """Best offset, scale and squared error [..., B'] of y [..., B', N] at these exponents."""
        z = np.exp(sign * np.exp(log_exponent)[..., None] * u)
        values = y[:, None] if log_exponent.ndim == 2 else y
        z_mean, y_mean = (z * share).sum(-1), (values * share).sum(-1)
        if form == "cost":
            z_mean, y_mean = 0 * z_mean, 0 * y_mean
        flat = z - z_mean[..., None]
        scale = (share * flat * values).sum(-1) / (share * flat * flat).sum(-1)
        offset = y_mean - scale * z_mean
        return offset, scale, (share * (values - offset[..., None] - scale[..., None] * z) ** 2).sum(-1)

    grid = np.linspace(np.log(EXPONENTS[0]), np.log(EXPONENTS[1]), GRID)
    best = np.argmin(project(grid[None])[2], axis=1)
    low, high = grid[np.maximum(best - 1, 0)], grid[np.minimum(best + 1, GRID - 1)]
    golden = (np.sqrt(5) - 1) / 2
    for _ in range(SECTIONS):
        left, right = high - golden * (high - low), low + golden * (high - low)
        better = project(left)[2] < project(right)[2]
        low, high = np.where(better, low, left), np.where(better, right, high)
    exponent = (low + high) / 2
    offset, scale, _ = project(exponent)
    exponent = np.exp(exponent)
    return np.stack([offset, scale * middle ** (-sign * exponent), exponent], axis=-1)


def _interval(draws: Array, means: Array, counts: Array) -> Interval:
    """Of a number with `draws` [B] that follows from the `means` [B, N] of points with `counts` [N] replicates.

    Points that carry most of its variance are few, and so are the degrees of freedom (Welch and Satterthwaite: Biometrics
    Bulletin 2(6), 1946); how much each carries is seen in how the draws go with it.
    """
    away = means - means.mean(axis=0)
    variance = (away**2).mean(axis=0)
    together = (away * (draws - draws.mean())[:, None]).mean(axis=0)
    carried = np.divide(together**2, variance, out=np.zeros_like(variance), where=variance > 0)
    total = carried.sum()
    freedom = total**2 / (carried**2 / (counts - 1)).sum() if total > 0 else float((counts - 1).sum())
    return quantile_interval(draws, freedom)


def _resampled(points: list[Array], resamples: int, seed: int) -> Array:
    """Means [resamples, N] of replicates drawn anew, point by point, that scatter as the means of the points do."""
    generator = np.random.default_rng(seed)
    columns = []
    for point in points:
        weights = generator.multinomial(point.size, [1 / point.size] * point.size, size=resamples) / point.size
        columns.append(point.mean() + pull_apart(point.size) * (weights @ point - point.mean()))
    return np.stack(columns, axis=1)


def _above_zero(name: str, values: ArrayLike) -> Array:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1:
        raise UserError(f"{name} must be a list of numbers, got the shape {list(data.shape)}")
    wrong = np.flatnonzero(~(np.isfinite(data) & (data > 0)))
    if wrong.size:
        raise UserError(f"{name}[{wrong[0]}] must be > 0 and finite, got {data[wrong[0]]:g}")
    return data


def _positions(x: ArrayLike) -> Array:
    positions = _above_zero("x", x)
    if np.unique(positions).size < positions.size:
        raise UserError(f"x must name each position once, got {positions.tolist()}; list its replicates in y")
    return positions


def _replicates(y: Sequence[ArrayLike] | ArrayLike, count: int, form: Form) -> list[Array]:
    points = [np.atleast_1d(np.asarray(point, dtype=np.float64)) for point in y]  # type: ignore[union-attr]
    if len(points) != count:
        raise UserError(f"y must have as many points as x, got {len(points)} for {count}")
    for index, point in enumerate(points):
        if point.ndim != 1 or not point.size or not np.isfinite(point).all():
            raise UserError(f"y[{index}] must be a finite number or a list of some, got {point.tolist()}")
        if form != "saturating" and not (point > 0).all():
            raise UserError(f"y[{index}] must be > 0 as a cost, got {point.min():g}")
    return points
