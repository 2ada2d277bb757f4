"""Two efficiency measurements beside each other: counts must be equal, or are listed; times as quotients."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from bench import stats
from bench.report import text
from bench.report.changes import quotient, show_median, show_quotient
from bench.report.comparable import Apart, Circumstances, flat, option_obstacles, origin
from bench.report.contrast import DEVICES_NOTE, TIMES_NOTE, Contrast, csv_row, table
from bench.report.tables import Raw
from bench.store.efficiency import Call, Count, Efficiency

ELSEWHERE = {"protocol", "task", "preset", "device", "architectures", "status", "name", "schema", "code_sha256"}
"""Keys of the record that are compared under names of their own, or say nothing."""


class Row(NamedTuple):
    """What a counted or timed row is of."""

    label: str
    mode: str
    sizes: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        return f"{self.label}, {self.mode}, {self.shape}"

    @property
    def shape(self) -> str:
        """``2 input views, 1 target views``."""
        return ", ".join(f"{size} {name.replace('_', ' ')}" for name, size in self.sizes)


def contrast_efficiency(a: Efficiency, b: Efficiency, vouched: Collection[str] = ()) -> Contrast:
    """Compare two measurements row by row; see `bench.report.compare`."""
    name = f"efficiency {a.record.task}-{a.record.preset}"
    differing = _circumstances(a).differences(_circumstances(b))
    apart: list[Apart] = []
    tasks = [(side.record.task, side.record.preset, side.record.image_size) for side in (a, b)]
    counts, unequal, counted = _counts(a, b, apart)
    if tasks[0] == tasks[1]:
        times, measured = _times(a, b, vouched, apart)
    else:
        times, measured = [], []
        apart.append(Apart("all times", f"task, preset, image size: {tasks[0]}, {tasks[1]}"))
    device = a.record.device, b.record.device
    other_device = any(
        getattr(device[0], key) != getattr(device[1], key) for key in ("kind", "name", "cores", "threads")
    )
    unlike = len({row[:3] for row in unequal})
    head: dict[str, Raw] = {"result": name}
    return Contrast(
        f"{name}: A against B",
        tuple(differing),
        tuple(apart),
        (
            f"counts: {counts} rows are on both sides, {counts - unlike} of them equal to the last digit"
            + (f", {unlike} not" if unlike else ""),
            f"times: {len(times)} calls can be compared; medians of B / A from {_ends(measured)}",
            *([f"taken as equal, as asked: {', '.join(sorted(vouched))}"] if vouched else []),
        ),
        tuple(
            made
            for made in (
                table(
                    "counts", "Counts that differ", ("row", "mode", "sizes", "count", "A", "B", "B / A"), unequal, (), 4
                ),
                table(
                    "times",
                    "Time of a call",
                    ("row", "mode", "sizes", "A (ms)", "B (ms)", "B / A"),
                    times,
                    (TIMES_NOTE, *([DEVICES_NOTE] if other_device else [])),
                    3,
                ),
            )
            if made.rows
        ),
        (
            *(head | row for row in (*counted, *measured)),
            *(head | {"row": row, "not_comparable": reason} for row, reason in apart),
        ),
    )


def _circumstances(side: Efficiency) -> Circumstances:
    record = side.record
    found = {"task": record.task, "preset": record.preset, "protocol": record.protocol, **origin(side.folder)}
    found |= {f"device.{name}": value for name, value in flat(record.device)}
    rest = {key: value for key, value in record.model_dump().items() if key not in ELSEWHERE}
    found |= dict(flat(rest))
    for architecture in record.architectures:
        found |= {f"{architecture.label}, {name}": value for name, value in flat(architecture.options)}
    return Circumstances(found)


def _counts(
    a: Efficiency, b: Efficiency, apart: list[Apart]
) -> tuple[int, list[tuple[str, ...]], list[dict[str, Raw]]]:
    """How many rows both have, cells of the counts that differ, and CSV rows of all."""
    first, second = ({_row(count): count for count in side.counts} for side in (a, b))
    common, unequal, rows = _common(first, second, "counts", apart), [], []
    for row in common:
        one, other = (_numbers(side[row]) for side in (first, second))
        for what in dict.fromkeys([*one, *other]):
            pair = one.get(what), other.get(what)
            same = pair[0] == pair[1]
            if not same:
                ratio = pair[1] / pair[0] if pair[0] and pair[1] is not None else None
                shown = [text.NOTHING if value is None else f"{value:,}" for value in pair]
                unequal.append((row.label, row.mode, row.shape, what, *shown, text.fixed(ratio, 4)))
            named: dict[str, Raw] = {"row": row.label, "policy": f"{row.mode}, {row.shape}"}
            verdict = "same" if same else "different"
            rows.append(named | {"quantity": what, "a": pair[0], "b": pair[1], "verdict": verdict})
    return len(common), unequal, rows


def _numbers(count: Count) -> dict[str, int | None]:
    counters = {f"forward FLOPs ({name})": value for name, value in count.counters.items()}
    parts = {f"forward FLOPs, {name}": value for name, value in count.parts.items()}
    return {"parameters": count.parameters, **counters, **parts, "training FLOPs": count.training_flops}


def _times(
    a: Efficiency, b: Efficiency, vouched: Collection[str], apart: list[Apart]
) -> tuple[list[tuple[str, ...]], list[dict[str, Raw]]]:
    """Cells and CSV rows of the calls that both timed, where they are of the same work."""
    first, second = (
        {_row(call, group.sizes): call for group in side.groups for call in group.calls} for side in (a, b)
    )
    options = [{one.label: one.options for one in side.record.architectures} for side in (a, b)]
    cells, rows = [], []
    other_options: dict[str, list[str]] = {}
    for row in _common(first, second, "times", apart):
        one, other = first[row], second[row]
        if reasons := option_obstacles(options[0].get(row.label, {}), options[1].get(row.label, {}), vouched):
            other_options[row.label] = reasons
            continue
        reasons = [f"FLOPs of a call: {one.flops:,}, {other.flops:,}"] if one.flops != other.flops else []
        reasons += [f"{side} skipped: {call.skipped}" for side, call in (("A", one), ("B", other)) if call.skipped]
        if reasons:
            apart.append(Apart(f"times: {row}", "; ".join(reasons)))
            continue
        medians = stats.median_interval(one.times_ms), stats.median_interval(other.times_ms)
        ratio = quotient(*medians)
        cells.append((row.label, row.mode, row.shape, *map(show_median, medians), show_quotient(ratio)))
        named: dict[str, Raw] = {"row": row.label, "policy": f"{row.mode}, {row.shape}"}
        rows.append(named | csv_row("milliseconds", *medians, "quotient", ratio))
        memory = one.live_bytes, other.live_bytes
        same = "same" if memory[0] == memory[1] else "different"
        rows.append(named | {"quantity": "live_bytes", "a": memory[0], "b": memory[1], "verdict": same})
    apart += [Apart(f"times: {label}", "; ".join(reasons)) for label, reasons in other_options.items()]
    return cells, rows


def _row(of: Count | Call, sizes: Mapping[str, int] | None = None) -> Row:
    shape = of.sizes if isinstance(of, Count) else sizes or {}
    return Row(of.label, of.mode, tuple(shape.items()))


def _common(a: Mapping[Row, object], b: Mapping[Row, object], what: str, apart: list[Apart]) -> list[Row]:
    """Rows on both sides; the others are told in `apart`."""
    apart += [Apart(f"{what}: {row}", "only in A") for row in a if row not in b]
    apart += [Apart(f"{what}: {row}", "only in B") for row in b if row not in a]
    return [row for row in a if row in b]


def _ends(rows: list[dict[str, Raw]]) -> str:
    """Smallest and largest quotient."""
    ratios = [value for row in rows if isinstance(value := row.get("value"), float)]
    return f"{text.fixed(min(ratios), 3)} to {text.fixed(max(ratios), 3)}" if ratios else "none"
