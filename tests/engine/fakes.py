"""Stand-ins that make the engine testable in milliseconds: a clock that only moves when told, a task of a few numbers,
models whose steps cost what a test says, and a recorder that keeps everything in memory.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.contracts import Metric
from bench.engine.progress import Budget, learning_rate_curve
from bench.engine.step import StepSettings
from bench.engine.trainer import RunSettings, Trainer
from bench.engine.world import World

SECOND = 1_000_000_000
CPU = torch.device("cpu")


class FakeClock:
    """A clock that stands still until `work`, `sleep` or `skew` moves it."""

    def __init__(self) -> None:
        self.time = 0
        self.extra_wall = 0
        self.cpu_time = 0

    def now(self) -> int:
        return self.time

    def wall(self) -> int:
        return self.time + self.extra_wall

    def cpu(self) -> int:
        return self.cpu_time

    def work(self, seconds: float) -> None:
        """Time passes while the process computes."""
        self.work_ns(round(seconds * SECOND))

    def work_ns(self, nanoseconds: int) -> None:
        self.time += nanoseconds
        self.cpu_time += nanoseconds

    def sleep_ns(self, nanoseconds: int) -> None:
        """Time passes while the process is stopped."""
        self.time += nanoseconds

    def skew_ns(self, nanoseconds: int) -> None:
        """The second clock sees time pass that the first does not."""
        self.extra_wall += nanoseconds


class LazyTimeline:
    """A device that runs behind the host: a mark is reached only when it is waited for, or `catch_up` is called."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock, self._reached = clock, -1

    def mark(self) -> int:
        return self._clock.now()

    def elapsed(self, start: int, end: int) -> int | None:
        return end - start if end <= self._reached else None

    def wait(self, mark: int) -> None:
        self._reached = max(self._reached, mark)

    def catch_up(self) -> None:
        self._reached = self._clock.now()


