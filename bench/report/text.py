"""How numbers and names are written: digits, units, escapes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from bench.contracts import Metric
from bench.stats import Estimate, Interval

NOTHING = "–"
"""What a cell shows that has no number."""


def fixed(value: float | None, digits: int, *, signed: bool = False) -> str:
    """`value` with `digits` behind the point; never "-0.00"; a dash for None and NaN; a sign for both sides on request."""
    if value is None or math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    rounded = round(value, digits) + 0.0  # + 0.0 turns -0.0 into 0.0
    return f"{rounded:{'+' if signed and rounded else ''},.{digits}f}"


def significant(value: float | None, digits: int = 3) -> str:
    """`value` rounded to `digits` significant ones, without exponent, thousands separated."""
    if value is None or math.isnan(value):
        return NOTHING
    exponent = int(f"{value:.{digits - 1}e}".split("e")[1])  # of the rounded value: 99.96 is 100, not 100.0
    return fixed(value, max(0, digits - 1 - exponent))


def with_interval(value: str, ends: Sequence[str] | None) -> str:
    """``0.42 [0.20, 0.64]``."""
    return value if ends is None else f"{value} [{ends[0]}, {ends[1]}]"


def estimate(number: Estimate, digits: int) -> str:
    """A mean with its interval; says so where a single seed allows none."""
    if number.number == 0:
        return NOTHING
    text = with_interval(fixed(number.value, digits), ends(number.interval, digits))
    return f"{text} (1 seed: no interval)" if number.number == 1 else text


def ends(interval: Interval | None, digits: int, *, signed: bool = False) -> tuple[str, str] | None:
    """Both ends as text."""
    if interval is None:
        return None
    return fixed(interval.low, digits, signed=signed), fixed(interval.high, digits, signed=signed)


def rate(median: float, low: float | None, high: float | None) -> str:
    """Samples a second: ``104 [98.1, 110]``."""
    if low is None or high is None:
        return significant(median)
    return with_interval(significant(median), (significant(low), significant(high)))


def percent(share: float | None, digits: int = 1) -> str:
    """A share in [0, 1] as ``12.3 %``."""
    return NOTHING if share is None or math.isnan(share) else f"{fixed(100 * share, digits)} %"


def probability(value: float | None, *, equals: bool = False) -> str:
    """A probability with two digits that never claims to be certain: ``0.94``, ``> 0.99``, ``< 0.01``."""
    if value is None:
        return NOTHING
    if value > 0.99:
        return "> 0.99"
    if value < 0.01:
        return "< 0.01"
    return f"{'= ' if equals else ''}{fixed(value, 2)}"


def size(count: float) -> str:
    """Bytes as ``512 MiB``."""
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{significant(count)} {unit}"
        count /= 1024
    return f"{significant(count)} GiB"


def unit(metric: Metric) -> str:
    """The unit in the metric's label, with a space before it: `` dB`` for ``PSNR (dB)``."""
    found = re.search(r"\(([^()]+)\)\s*$", metric.label)
    return f" {found.group(1)}" if found else ""


class TimeScale:
    """Seconds in the unit that suits a budget, so that all times of a table share it."""

    def __init__(self, budget_s: float) -> None:
        """Seconds below three minutes, minutes below three hours, hours from there."""
        self.divisor, self.unit = (1, "s") if budget_s < 180 else (60, "min") if budget_s < 10_800 else (3600, "h")
        self.digits = 1 if budget_s / self.divisor < 100 else 0

    def number(self, seconds: float) -> str:
        """The number alone."""
        return fixed(seconds / self.divisor, self.digits)

    def __call__(self, seconds: float) -> str:
        """Number and unit."""
        return f"{self.number(seconds)} {self.unit}"


def escape_markdown(text: str) -> str:
    """`text` as it stands, also inside a table cell."""
    return re.sub(r"([\\`*|<])", r"\\\1", " ".join(text.split()))


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "–": "--", "×": r"$\times$", "≤": r"$\le$", "≥": r"$\ge$", "−": "$-$", "∞": r"$\infty$",
    "†": r"$^\dagger$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "±": r"$\pm$",
}  # fmt: skip


def escape_latex(text: str) -> str:
    """`text` for LaTeX: nothing in it is a command; a minus before a number is a minus."""
    escaped = "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))
    return re.sub(r"(?<![\w-])-(?=[\d.]|\$\\infty)", "$-$", escaped)
