"""Two functions timed against each other on a machine that others use too."""

import gc
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """Time of the first function as a share of the second's."""

    median: float
    low: float
    high: float
    """95 % interval of the median, from the order statistics of the rounds; of fewer than 6 rounds it is their range."""
    rounds: int

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}] ({self.rounds} rounds)"


def interleaved_ratio(
    first: Callable[[], object], second: Callable[[], object], *, rounds: int, warmups: int = 2
) -> Ratio:
    """Time both functions, on one thread, in the order A B B A, ``rounds`` times, after ``warmups`` calls of each.

    A slow drift of the machine meets both alike; the median over the rounds forgets its jumps.
    """
    for _ in range(warmups):
        first()
        second()
    ratios = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            seconds = [_seconds(function) for function in (first, second, second, first)]
            ratios.append((seconds[0] + seconds[3]) / (seconds[1] + seconds[2]))
    finally:
        gc.enable()
    ratios.sort()
    # Ranks between which the true median lies with 95 % probability (binomial, normal approximation).
    reach = 1.96 * math.sqrt(rounds) / 2
    low, high = max(0, math.floor(rounds / 2 - reach)), min(rounds - 1, math.ceil(rounds / 2 + reach))
    return Ratio(statistics.median(ratios), ratios[low], ratios[high], rounds)


def _seconds(function: Callable[[], object]) -> float:
    # Processor time: what others do on the machine lengthens the wall clock's reading at random. With one thread and
    # nothing to wait for, the two are the same on an idle machine.
    start = time.process_time()
    function()
    return time.process_time() - start
