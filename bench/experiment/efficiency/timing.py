"""Times the calls of a group in turn, with the memory that each takes, and leaves out what would take too much."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from bench.engine.latency import order
from bench.engine.live_bytes import peak_live_bytes
from bench.engine.memory import is_out_of_memory
from bench.experiment.efficiency.spec import Started, TimedCall
from bench.experiment.measure import synchronizer

Result = TypeVar("Result")

SLOW_SECONDS = 5.0
"""A call that takes so long is warm after one run, and its memory is seen in that one."""


@dataclass(frozen=True)
class Limits:
    """What one call may take; a call that is foreseen to take more is skipped, and says so."""

    seconds: float
    bytes: int


class Foresight:
    """What calls took so far: what the next larger one will take is foreseen from it, in proportion to its FLOPs."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], tuple[float, int]] = {}
        self._bytes: dict[tuple[str, str], tuple[int, int]] = {}

    def learn(self, call: TimedCall, seconds: float, live_bytes: int | None) -> None:
        """Take note of what a call took."""
        for key in _keys(call):
            self._seconds[key] = seconds, call.flops
            if live_bytes is not None:
                self._bytes[key] = live_bytes, call.extent

    def recall(self, calls: Sequence[TimedCall], records: Sequence[Mapping[str, Any]]) -> None:
        """Learn from a group that is stored already."""
        for call, record in zip(calls, records, strict=True):
            if record.get("times_ms"):
                self.learn(call, statistics.median(record["times_ms"]) / 1e3, record["live_bytes"])

    def seconds(self, call: TimedCall) -> float:
        """What `call` alone will take; 0 if nothing is known."""
        return self._seconds_a_flop(call) * call.flops

    def _seconds_a_flop(self, call: TimedCall) -> float:
        seconds, flops = next((self._seconds[key] for key in _keys(call) if key in self._seconds), (0.0, 1))
        return seconds / flops

    def reason(self, call: TimedCall, limits: Limits) -> str:
        """Why not to start `call`; empty if nothing is known against it."""
        # The preparation of a call (encoding the scene) is waited for as well.
        foreseen = self._seconds_a_flop(call) * max(call.flops, call.start_flops)
        if foreseen > limits.seconds:
            return f"about {_number(foreseen)} s a call foreseen, above the limit of {limits.seconds:g} s"
        live, extent = next((self._bytes[key] for key in _keys(call) if key in self._bytes), (0, 1))
        needed = live * call.extent / extent
        if needed > limits.bytes:
            return (
                f"about {_number(needed / 2**30)} GiB foreseen, above the limit of {_number(limits.bytes / 2**30)} GiB"
            )
        return ""


def _keys(call: TimedCall) -> tuple[tuple[str, str], tuple[str, str]]:
    """The same kind of call, or else the last one of the architecture."""
    return (call.label, call.mode), (call.label, "")


class TooSlow(Exception):
    """A call took longer than it may, which was not foreseen."""


def measure_group(
    calls: Sequence[TimedCall],
    limits: Limits,
    foresight: Foresight,
    device: torch.device,
    now: Callable[[], int],
    *,
    rounds: int,
    bf16: bool = False,
    training: bool = False,
) -> list[dict[str, Any]]:
    """Time every call once in each of `rounds` rounds, in a balanced order; the ``calls`` of a line of ``timings.jsonl``.

    `now` gives the nanoseconds that calls are timed by. Each is run three times before: to warm up, to see whether it keeps
    to the limit, and to see its memory; once, if it is slow (`SLOW_SECONDS`). Inference mode, unless the calls are
    ``training`` ones. bf16 autocast on request: in inference it casts the weights once for all calls, as a deployed model
    would, in training once a call, as a step does.
    """
    synchronize = synchronizer(device)
    records: dict[str, dict[str, Any]] = {}
    ready: dict[str, Started] = {}
    full: dict[str, Tensor] = {}

    def autocast(wanted: bool) -> AbstractContextManager[object]:
        return torch.autocast(device.type, torch.bfloat16, enabled=bf16) if wanted else nullcontext()

    def seconds(run: Callable[[], Result]) -> tuple[float, Result]:
        synchronize()
        start = now()
        with autocast(training):  # left after every step: weights that were cast belong to the graph of one
            result = run()
        synchronize()
        return (now() - start) / 1e9, result

    def prepare(call: TimedCall, record: dict[str, Any]) -> Started:
        def refuse_if_slow(taken: float) -> None:
            if taken > limits.seconds:
                foresight.learn(call, taken, None)
                raise TooSlow(f"took {_number(taken)} s, above the limit of {limits.seconds:g} s")

        started, slow = call.start(), foresight.seconds(call) > SLOW_SECONDS
        if not slow:
            first, _ = seconds(started.run)
            taken = first if first > 2 * limits.seconds else seconds(started.run)[0]
            refuse_if_slow(taken)
        watched, (output, memory) = seconds(lambda: _watched(started.run, device))
        if slow:
            taken = watched
            refuse_if_slow(taken)
        record |= {"held_bytes": started.held_bytes, **memory}
        foresight.learn(call, taken, record["live_bytes"])
        if call.mode == "full":
            full[call.label] = output.float()
        elif call.label in full:
            record["deviation"] = float((output.float() - full[call.label]).abs().max())
        return started

    with torch.inference_mode(not training), autocast(not training):
        for call in calls:
            name, reason = f"{call.label}/{call.mode}", foresight.reason(call, limits)
            record = records[name] = {"label": call.label, "mode": call.mode, "flops": call.flops, "skipped": reason}
            if reason:
                continue
            try:
                ready[name] = prepare(call, record)
                record["times_ms"] = []
            except TooSlow as slow:
                record["skipped"] = str(slow)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                record["skipped"] = "ran out of memory"
            if record["skipped"]:  # not within the handler: the error still holds the tensors there
                _release(device)
        for round_ in range(rounds if ready else 0):
            for name in order(list(ready), round_):
                records[name]["times_ms"].append(1e3 * seconds(ready[name].run)[0])
    ready.clear()
    _release(device)
    return list(records.values())


def _number(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"


def _watched(run: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, dict[str, int]]:
    """Outputs, the bytes of the tensors that a call makes at once, and on CUDA what its allocator's peak rises by."""
    outputs: list[Tensor] = []
    if device.type != "cuda":
        live = peak_live_bytes(lambda: outputs.append(run()))
        return outputs[0], {"live_bytes": live}
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    live = peak_live_bytes(lambda: outputs.append(run()))
    torch.cuda.synchronize(device)
    return outputs[0], {"live_bytes": live, "allocator_bytes": torch.cuda.max_memory_allocated(device) - before}


def _release(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
