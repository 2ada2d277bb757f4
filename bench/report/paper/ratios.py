"""How many times as much one design costs as another: by FLOPs, and by times within a round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from bench.report import text
from bench.report.paper.quantities import latency, over, quotient
from bench.stats import Estimate
from bench.store.efficiency import Call, Count

CLOSE = 0.02
"""Relative distance below which two ratios are called the same."""


def counted_ratio(first: Count | None, second: Count | None, what: str = "training") -> float | None:
    """FLOPs of `first` over those of `second`: of a ``training`` step, or forward of a part (``decoder``, ``encoder``)."""
    if first is None or second is None:
        return None
    if what == "training":
        return first.training_flops / second.training_flops
    return over(first.parts.get(what), second.parts.get(what))


Series = Mapping[float, float]
"""Place on an axis -> ratio."""


def gflop(row: Count | None, part: str) -> float | None:
    """Forward GFLOP of a part."""
    return None if row is None or part not in row.parts else row.parts[part] / 1e9


def agreement(row: Count | None) -> str | None:
    """How many counters of a row give exactly the same number."""
    if row is None:
        return None
    values = [value for value in row.counters.values() if value is not None]
    return f"{max(values.count(value) for value in values)} of {len(values)}"


def speed(call: Call) -> float:
    """GFLOP/s that a call came to, which was timed."""
    took = latency(call)
    assert took is not None
    return call.flops / (took.value / 1e3) / 1e9


def beside(measured: Estimate | None, flops: float | None) -> str:
    """Whether a measured ratio is ``above`` or ``below`` the one by FLOPs; empty where its interval holds it, or is none."""
    if measured is None or flops is None or measured.interval is None or measured.interval.contains(flops):
        return ""
    return "above" if measured.value > flops else "below"


class Apart(NamedTuple):
    """A measured ratio of two calls that is not the one by FLOPs."""

    measured: Estimate
    flops: float
    side: str
    """Where the measured one lies: ``above`` or ``below``."""
    speeds: tuple[float, float]
    """GFLOP/s of either call."""

    def told(self, first: str, second: str) -> str:
        """What was measured, beside what FLOPs say, with the speeds of the calls by their names."""
        return (
            f"{shown(self.measured)} measured, {self.side} the {self.flops:.2f} by FLOPs, as {first} came to "
            f"{self.speeds[0]:.0f} GFLOP/s and {second} to {self.speeds[1]:.0f}"
        )


def apart(first: Call | None, second: Call | None) -> Apart | None:
    """What keeps the measured ratio of two calls from the one by FLOPs; None where they are the same, or one was not timed."""
    measured = quotient(first, second)
    if first is None or second is None or measured is None:
        return None
    flops = first.flops / second.flops
    side = beside(measured, flops)
    if not side or abs(measured.value / flops - 1) < CLOSE:
        return None
    return Apart(measured, flops, side, (speed(first), speed(second)))


def shown(measured: Estimate) -> str:
    """A ratio with its interval."""
    return text.with_interval(text.fixed(measured.value, 2), text.ends(measured.interval, 2))


def show_ratio(value: float | Estimate) -> str:
    """A ratio, with its interval where it has one."""
    return shown(value) if isinstance(value, Estimate) else text.fixed(value, 2)


def fewer(ratio: float) -> float:
    """The share in percent that a ratio of costs saves: a fifth of the cost saves 80 %."""
    return 100 * (1 - 1 / ratio)
