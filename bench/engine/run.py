"""What a run is told, and how it can fail."""

from __future__ import annotations

from dataclasses import dataclass

from bench.engine.progress import Curve
from bench.engine.step import StepSettings


class Diverged(Exception):
    """The loss or the outputs are not finite any more."""

    status = "diverged"


class OutOfMemory(Exception):
    """The device had no room for a step."""

    status = "out-of-memory"


@dataclass(frozen=True)
class RunSettings:
    """What a run needs to know beside its architecture and task."""

    arm: str
    seed: int
    batch: int
    """Samples per step in each process."""
    step: StepSettings
    curve: Curve
    """Factor on the learning rate as a function of progress."""
    eval_fractions: tuple[float, ...]
    """Shares of the budget at which to evaluate, ascending; 1.0 is the result."""
    unit: str = "seconds"
    """What the budget counts: ``seconds``, ``steps`` or ``samples``."""
    compile: bool = False
    charge_compilation: bool = False
    """Cold mode: no warm-up on dummy data, so that compilation falls into the charged seconds."""
