"""A fixed piece of work, timed now and then: when the machine changes speed, the sentinel says so and not the results."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from bench.contracts import Clock

SECONDS = 1.0
"""How long one reading takes."""


def _nothing() -> None:
    pass


def make_kernel(device: torch.device) -> Callable[[], None]:
    """The work: one square product and one attention, fixed by the protocol: a few ms on a core, or on a GPU.

    It draws no random numbers, so that a reading leaves the run's own stream alone, and keeps what it needs allocated.
    """
    size, heads, tokens, channels = (2048, 16, 1024, 64) if device.type == "cuda" else (256, 4, 128, 32)
    matrix = torch.linspace(-1, 1, size * size, device=device).view(size, size) / size
    query = torch.linspace(-1, 1, heads * tokens * channels, device=device).view(1, heads, tokens, channels)

    @torch.inference_mode()
    def kernel() -> None:
        torch.mm(matrix, matrix)
        F.scaled_dot_product_attention(query, query, query)

    return kernel


def measure(
    kernel: Callable[[], None],
    clock: Clock,
    *,
    seconds: float = SECONDS,
    repeats: int = 8,
    synchronize: Callable[[], None] = _nothing,
) -> float:
    """Run `kernel` for about `seconds` and return iterations per second.

    The clock is read, and the device waited for, every `repeats` iterations: often enough to stop in time, seldom enough
    not to be what is measured. The first `repeats` warm up and do not count.
    """

    def some() -> None:
        for _ in range(repeats):
            kernel()
        synchronize()

    some()
    start = clock.now()
    end = start + int(seconds * 1e9)
    now, iterations = start, 0
    while now < end:
        some()
        iterations += repeats
        now = clock.now()
    return iterations * 1e9 / (now - start)


def drift(rates: Sequence[float]) -> float:
    """Largest relative distance of a reading from the median of all, e.g. 0.07; 0 for fewer than two readings."""
    if len(rates) < 2:
        return 0.0
    middle = statistics.median(rates)
    return max(abs(rate / middle - 1) for rate in rates)