class MemoryRecorder:
    """Keeps the records of a run."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.evaluations: list[dict[str, Any]] = []
        self.states: list[tuple[dict[str, Tensor], dict[str, Any]]] = []
        self.summary: dict[str, Any] = {}
        self.ledger: dict[str, Any] = {}
        self.weights: dict[str, Tensor] = {}

    def event(self, record: Mapping[str, Any]) -> None:
        self.events.append(dict(record))

    def evaluation(self, record: Mapping[str, Any]) -> None:
        self.evaluations.append(dict(record))

    def save_state(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        self.states.append((dict(tensors), dict(meta)))

    def finish(self, summary: Mapping[str, Any], ledger: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        self.summary, self.ledger, self.weights = dict(summary), dict(ledger), dict(weights)


class FakeTask:
    """Regression of 2 numbers on 4; a sample is a function of its index and its draw."""

    name = "fake"
    input_fields = ("x",)
    target_fields = ("y",)
    metrics = (Metric("score", "score", True),)
    symmetries = ()

    def __init__(
        self, clock: FakeClock | None = None, *, size: int = 40, data_cost: float = 0.0, eval_cost: float = 0.0
    ) -> None:
        self.clock = clock or FakeClock()
        self.size, self.data_cost, self.eval_cost = size, data_cost, eval_cost
        self.loss_scale = 1.0
        self.scored: list[dict[str, Any]] = []
        self.served: list[int] = []

    def prepare(self, progress: Any = None) -> None:
        pass

    def training_size(self) -> int:
        return self.size

    def collate(self, indices: np.ndarray, draws: np.ndarray) -> dict[str, Tensor]:
        self.clock.work(self.data_cost)
        self.served += indices.tolist()
        return self._make(indices, draws)

    def _make(self, indices: np.ndarray, draws: np.ndarray) -> dict[str, Tensor]:
        rows = [
            np.random.Generator(np.random.Philox([int(i), int(d)])).random(4)
            for i, d in zip(indices, draws, strict=True)
        ]
        x = torch.from_numpy(np.stack(rows)).float()
        return {"x": x, "y": torch.stack([x.sum(1), x[:, 0] - x[:, 1]], dim=1)}

    def transfer(self, batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        return {name: field.to(device) for name, field in batch.items()}

    def loss(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        return self.loss_scale * torch.nn.functional.mse_loss(outputs["y"].float(), batch["y"])

    def evaluate(
        self, model: nn.Module, device: torch.device, *, split: str = "test", quick: bool = False
    ) -> list[dict[str, Any]]:
        assert not model.training
        assert torch.is_inference_mode_enabled()
        self.clock.work(self.eval_cost)
        torch.rand(3)  # an evaluation that draws numbers must not change the run
        batch = self._make(np.arange(6), np.arange(6, dtype=np.uint64))
        errors = (model(x=batch["x"])["y"] - batch["y"]).square().mean(1)
        if not torch.isfinite(errors).all():
            raise FloatingPointError("test/0: score is not finite")
        self.scored.append({"split": split, "quick": quick})
        return [{"sample": f"{split}/{i}", "score": -float(error)} for i, error in enumerate(errors)]

    def worst_case(self, batch_size: int) -> dict[str, Tensor]:
        return {"x": torch.ones(batch_size, 4), "y": torch.ones(batch_size, 2)}

    def pictures(self, models: Mapping[str, nn.Module], device: torch.device) -> None:
        return None


class TinyNet(nn.Module):
    """Two layers with batch norm and dropout: everything that a step, a warm-up or a park could disturb."""

    def __init__(self, dropout: float = 0.3, norm: bool = True) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.norm = nn.BatchNorm1d(8) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"y": self.second(self.dropout(torch.relu(self.norm(self.first(x)))))}


class CostlyNet(TinyNet):
    """Each training forward takes the next of the seconds that a test gives it."""

    def __init__(self, clock: FakeClock, costs: Iterator[float] | float, **options: Any) -> None:
        super().__init__(**options)
        self._clock, self._costs = clock, costs

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if self.training:
            self._clock.work(self._costs if isinstance(self._costs, float) else next(self._costs))
        return super().forward(x)

    def __deepcopy__(self, memo: dict[int, Any]) -> TinyNet:
        copied = TinyNet(self.dropout.p, isinstance(self.norm, nn.BatchNorm1d))
        copied.load_state_dict(self.state_dict())
        return copied


class IdleNet(TinyNet):
    """Declares a weight that nothing reads, and has one that only its auxiliary loss does."""

    def __init__(self) -> None:
        super().__init__(dropout=0.0, norm=False)
        self.idle, self.aside = nn.Linear(2, 2), nn.Linear(1, 1)

    def unused_parameters(self) -> list[str]:
        return ["idle.weight", "idle.bias"]

    def auxiliary_loss(self, batch: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> Tensor:
        return self.aside(outputs["y"].mean().view(1)).square().sum()


class FailingNet(TinyNet):
    """Raises `error` in its training forward number `at` (the warm-up's three count)."""

    def __init__(self, error: BaseException, at: int) -> None:
        super().__init__()
        self._error, self._left = error, at

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if self.training:
            self._left -= 1
            if self._left == 0:
                raise self._error
        return super().forward(x)


def jitter(seed: int, low: float = 0.02, high: float = 0.2) -> Iterator[float]:
    """Endless step costs in seconds, different from step to step."""
    generator = random.Random(seed)
    while True:
        yield generator.uniform(low, high)


def make_trainer(
    *,
    clock: FakeClock | None = None,
    task: FakeTask | None = None,
    build: Callable[[], nn.Module] | None = None,
    budget: Budget | float = 1.0,
    step: StepSettings | None = None,
    recorder: Any = None,
    world: World | None = None,
    gaps: Any = None,
    costs: Iterator[float] | float = 0.1,
    **settings: Any,
) -> Trainer:
    """A trainer of `CostlyNet` on the fake task; whatever a test cares about can be given instead."""
    clock = clock or FakeClock()
    run = {
        "arm": "net",
        "seed": 0,
        "batch": 4,
        "curve": learning_rate_curve("cosine", 0.1),
        "eval_fractions": (0.0, 0.5, 1.0),
    } | settings
    return Trainer(
        build=build or (lambda: CostlyNet(clock, costs)),
        task=task or FakeTask(clock),
        settings=RunSettings(step=step or StepSettings(learning_rate=0.05), **run),
        budget=budget if isinstance(budget, Budget) else Budget(budget),
        device=CPU,
        clock=clock,
        recorder=MemoryRecorder() if recorder is None else recorder,
        gaps=gaps,
        world=world,
    )


def weights_of(trainer: Trainer) -> dict[str, Tensor]:
    """Copies of a trainer's weights and buffers, those of its average too."""
    parts = {"model": trainer.model} | ({"average": trainer.average} if trainer.average is not None else {})
    return {
        f"{part}/{name}": value.clone() for part, module in parts.items() for name, value in module.state_dict().items()
    }


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two sets of tensors are equal to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def run_rank(rank: int, size: int, meeting_point: str, out: str) -> None:
    """One of `size` processes that train together; leaves what came of it in ``out/rank-N.pt``."""
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=size)
    try:
        found = {"seconds": train_together(rank, 3.0, "seconds", 4), "steps": train_together(rank, 20, "steps", 4)}
        fresh = make_trainer()
        fresh.set_up()
        found["dropout"] = {"weight": fresh.model.first.weight.detach().clone(), "random": fresh._random["cpu"]}
        idle = make_trainer(build=IdleNet, budget=5, unit="steps")
        idle.set_up()
        needs = {name: weight.requires_grad for name, weight in idle.model.named_parameters()}
        idle.advance(1.0)
        found["idle"] = {"steps": idle.steps, "needs": needs, "weights": weights_of(idle)}
        torch.save(found, Path(out) / f"rank-{rank}.pt")
    finally:
        dist.destroy_process_group()


