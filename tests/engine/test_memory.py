from __future__ import annotations

import sys

import pytest
import torch

from bench.engine import memory
from bench.engine.launch import run_isolated
from bench.engine.memory import CpuMeter, is_out_of_memory
from tests.engine import isolated_functions as functions

MIB = 2**20
linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's peak is read from /proc")


@linux
@pytest.mark.parametrize("keep", [True, False])
def test_a_known_allocation_is_measured_to_two_percent_even_if_it_was_freed(keep: bool) -> None:
    peak = run_isolated(functions.take, 200, keep, timeout_s=120)
    assert peak["retries"] == 0
    assert not peak["sampled"]
    assert peak["peak"] == pytest.approx(200 * MIB, rel=0.02)


@linux
def test_a_peak_before_the_start_is_not_seen() -> None:
    peak, *_ = run_isolated(functions.two_peaks, 100, timeout_s=120)
    assert peak == pytest.approx(100 * MIB, rel=0.02)


def test_where_the_kernel_keeps_no_peak_it_is_sampled_and_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_reset_peak", lambda: False)
    meter = CpuMeter(limit_bytes=MIB)
    meter.start()
    held = torch.ones(100 * MIB // 4)
    assert meter.peak().bytes >= 90 * MIB
    assert "sampled" in meter.note
    del held


def test_limit_is_what_was_declared() -> None:
    assert CpuMeter(512 * MIB).limit() == 512 * MIB


def test_steady_allocator_keeps_the_measure_right() -> None:
    if not run_isolated(functions.steady, timeout_s=120):
        pytest.skip("the C library is not glibc")
    peak, again = run_isolated(functions.steady_peaks, 100, timeout_s=120)
    assert peak == pytest.approx(100 * MIB, rel=0.02)
    assert again == pytest.approx(100 * MIB, rel=0.02)  # memory that is kept for later is not the next one's


def test_only_memory_errors_are_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as real:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(real.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    for other in (
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        RuntimeError("CUDA error: invalid configuration argument"),
        ValueError("CUDA out of memory"),
        KeyError("x"),
    ):
        assert not is_out_of_memory(other)


def test_available_memory_is_positive_and_below_the_machines() -> None:
    import psutil

    assert 0 < memory.available() <= psutil.virtual_memory().total


@pytest.mark.gpu
def test_cuda_meter_counts_what_the_allocator_reserves() -> None:
    device = torch.device("cuda")
    meter = memory.CudaMeter(device)
    meter.start()
    before = torch.cuda.memory_reserved(device)
    held = torch.empty(200 * MIB, dtype=torch.uint8, device=device)
    peak = meter.peak()
    assert before + 200 * MIB <= peak.bytes <= before + 232 * MIB
    assert peak.retries == 0
    assert meter.limit() <= 0.95 * torch.cuda.get_device_properties(device).total_memory
    del held
