"""What counts and timings say of a claim: values, ratios, exponents, and the tables of claims of the tasks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

from bench.errors import UserError
from bench.report import text
from bench.report.claims.measures import CALLED, Counted, PublishedEntry, Row, Slope, Stored, Timed
from bench.report.claims.outcome import Outcome, asked, decide
from bench.report.claims.read import Claim, published_numbers
from bench.report.paper.claims_table import CLOSE
from bench.report.paper.openvocab import claims as openvocab
from bench.report.paper.published import Published
from bench.report.paper.quantities import exponent, quotient
from bench.report.paper.tracking import tables as tracking
from bench.report.paper.vos import claims as vos
from bench.stats import Estimate, Interval
from bench.store.efficiency import Efficiency

RULES: Mapping[str, Mapping[str, Callable[[Efficiency, Published], str]]] = {
    "openvocab": openvocab.RULES,
    "vos": vos.RULES,
    "tracking": tracking.RULES,
}
"""Task -> published entry -> what its own table of claims says."""
AGREE = re.compile(r"(\d+) of (\d+) agree")
UNTESTED = "not testable here: "


def say(claim: Claim, measure: Stored, efficiency: Efficiency) -> Outcome:
    """What a task's counts and timings say of a claim.

    Raises:
        UserError: the claim names an entry whose numbers the task's own table of claims does not count.
    """
    match measure:
        case Counted():
            return _counted(claim, measure, efficiency)
        case Timed():
            return _timed(claim, measure, efficiency)
        case Slope():
            return _slope(claim, measure, efficiency)
        case PublishedEntry():
            return _published_entry(claim, measure, efficiency)


def _counted(claim: Claim, measure: Counted, efficiency: Efficiency) -> Outcome:
    """An exact count, or two of them."""
    rows = [row for row in (measure.first, measure.second) if row is not None]
    found = [_quantity(efficiency, row) for row in rows]
    missing = [f"{row.label}/{row.mode}" for row, value in zip(rows, found, strict=True) if value is None]
    if missing:
        return Outcome(None, "", f"{', '.join(missing)}: not counted there")
    first, *rest = [value for value in found if value is not None]
    second = rest[0] if rest else 0.0
    match measure.form:
        case "value":
            value = first / measure.per
        case "difference":
            value = (first - second) / measure.per
        case "ratio":
            value = first / second if second else math.inf
        case "saving":
            value = 100 * (1 - second / first) if first else -math.inf
    exact = Interval(value, value)
    said = " over ".join(f"{row.label}/{row.mode}" for row in rows) if measure.form == "ratio" else measure.first.label
    shown = f"{said}: {_plain(value)} {claim.unit if measure.form != 'ratio' else ''}".rstrip()
    shown += f" ({measure.first.quantity.replace('_', ' ')}); {asked(claim, measure.expected)}"
    return Outcome(decide(claim, measure.expected, exact), shown)


def _timed(claim: Claim, measure: Timed, efficiency: Efficiency) -> Outcome:
    """How many times as long one call takes as another."""
    calls = [
        efficiency.call(call.label, sizes, call.mode)
        for call, sizes in ((measure.first, measure.sizes), (measure.second, measure.second_sizes or measure.sizes))
    ]
    found = quotient(*calls)
    if found is None or found.interval is None:
        skipped = "; ".join(call.skipped for call in calls if call is not None and call.skipped)
        return Outcome(None, "", skipped or "the calls were not timed there, or in too few rounds")
    names = f"{measure.first.label}/{measure.first.mode} over {measure.second.label}/{measure.second.mode}"
    return _clocked(claim, measure, efficiency, names, found, 1.0)


def _slope(claim: Claim, measure: Slope, efficiency: Efficiency) -> Outcome:
    """Exponent of a cost over an axis, from counts or from timings."""
    values: dict[int, tuple[float, ...]] = {}
    for place in measure.at:
        sizes = {**measure.sizes, measure.axis: place}
        if measure.of == "flops":
            row = efficiency.count(measure.call.label, sizes, measure.call.mode)
            values[place] = () if row is None else (float(row.flops),)
        else:
            call = efficiency.call(measure.call.label, sizes, measure.call.mode)
            values[place] = () if call is None else call.times_ms
    absent = [str(place) for place, series in values.items() if not series]
    found = None if absent else exponent(values)
    if found is None:
        return Outcome(None, "", f"{measure.call.label}/{measure.call.mode}: nothing at {', '.join(absent)} there")
    names = (
        f"{measure.call.label}/{measure.call.mode}: exponent of {measure.of} over {measure.axis} "
        f"{min(measure.at)} to {max(measure.at)}"
    )
    if measure.of == "flops":
        exact = Interval(found.value, found.value)
        shown = f"{names}: {text.fixed(found.value, 2)}; {asked(claim, measure.expected)}"
        return Outcome(decide(claim, measure.expected, exact), shown)
    if found.interval is None:
        return Outcome(None, "", "too few rounds for an interval")
    return _clocked(claim, measure, efficiency, names, found, None)


def _published_entry(claim: Claim, measure: PublishedEntry, efficiency: Efficiency) -> Outcome:
    """What the task's own table of claims says of an entry."""
    rule = RULES.get(claim.task, {}).get(measure.entry)
    line = "" if rule is None else rule(efficiency, published_numbers(claim.task)[measure.entry])
    found = AGREE.search(line)
    if found is None and not line.startswith(UNTESTED):
        raise UserError(
            f"claims: {claim.id}: measure.entry: the table of {claim.task} does not say how many numbers of {measure.entry!r} "
            "agree; use another kind of measure"
        )
    if found is None:
        return Outcome(None, "", line.removeprefix(UNTESTED))
    shown = f"{line} (within the rounding, or {100 * CLOSE:g} %)"
    return Outcome(found[1] == found[2], shown)


def _quantity(efficiency: Efficiency, row: Row) -> float | None:
    if row.quantity in CALLED:
        call = efficiency.call(row.label, row.sizes, row.mode)
        if call is None:
            return None
        if row.quantity == "deviation":
            return call.deviation
        return None if call.live_bytes is None else float(call.live_bytes + call.held_bytes)
    found = efficiency.count(row.label, row.sizes, row.mode)
    if found is None:
        return None
    if row.quantity in ("encoder", "decoder"):
        return found.parts.get(row.quantity)
    return float(getattr(found, row.quantity))


def _clocked(
    claim: Claim, measure: Timed | Slope, efficiency: Efficiency, names: str, found: Estimate, nothing: float | None
) -> Outcome:
    """A number with an interval over rounds, where the claim is about such a device."""
    assert found.interval is not None
    value = text.with_interval(text.fixed(found.value, 2), text.ends(found.interval, 2))
    device = efficiency.record.device
    shown = f"{names}: {value} ({device.kind}, {found.number} rounds); {asked(claim, measure.expected)}"
    if measure.device == "cuda" and device.kind != "cuda":
        return Outcome(None, shown, f"the claim is about a GPU, this was timed on a {device.kind}")
    agrees = decide(claim, measure.expected, found.interval, nothing)
    return Outcome(agrees, shown, "" if agrees is not None else f"{found.number} rounds cannot tell")


def _plain(value: float) -> str:
    """Five digits; tiny numbers with an exponent."""
    return f"{value:.3g}" if abs(value) < 1e-3 else text.significant(value, 5)
