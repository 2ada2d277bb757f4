"""Where the seconds of each arm went, as bars and as numbers: mean over its finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.report import text
from bench.report.plots import CHARGED, UNCHARGED
from bench.report.summary import ArmSummary

NAMES = {key: name for key, (name, _, _) in {**CHARGED, **UNCHARGED}.items()}


@dataclass(frozen=True)
class Part:
    """One category of one arm; places are in percent of the axis."""

    key: str
    name: str
    left: float
    width: float
    seconds: str


@dataclass(frozen=True)
class Bar:
    """One arm."""

    title: str
    parts: tuple[Part, ...]
    total: str


@dataclass(frozen=True)
class Ledger:
    """All arms on one axis."""

    bars: tuple[Bar, ...]
    keys: tuple[str, ...]
    """Categories that any arm spent seconds on, charged ones first."""
    budget: float | None
    """Place of the budget in percent of the axis."""


def gather(arms: Sequence[ArmSummary], budget_s: float | None) -> Ledger | None:
    """The bars of the arms that have a finished run; None where there is none."""
    seconds = {arm.title: _mean_seconds(arm) for arm in arms if arm.finished}
    if not seconds:
        return None
    width = max([*(sum(spent.values()) for spent in seconds.values()), budget_s or 0.0]) or 1.0
    keys = tuple(key for key in NAMES if any(spent[key] > 0 for spent in seconds.values()))
    bars = tuple(_bar(title, spent, keys, width) for title, spent in seconds.items())
    return Ledger(bars, keys, None if budget_s is None else round(100 * budget_s / width, 2))


def _bar(title: str, spent: dict[str, float], keys: Sequence[str], width: float) -> Bar:
    parts, left = [], 0.0
    for key in keys:
        share = 100 * spent[key] / width
        parts.append(Part(key, NAMES[key], round(left, 2), round(share, 2), text.significant(spent[key])))
        left += share
    return Bar(title, tuple(parts), text.significant(sum(spent.values())))


def _mean_seconds(arm: ArmSummary) -> dict[str, float]:
    ledgers = [run.ledger for run in arm.finished]
    spent = {key: float(np.mean([ledger.categories.get(key, 0.0) for ledger in ledgers])) for key in NAMES}
    return spent | {"unaccounted": max(0.0, float(np.mean([ledger.unaccounted for ledger in ledgers])))}
