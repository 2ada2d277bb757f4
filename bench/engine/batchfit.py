"""How large a batch fits, and how large a batch needs to be: a search over a few real probes.

A probe runs real training steps at one batch size (`bench.engine.probe`) and costs seconds to minutes, so there are at most
six. The memory model ``peak = a + b * batch`` and the throughput model ``step time = c + d * batch`` only say *where to
probe next*; whatever the search answers (`max_fit`, `knee`, a fixed batch) is a batch whose probe ran and fitted. So an
architecture whose memory is not affine costs probes, never a wrong answer.

The plan: 2 and 8 samples give a first line. A long extrapolation is wrong (the slope falls with the batch, and at small
batches it drowns in noise), so a jump of more than four times goes only 60 % of the way, and the line through the nearest
points then aims at 97 % of the limit. A batch that fits and fills 94.5 % ends the search; what is left of the six probes goes
to the knee. Simulated with affine memory: always filled, 4 probes mostly; with 2 % of noise on every peak, fewer than 1 in 100
searches end below 90 %.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from bench.errors import UserError

MAX_PROBES = 6
GOAL = 0.945
"""Share of the limit that a fitting batch should fill. On CUDA the limit is 95 % of the device, so this is 90 % of it."""
AIM = 0.97
"""Share of the limit that the line aims at: about as far from the goal as from the limit."""
AIM_BELOW = 0.95
"""What it aims at below a batch that missed."""
LEVER = 0.75
"""Two points make a line if their batches differ by at least this ratio: neighbours would make a slope out of noise."""
ON_THE_WAY = 0.6
"""Share of what is still free that a long jump aims at."""
NOISE = 0.02
"""How much two probes of one size may differ."""
FIRST, SECOND = 2, 8
"""Batches that the search begins with."""
FAR = 4.0
"""Ratio of batches above which the line is not trusted up to the limit."""
LARGEST_JUMP = 32
"""Largest ratio of a batch to the largest one probed before."""
KNEE = 0.95
"""Share of the best samples/s that the knee must reach."""


@dataclass(frozen=True)
class ProbeResult:
    """What one batch size did."""

    batch: int
    peak_bytes: int | None
    """Most memory taken; None where the probe ran out of memory before it could say."""
    samples_per_s: float | None
    fits: bool
    """It ran, within the limit and without allocator retries."""
    error: str | None = None
    """Why it does not fit; None where it does."""
    retries: int = 0

    def to_record(self) -> dict[str, Any]:
        """An entry of ``curve`` in ``arms/ARM.json``."""
        return {key: value for key, value in asdict(self).items() if key != "retries" or value}


class ProbeError(UserError):
    """A probe failed with an ordinary error, which says nothing about memory; `trace` has all of it."""

    def __init__(self, message: str, trace: str) -> None:
        """Keep the one line for the user and the whole trace for ``--debug``."""
        super().__init__(message)
        self.trace = trace


@dataclass(frozen=True)
class BatchFit:
    """The memory and throughput curve of one arm on one device."""

    limit_bytes: int
    cap: int
    """Largest batch that was allowed: the number of training samples."""
    curve: tuple[ProbeResult, ...]
    """Every probe, by batch."""
    a: float
    """Bytes that training takes apart from the samples, by a line through the largest batches that fit."""
    b: float
    """Bytes a sample."""

    @property
    def fitting(self) -> tuple[ProbeResult, ...]:
        """The probes that fitted and that no smaller misfit contradicts, by batch."""
        misfit = min((p.batch for p in self.curve if not p.fits), default=math.inf)
        return tuple(p for p in self.curve if p.fits and p.batch < misfit)

    @property
    def max_fit(self) -> int:
        """Largest batch that fits."""
        return self.fitting[-1].batch

    @property
    def knee(self) -> int:
        """Smallest probed batch with at least 95 % of the best samples/s."""
        best = max(p.samples_per_s or 0.0 for p in self.fitting)
        return next(p.batch for p in self.fitting if (p.samples_per_s or 0.0) >= KNEE * best)

    def at(self, batch: int) -> ProbeResult | None:
        """The probe of `batch`, if there was one."""
        return next((p for p in self.curve if p.batch == batch), None)


@dataclass(frozen=True)
class Policy:
    """How the batch is chosen from the fit: ``fill``, ``knee`` or ``fixed:N``."""

    kind: Literal["fill", "knee", "fixed"]
    size: int | None = None

    def __str__(self) -> str:
        return f"fixed:{self.size}" if self.kind == "fixed" else self.kind


@dataclass(frozen=True)
class BatchChoice:
    """The batch that an arm trains with."""

    policy: Policy
    batch: int
    """Samples of a step: micro-batch and optimiser batch are the same."""
    fit: BatchFit

    @property
    def memory_filled(self) -> float:
        """Share of the limit that the chosen batch takes."""
        return self._peak() / self.fit.limit_bytes

    def _peak(self) -> int:
        probe = self.fit.at(self.batch)
        assert probe is not None, "a chosen batch was probed"
        assert probe.peak_bytes is not None, "a probe that fitted knows its peak"
        return probe.peak_bytes

    def to_record(self) -> dict[str, Any]:
        """The entry ``batch`` of ``arms/ARM.json``."""
        return {
            "policy": str(self.policy),
            "micro_batch": self.batch,
            "optimizer_batch": self.batch,
            "limit_bytes": self.fit.limit_bytes,
            "peak_bytes": self._peak(),
            "memory_filled": self.memory_filled,
            "max_fit": self.fit.max_fit,
            "knee": self.fit.knee,
            "fit": {"a": self.fit.a, "b": self.fit.b},
            "curve": [probe.to_record() for probe in self.fit.curve],
        }


def parse_policy(text: str) -> Policy:
    """Read ``fill``, ``knee`` or ``fixed:N`` (N >= 1)."""
    if text in ("fill", "knee"):
        return Policy(text)  # type: ignore[arg-type]
    if (found := re.fullmatch(r"fixed:0*([1-9]\d*)", text)) is not None:
        return Policy("fixed", int(found.group(1)))
    raise UserError(f"batch policy must be fill, knee or fixed:N with N >= 1, got {text!r}")


def choose(fit: BatchFit, policy: Policy) -> BatchChoice:
    """Pick the batch of `policy` from what was probed.

    Raises:
        UserError: a fixed batch is larger than the training set or does not fit.
    """
    if policy.kind == "fill":
        return BatchChoice(policy, fit.max_fit, fit)
    if policy.kind == "knee":
        return BatchChoice(policy, fit.knee, fit)
    size = policy.size or 0
    if size > fit.cap:
        raise UserError(
            f"batch policy {policy}: there are only {fit.cap} training samples: choose fixed:{fit.cap} or less"
        )
    probe = fit.at(size)
    if probe is not None and probe in fit.fitting:
        return BatchChoice(policy, size, fit)
    if probe is None and size < fit.max_fit:
        raise ValueError(f"batch {size} was not probed: call search(..., also=[{size}])")
    need = probe.peak_bytes if probe is not None and probe.peak_bytes is not None else fit.a + fit.b * size
    raise UserError(
        f"batch policy {policy}: {size} samples need about {_size(need)} of {_size(fit.limit_bytes)}: "
        f"choose fixed:{fit.max_fit} or less, or raise the memory limit"
    )


def search(
    probe: Callable[[int], ProbeResult],
    limit_bytes: int,
    cap: int,
    *,
    also: Sequence[int] = (),
    max_probes: int = MAX_PROBES,
    knee: bool = True,
) -> BatchFit:
    """Find the largest batch that fits, then where the throughput levels off.

    Args:
        probe: runs one batch size; reports running out of memory in its result and raises everything else.
        limit_bytes: memory that training may take.
        cap: largest sensible batch, the number of training samples (>= 1).
        also: batches of ``fixed:N`` policies: probed on top of `max_probes`, unless a smaller batch did not fit or the line
            puts them at more than one and a half times the limit.
        max_probes: most probes in all, apart from `also`.
        knee: whether probes that are left over may go to the knee.

    Raises:
        ProbeError: a probe raised an ordinary error.
        UserError: not even one sample fits.
    """
    hunt = _Hunt(probe, limit_bytes, cap, max_probes)
    hunt.fill()
    if knee:
        hunt.find_knee()
    for size in sorted(set(also)):
        a, b = hunt.line(hunt.fitting())
        hopeless = (
            size > cap
            or size > hunt.low_misfit
            or (size > hunt.fitting()[-1].batch and a + b * size > 1.5 * limit_bytes)
        )
        if size not in hunt.done and not hopeless:
            hunt.run(size)
    a, b = hunt.line(hunt.fitting())
    curve = tuple(hunt.done[size] for size in sorted(hunt.done))
    return BatchFit(limit_bytes=limit_bytes, cap=cap, curve=curve, a=a, b=b)


class _Hunt:
    """The probes so far, and where to probe next."""

    def __init__(self, probe: Callable[[int], ProbeResult], limit: int, cap: int, max_probes: int) -> None:
        if cap < 1:
            raise UserError(f"the training set must have at least 1 sample, got {cap}")
        self.probe, self.limit, self.cap, self.max_probes = probe, limit, cap, max_probes
        self.done: dict[int, ProbeResult] = {}

    @property
    def low_misfit(self) -> float:
        return min((p.batch for p in self.done.values() if not p.fits), default=math.inf)

    def fitting(self) -> list[ProbeResult]:
        return [self.done[size] for size in sorted(self.done) if self.done[size].fits and size < self.low_misfit]

    def run(self, size: int) -> ProbeResult:
        try:
            result = self.probe(size)
        except UserError:
            raise
        except Exception as error:
            trace = getattr(error, "trace", None) or f"{type(error).__name__}: {error}"
            text = str(error) if hasattr(error, "trace") else trace
            raise ProbeError(f"probe of batch {size} failed, and not for want of memory: {text}", trace) from error
        self.done[size] = result
        return result

    def fill(self) -> None:
        """Probe until a batch fits and fills the limit to the goal, or its successor does not fit."""
        self.run(min(FIRST, self.cap))
        while not self._filled() and len(self.done) < self.max_probes:
            size = self._next()
            if size is None:
                break
            self.run(size)
        if not self.fitting() and 1 not in self.done:  # the last resort does not count
            self.run(1)
        if not self.fitting():
            need = self.done[1].peak_bytes
            needs = f"needs {_size(need)}" if need is not None else f"runs out of memory ({self.done[1].error})"
            raise UserError(
                f"not even one sample fits: batch 1 {needs}, the memory limit is {_size(self.limit)}: raise the limit, or "
                "choose a smaller preset"
            )

    def _filled(self) -> bool:
        fitting = self.fitting()
        if not fitting:
            return self.low_misfit == 1
        top = fitting[-1]
        enough = top.peak_bytes is not None and top.peak_bytes >= GOAL * self.limit
        return enough or top.batch + 1 >= min(self.low_misfit, self.cap + 1)

    def _next(self) -> int | None:
        fitting = self.fitting()
        if not fitting:
            return max(1, int(self.low_misfit) // 2)
        low = fitting[-1].batch
        high = int(min(self.low_misfit, self.cap + 1))
        size = SECOND if len(fitting) == 1 else self._along_the_line(fitting)
        if self.low_misfit < math.inf:
            size = self._below_misfit(fitting, self.done[int(self.low_misfit)])
        return min(max(size, low + 1), high - 1, low * LARGEST_JUMP)

    def _along_the_line(self, fitting: list[ProbeResult]) -> int:
        low = fitting[-1].batch
        a, b = self.line(fitting)
        aim = AIM * self.limit
        if b > 0 and (aim - a) / b <= FAR * low:
            return int((aim - a) / b)
        # Far away: no further than the slope allows if the difference of the two peaks is off by the noise of one.
        here = a + b * low
        reach = low - next((p.batch for p in reversed(fitting) if p.batch <= LEVER * low), 0)
        steepest = b + NOISE * here / reach
        if steepest <= 0:
            return low * LARGEST_JUMP
        return int(max(low + ON_THE_WAY * (aim - here) / steepest, FAR * low))

    def _below_misfit(self, fitting: list[ProbeResult], misfit: ProbeResult) -> int:
        """Between the largest that fits and the smallest that does not."""
        top = fitting[-1]
        if misfit.peak_bytes is not None and misfit.peak_bytes > self.limit:
            # A power law through both sides of the limit is exact nearby for affine memory and good for any other.
            low = next((p for p in reversed(fitting) if p.batch <= LEVER * misfit.batch), fitting[0])
            power = math.log(misfit.peak_bytes / (low.peak_bytes or 1)) / math.log(misfit.batch / low.batch)
            return int(misfit.batch * (AIM_BELOW * self.limit / misfit.peak_bytes) ** (1 / power))
        if len(fitting) >= 3 and self._line_holds(fitting):
            return int(0.94 * misfit.batch)  # the line was right, the allocator had less than the limit to give
        return int(math.sqrt(top.batch * misfit.batch))

    def _line_holds(self, fitting: list[ProbeResult]) -> bool:
        a, b = self.line(fitting[:-1])
        top = fitting[-1]
        return top.peak_bytes is not None and abs(a + b * top.batch - top.peak_bytes) <= 0.1 * top.peak_bytes

    def line(self, fitting: Sequence[ProbeResult]) -> tuple[float, float]:
        """``(a, b)`` of peak = a + b * batch, through the largest batch that fits and the nearest one well below it."""
        known = [(p.batch, p.peak_bytes) for p in fitting if p.peak_bytes is not None]
        x1, y1 = known[-1]
        if len(known) < 2:
            return 0.0, y1 / x1
        x0, y0 = next((point for point in reversed(known) if point[0] <= LEVER * x1), known[0])
        b = (y1 - y0) / (x1 - x0)
        return y1 - b * x1, b

    def find_knee(self) -> None:
        """Spend what is left of the probes on narrowing down where the throughput levels off."""
        while len(self.done) < self.max_probes:
            fitting = self.fitting()
            speeds = [p.samples_per_s or 0.0 for p in fitting]
            best = max(speeds)
            first = next(i for i, speed in enumerate(speeds) if speed >= KNEE * best)
            if first == 0 or fitting[first].batch <= 1.25 * fitting[first - 1].batch:
                return
            size = _level_off(fitting[first - 1], fitting[first], (KNEE + 1) / 2 * best)
            if size in self.done:
                return
            self.run(size)


def _level_off(below: ProbeResult, above: ProbeResult, goal: float) -> int:
    """Batch between two probes at which samples/s reach `goal` if the step time runs straight between them."""
    x0, x1 = below.batch, above.batch
    if below.samples_per_s and above.samples_per_s:
        t0, t1 = x0 / below.samples_per_s, x1 / above.samples_per_s
        slope = (t1 - t0) / (x1 - x0)
        if goal * slope < 1:
            size = math.ceil(goal * (t0 - slope * x0) / (1 - goal * slope))
            if x0 < size < x1:
                return size
    return min(max(round(math.sqrt(x0 * x1)), x0 + 1), x1 - 1)


def _size(count: float) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
