"""The tables of a curve: what was measured at every point, and the laws through it."""

from __future__ import annotations

from functools import partial
from typing import Any

from bench.report import text
from bench.report.paper.layout import Column, PaperTable, number, whole
from bench.report.scaling.fits import Fit
from bench.report.scaling.series import CurveData, Point
from bench.stats import Estimate
from bench.store.scaling import CostCurve, QualityCurve

FORMS = {"cost": "b x^c", "cost-with-offset": "a + b x^c", "saturating": "a + b x^-c"}


def make_tables(data: CurveData, fits: list[Fit]) -> list[PaperTable]:
    """Points and fits of a curve."""
    return [_points(data), _fits(data, fits)]


def sentences(data: CurveData, fits: list[Fit]) -> list[str]:
    """What the fits say, a sentence each."""
    made = []
    for fit in fits:
        name = f"{fit.series.arm}, {fit.quantity.label}"
        if fit.law is None or fit.held is None or fit.miss is None:
            made.append(f"{name}: {fit.verdict}.")
            continue
        law, held = fit.law, fit.held
        exponent = (
            "as a logarithm, without an exponent to tell" if fit.is_logarithm else f"exponent {_estimate(law.exponent)}"
        )
        said = (
            f"{name}: {exponent} ({FORMS[fit.form]}) over {law.points} points"
            f"{', as many as the law has parameters' if fit.freedom == 0 else ''}; at {held.x:,g} predicted "
            f"{_estimate(held.predicted)}, measured {text.significant(held.measured)}: missed by {_percent(fit.miss)}"
        )
        if fit.difference is not None and not fit.is_logarithm:
            said += f"; its exponent minus that of {data.reference}: {_estimate(fit.difference)}"
        if fit.describes is False:
            said += f"; a single {'logarithm' if fit.is_logarithm else 'power law'} does not describe the curve"
            if fit.end is not None:
                said += f", which between its two largest points grows with exponent {_estimate(fit.end)}"
        made.append(f"{said}.")
    return made


def _points(data: CurveData) -> PaperTable:
    curve = data.curve
    trained = isinstance(curve, QualityCurve)
    columns = [Column("value", _value_label(data), lambda value: f"{value:,g}"), Column("arm", "arm")]
    rows: dict[tuple[float, str], dict[str, Any]] = {}
    for panel in data.panels:
        for series in panel.series:
            for point in series.points:
                row = rows.setdefault(
                    (_first(data, point), series.arm), {"value": _first(data, point), "arm": series.arm}
                )
                estimate = panel.quantity.at(point)
                row[panel.quantity.key] = estimate.value if panel.quantity.exact else estimate
                if trained:
                    row |= {
                        "parameters": point.parameters,
                        "training_gflops": (point.training_flops or 0.0) / 1e9,
                        "runs": len(point.replicates),
                    }
    if trained:
        columns += [
            Column("parameters", "parameters", whole),
            Column("training_gflops", "training GFLOPs a sample", number(3)),
            Column("runs", "runs", whole),
        ]
    for quantity in (panel.quantity for panel in data.panels):
        show = partial(text.estimate, digits=quantity.digits) if trained else number(quantity.digits)
        columns.append(Column(quantity.key, quantity.label, show))
    arms = list(dict.fromkeys(series.arm for panel in data.panels for series in panel.series))
    ordered = sorted(rows.values(), key=lambda row: (row["value"], arms.index(row["arm"])))
    notes = [
        data.place,
        *([f"Left out or in doubt: {'; '.join(data.missing)}."] if data.missing else []),
        *([curve.note.strip()] if curve.note else []),
    ]
    return PaperTable(f"{curve.name}-points", curve.title, tuple(columns), tuple(ordered), tuple(notes), names=2)


def _fits(data: CurveData, fits: list[Fit]) -> PaperTable:
    curve = data.curve
    rows = []
    for fit in fits:
        row: dict[str, Any] = {
            "quantity": fit.quantity.label,
            "arm": fit.series.arm,
            "verdict": fit.verdict,
            "end": fit.end,
        }
        if fit.law is not None and fit.held is not None:
            row |= {
                "points": fit.law.points,
                "freedom": fit.freedom,
                "at": fit.held.x,
                "predicted": fit.held.predicted,
                "measured": fit.held.measured,
                "miss": None if fit.miss is None else fit.miss.times(100),
            }
            if not fit.is_logarithm:
                row |= {"scale": fit.law.scale, "exponent": fit.law.exponent, "difference": fit.difference}
                row |= {} if fit.form == "cost" else {"offset": fit.law.offset}
        rows.append(row)
    plain = number(3)
    columns = [
        Column("quantity", "quantity"),
        Column("arm", "arm"),
        Column("points", "points fitted", whole),
        Column("freedom", "less parameters", whole),
        *([] if curve.form == "cost" else [Column("offset", "a", plain)]),
        Column("scale", "b", _scientific),
        Column("exponent", "exponent c", plain),
        Column("difference", f"c minus that of {data.reference}", plain),
        *([] if curve.form == "saturating" else [Column("end", "slope at the end", plain)]),
        Column("at", "largest x", lambda value: f"{value:,g}"),
        Column("predicted", "predicted there", plain),
        Column("measured", "measured there", plain),
        Column("miss", "missed by (%)", _signed),
        Column("verdict", f"{FORMS[curve.form]} at the largest point"),
    ]
    notes = (
        f"x: {curve.axis_label}. Fitted to all points but the largest, which is then predicted. Where the points are as many as the "
        "parameters, the law goes through all of them, and the largest alone tests it. Intervals: 95 %, over "
        f"{_over(curve)}; they hold the scatter of the measurement, not whether the form is right, which the miss tells: of "
        "numbers without scatter it may be 1 %, otherwise its interval must hold 0.",
        *sentences(data, fits),
    )
    return PaperTable(f"{curve.name}-fits", f"{curve.title}: power laws", tuple(columns), tuple(rows), notes, names=2)


def _over(curve: CostCurve | QualityCurve) -> str:
    return "seeds drawn anew" if isinstance(curve, QualityCurve) else "rounds, each of which gives a law of its own"


def _value_label(data: CurveData) -> str:
    curve = data.curve
    return curve.value_label if isinstance(curve, QualityCurve) and curve.own_places else curve.axis_label


def _first(data: CurveData, point: Point) -> float:
    """What stands in the first column: a point's place, or its value where every arm has a place of its own."""
    curve = data.curve
    return point.value if isinstance(curve, QualityCurve) and curve.own_places else point.x


def _estimate(value: Estimate) -> str:
    return str(number(3)(value))


def _scientific(value: Estimate) -> str:
    ends = value.interval and tuple(f"{end:.3g}" for end in value.interval)
    return text.with_interval(f"{value.value:.3g}", ends)


def _signed(value: Estimate) -> str:
    ends = value.interval and tuple(text.fixed(end, 1, signed=True) for end in value.interval)
    return text.with_interval(text.fixed(value.value, 1, signed=True), ends)


def _percent(miss: Estimate) -> str:
    return f"{_signed(miss.times(100))} %"
