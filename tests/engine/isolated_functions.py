"""What the tests of launch, memory and probe run in processes of their own; importable there by name."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.engine import probe
from bench.engine.clock import SystemClock
from bench.engine.memory import CpuMeter, _status_bytes, resident, steady_allocator
from bench.errors import UserError

MIB = 2**20


def add(left: int, right: int) -> dict[str, int]:
    return {"sum": left + right}


def long_answer(size: int) -> str:
    return "x" * size


def fail() -> None:
    raise LookupError("no such view:\n7")


def fail_as_user() -> None:
    raise UserError("task.views must be >= 1, got 0")


def leave() -> None:
    sys.exit(3)


def die(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


def die_at_once(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def not_json() -> Any:
    return object()


def state_of_the_process() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "threads": len(list(Path("/proc/self/task").iterdir())) if Path("/proc/self/task").exists() else 2,
        "cuda": torch.cuda.is_initialized(),
        "probe": "bench.engine.probe" in sys.modules,
    }


def _first_touch() -> None:
    """Bring in the few MiB of library code that the first tensor operation pages in."""
    torch.ones(1000).sum().item()


def take(mebibytes: int, keep: bool = True, seconds: float = 0.0) -> dict[str, int]:
    """Touch so much memory, hand it back if asked to, and report what the meter saw."""
    _first_touch()
    meter = CpuMeter(limit_bytes=100 * mebibytes * MIB)
    meter.start()
    held = torch.ones(mebibytes * MIB // 4)
    if not keep:
        del held
    time.sleep(seconds)
    peak = meter.peak()
    return {"peak": peak.bytes, "retries": peak.retries, "sampled": int(bool(meter.note))}


def steady() -> bool:
    return steady_allocator()


def steady_peaks(mebibytes: int) -> list[int]:
    """Peaks of twice the same work, in blocks that the allocator keeps when they are freed."""
    steady_allocator()
    _first_touch()
    peaks = []
    for _ in range(2):
        meter = CpuMeter(MIB)
        meter.start()
        held = [torch.ones(MIB // 4) for _ in range(mebibytes)]
        peaks.append(meter.peak().bytes)
        del held
    return peaks


def hoard(limit: int, batch: int) -> dict[str, Any]:
    """Take 1 MiB a sample under a meter that ends the process at one and a half times the limit."""
    _first_touch()
    held: list[torch.Tensor] = []

    def step(inputs: dict[str, torch.Tensor]) -> None:
        for _ in range(batch if not held else 0):
            held.append(torch.ones(MIB // 4))
            time.sleep(0.001)

    meter = CpuMeter(limit, end_above=1.5)
    return probe.measure(step, lambda size: {}, None, batch, meter, SystemClock(), seconds=0).to_record()


def allocate_forever(step_mebibytes: int, most_mebibytes: int) -> int:
    held = []
    for _ in range(most_mebibytes // step_mebibytes):
        held.append(torch.ones(step_mebibytes * MIB // 4))
        time.sleep(0.005)
    return len(held)


def two_peaks(mebibytes: int) -> list[int]:
    """A big peak before the meter starts must not be seen by it."""
    _first_touch()
    del_me = torch.ones(4 * mebibytes * MIB // 4)
    del del_me
    meter = CpuMeter(limit_bytes=MIB)
    meter.start()
    held = torch.ones(mebibytes * MIB // 4)
    return [meter.peak().bytes, held.numel(), _status_bytes("VmHWM"), resident()]


def broken_architecture(width: int, batch: int) -> dict[str, Any]:
    raise ValueError(f"width {width} is not divisible by 7")


def probe_transformer(limit: int, width: int, layers: int, tokens: int, batch: int) -> dict[str, Any]:
    """A real probe: a small transformer, trained with AdamW on one thread."""
    steady_allocator()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(width, width // 32, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
    model = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(inputs: dict[str, torch.Tensor]) -> None:
        loss = (model(inputs["x"]) - inputs["x"]).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def evaluate() -> None:
        model.eval()
        with torch.inference_mode():
            model(torch.randn(4, tokens, width))

    result = probe.measure(
        step,
        lambda size: {"x": torch.randn(size, tokens, width)},
        evaluate,
        batch,
        CpuMeter(limit, end_above=1.5),
        SystemClock(),
        seconds=0.2,
    )
    return result.to_record()
