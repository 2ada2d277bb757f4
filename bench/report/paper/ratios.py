"""How many times as much one design costs as another: by FLOPs, and by times within a round."""

from __future__ import annotations

from collections.abc import Mapping

from bench.report import text
from bench.report.paper.quantities import over
from bench.stats import Estimate
from bench.store.efficiency import Call, Count


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


def speed(call: Call, seconds: float) -> float:
    """GFLOP/s that a call came to."""
    return call.flops / seconds / 1e9


def beside(measured: Estimate | None, flops: float | None) -> str:
    """Whether a measured ratio is ``above`` or ``below`` the one by FLOPs; empty where its interval holds it, or is none."""
    if measured is None or flops is None or measured.interval is None or measured.interval.contains(flops):
        return ""
    return "above" if measured.value > flops else "below"


def shown(measured: Estimate) -> str:
    """A ratio with its interval."""
    return text.with_interval(text.fixed(measured.value, 2), text.ends(measured.interval, 2))


def show_ratio(value: float | Estimate) -> str:
    """A ratio, with its interval where it has one."""
    return shown(value) if isinstance(value, Estimate) else text.fixed(value, 2)


def fewer(ratio: float) -> float:
    """The share in percent that a ratio of costs saves: a fifth of the cost saves 80 %."""
    return 100 * (1 - 1 / ratio)
