"""The verdict on every claim, from result folders alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from bench.report.claims import measured, trained
from bench.report.claims.commands import command, cost
from bench.report.claims.folders import Shelf, name, rank
from bench.report.claims.measures import Counted, Slope, Stored, Trained, Untestable
from bench.report.claims.outcome import Outcome
from bench.report.claims.read import SCALES, Claim

Status = Literal["reproduced", "not reproduced", "not testable here"]
STATUSES: tuple[Status, ...] = get_args(Status)
"""In the order in which they are counted and listed: what was decided first."""


@dataclass(frozen=True)
class Verdict:
    """What the results say of a claim."""

    claim: Claim
    status: Status
    shown: str
    """What was measured with its interval, one line; also where that decides nothing. Empty: nothing was."""
    reason: str = ""
    """Why it is not testable here."""
    device: str = ""
    """Where it was measured."""
    folders: tuple[str, ...] = ()
    """Results behind it, such as ``cpu-2core/nvs-tiny``."""
    command: str = ""
    """What would test it, where that is not done."""
    cost: str = ""
    """What that would take."""

    @property
    def told(self) -> str:
        """The status as it is shown: of a quoted size of which the direction alone was tested, it says so."""
        return f"{self.status} (direction)" if self.claim.of_direction and self.status != STATUSES[2] else self.status


@dataclass(frozen=True)
class _Heard:
    """What one folder said."""

    outcome: Outcome
    device: str
    folder: str
    rank: int

    @property
    def status(self) -> Status:
        return STATUSES[2] if self.outcome.agrees is None else STATUSES[0] if self.outcome.agrees else STATUSES[1]


def judge(claims: Sequence[Claim], folders: Sequence[Path]) -> tuple[Verdict, ...]:
    """A verdict on each claim.

    Of the results that a claim's measure is about, those of the largest scale count at which one decides it; of several there,
    the one with most seeds, and a GPU before a processor. Where another, there or above, says otherwise, that stands beside it.

    Raises:
        UserError: a folder is no result, or a claim names a metric that its comparison does not measure.
    """
    shelf = Shelf(folders)
    return tuple(_judge(claim, shelf) for claim in claims)


def _judge(claim: Claim, shelf: Shelf) -> Verdict:
    if isinstance(claim.measure, Untestable):
        return _untested(claim, claim.measure.reason)
    heard = _hear(claim, claim.measure, shelf)
    if not heard:
        return _untested(claim, "no such run is among the results")
    decides = [each for each in heard if each.outcome.agrees is not None and each.rank >= rank(claim.scale)]
    largest = max(each.rank for each in decides or heard)
    first, *others = [each for each in decides or heard if each.rank == largest]
    contrary = [each for each in heard if each.rank >= largest and each.status != first.status]
    shown = "; ".join(
        [first.outcome.shown, *(f"{each.status} by {each.folder}: {each.outcome.shown}" for each in contrary)]
    )
    behind = (first.device, tuple(each.folder for each in (first, *others)))
    if largest < rank(claim.scale):
        below = SCALES[largest] if largest >= 0 else "what was run"
        return _untested(claim, f"{below} is below {claim.scale}, the smallest scale for this claim", shown, *behind)
    if first.outcome.agrees is None:
        return _untold(claim, first, shown, behind[1])
    return Verdict(claim, first.status, shown, "", *behind)


def _hear(claim: Claim, measure: Trained | Stored, shelf: Shelf) -> list[_Heard]:
    """What every result folder says that a measure is about."""
    if isinstance(measure, Trained):
        return [
            _Heard(
                trained.say(claim, measure, trial),
                f"{trial.comparison.record.device.kind}: {trial.comparison.record.device.name}",
                name(trial.comparison.folder),
                trial.rank,
            )
            for trial in shelf.trials(measure)
        ]
    outcomes = [(made, measured.say(claim, measure, made)) for made in shelf.measured(claim.task)]
    if isinstance(measure, Counted | Slope):  # a scaling curve holds few calls and rows: it is heard where those tell
        swept = ((made, measured.say(claim, measure, made)) for made in shelf.swept(claim.task))
        outcomes += [(made, outcome) for made, outcome in swept if outcome.shown]
    return [
        _Heard(
            outcome,
            "counted" if measure.is_exact else f"{made.record.device.kind}: {made.record.device.name}",
            name(made.folder),
            rank(claim.scale) if measure.is_exact else rank(made.record.preset),
        )
        for made, outcome in outcomes
    ]


def _untested(claim: Claim, reason: str, shown: str = "", device: str = "", folders: tuple[str, ...] = ()) -> Verdict:
    """Not testable here: why, and what would do it."""
    wanted = command(claim)
    where = (device, folders) if shown else ("", ())
    return Verdict(claim, STATUSES[2], shown, reason, *where, wanted, cost(wanted))


def _untold(claim: Claim, heard: _Heard, shown: str, folders: tuple[str, ...]) -> Verdict:
    """Not testable here, by a result of the right scale. Where seeds are missing to it, so many are asked for."""
    found = _untested(claim, heard.outcome.reason, shown, heard.device, folders)
    needed = heard.outcome.needed
    if not needed:
        return found
    wanted = "" if math.isinf(needed) else command(claim, int(needed))
    return replace(found, command=wanted, cost=cost(wanted))
