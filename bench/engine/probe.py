"""One probe: real steps at one batch size, their memory and their speed."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bench.engine.batchfit import ProbeResult
from bench.engine.launch import ChildOutOfMemory, run_isolated
from bench.engine.memory import MemoryMeter, is_out_of_memory

if TYPE_CHECKING:
    from bench.contracts import Batch, Clock


def _nothing() -> None:
    pass


def measure(
    step: Callable[[Batch], object],
    make_batch: Callable[[int], Batch],
    evaluate_once: Callable[[], object] | None,
    batch: int,
    meter: MemoryMeter,
    clock: Clock,
    *,
    steps: int = 3,
    seconds: float = 0.5,
    most_steps: int = 20,
    synchronize: Callable[[], None] = _nothing,
) -> ProbeResult:
    """Train on worst-case batches of `batch` samples, evaluate once, and report memory and speed.

    Call it once in a process of its own, with model and optimiser built and nothing trained: the first step makes the
    optimiser's state, which belongs to the peak.

    Args:
        step: one whole training step on a host batch, e.g. `bench.engine.step.TrainingStep`.
        make_batch: host batch of the largest shapes, e.g. ``task.worst_case``; a new one each step, as in training.
        evaluate_once: one evaluation step at its own batch, or None.
        batch: number of samples.
        meter: started here. On a CPU make it ``CpuMeter(limit, end_above=1.5)``: a hopeless batch is then ended early,
            one that misses by less still tells by how much.
        clock: times the steps.
        steps: least number of steps.
        seconds: small batches go on for this long, so that the median has more to choose from,
        most_steps: but for no more steps than this.
        synchronize: waits for the device.

    Returns:
        samples/s from the median step, the first one left out. Out of memory is a result, every other error is raised.
    """
    meter.start()
    times: list[int] = []
    try:
        while len(times) < steps or (len(times) < most_steps and sum(times) < seconds * 1e9):
            host_batch = make_batch(batch)
            start = clock.now()
            step(host_batch)
            synchronize()
            times.append(clock.now() - start)
        if evaluate_once is not None:
            evaluate_once()
            synchronize()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).strip().splitlines()
        return ProbeResult(batch, None, None, False, reason[0] if reason else "out of memory")
    peak = meter.peak()
    misfit = None
    if peak.bytes > meter.limit():
        misfit = f"takes {peak.bytes / meter.limit():.0%} of the memory limit"
    elif peak.retries:
        misfit = f"the allocator retried {peak.retries} times"
    median = statistics.median(times[1:] or times)
    return ProbeResult(batch, peak.bytes, 1e9 * batch / max(1, median), misfit is None, misfit, peak.retries)


def isolated(
    function: Callable[..., dict[str, Any]], *arguments: Any, timeout_s: float
) -> Callable[[int], ProbeResult]:
    """Make the probe that `bench.engine.batchfit.search` calls: each batch size in a fresh process.

    Args:
        function: importable by name; ``function(*arguments, batch)`` builds everything, calls `measure` and returns
            ``ProbeResult.to_record()``.
        *arguments: picklable.
        timeout_s: seconds for one probe.

    Returns:
        ``probe(batch) -> ProbeResult``; a process that ran out of memory is a batch that does not fit.
    """

    def probe(batch: int) -> ProbeResult:
        try:
            return ProbeResult(**run_isolated(function, *arguments, batch, timeout_s=timeout_s))
        except ChildOutOfMemory as error:
            return ProbeResult(batch, None, None, False, str(error))

    return probe
