"""What would support a claim, as it stands in ``bench/claims.yaml``: one small class a kind of evidence."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bench.report.summary import View

PLACEHOLDER = "PATH/TO"
"""An option that starts so says where the reader's own data lie: it stands in the command, and no run is held against it."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Bounds(_Part):
    """Where the whole interval must lie: above a number, below one, or between two that count as inside."""

    above: float | None = None
    below: float | None = None
    within: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _one(self) -> Bounds:
        given = [bound for bound in (self.above, self.below, self.within) if bound is not None]
        if len(given) != 1:
            raise ValueError("give one of above, below, within")
        if self.within is not None and self.within[0] >= self.within[1]:
            raise ValueError(f"within must ascend, got {list(self.within)}")
        return self

    @property
    def ends(self) -> tuple[float, float]:
        """Lowest and highest value, infinite where it is open."""
        if self.within is not None:
            return self.within
        return (-math.inf if self.above is None else self.above), (math.inf if self.below is None else self.below)

    def told(self) -> str:
        """``above 0``, ``between -1 and 1``."""
        if self.within is not None:
            return f"between {self.within[0]:g} and {self.within[1]:g}"
        return f"above {self.above:g}" if self.above is not None else f"below {self.below:g}"


Expected = Bounds | None
"""Bounds that a direction, a tie or an order of growth comes to; None: the quoted value."""


class Trained(_Part):
    """What the runs of a comparison say."""

    comparison: str
    arm: str
    metric: str
    policy: str = ""
    """Batch policy; empty: the first of the comparison."""
    options: dict[str, Any] = {}
    """Of the task: a run with others tests another claim."""
    expected: Expected = None

    @property
    def arms(self) -> tuple[str, ...]:
        """Arms that it reads."""
        return (self.arm,)


class Difference(Trained):
    """One arm less another, seed by seed, in the units of the metric. A tie has `expected: {within: [-m, m]}`."""

    reference: str
    control: str = ""
    """Predictor that learns nothing which both arms must beat, for what they differ by to mean anything."""

    @property
    def arms(self) -> tuple[str, ...]:
        """Arms that it reads."""
        return (self.arm, self.reference)


class Paired(Difference):
    """Of two arms of one comparison."""

    kind: Literal["paired"]
    view: View = "time"
    """``time``: results at the end of the budget. Otherwise the headline metric at the largest common position."""


class TwoBudgets(Difference):
    """Of an arm that had a share of the reference's budget; each was annealed to its own end."""

    kind: Literal["two-budgets"]
    share: float = Field(gt=0, lt=1)
    """Of the reference's budget."""
    curve: str = ""
    """Scaling curve over the budget, whose points are read beside comparisons of that name."""
    commands: tuple[str, ...] = Field(min_length=1)
    """What would test it."""


class Reached(Trained):
    """What one arm reaches, over its seeds."""

    kind: Literal["reached"]


CALLED = ("deviation", "bytes")
"""Quantities of a call that was made, at the preset's size, not of a row that was counted."""


class Row(_Part):
    """One counted row of a task's efficiency, or one of its calls (`CALLED`)."""

    label: str
    sizes: dict[str, int]
    mode: str = "full"
    quantity: Literal[
        "flops", "training_flops", "parameters", "linear_macs", "encoder", "decoder", "deviation", "bytes"
    ] = "flops"


class Counted(_Part):
    """An exact count."""

    kind: Literal["counted"]
    first: Row
    second: Row | None = None
    form: Literal["value", "ratio", "difference", "saving"] = "value"
    """``ratio``: first over second; ``saving``: percent that the second saves of the first."""
    per: float = Field(1.0, gt=0)
    """What a value or a difference is divided by: 1e9 for GFLOP."""
    expected: Expected = None

    @model_validator(mode="after")
    def _operands(self) -> Counted:
        if (self.form == "value") != (self.second is None):
            raise ValueError("second: a value has none, every other form needs one")
        return self

    @property
    def is_exact(self) -> bool:
        """Whether it is counted, and so at full size whatever the preset of the calls that are made."""
        return self.first.quantity not in CALLED


class Ref(_Part):
    """One timed call."""

    label: str
    mode: str = "full"


class OnDevice(_Part):
    """What was timed."""

    sizes: dict[str, int]
    device: Literal["any", "cuda"] = "any"
    """``cuda``: the claim is about a GPU, and times of a processor say nothing of it."""
    expected: Expected = None


class Timed(OnDevice):
    """How many times as long the first call takes as the second, round by round."""

    kind: Literal["timed"]
    first: Ref
    second: Ref
    second_sizes: dict[str, int] | None = None
    """Null: those of the first."""

    @property
    def is_exact(self) -> bool:
        """Whether it is counted; it never is."""
        return False


class Slope(OnDevice):
    """Exponent of a cost over an axis: the slope of its logarithm by least squares."""

    kind: Literal["slope"]
    call: Ref
    axis: str
    at: tuple[int, ...] = Field(min_length=3)
    of: Literal["flops", "time"] = "flops"

    @property
    def is_exact(self) -> bool:
        """Whether it is counted."""
        return self.of == "flops"


class PublishedEntry(_Part):
    """All numbers of an entry of ``bench/published`` at once, by the rule of the task's own table of claims."""

    kind: Literal["published-entry"]
    entry: str
    commands: tuple[str, ...] = ()
    """What would test it, where that table cannot."""

    @property
    def is_exact(self) -> bool:
        """Whether it is counted; it always is."""
        return True


class Untestable(_Part):
    """Nothing that is stored can support or contradict it."""

    kind: Literal["untestable"]
    reason: str
    commands: tuple[str, ...] = ()
    """What would at least come near."""


Stored = Counted | Timed | Slope | PublishedEntry
"""What is read from a task's counts and timings."""
Measure = Annotated[Paired | TwoBudgets | Reached | Stored | Untestable, Field(discriminator="kind")]