def train_together(rank: int, budget: float, unit: str, batch: int) -> dict[str, Any]:
    """Train without dropout and batch norm (which see the batch of one process) and tell what came of it.

    Rank 0 is asked to stop after its fourth step, the others never; the clock of rank n runs ``10 ** n`` times as fast.
    """
    clock, recorder = FakeClock(), MemoryRecorder()
    scale = 10.0**rank
    asked = 0

    def stop_at_rank_0() -> bool:
        nonlocal asked
        asked += 1
        return rank == 0 and asked == 5

    trainer = make_trainer(
        clock=clock,
        build=lambda: CostlyNet(clock, (scale * cost for cost in jitter(rank)), dropout=0.0, norm=False),
        budget=budget,
        unit=unit,
        batch=batch,
        recorder=recorder,
        step=StepSettings(learning_rate=0.05, ema_half_life=0.2),
    )
    trainer.set_up()
    trainer.advance(1.0, stop_at_rank_0)  # Ctrl-C reaches every process, but not between the same two steps
    stopped_at = trainer.steps
    trainer.advance(0.6)
    sliced_at = trainer.steps
    trainer.advance(1.0)
    trainer.finish("finished")
    return {
        "steps": (stopped_at, sliced_at, trainer.steps),
        "samples": trainer.samples,
        "p": [event["p"] for event in recorder.events],
        "weights": dict(recorder.weights),
        "served": trainer.task.served,
        "digest": recorder.summary["stream_sha256"],
    }


def run(trainer: Trainer) -> Trainer:
    """The trainer, run from nothing to the end."""
    trainer.set_up()
    trainer.advance(1.0)
    assert trainer.finished
    trainer.finish("finished")
    return trainer


def records(trainer: Trainer) -> MemoryRecorder:
    """What it told its recorder."""
    recorder = trainer._recorder
    assert isinstance(recorder, MemoryRecorder)
    return recorder
