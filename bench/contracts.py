"""What the parts of Isochron promise each other.

The engine knows an architecture, a task, a device and a clock only by what stands here, so that a new one of any of them
drops in without a change to the engine. Nothing in this file does anything.

Words: a *batch* is a dict of tensors whose first axis is the sample; B is the number of samples in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

Batch = dict[str, "Tensor"]
"""Named tensors whose first axis is the sample."""

SampleRecord = dict[str, Any]
"""One evaluated sample: ``{"sample": "scene-0007/target-1", "psnr": 21.3, ...}``.

``sample`` is a string that names the sample in every run alike, so that runs can be paired by it. The other values are
numbers, one per metric; a metric that is undefined for the sample is left out, never NaN. Of a pooled metric it is a
mapping: part -> ``[numerator, denominator]``, such as class -> ``[intersection, union]``; of a metric over class counts,
class -> ``[hits, true, predicted]``; of a distance between sets, the features of ``prediction`` and ``truth``.
"""


class Metric(NamedTuple):
    """How to read one number of a sample record."""

    name: str
    """Key in the record, e.g. ``psnr``."""
    label: str
    """Heading in tables and on axes, with the unit, e.g. ``PSNR (dB)``."""
    higher_is_better: bool | None
    """None: neither, such as a ratio that should be near 1. Nothing is bold in its column, and it is no headline."""
    digits: int = 2
    """Digits behind the point in tables."""
    note: str = ""
    """What a reader must know to trust the number: definition, backbone, input range."""
    aggregate: str = "mean"
    """What stands for a run, over the samples that have the metric: ``mean``, ``median``, ``pooled`` (a quotient of sums over
    all samples, in percent, averaged over the parts: the mean IoU of a data set), a definition of `bench.class_counts`, or
    ``frechet`` or ``kernel``, a distance between features of all predictions and of all truths."""
    group: str = ""
    """Heading of the table of its own that it stands in with others of its kind; empty: the first one."""
    of: str = ""
    """Key in the record that several metrics are computed from, and none is called; empty: its own name."""

    @property
    def key(self) -> str:
        """Where a record holds what the metric is computed from."""
        return self.of or self.name


class Symmetry(NamedTuple):
    """A change of the batch that must not change the outputs (view order), or only their order (class order)."""

    name: str
    apply: Any
    """``apply(batch, generator) -> batch``: the changed copy."""
    restore: Any = None
    """``restore(outputs, generator) -> outputs``: the changed copy's outputs in the order of the original; None: as they are."""


class Causality(NamedTuple):
    """An order of frames: frame t of an output may depend on what belongs to frames up to t alone."""

    output: str
    """Name of the output, [B, F, ...]."""
    change_from: Any
    """``change_from(batch, other, frame) -> batch``: the copy with all that belongs to frames from `frame` on taken from `other`."""


class Gate(NamedTuple):
    """What a comparison's reference arm must reach before its arms may be ranked."""

    metric: str
    """Name of the metric that decides."""
    reference: str
    """Name of the predictor that learns nothing (of `Task.references`) which the arm must beat."""
    margin: float
    """By how much, in the metric's unit."""


class Architecture(Protocol):
    """A model under test: an ``nn.Module`` with a frozen config dataclass beside it in the same file.

    Optional members, found by ``hasattr``: ``auxiliary_loss(batch, outputs) -> Tensor`` (added to the task's loss, in
    training only; the one place that may see targets; one that takes ``progress`` is told the share of the budget that is
    spent), ``unused_parameters() -> Collection[str]`` (weights that the options leave without gradient), ``learning_rate_shares() ->
    Mapping[str, float]`` (prefix of weights -> their share of the learning rate, such as 0.01 of a trained tower),
    ``pretrained_parts() -> Sequence[Mapping]`` (parts that were trained elsewhere, each with at least ``name`` and
    ``sha256``), ``from_reference(state, **config)`` (strict loader of the published layout).
    """

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Map the task's input fields, never a target, to named outputs."""
        ...

    def flops(self, batch: Mapping[str, Tensor]) -> int:
        """Closed form of the forward FLOPs for this batch: 2 per multiply-add, matrix products and attention only."""
        ...


