"""What `isochron measure-efficiency` stores: how much computation, time and memory a task's architectures take.

A folder holds ``efficiency.json`` (what was measured, where, under which limits), ``counts.jsonl`` (a line a row that was
counted on the meta device), ``timings.jsonl`` (a line a group of calls that were timed in turn), ``provenance/`` and, once
finished, ``manifest.json``. Lines are appended as they come, so that an interrupted measurement goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from bench.errors import UserError
from bench.parse import checking
from bench.store.files import read_json, read_lines, require_version

SCHEMA = 1
RECORD, COUNTS, TIMINGS = "efficiency.json", "counts.jsonl", "timings.jsonl"
RENDERED = "paper"
"""Subfolder of the tables and figures, which can be made again and stand in no manifest."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())


class Count(_Record):
    """One architecture at one size, counted on the meta device. FLOPs: 2 per multiply-add."""

    label: str
    """Name of the row's architecture with its options, such as ``efficient-lvsm-6``."""
    mode: str
    """What was counted: ``full`` (a forward pass), or a part of it that the task names."""
    sizes: dict[str, int]
    """Shape of the batch, one sample."""
    parameters: int
    """Trainable weights."""
    counters: dict[str, int | None]
    """Forward FLOPs a sample by ``torch``, ``fvcore`` and ``closed_form``."""
    parts: dict[str, int] = {}
    """Closed forms of the ``encoder`` and the ``decoder``, of architectures that have both; they add up to the whole."""
    training_flops: int
    """FLOPs a sample of forward and backward as executed, recomputation of checkpointed blocks included."""
    linear_macs: int
    """Multiply-adds of ``nn.Linear`` layers alone: what module hooks see of a transformer."""
    norm_ops: int
    """Operations of ``nn.LayerNorm`` as thop counts them: 2 a number, 4 where the norm has weights."""

    @property
    def flops(self) -> int:
        """Forward FLOPs a sample as PyTorch's counter sees them."""
        return int(self.counters["torch"] or 0)


class Call(_Record):
    """One kind of call of one architecture, timed in turn with the others of its group."""

    label: str
    mode: str
    flops: int
    """Closed form at the measured size, one call."""
    times_ms: tuple[float, ...] = ()
    """A time a round; empty where it was skipped."""
    live_bytes: int | None = None
    """Most bytes of tensors alive at once that the call made."""
    held_bytes: int = 0
    """Bytes of what is kept between calls (key-value cache, latents)."""
    allocator_bytes: int | None = None
    """On CUDA: what the allocator's peak rose by during the call."""
    deviation: float | None = None
    """Largest difference of an output from the full pass's, in units of the outputs."""
    skipped: str = ""
    """Why it was not timed."""


class Group(_Record):
    """Calls on batches of one shape, a round of all after the other."""

    sizes: dict[str, int]
    load: float
    """Load average of the machine when it began."""
    calls: tuple[Call, ...]


class Device(_Record):
    """Where it was measured."""

    kind: str
    name: str
    cores: int
    threads: int
    torch: str
    load_at_start: float = 0.0


class Architecture(_Record):
    """One architecture of the timed groups at the preset's size."""

    label: str
    parameters: int
    options: dict[str, Any]


class EfficiencyRecord(_Record):
    """``efficiency.json``."""

    task: str
    preset: str
    protocol: str
    status: str
    device: Device
    precision: str
    timed_by: str
    """``wall time``, or ``processor time`` (of one thread on a CPU)."""
    rounds: int
    seed: int
    limit_seconds: float
    limit_bytes: int
    image_size: int | None = None
    """Edge in pixels of what is timed, where images are."""
    architectures: tuple[Architecture, ...]
    code_sha256: str
    load_at_end: float | None = None


@dataclass(frozen=True)
class Efficiency:
    """One folder, open for reading."""

    folder: Path
    record: EfficiencyRecord

    @cached_property
    def counts(self) -> tuple[Count, ...]:
        """Counted rows in the order in which they were stored."""
        return tuple(_lines(self.folder / COUNTS, Count))

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Timed groups in the order in which they were stored."""
        return tuple(_lines(self.folder / TIMINGS, Group))

    def count(self, label: str, sizes: Mapping[str, int], mode: str = "full") -> Count | None:
        """The first counted row that has these sizes (and maybe more), or None."""
        for row in self.counts:
            if (row.label, row.mode) == (label, mode) and sizes.items() <= row.sizes.items():
                return row
        return None

    def call(self, label: str, sizes: Mapping[str, int], mode: str = "full") -> Call | None:
        """The timed call on these sizes, or None; `Call.skipped` says why one has no times."""
        for group in self.groups:
            if sizes.items() <= group.sizes.items():
                return next((call for call in group.calls if (call.label, call.mode) == (label, mode)), None)
        return None


def open_efficiency(folder: Path) -> Efficiency:
    """Open a folder that `isochron measure-efficiency` wrote.

    Raises:
        UserError: it holds no ``efficiency.json``, a damaged one, or one of another schema or protocol.
    """
    path = folder / RECORD
    if not path.is_file():
        raise UserError(f"{folder}: holds no {RECORD}; give the folder that `isochron measure-efficiency` printed")
    raw = read_json(path)
    require_version(path, raw, SCHEMA)
    return Efficiency(folder, _validate(path, raw, EfficiencyRecord))


RecordT = TypeVar("RecordT", bound=BaseModel)


def _lines(path: Path, kind: type[RecordT]) -> Iterator[RecordT]:
    return (_validate(path, line, kind) for line in read_lines(path))


def _validate(path: Path, raw: Any, kind: type[RecordT]) -> RecordT:
    with checking(path, "restore the file, or measure again"):
        return kind.model_validate(raw)
