"""What one result says of a claim, and how that is decided."""

from __future__ import annotations

from dataclasses import dataclass

from bench.report.claims.measures import Expected
from bench.report.claims.read import Claim
from bench.report.paper.layout import as_printed
from bench.stats import Interval


@dataclass(frozen=True)
class Outcome:
    """What one result folder says of a claim."""

    agrees: bool | None
    """None: it cannot tell."""
    shown: str
    """What was measured, with its interval."""
    reason: str = ""
    """Why it cannot tell."""
    seeds: int = 0
    """That it read."""
    needed: float = 0
    """Seeds that would tell, by the scatter seen; infinite: too many. 0: seeds are not what is missing."""


def decide(claim: Claim, expected: Expected, interval: Interval, nothing: float | None = None) -> bool | None:
    """Whether an interval supports a claim (True), contradicts it (False), or cannot tell (None).

    Bounds: the interval lies inside, outside, or over an end. A quoted value: it is in the interval, within the rounding of
    its print, or not; an interval that holds `nothing` (the value of no effect) as well cannot tell. An exact count is an
    interval without width.
    """
    if expected is None:
        assert claim.value is not None
        inside = interval.low - _widened(claim) <= claim.value <= interval.high + _widened(claim)
        return None if inside and nothing is not None and interval.contains(nothing) else inside
    low, high = expected.ends
    if expected.within is not None:
        inside, outside = low <= interval.low and interval.high <= high, interval.high < low or interval.low > high
    else:
        inside, outside = low < interval.low and interval.high < high, interval.high <= low or interval.low >= high
    return True if inside else False if outside else None


def asked(claim: Claim, expected: Expected) -> str:
    """What the measured value should be."""
    return f"quoted {as_printed(claim.value)}" if expected is None else f"claimed {expected.told()}"


def _widened(claim: Claim) -> float:
    """The rounding, and the last bit of a float beside it."""
    return claim.rounding * (1 + 1e-9)
