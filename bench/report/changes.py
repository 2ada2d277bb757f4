"""How far one result is from another of the same thing: differences of quality, quotients of times, and what they allow to say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bench import stats
from bench.contracts import Metric
from bench.report import text
from bench.stats import Estimate, Interval

Method = Literal["paired", "Welch"]


@dataclass(frozen=True)
class Change:
    """Second minus first."""

    mean: float
    interval: Interval | None
    """95 %; None where a side has one seed or none."""
    detectable: float | None
    """Minimum detectable difference (80 % power, two-sided 5 %); None without an interval."""
    method: Method
    pairs: int = 0
    """Seeds that both have, where it is paired."""

    @property
    def by(self) -> str:
        """``paired (3)`` or ``Welch``."""
        return f"{self.method} ({self.pairs})" if self.pairs else self.method


def change(first: Mapping[int, float], second: Mapping[int, float], *, paired: bool) -> Change:
    """Compare two sets of values by seed: over common seeds if `paired`, else all of them as two samples (Welch)."""
    if paired:
        found = stats.paired_difference(second, first, higher_is_better=None)
        return Change(found.mean, found.interval, found.detectable, "paired", found.count)
    return Change(*stats.unpaired_difference([*first.values()], [*second.values()]), "Welch")


def verdict(found: Change, metric: Metric) -> str:
    """``same``, ``better``, ``worse`` (``different`` where no side is better), or that nobody can tell, and why.

    Same means that the whole interval is below half of the last digit that tables print: what is not seen to differ is not
    thereby the same.
    """
    if math.isnan(found.mean):
        return "cannot tell (a side has no finished seed)"
    if found.interval is None or found.detectable is None:
        return "cannot tell (1 seed has no interval)"
    if max(map(abs, found.interval)) < 0.5 * 10**-metric.digits:
        return "same"
    if found.interval.contains(0.0):
        return f"cannot tell (MDE {text.fixed(found.detectable, metric.digits)}{text.unit(metric)})"
    if metric.higher_is_better is None:
        return "different"
    return "better" if (found.mean > 0) == metric.higher_is_better else "worse"


def quotient(first: Estimate | None, second: Estimate | None) -> Estimate | None:
    """Second over first, of two medians that were measured apart.

    The interval divides the far ends of theirs, which makes it wider than 95 % would ask for; None without both.
    """
    if first is None or second is None or not first.value > 0 or not second.value > 0:
        return None
    interval = None
    if first.interval and second.interval and first.interval.low > 0:
        interval = Interval(second.interval.low / first.interval.high, second.interval.high / first.interval.low)
    return Estimate(second.value / first.value, interval, min(first.number, second.number))


def show_quotient(ratio: Estimate | None) -> str:
    """``0.98 [0.91, 1.06]``."""
    if ratio is None:
        return text.NOTHING
    return text.with_interval(text.fixed(ratio.value, 3), text.ends(ratio.interval, 3))


def show_median(value: Estimate | None) -> str:
    """``104 [98.1, 110]``."""
    return text.NOTHING if value is None else text.rate(value.value, *(value.interval or (None, None)))
