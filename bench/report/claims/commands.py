"""The command that would test a claim, and what it would cost."""

from __future__ import annotations

import argparse
import re
import shlex
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn

from bench import config
from bench.errors import UserError
from bench.report.claims.measures import (
    Counted,
    Paired,
    PublishedEntry,
    Reached,
    Slope,
    Timed,
    Trained,
    TwoBudgets,
    Untestable,
)
from bench.report.claims.read import Claim
from bench.report.claims.trained import SEEDS


def command(claim: Claim, seeds: int = SEEDS) -> str:
    """What a reader types; several commands are joined by ``;``, none is empty."""
    measure = claim.measure
    match measure:
        case Paired() | Reached():
            return _run(claim, measure, seeds)
        case Timed(device="cuda") | Slope(device="cuda"):
            return f"isochron measure-efficiency {claim.task} --preset {claim.scale} --device cuda"
        case Counted() | Timed() | Slope():
            return f"isochron measure-efficiency {claim.task} --preset {claim.scale}"
        case TwoBudgets():
            return "; ".join(re.sub(r"--seeds \d+", f"--seeds {seeds}", each) for each in measure.commands)
        case PublishedEntry() | Untestable():
            return "; ".join(measure.commands)


def cost(commands: str) -> str:
    """Budget by arms by seeds of what `command` gives, or that nothing is trained; empty for none."""
    return "; ".join(_cost(each) for each in commands.split("; ") if each)


@dataclass(frozen=True)
class Planned:
    """A command that was understood."""

    comparison: config.Comparison | None
    """None: nothing is trained."""
    task: str
    device: str | None


@cache
def understand(command: str) -> Planned:
    """What a command would run.

    Raises:
        UserError: it is none of ``isochron run`` and ``isochron measure-efficiency``, or names what there is not.
    """
    words = shlex.split(command)
    parser = _Parser(prog=command, add_help=False, allow_abbrev=False)
    parser.add_argument("subject")
    for name in ("preset", "budget", "seeds", "device", "batch"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--set", dest="changes", action="append", default=[])
    if words[:2] == ["isochron", "measure-efficiency"]:
        given = parser.parse_args(words[2:])
        return Planned(None, given.subject, given.device)
    if words[:2] != ["isochron", "run"]:
        raise UserError(f"{command!r}: is neither `isochron run` nor `isochron measure-efficiency`; mend the claim")
    given = parser.parse_args(words[2:])
    named: dict[str, Any] = {
        "budget": given.budget,
        "seeds": int(given.seeds) if given.seeds else None,
        "batch": given.batch.split(",") if given.batch else None,
    }
    overrides = config.merge(
        {key: value for key, value in named.items() if value is not None}, config.parse_overrides(given.changes)
    )
    comparison = config.load(given.subject, preset=given.preset, overrides=overrides)
    return Planned(comparison, str(comparison.task["name"]), given.device)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog!r}: {message}; mend the claim")


def _run(claim: Claim, measure: Trained, seeds: int) -> str:
    words = ["isochron", "run", measure.comparison, "--preset", claim.scale, "--seeds", str(seeds)]
    for key, value in measure.options.items():
        words += ["--set", f"task.{key}={value}"]
    return shlex.join(words)


def _cost(command: str) -> str:
    planned = understand(command)
    if planned.comparison is None:
        return f"no training: counting and timing alone, on {'a GPU' if planned.device == 'cuda' else 'any machine'}"
    made = planned.comparison
    arms, policies, seeds = len(made.arms), len(made.batch), len(made.seeds)
    each = made.budget.amount
    parts = [_amount(each, made.budget.unit), f"{arms} arms", *([f"{policies} policies"] if policies > 1 else [])]
    total = _amount(each * arms * policies * seeds, made.budget.unit)
    said = f"{' x '.join([*parts, f'{seeds} seeds'])} = {total} charged"
    said += f", on {'two cores' if made.preset == 'tiny' else 'one GPU'}"
    if made.pretraining is not None:
        said += f", behind {made.pretraining.steps:,} steps that all arms start from"
    return said


def _amount(amount: float, unit: str) -> str:
    if unit != "seconds":
        return f"{amount:,.0f} {unit}"
    for size, name in ((3600.0, "h"), (60.0, "min")):
        if amount >= 2 * size:
            return f"{round(amount / size, 2):,g} {name}"
    return f"{amount:g} s"
