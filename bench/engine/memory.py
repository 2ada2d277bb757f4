"""How much memory training takes: one meter for CUDA, one for the CPU, and what counts as running out."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

MEBIBYTE = 2**20
OUT_OF_MEMORY_EXIT = 86
"""Exit code of a process that was ended because it took too much memory."""
CUDA_SHARE = 0.95
"""Share of the device's memory that the allocator may reserve; the rest is for the context and for fragmentation."""


class Peak(NamedTuple):
    """The largest amount of memory in use since `MemoryMeter.start`."""

    bytes: int
    retries: int
    """Times that the allocator had to flush its cache to go on (CUDA; 0 on a CPU)."""


class MemoryMeter(Protocol):
    """Measures what training takes of the device's memory."""

    def limit(self) -> int:
        """Bytes that may be taken."""
        ...

    def start(self) -> None:
        """Begin: what is in use now is the baseline. Call after the model and the optimiser were built."""
        ...

    def peak(self) -> Peak:
        """Most bytes taken since `start`."""
        ...


class CudaMeter:
    """Memory that PyTorch's allocator reserves on a CUDA device, model and optimiser included."""

    def __init__(self, device: torch.device, limit_bytes: int | None = None) -> None:
        """Limit to `limit_bytes`, or to 95 % of the device, but never to more than is free now."""
        free, total = torch.cuda.mem_get_info(device)
        usable = min(int(CUDA_SHARE * total), free + torch.cuda.memory_reserved(device))
        self._device = device
        self._limit = usable if limit_bytes is None else min(limit_bytes, usable)
        self._retries = 0

    def limit(self) -> int:
        """Bytes that the allocator may reserve."""
        return self._limit

    def start(self) -> None:
        """Empty the cache and forget earlier peaks."""
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)
        self._retries = self._alloc_retries()

    def peak(self) -> Peak:
        """Most bytes reserved since `start`, and the allocator's retries."""
        return Peak(torch.cuda.max_memory_reserved(self._device), self._alloc_retries() - self._retries)

    def _alloc_retries(self) -> int:
        return int(torch.cuda.memory_stats(self._device).get("num_alloc_retries", 0))


class CpuMeter:
    """What a process adds to its resident set on a CPU, against a declared number of bytes.

    On Linux the kernel keeps the peak (``VmHWM``), which is reset at `start`: no peak is missed. Elsewhere the resident
    set is sampled every few milliseconds, which can miss short peaks; `note` then says so. (``ru_maxrss`` would not do: it
    is inherited across exec and cannot be reset.)
    """

    def __init__(self, limit_bytes: int, end_above: float | None = None) -> None:
        """Measure against `limit_bytes`, the declared budget for what training adds.

        With `end_above` this process is ended with `OUT_OF_MEMORY_EXIT` as soon as it takes that many times the limit: for
        probes in processes of their own (`bench.engine.launch`), so that a hopeless batch does not eat the machine.
        """
        self._limit, self._end_above = limit_bytes, end_above
        self._baseline = 0
        self._sampler: _Sampler | None = None
        self.note = ""

    def limit(self) -> int:
        """The declared bytes."""
        return self._limit

    def start(self) -> None:
        """Hand freed memory back to the system, then take the baseline and reset the peak."""
        trim()
        if not _reset_peak():
            self.note = "peak memory is sampled: this system keeps no peak that can be reset"
            self._sampler = _Sampler()
            self._sampler.start()
        self._baseline = resident()
        if self._end_above is not None:
            Guard(resident, self._baseline + int(self._end_above * self._limit)).start()

    def peak(self) -> Peak:
        """Bytes of the largest resident set since `start` above the one at `start`."""
        highest = _status_bytes("VmHWM") if self._sampler is None else self._sampler.highest()
        return Peak(max(0, highest - self._baseline), 0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, on either device; every other error is not about the batch."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        sign in text
        for sign in (
            "DefaultCPUAllocator: can't allocate memory",  # malloc said no
            "DefaultCPUAllocator: not enough memory",  # the same on Windows
            "CUDA out of memory",
            "CUDA error: out of memory",
            "CUBLAS_STATUS_ALLOC_FAILED",
            "CUDNN_STATUS_ALLOC_FAILED",
            "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        )
    )


def resident() -> int:
    """Bytes of this process in memory now."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    except OSError:
        import psutil

        return int(psutil.Process().memory_info().rss)


def own() -> int:
    """Bytes of this process in memory that no file backs: its data, without the libraries that it shares."""
    try:
        pages = Path("/proc/self/statm").read_text().split()
        return (int(pages[1]) - int(pages[2])) * _PAGE
    except OSError:
        return resident()


def available() -> int:
    """Bytes that this process could still take: free in the machine and in its control group."""
    import psutil

    free = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    for most, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            free = min(free, max(0, int((group / most).read_text()) - int((group / used).read_text())))
        except (OSError, ValueError):  # absent, or "max": no limit
            continue
    return free


def steady_allocator() -> bool:
    """Make the C library keep freed memory for the next step, in the same way from the first step on.

    By default glibc hands large blocks back to the system, which must zero every page anew in the next step, and moves the
    size at which it does so while the program runs. Fixed at the largest size that it moves to (32 MiB) and without
    shrinking the heap, training on a CPU was 3 to 12 % faster (small transformers, interleaved). Probes and runs must use
    the same setting, for it changes what a step takes (by 2 to 6 % there): call it first thing in both. Returns False
    where the C library is another one.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    mmap_threshold, trim_threshold = -3, -1  # names in malloc.h
    return bool(mallopt(mmap_threshold, 32 * MEBIBYTE) and mallopt(trim_threshold, 1024 * MEBIBYTE))


def trim() -> None:
    """Free what Python and the C library keep for later, so that the resident set says what is in use."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):  # not glibc
        return


_PAGE = 4096
try:
    import resource

    _PAGE = resource.getpagesize()
except ImportError:  # Windows has no resource module, and no /proc either
    pass


def _reset_peak() -> bool:
    """Set ``VmHWM`` to the resident set of now; False where the system does not offer that or forbids it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status_bytes("VmHWM") <= resident() + 16 * MEBIBYTE
    except (OSError, ValueError):
        return False


def _status_bytes(key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"/proc/self/status has no {key}")
    return int(found.group(1)) * 1024


class Guard(threading.Thread):
    """Ends this process at once when it takes more memory than it may, before the system ends another one."""

    def __init__(self, usage: Callable[[], int], most: int, period: float = 0.02) -> None:
        """Compare ``usage()`` with `most` bytes every `period` seconds."""
        super().__init__(name="memory guard", daemon=True)
        self._usage, self._most, self._period = usage, most, period

    def run(self) -> None:
        """Watch until the process ends."""
        while self._usage() <= self._most:
            time.sleep(self._period)
        os._exit(OUT_OF_MEMORY_EXIT)


class _Sampler(threading.Thread):
    """Reads the resident set every few milliseconds and keeps the largest."""

    def __init__(self, period: float = 0.004) -> None:
        super().__init__(name="memory sampler", daemon=True)
        self._period, self._highest = period, resident()
        self._stop_event = threading.Event()

    def run(self) -> None:
        while not self._stop_event.wait(self._period):
            self._highest = max(self._highest, resident())

    def highest(self) -> int:
        self._highest = max(self._highest, resident())
        return self._highest