class Task(Protocol):
    """What is learned and how it is scored. Built by ``experiment`` from the comparison's ``task`` section.

    Optional members, found by ``getattr``: ``config`` (its options, a dataclass, with what ``auto`` came to; the dataclass
    may have ``shared_options() -> Mapping``: options that architectures must be built with, which they take over from it; and
    ``inputs_of``: value of its option ``data`` -> input fields, where they follow from it),
    ``references(split="test", device=None)`` (predictors that learn nothing, scored like a model: ``[{"name", "label",
    "metrics", "records"}]``), ``notices`` (lines that must stand under the table), ``pretrained_parts()`` (weights trained
    elsewhere that the training loss reads), ``fingerprints()`` (split -> digest of the data that was found, wherever it
    lies), ``evaluation_batch`` (samples in one evaluation step, fixed for all arms; probes make one of them),
    ``synthetic(batch_size, seed)`` and ``edge_cases(batch_size)`` (random and degenerate legal host batches, for the
    conformance kit), ``causal`` (each `Causality` that its architectures must keep), ``pairing`` (what samples whose names share
    their first two parts have in common, such as ``clip``: tables then also compare arms pair by pair of these), ``gate`` (a
    `Gate`), ``inference_case(batch_size)`` (host batch on which
    inference is timed instead of `worst_case`, how many units one of its samples has, and their name, such as ``frames``),
    ``inference_call(model, inputs)`` (what is timed of it, ready to be called, where that is more or less than ``forward``).
    """

    name: str
    input_fields: tuple[str, ...]
    """Batch keys that ``forward`` receives by keyword."""
    target_fields: tuple[str, ...]
    """Batch keys that only the loss and the metrics may see."""
    metrics: tuple[Metric, ...]
    """The first one is the headline: curves, crossover and verdicts read it."""
    symmetries: tuple[Symmetry, ...]
    """Declared symmetries of the task that every one of its architectures must honour."""

    def prepare(self, progress: Any = None) -> None:
        """Make or find the data (may take minutes, with a progress bar). Idempotent, safe under two processes."""
        ...

    def training_size(self) -> int:
        """Number of training samples an epoch."""
        ...

    def collate(self, indices: np.ndarray, draws: np.ndarray) -> Batch:
        """Host batch of the training samples at ``indices`` [B] int64.

        ``draws`` [B] uint64 is the sample's own random seed: every random choice for a sample (views, crops, masks) is a
        function of its index and its draw alone, so that the stream does not depend on the batch size.
        """
        ...

    def transfer(self, batch: Batch, device: torch.device) -> Batch:
        """Move a host batch to ``device`` in the form that architectures receive (float, normalised)."""
        ...

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Scalar training loss, fp32. One that takes ``progress`` is told the share of the budget that is spent."""
        ...

    def evaluate(
        self, model: torch.nn.Module, device: torch.device, *, split: str = "test", quick: bool = False
    ) -> list[SampleRecord]:
        """Score ``model`` (already in eval mode, under ``inference_mode``) on ``split``, one record a sample.

        ``quick`` is the cheap form inside the run: a fixed subset of the same samples and at least the headline metric.
        """
        ...

    def worst_case(self, batch_size: int) -> Batch:
        """Host batch of the largest shapes that training can meet, of synthetic content, without reading data."""
        ...

    def pictures(self, models: Mapping[str, torch.nn.Module], device: torch.device) -> np.ndarray | None:
        """Labelled grid for the eye, uint8 [H, W, 3]: ground truth and each model's output side by side, or None."""
        ...


@runtime_checkable
class Clock(Protocol):
    """Where time comes from. The real one is in ``engine/clock.py``; tests use a fake one."""

    def now(self) -> int:
        """Charged time: monotonic nanoseconds (``time.perf_counter_ns``)."""
        ...

    def wall(self) -> int:
        """Wall time from a second, independent clock, in nanoseconds; the ledger is checked against it."""
        ...

    def cpu(self) -> int:
        """CPU time of this process in nanoseconds; stands still while the process is stopped from outside."""
        ...


class Recorder(Protocol):
    """Where a run's records go. The real one writes the run folder (``bench/store/write.py``); tests keep them in memory."""

    def event(self, record: Mapping[str, Any]) -> None:
        """Append the record of one step."""
        ...

    def evaluation(self, record: Mapping[str, Any]) -> None:
        """Append the record of one evaluation."""
        ...

    def save_state(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Replace the state to resume from, all or nothing."""
        ...

    def finish(self, summary: Mapping[str, Any], ledger: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        """Store the outcome of the run and drop the state to resume from."""
        ...
