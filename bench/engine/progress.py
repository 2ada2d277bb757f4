"""Where a run stands (position), and what follows from it (curve). A curve never reads a clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

Curve = Callable[[float], float]


class Budget:
    """How much a run may spend, in seconds (or, for exact tests and views, in steps or samples).

    `expected` is an exponential moving average of what a step costs. The run stops when ``spent + expected/2 > total``:
    a method with slow steps gets no free step. Where a device runs behind the host, steps that were launched but whose
    cost is not known yet count as expected.
    """

    def __init__(self, total: float, expected: float = 0.0, decay: float = 0.9) -> None:
        """Allow `total` > 0 units; `expected` is the cost of a step as far as known (from warm-up)."""
        if not (total > 0 and math.isfinite(total)):
            raise ValueError(f"budget must be > 0 and finite, got {total}")
        self.total, self.expected, self._decay = float(total), float(expected), decay
        self.spent = 0.0
        self.pending = 0
        self.last = 0.0
        self._promised = 0.0

    def step_launched(self) -> None:
        """Take note that a step was decided upon."""
        self._promised = self._foreseen
        self.pending += 1

    def step_taken(self, spent: float) -> None:
        """Take note that the oldest launched step has ended with `spent` units gone in all."""
        self.last = spent - self.spent
        self.expected = self._decay * self.expected + (1 - self._decay) * self.last if self.expected else self.last
        self.spent = spent
        self.pending -= 1

    def close(self, spent: float | None) -> None:
        """Take note of what the last step's record cost, once no step is to come (None: nothing in this unit)."""
        self.spent = self.spent if spent is None else spent

    @property
    def _foreseen(self) -> float:
        """Units gone at the middle of the next step, as far as can be foreseen."""
        return self.spent + (self.pending + 0.5) * self.expected

    @property
    def exhausted(self) -> bool:
        """Whether the next step would end, on average, beyond the budget."""
        return self._foreseen > self.total

    @property
    def fraction(self) -> float:
        """Share of the budget that is known to be spent, in [0, 1]."""
        return min(self.spent / self.total, 1.0)

    @property
    def overshoot(self) -> float:
        """Units spent beyond the budget (0 if none)."""
        return max(0.0, self.spent - self.total)

    @property
    def overshoot_bound(self) -> float:
        """The most that the last decision can have overshot: what came of it less what was foreseen for it.

        Without a backlog that is the last step's cost less half of what was expected of it.
        """
        return max(0.0, self.spent - self._promised)

    def progress(self) -> float:
        """Position of the step to come: the middle of where it is expected to fall, in [0, 1]."""
        return min(max(self._foreseen / self.total, 0.0), 1.0)

    def state(self) -> dict[str, float]:
        """State for a checkpoint, which is taken when nothing is pending."""
        return {"spent": self.spent, "expected": self.expected, "last": self.last, "promised": self._promised}

    def restore(self, state: Mapping[str, float]) -> None:
        """Inverse of `state`."""
        self.spent, self.expected = state["spent"], state["expected"]
        self.last, self._promised = state["last"], state["promised"]


class ReplayedBudget(Budget):
    """The positions that an earlier run recorded, one a step: time turned into a step schedule."""

    def __init__(self, trace: Sequence[float]) -> None:
        """Replay `trace`, the recorded progress of each step."""
        super().__init__(total=max(len(trace), 1), expected=0.0)
        self._trace = trace

    def step_taken(self, spent: float) -> None:
        """Go to the next recorded position; what it costs this time does not matter."""
        self.pending -= 1
        self.spent += 1.0

    @property
    def exhausted(self) -> bool:
        """Whether all recorded steps are launched."""
        return int(self.spent) + self.pending >= len(self._trace)

    def progress(self) -> float:
        """The recorded position of the step to come."""
        return self._trace[int(self.spent) + self.pending]


def cosine(p: float) -> float:
    """Half a cosine from 1 at p = 0 to exactly 0 at p = 1."""
    return 0.5 * (1.0 + math.cos(math.pi * p)) if p < 1.0 else 0.0


def linear(p: float) -> float:
    """A straight line from 1 at p = 0 to 0 at p = 1."""
    return 1.0 - p


def trapezoid(cooldown: float) -> Curve:
    """Constant 1, then a straight line to 0 over the last `cooldown` of the run (0 < cooldown <= 1)."""
    return lambda p: min(1.0, (1.0 - p) / cooldown)


CURVES = ("cosine", "linear", "trapezoid")


def learning_rate_curve(name: str, warmup: float, cooldown: float = 0.2) -> Curve:
    """Factor on the learning rate as a function of progress: a straight warm-up over `warmup`, then the named decay.

    Raises:
        ValueError: `name` is none of `CURVES`.
    """
    decays: dict[str, Curve] = {"cosine": cosine, "linear": linear, "trapezoid": trapezoid(cooldown)}
    if name not in decays:
        raise ValueError(f"training.curve must be one of {', '.join(CURVES)}, got {name!r}")
    decay = decays[name]

    def curve(p: float) -> float:
        if p < warmup:
            return p / warmup
        return decay((p - warmup) / (1.0 - warmup)) if warmup < 1.0 else 1.0

    return curve
