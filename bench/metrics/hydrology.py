"""How well a hydrograph is met, by the definitions that hydrologists share: NSE, KGE with its parts, log-NSE.

Everything here takes simulated and observed values in physical units, [C, D], one record of D days a catchment; NaN in either
leaves the day out. What is undefined for a record is NaN.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

LOG_SHARE = 0.01
"""Of the mean observed value, added before the logarithm of log-NSE (Pushpalatha et al. 2012)."""


class KGE(NamedTuple):
    """Kling-Gupta efficiency and its three parts, each [C]."""

    kge: Values
    """1 - sqrt((r - 1)^2 + (alpha - 1)^2 + (beta - 1)^2); 1 is best."""
    r: Values
    """Pearson's correlation; 0 where the simulation never changes, for which it is undefined."""
    alpha: Values
    """Standard deviation, simulated over observed."""
    beta: Values
    """Mean, simulated over observed."""


def nse(simulated: Values, observed: Values) -> Values:
    """Nash-Sutcliffe efficiency (1970), [C]: 1 - squared error / variance of the observations; 1 is best.

    NaN where fewer than two days are scored or the observations never change.

    Raises:
        ValueError: the shapes differ.
    """
    simulated, observed = _paired(simulated, observed)
    anomaly = observed - _mean(observed)[:, None]
    error, spread = np.nansum((simulated - observed) ** 2, axis=1), np.nansum(anomaly**2, axis=1)
    return _over(-error, spread, _varies(observed)) + 1


def log_nse(simulated: Values, observed: Values) -> Values:
    """NSE of log(value + 1 % of the mean observed value), [C]: what low values make of it; negative values count as 0.

    Raises:
        ValueError: the shapes differ.
    """
    simulated, observed = _paired(simulated, observed)
    offset = LOG_SHARE * _mean(observed)[:, None]
    offset = np.where(offset > 0, offset, np.nan)
    return nse(np.log(np.maximum(simulated, 0) + offset), np.log(np.maximum(observed, 0) + offset))


def kge(simulated: Values, observed: Values) -> KGE:
    """Kling-Gupta efficiency (Gupta et al. 2009), [C] each.

    NaN where fewer than two days are scored, the observations never change or their mean is 0.

    Raises:
        ValueError: the shapes differ.
    """
    simulated, observed = _paired(simulated, observed)
    means = _mean(simulated), _mean(observed)
    first, second = simulated - means[0][:, None], observed - means[1][:, None]
    spreads = np.sqrt(_mean(first**2)), np.sqrt(_mean(second**2))
    defined = np.logical_and(_varies(observed), means[1] != 0)
    moves = _varies(simulated)
    r = _over(_mean(first * second), spreads[0] * spreads[1], np.logical_and(defined, moves))
    r = np.where(np.logical_and(defined, ~moves), 0.0, r)
    alpha, beta = _over(spreads[0], spreads[1], defined), _over(means[0], means[1], defined)
    return KGE(1 - np.sqrt((r - 1) ** 2 + (alpha - 1) ** 2 + (beta - 1) ** 2), r, alpha, beta)


def _paired(simulated: Values, observed: Values) -> tuple[Values, Values]:
    """Both in double precision, NaN on every day that one of them lacks."""
    if simulated.shape != observed.shape or simulated.ndim != 2:
        raise ValueError(
            f"simulated and observed must both be [C, D], got {list(simulated.shape)} and {list(observed.shape)}"
        )
    there = np.isfinite(simulated) & np.isfinite(observed)
    return tuple(np.where(there, side, np.nan).astype(np.float64) for side in (simulated, observed))  # type: ignore[return-value]


def _mean(values: Values) -> Values:
    """Mean over the days that are there, [C]; NaN where there is none."""
    count = np.isfinite(values).sum(axis=1).astype(np.float64)
    return _over(np.nansum(values, axis=1), count, np.greater(count, 0))


def _varies(values: Values) -> NDArray[np.bool_]:
    """[C] bool: some of the days that are there differ."""
    there = np.isfinite(values)
    largest = np.where(there, values, -np.inf).max(axis=1, initial=-np.inf)
    return np.greater(largest, np.where(there, values, np.inf).min(axis=1, initial=np.inf))


def _over(above: Values, below: Values, defined: NDArray[np.bool_]) -> Values:
    """Quotient where it is defined, NaN elsewhere."""
    return np.divide(above, below, out=np.full(len(above), np.nan), where=np.logical_and(defined, below != 0))
