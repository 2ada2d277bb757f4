"""The records of a result folder as types (layout: ``docs/store.md``). Unknown keys are left alone."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from bench.aggregates import aggregate
from bench.contracts import Metric, SampleRecord

SCHEMA = 1
"""Layout of the result folder that this reader understands."""

Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A float; ``null`` (JSON has no NaN) reads as NaN."""


class _Record(BaseModel):
    """A JSON object: known keys are checked, unknown ones are left alone so that a later writer may add some."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())


class Arm(_Record):
    """An arm as the comparison declares it."""

    name: str
    label: str
    policy: str
    architecture: str | None = None
    options: dict[str, Any] = {}
    pretrained: bool | None = None
    """Whether it starts from weights trained elsewhere; None where the writer did not say."""
    pretrained_parts: tuple[dict[str, Any], ...] = ()
    """Those weights, each with ``name`` and ``sha256``."""
    training: dict[str, Any] | None = None
    """How it is optimised (`bench.config.TrainingConfig`); None where the writer did not say."""


class Device(_Record):
    """Where the comparison ran."""

    kind: str
    name: str
    cores: int | None = None
    threads: int | None = None
    memory_limit_bytes: int | None = None
    torch: str = ""
    load_at_start: float | None = None


class TaskRecord(_Record):
    """The task; ``metrics[0]`` is the headline."""

    name: str
    options: dict[str, Any] = {}
    metrics: tuple[dict[str, Any], ...]
    pairing: str = ""
    """What samples whose names share their first two parts have in common (``clip``); empty: nothing."""
    gate: dict[str, Any] | None = None
    """`bench.contracts.Gate`, where the task has one."""
    pretrained_parts: tuple[dict[str, Any], ...] = ()
    """Weights trained elsewhere that its training loss reads."""


class Tuning(_Record):
    """Charged seconds spent on the choice of a learning rate."""

    seconds_per_arm: float | dict[str, float] = 0.0
    """By name of the arm; 0.0 where there was no search."""
    choices: dict[str, Any] = {}


class ComparisonRecord(_Record):
    """``comparison.json``."""

    protocol: str
    name: str
    preset: str
    description: str = ""
    task: TaskRecord
    arms: tuple[Arm, ...]
    reference: str
    seeds: tuple[int, ...]
    budget_s: float | None
    """None where the budget counts steps or samples."""
    budget: dict[str, Any] = {}
    """``{"amount", "unit"}``"""
    caption: str = ""
    eval_fractions: tuple[float, ...]
    device: Device
    precision: str
    tuning: Tuning = Tuning()
    warnings: tuple[str, ...] = ()
    status: str


class Rate(_Record):
    """A median with its interval."""

    median: float
    low: float | None = None
    high: float | None = None

    def times(self, factor: float) -> Rate:
        """The same in another unit."""
        if factor == 1:
            return self
        low, high = (None if end is None else factor * end for end in (self.low, self.high))
        return Rate(median=factor * self.median, low=low, high=high)


class Flops(_Record):
    """FLOPs of one sample; the convention is stated in words."""

    forward_per_sample: float
    training_per_sample: float
    convention: str = ""


class BatchFit(_Record):
    """The chosen batch and the memory it fills."""

    policy: str = ""
    micro_batch: int
    optimizer_batch: int
    limit_bytes: float | None = None
    peak_bytes: float | None = None
    memory_filled: float | None = None
    """Share of the declared memory, in [0, 1]."""


class Inference(_Record):
    """Speed and memory without gradients."""

    batch: int | None = None
    """Samples of a call in ``samples_per_s`` and ``peak_bytes``."""
    samples_per_s: Rate
    latency_ms: Rate | None = None
    """Of a batch of one sample."""
    unit: str = "samples"
    """What speed is told in: ``frames``, of which a sample has `units_per_sample`."""
    units_per_sample: int = 1
    peak_bytes: float | None = None

    @property
    def units_per_s(self) -> Rate:
        """Throughput in `unit`."""
        return self.samples_per_s.times(self.units_per_sample)

    @property
    def unit_latency_ms(self) -> Rate | None:
        """Milliseconds of one `unit`."""
        return self.latency_ms.times(1 / self.units_per_sample) if self.latency_ms else None


class LearningRate(_Record):
    """How the peak learning rate of an arm came about."""

    base: float
    reference_batch: int
    rule: str
    """``sqrt``: base times the root of batch / reference batch; ``none``: the base."""
    value: float
    """The peak that the optimiser saw."""


class Measured(_Record):
    """``arms/ARM.json``: what was measured once per arm."""

    parameters: int
    flops: Flops
    batch: BatchFit
    inference: Inference | None = None
    learning_rate: LearningRate | None = None


class RunRecord(_Record):
    """``run.json``. While the run is going on it holds little more than its status."""

    arm: str
    seed: int
    status: str
    reason: str = ""
    flags: tuple[str, ...] = ()
    budget_s: float | None = None
    spent_s: float = 0.0
    overshoot_s: float = 0.0
    overshoot_bound_s: float | None = None
    """What the stop rule allows; None where the writer did not say."""
    steps: int = 0
    skipped_steps: int = 0
    """Steps that left the weights alone because of their gradient's norm."""
    samples: int = 0
    optimizer_batch: int | None = None
    final: dict[str, Number] = {}
    stream_sha256: str | None = None
    """Digest of the seed's first training samples; None where there were too few to tell."""
    peak_bytes: float | None = None
    """Most memory that the run's own slices reserved (CUDA); None on a CPU."""
    alloc_retries: int | None = None
    """How often the allocator had to flush its cache to go on (CUDA; 0 or None on a CPU)."""


class Event(_Record):
    """One step: a line of ``events.jsonl``."""

    step: int
    p: float
    spent: float
    seconds: float
    lr: float
    batch: int
    samples: int
    loss: Number
    grad_norm: Number
    skipped: bool = False
    """Whether the weights were left alone because of the gradient's norm."""


class Evaluation(_Record):
    """One evaluation: a line of ``evals.jsonl``."""

    fraction: float
    p: float
    spent: float
    step: int
    samples: int
    annealed: bool
    quick: bool
    records: tuple[SampleRecord, ...]


class LedgerRecord(_Record):
    """``ledger.json``, in seconds."""

    categories: dict[str, float]
    charged: float
    wall: float
    unaccounted: float
    unaccounted_fraction: float
    valid: bool


class LearnNothing(_Record):
    """A baseline that learns nothing, scored on the same samples: an entry of ``references.json``."""

    name: str
    label: str
    metrics: dict[str, Number]
    records: tuple[SampleRecord, ...] = ()

    def value(self, metric: Metric, samples: Collection[str] | None = None) -> float | None:
        """Of its records (of `samples` only, if given) where it has any, else as it is stored; None without both."""
        values = [
            record[metric.key]
            for record in self.records
            if record.get(metric.key) is not None and (samples is None or record["sample"] in samples)
        ]
        return aggregate(values, metric.aggregate) if values else self.metrics.get(metric.name)


class Sentinel(_Record):
    """One sentinel measurement: a line of ``sentinel.jsonl``."""

    block: int
    when: str
    rate: float
