"""One run: one arm, one seed, one budget. It can be advanced in slices, parked, saved and restored between them."""

from __future__ import annotations

import contextlib
import copy
import gc
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.contracts import Clock, Recorder, Task
from bench.engine.clock import NANOSECONDS, Gaps
from bench.engine.ledger import CudaTimeline, HostTimeline, Ledger, Stopwatch
from bench.engine.loader import Loader, host_copy
from bench.engine.memory import is_out_of_memory
from bench.engine.progress import Budget
from bench.engine.run import Diverged, OutOfMemory, RunSettings
from bench.engine.state import claim_memory, collect, distribute, move, random_state, set_random_state
from bench.engine.step import TrainingStep, make_optimizer, unwrap
from bench.engine.stream import SampleStream, derive_seed
from bench.engine.world import World

WARMUP_STEPS = 3


@dataclass
class _Launched:
    progress: float
    factor: float
    values: Tensor
    """Loss, gradient norm and whether the step was skipped, on the host once the device has reached the mark."""
    samples: int
    mark: Any


def _distribute(model: nn.Module) -> nn.Module:
    """The model in DistributedDataParallel, which waits in every step for the gradient of each weight that needs one.

    Weights that the model declares unused need none while it looks. Its own search for them would take those that only an
    `auxiliary_loss` reads for unused, too.
    """
    unused = [model.get_parameter(name) for name in getattr(model, "unused_parameters", tuple)()]
    trained = [weight for weight in unused if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    wrapped = nn.parallel.DistributedDataParallel(model)
    for weight in trained:
        weight.requires_grad_(True)
    return wrapped


class Trainer:
    """Spends a budget on one architecture and records what came of it."""

    def __init__(
        self,
        *,
        build: Callable[[], nn.Module],
        task: Task,
        settings: RunSettings,
        budget: Budget,
        device: torch.device,
        clock: Clock,
        recorder: Recorder,
        gaps: Gaps | None = None,
        world: World | None = None,
        on_step: Callable[[Trainer, float, float], None] | None = None,
    ) -> None:
        """Prepare a run of ``build()``; nothing is built before `set_up`. `on_step(trainer, loss, p)` shows progress."""
        self._build, self.task, self.settings, self.budget = build, task, settings, budget
        self.device, self._clock, self._recorder = device, clock, recorder
        self._world = world or World()
        self.on_step = on_step
        self._cuda = device.type == "cuda"
        self.ledger = Ledger()
        self._watch = Stopwatch(self.ledger, clock, CudaTimeline() if self._cuda else HostTimeline(clock), gaps)
        self._backlog = 1 if self._cuda else 0
        self._launched: deque[_Launched] = deque()
        self._charged_seen = 0.0
        self._averaged_to = 0.0
        self.steps = 0
        self.skipped_steps = 0
        self.samples = 0
        self.evaluations = 0
        self.finished = False
        self.peak_bytes = 0
        self.alloc_retries = 0
        self._retries_before = 0
        self._random: dict[str, Tensor] = {}

    # ---------------------------------------------------------------------------------------------- life of a run

    def set_up(self) -> None:
        """Build model, optimiser and loader from the run's seeds, then warm up. Uncharged.

        Raises:
            OutOfMemory: a step of this batch does not fit the device.
        """
        settings = self.settings
        with self._watch.booking("setup"), self._own_random(fresh=True):
            self.model = self._build().to(self.device)
            self.optimizer = make_optimizer(self.model, settings.step)
            self.average = copy.deepcopy(self.model) if settings.step.ema_half_life is not None else None
            wrapped = self.model
            if self._world.size > 1:
                wrapped = _distribute(self.model)
            if settings.compile:
                wrapped = torch.compile(wrapped)  # type: ignore[assignment]
            self._step = TrainingStep(self.task, wrapped, self.optimizer, settings.step, self.device, self.average)
            stream = SampleStream(settings.seed, self.task.training_size())
            ahead = 2 if self._cuda else 0
            self._loader = Loader(
                self.task,
                stream,
                batch=settings.batch,
                rank=self._world.rank,
                world=self._world.size,
                ahead=ahead,
                pin=self._cuda,
            )
            self.model.train()
            if self._world.rank:  # the same weights everywhere, but dropout of each process's own
                torch.manual_seed(derive_seed(settings.seed, settings.arm, "rank", self._world.rank))
        if not settings.charge_compilation:
            with self._memory_errors():
                self._warm_up()
        elif settings.unit != "seconds":
            self.budget.expected = self._in_units(0.0)  # known without having taken a step
        self.park()

    def _warm_up(self) -> None:
        """Take steps on dummy data of the real shape, then restore weights, optimiser and random state exactly."""
        weights = host_copy(self.model.state_dict())
        average = host_copy(self.average.state_dict()) if self.average is not None else {}
        with self._own_random(keep=False):
            batch = self.task.worst_case(self.settings.batch)
            for index in range(WARMUP_STEPS):
                started = self._clock.now()
                with self._watch.booking("compile" if index == 0 and self.settings.compile else "warmup"):
                    self._step(batch, factor=0.0, average_decay=1.0)
                    if self._cuda:
                        torch.cuda.synchronize()
                cost = (self._clock.now() - started) / NANOSECONDS
            with self._watch.booking("warmup"):
                self.model.load_state_dict(weights)
                if self.average is not None:
                    self.average.load_state_dict(average)
                self.optimizer.state.clear()
                self.optimizer.zero_grad(set_to_none=True)
        self.budget.expected = self._in_units(cost)

    def _in_units(self, seconds: float) -> float:
        """Cost of one step in the budget's unit."""
        return {"seconds": seconds, "steps": 1.0, "samples": float(self._samples_per_step)}[self.settings.unit]

    @property
    def _samples_per_step(self) -> int:
        return self.settings.batch * self._world.size

    def advance(self, until: float, stop_requested: Callable[[], bool] = lambda: False) -> None:
        """Train, and evaluate where that is due, until the share `until` of the budget is spent or the run has finished.

        Returns early, between two steps, once `stop_requested()` is true.

        Raises:
            Diverged: the loss or an output is not finite.
            OutOfMemory: a step does not fit the device.
        """
        self._watch.start()
        self._random_outside = random_state(self.device)
        try:
            with self._memory_errors():
                self._unpark()
                self._spend(until, stop_requested)
        finally:
            self.park()

    def _spend(self, until: float, stop_requested: Callable[[], bool]) -> None:
        self._evaluate_if_due()
        while not self.finished:
            standing = (stop_requested(), *self._standing(until))
            stop, exhausted, reached, progress = self._world.agree(standing, self.device)
            if stop:
                break
            if exhausted:
                self._drain()
                self._watch.wait()
                self.budget.close(self.ledger.charged / NANOSECONDS if self.settings.unit == "seconds" else None)
                self._evaluate_if_due(last=True)
                self.finished = True
            elif reached:
                break
            else:
                self._take_step(progress)
                self._evaluate_if_due()
        self._drain()

    @contextlib.contextmanager
    def _memory_errors(self) -> Iterator[None]:
        """Turn the device's own words for having no room into `OutOfMemory`."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._launched.clear()
            raise OutOfMemory(f"batch {self.settings.batch} does not fit at step {self.steps + 1}") from error

    def _standing(self, until: float) -> tuple[float, float, float]:
        """Whether the budget is exhausted, whether `until` is reached, and the position of the next step."""
        exhausted = self.budget.exhausted
        return exhausted, self.budget.fraction >= until, 1.0 if exhausted else self.budget.progress()

    def _take_step(self, progress: float) -> None:
        watch, half_life = self._watch, self.settings.step.ema_half_life
        batch = self._loader.take()
        watch.lap("data_wait")
        factor = self.settings.curve(progress)
        decay = None
        if half_life is not None:  # from positions alone, so that a replay averages alike
            decay = 0.5 ** (max(0.0, progress - self._averaged_to) / half_life)
            self._averaged_to = max(progress, self._averaged_to)
        result = self._step(batch, factor=factor, progress=progress, average_decay=decay, lap=watch.lap)
        self.samples += self._samples_per_step
        self.budget.step_launched()
        told = (result.loss.float(), result.gradient_norm.float(), result.skipped)
        values = self._on_its_way(torch.stack(told))
        watch.lap("log")
        self._launched.append(_Launched(progress, factor, values, self.samples, watch.mark))
        self._drain(leave=self._backlog)

    def _on_its_way(self, values: Tensor) -> Tensor:
        """Copy to the host that is there once the device has reached the next mark, without waiting for it now."""
        if not self._cuda:
            return values
        return torch.empty(values.shape, pin_memory=True).copy_(values, non_blocking=True)

    def _drain(self, leave: int = 0) -> None:
        """Record the launched steps but the last `leave`, waiting for the device to finish them."""
        while len(self._launched) > leave:
            done = self._launched.popleft()
            self._watch.wait(done.mark)
            loss, norm, skipped = done.values.tolist()
            self.steps += 1
            self.skipped_steps += int(skipped)
            charged = self.ledger.charged / NANOSECONDS
            record = {
                "step": self.steps,
                "p": done.progress,
                "spent": charged,
                "seconds": charged - self._charged_seen,
                "lr": self.settings.step.learning_rate * done.factor,
                "batch": self._samples_per_step,
                "samples": done.samples,
                "loss": loss,
                "grad_norm": norm,
            }
            if skipped:
                record["skipped"] = True
            self._charged_seen = charged
            self._recorder.event(record)
            if self.on_step is not None:
                self.on_step(self, loss, done.progress)
            self._watch.lap("log")
            spent = {"seconds": charged, "steps": self.steps, "samples": done.samples}
            self.budget.step_taken(float(spent[self.settings.unit]))
            if not math.isfinite(loss) and not skipped:
                raise Diverged(f"the loss is {loss} at step {self.steps}")

    # ------------------------------------------------------------------------------------------------- evaluation

    def _evaluate_if_due(self, last: bool = False) -> None:
        """Evaluate once for every fraction of the budget that was passed (the last one only at the end)."""
        fractions = self.settings.eval_fractions
        records: list[dict[str, Any]] | None = None
        while self.evaluations < len(fractions):
            fraction = fractions[self.evaluations]
            due = last if fraction >= 1.0 else (last or self.budget.fraction >= fraction)
            if not due:
                return
            self._drain()
            self._watch.lap("log")
            self._watch.wait()
            if records is None or fraction >= 1.0:
                records = self._score(quick=fraction < 1.0) if self._world.rank == 0 else []
            self._recorder.evaluation(
                {
                    "fraction": fraction,
                    "p": self.budget.fraction,
                    "spent": self.ledger.charged / NANOSECONDS,
                    "step": self.steps,
                    "samples": self.samples,
                    "annealed": fraction >= 1.0,
                    "quick": fraction < 1.0,
                    "records": records,
                }
            )
            self._watch.lap("eval")
            self.evaluations += 1

    def evaluate_on(self, split: str) -> list[dict[str, Any]]:
        """Records of another split, outside the run's own evaluations (for tuning). Uncharged."""
        with self._watch.booking("eval"):
            return self._score(split=split)

    def _score(self, **what: Any) -> list[dict[str, Any]]:
        """Records of the model (its average, where it keeps one) in eval mode; the run's random numbers stay untouched."""
        model = self.average if self.average is not None else self.model
        model.eval()
        random = random_state(self.device)
        bf16 = self.settings.step.precision == "bf16"
        try:
            with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                return self.task.evaluate(model, self.device, **what)
        except FloatingPointError as error:
            raise Diverged(f"the outputs are not finite after step {self.steps}: {error}") from error
        finally:
            set_random_state(random, self.device)
            model.train()

    # --------------------------------------------------------------------------------------- slices, park and save

    def _unpark(self) -> None:
        set_random_state(self._random, self.device)
        if self._cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
            self._retries_before = _alloc_retries(self.device)
            move(self.device, self.model, self.average, self.optimizer)
            claim_memory(self._step, self.task.worst_case(self.settings.batch))
        gc.disable()
        self._watch.lap("switch")

    def park(self) -> None:
        """Leave the device to another arm: state to the host, random numbers put away. Uncharged."""
        gc.enable()
        if not self._watch.running:
            self._watch.start()
        else:
            self._random = random_state(self.device)
            set_random_state(self._random_outside, self.device)
        self._loader.seek(self.samples)  # what was made ahead would be free of charge in the next slice
        if self._cuda:
            self._watch.wait()
            self.peak_bytes = max(self.peak_bytes, torch.cuda.max_memory_reserved(self.device))
            self.alloc_retries += _alloc_retries(self.device) - self._retries_before
            move(torch.device("cpu"), self.model, self.average, self.optimizer)
            torch.cuda.empty_cache()
        gc.collect()
        self._watch.stop("switch")

    @contextlib.contextmanager
    def _own_random(self, fresh: bool = False, keep: bool = True) -> Iterator[None]:
        """Run the body on this run's random numbers, and keep where they got to unless `keep` is False."""
        outside = random_state(self.device)
        if fresh:
            torch.manual_seed(derive_seed(self.settings.seed, self.settings.arm, "weights"))
        else:
            set_random_state(self._random, self.device)
        try:
            yield
        finally:
            if keep:
                self._random = random_state(self.device)
            set_random_state(outside, self.device)

    def save(self) -> None:
        """Store the state to resume from (between slices). Uncharged."""
        meta = {
            "steps": self.steps,
            "skipped_steps": self.skipped_steps,
            "samples": self.samples,
            "evaluations": self.evaluations,
            "finished": self.finished,
            "charged_seen": self._charged_seen,
            "averaged_to": self._averaged_to,
            "budget": self.budget.state(),
            "ledger": self.ledger.state(),
        }
        with self._watch.booking("checkpoint"):
            tensors = collect(self.model, self.average, self.optimizer, self._random)
            self._recorder.save_state(tensors, meta)

    def restore(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], lost_seconds: float) -> None:
        """Continue from a saved state; `lost_seconds` were charged after it and are gone with the crash."""
        with self._watch.booking("setup"):
            self._random = distribute(tensors, self.model, self.average, self.optimizer)
            self.steps, self.samples = meta["steps"], meta["samples"]
            self.skipped_steps = meta["skipped_steps"]
            self.evaluations, self.finished = meta["evaluations"], meta["finished"]
            self._charged_seen, self._averaged_to = meta["charged_seen"], meta["averaged_to"]
            self.budget.restore(meta["budget"])
            self._loader.seek(self.samples)
        self.ledger.add(Ledger.from_state(meta["ledger"]))
        self.ledger.book_apart("lost", int(lost_seconds * NANOSECONDS))

    def finish(self, status: str, reason: str = "") -> dict[str, Any]:
        """Store the outcome and return it."""
        self._loader.close()
        with self._watch.booking("checkpoint"):
            kept = self.average if self.average is not None else self.model
            weights = host_copy(unwrap(kept).state_dict())
        if status == "finished" and not self.ledger.balances:
            status = "invalid"
            reason = f"the ledger leaves {100 * self.ledger.unaccounted_fraction:.2f} % of wall time unexplained (0.5 % allowed)"
        seconds = self.settings.unit == "seconds"
        summary = {
            "arm": self.settings.arm,
            "seed": self.settings.seed,
            "status": status,
            "reason": reason,
            "budget_s": self.budget.total if seconds else None,
            "spent_s": self.ledger.charged / NANOSECONDS,
            "overshoot_s": self.budget.overshoot if seconds else 0.0,
            "overshoot_bound_s": self.budget.overshoot_bound if seconds else 0.0,
            "steps": self.steps,
            "skipped_steps": self.skipped_steps,
            "samples": self.samples,
            "optimizer_batch": self._samples_per_step,
            "stream_sha256": self._loader.digest,
            "aggregates": {metric.name: metric.aggregate for metric in self.task.metrics if metric.aggregate != "mean"},
            "sources": {metric.name: metric.of for metric in self.task.metrics if metric.of},
            "peak_bytes": self.peak_bytes or None,
            "alloc_retries": self.alloc_retries,
        }
        self._recorder.finish(summary, self.ledger.report(), weights)
        return summary


def _alloc_retries(device: torch.device) -> int:
    """How often the allocator has had to free everything and ask again, in this process."""
    return torch.cuda.memory_stats(device).get("num_alloc_retries", 0)
