"""What is measured once for each arm: FLOPs, memory and throughput against batch, inference speed."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from bench import config as configuration
from bench import registry
from bench.config import Comparison
from bench.contracts import Batch, Task
from bench.engine import batchfit, latency, probe
from bench.engine.batchfit import BatchFit, ProbeResult
from bench.engine.clock import SystemClock
from bench.engine.flops import triangulate
from bench.engine.launch import PRELOAD, run_isolated
from bench.engine.live_bytes import TensorMeter
from bench.engine.memory import CpuMeter, CudaMeter, MemoryMeter, steady_allocator
from bench.engine.step import TrainingStep, make_optimizer
from bench.experiment import resolve
from bench.experiment.resolve import Arm
from bench.store.files import read_json, sha256, write_json
from bench.store.provenance import code_hash
from bench.store.write import dumps

if TYPE_CHECKING:
    from bench.experiment.session import Session

PROBE_TIMEOUT_S = 300.0
INFERENCE_ROUNDS = 7


def memory_limit(comparison: Comparison, device: torch.device) -> int:
    """Bytes that training may take: what the comparison declares on a CPU, 95 % of the device on CUDA."""
    return _meter(comparison, device).limit()


def _meter(comparison: Comparison, device: torch.device) -> MemoryMeter:
    # On a CPU a probe far above the limit is ended early: it must not take the machine down to say that it does not fit.
    return CudaMeter(device) if device.type == "cuda" else CpuMeter(comparison.cpu_memory, end_above=1.5)


def _arm_of(comparison: Comparison, label: str) -> Arm:
    return next(arm for arm in resolve.expand_arms(comparison) if arm.label == label)


# ------------------------------------------------------------------------------------- in fresh processes, by name


def probe_batch(comparison_yaml: str, cache_dir: str, label: str, batch: int) -> dict[str, Any]:
    """Train `label` for a few steps at `batch`, in a process of its own; the record of a `ProbeResult`."""
    steady_allocator()
    comparison = configuration.from_text(comparison_yaml)
    device = resolve.pick_device(comparison.device)
    torch.set_num_threads(int(comparison.threads))
    arm, task = _arm_of(comparison, label), resolve.make_task(comparison, Path(cache_dir))
    torch.manual_seed(0)
    model = resolve.build(arm.config).to(device).train()
    settings = resolve.step_settings(arm.training, batch)
    average = copy.deepcopy(model) if settings.ema_half_life is not None else None
    trained = cast(nn.Module, torch.compile(model)) if arm.training.compile else model
    step = TrainingStep(task, trained, make_optimizer(model, settings), settings, device, average)
    bf16 = arm.training.precision == "bf16"

    def evaluate_once() -> None:
        inputs = _inputs(task, task.worst_case(getattr(task, "evaluation_batch", batch)), device)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            model.eval()(**inputs)

    result = probe.measure(
        partial(step, average_decay=0.5),
        task.worst_case,
        evaluate_once,
        batch,
        _meter(comparison, device),
        SystemClock(),
        synchronize=synchronizer(device),
    )
    return result.to_record()


def synchronizer(device: torch.device) -> Callable[[], None]:
    """What waits for `device`."""
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


def count_flops(comparison_yaml: str, cache_dir: str, label: str) -> dict[str, Any]:
    """FLOPs and parameters of `label`, counted on the meta device in a process of its own."""
    comparison = configuration.from_text(comparison_yaml)
    arm, task = _arm_of(comparison, label), resolve.make_task(comparison, Path(cache_dir))
    batch = task.transfer(task.worst_case(2), torch.device("cpu"))
    report = triangulate(
        lambda: resolve.build(arm.config),
        batch,
        task.input_fields,
        arm=label,
        require_closed_form=arm.config.factory is None,
    )
    with torch.device("meta"):
        model = resolve.build(arm.config)
    return {
        "flops": report.to_record(),
        "parameters": sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
    }


def _inputs(task: Task, batch: Batch, device: torch.device) -> Batch:
    moved = task.transfer(batch, device)
    return {name: moved[name] for name in task.input_fields}


# ------------------------------------------------------------------------------------------------ in the comparison


def measure_arms(session: Session) -> dict[str, int]:
    """Count, probe and choose the batch of every arm; what is stored already is kept. Returns arm name -> batch."""
    batches = {}
    once: dict[str, tuple[dict[str, Any], BatchFit]] = {}  # label -> counts and fit, whatever the batch policy
    for arm in session.arms:
        session.check_stop()
        record = session.folder.arm(arm.name)
        if record is None:
            if arm.label not in once:
                counted = counts(session.comparison, session.cache_dir, arm)
                say = session.console.say
                fit = fit_batch(session.comparison, session.cache_dir, session.task, arm, session.device, say)
                once[arm.label] = counted, fit
            record = _measure_arm(session, arm, *once[arm.label])
            session.folder.write_arm(arm.name, record)
        batches[arm.name] = record["batch"]["micro_batch"]
    return batches


def _measure_arm(session: Session, arm: Arm, counted: dict[str, Any], fit: BatchFit) -> dict[str, Any]:
    choice = batchfit.choose(fit, batchfit.parse_policy(arm.policy))
    batch = choice.batch
    session.console.say(
        f"{arm.name}: {counted['parameters'] / 1e6:.2f} M parameters, "
        f"{counted['flops']['forward_per_sample'] / 1e9:.3g} GFLOP/sample forward, batch {batch} ({arm.policy}), "
        f"{100 * choice.memory_filled:.0f} % of {fit.limit_bytes / 2**20:.0f} MiB"
    )
    return {
        "arm": arm.name,
        "label": arm.label,
        "policy": arm.policy,
        **counted,
        "batch": choice.to_record(),
        "learning_rate": _learning_rate(arm, batch),
        "inference": None,
    }


def _learning_rate(arm: Arm, batch: int) -> dict[str, Any]:
    training = arm.training
    return {
        "base": training.learning_rate,
        "reference_batch": training.reference_batch,
        "rule": training.scaling,
        "value": resolve.step_settings(training, batch).learning_rate,
    }


def store_learning_rate(session: Session, arm: Arm) -> None:
    """Bring the stored learning rate of an arm up to date after a search."""
    record = session.folder.arm(arm.name)
    assert record is not None, "arms are measured before they are tuned"
    session.folder.write_arm(arm.name, {**record, "learning_rate": _learning_rate(arm, record["batch"]["micro_batch"])})


def counts(comparison: Comparison, cache_dir: Path, arm: Arm) -> dict[str, Any]:
    """Parameters and FLOPs of an arm, counted apart from this process.

    Raises:
        UserError: the counters disagree by more than 1 %, or an operator is not known to them.
    """
    return run_isolated(
        count_flops,
        configuration.dump(comparison),
        str(cache_dir),
        arm.label,
        timeout_s=PROBE_TIMEOUT_S,
        preload=(*PRELOAD, "bench.experiment.measure", registry.task(comparison.task["name"]).target.partition(":")[0]),
    )


def fit_batch(
    comparison: Comparison, cache_dir: Path, task: Task, arm: Arm, device: torch.device, say: Any
) -> BatchFit:
    """Memory and throughput against batch, from the cache where code, arm, device and limits are the same.

    Raises:
        UserError: not even one sample fits, or the architecture raised an error.
    """
    limit = memory_limit(comparison, device)
    fixed = [policy.size for policy in map(batchfit.parse_policy, comparison.batch) if policy.size is not None]
    key = {
        "code": code_hash(),
        "outside": [sha256(path) for path in resolve.outside_sources([arm.config])],
        "arm": arm.config.model_dump(mode="json", exclude={"name", "pretrained", "training"}),
        "training": arm.training.model_dump(mode="json"),
        "task": comparison.task,
        "device": resolve.describe_device(device, int(comparison.threads), limit, load=False),
        "fixed": fixed,
    }
    path = cache_dir / "probes" / f"{hashlib.sha256(dumps(key).encode()).hexdigest()[:32]}.json"
    if path.exists():
        stored = read_json(path)
        say(f"{arm.label}: batch fit from the cache ({len(stored['curve'])} probes)")
        return BatchFit(**{**stored, "curve": tuple(ProbeResult(**point) for point in stored["curve"])})

    run_probe = probe.isolated(
        probe_batch,
        configuration.dump(comparison),
        str(cache_dir),
        arm.label,
        timeout_s=PROBE_TIMEOUT_S,
    )

    def said(batch: int) -> ProbeResult:
        result = run_probe(batch)
        peak = "out of memory" if result.peak_bytes is None else f"{result.peak_bytes / 2**20:.0f} MiB"
        speed = "" if result.samples_per_s is None else f", {result.samples_per_s:.1f} samples/s"
        say(f"{arm.label}: probe of batch {batch}: {peak}{speed}{'' if result.fits else ', does not fit'}")
        return result

    fit = batchfit.search(said, limit, cap=task.training_size(), also=fixed)
    record = {
        "limit_bytes": fit.limit_bytes,
        "cap": fit.cap,
        "a": fit.a,
        "b": fit.b,
        "curve": [point.to_record() for point in fit.curve],
    }
    write_json(path, record)
    return fit


def measure_inference(session: Session, batches: Mapping[str, int]) -> None:
    """Throughput at the largest batch that all arms share, an evaluation batch at most, and latency of one sample; interleaved."""
    records = {arm.name: session.folder.arm(arm.name) for arm in session.arms}
    if all(record and record["inference"] for record in records.values()):
        return
    device, task = session.device, session.task
    arms = {arm.label: arm for arm in session.arms}
    models = {label: resolve.build(arm.config).to(device).eval() for label, arm in arms.items()}
    synchronize = synchronizer(device)
    session.console.say("Measuring inference, interleaved across arms.")
    case = getattr(task, "inference_case", lambda size: (task.worst_case(size), 1, "samples"))
    made = getattr(task, "inference_call", lambda model, inputs: partial(model, **inputs))

    def measured(size: int) -> dict[str, latency.LatencyResult]:
        inputs = _inputs(task, case(size)[0], device)
        ready = {}

        def precision(label: str) -> torch.autocast:
            return torch.autocast(device.type, torch.bfloat16, enabled=arms[label].training.precision == "bf16")

        for label, model in models.items():
            with precision(label):
                ready[label] = made(model, inputs)

        def call(label: str) -> None:
            with precision(label):
                ready[label]()

        calls = {label: partial(call, label) for label in models}
        return latency.measure(calls, size, INFERENCE_ROUNDS, session.clock, synchronize=synchronize, meter=meter)

    # A GPU's allocator tells what a call takes; on a CPU the bytes of the tensors that live at once are counted.
    meter = CudaMeter(device) if device.type == "cuda" else TensorMeter()
    size = min(min(batches.values()), getattr(task, "evaluation_batch", max(batches.values())))
    with torch.inference_mode():
        many, one = measured(size), measured(1)
    _, units, unit = case(1)
    for arm in session.arms:
        record = records[arm.name]
        assert record is not None, "arms are measured before inference"
        record["inference"] = {
            **many[arm.label].to_record(),
            "latency_ms": one[arm.label].to_record()["latency_ms"],
            "unit": unit,
            "units_per_sample": units,
        }
        session.folder.write_arm(arm.name, record)
