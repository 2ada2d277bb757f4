"""The trainer on a CUDA device: its books, its parking, its replay, its precision and how it runs out of memory."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bench.engine import sentinel
from bench.engine.clock import SystemClock
from bench.engine.ledger import CHARGED, CudaTimeline
from bench.engine.progress import Budget, ReplayedBudget
from bench.engine.trainer import OutOfMemory, Trainer
from bench.store.write import weights_hash
from tests.gpu.conftest import BUILDERS, Memory

pytestmark = pytest.mark.gpu

Make = Callable[..., tuple[Trainer, Memory]]
ARMS = tuple(BUILDERS)


def finish(trainer: Trainer) -> None:
    trainer.advance(1.0)
    assert trainer.finished
    trainer.finish("finished")


def test_the_timeline_tells_phases_apart_without_stopping_the_device(device: torch.device) -> None:
    timeline, matrix = CudaTimeline(), torch.randn(4096, 4096, device=device)
    torch.cuda.synchronize()
    marks = [timeline.mark()]
    for repeats in (1, 20):
        for _ in range(repeats):
            torch.mm(matrix, matrix)
        marks.append(timeline.mark())
    assert timeline.elapsed(marks[0], marks[2]) is None, "asking does not wait"
    timeline.wait(marks[2])
    short, long = timeline.elapsed(marks[0], marks[1]), timeline.elapsed(marks[1], marks[2])
    whole = timeline.elapsed(marks[0], marks[2])
    assert short is not None
    assert long is not None
    assert long > 3 * short > 0
    assert whole == pytest.approx(short + long, rel=0.01)


@pytest.mark.parametrize("arm", ARMS)
def test_the_ledger_balances_and_the_budget_is_kept(make_trainer: Make, arm: str) -> None:
    trainer, recorder = make_trainer(arm, Budget(1.0), unit="seconds")
    for share in (0.25, 0.5, 0.75, 1.0):  # slices: the books are closed and opened again
        trainer.advance(share)
    assert trainer.finished
    summary = trainer.finish("finished")
    ledger = recorder.ledger
    assert summary["status"] == "finished", summary["reason"]
    assert abs(ledger["unaccounted_fraction"]) <= 0.005
    assert all(seconds >= 0 for seconds in ledger["categories"].values())
    assert all(ledger["categories"][name] > 0 for name in ("forward", "backward", "optimizer", "h2d", "switch"))
    assert ledger["charged"] == pytest.approx(sum(ledger["categories"][name] for name in CHARGED))
    assert sum(event["seconds"] for event in recorder.events) == pytest.approx(ledger["charged"], rel=0.02)
    assert summary["overshoot_s"] <= summary["overshoot_bound_s"] + 1e-9
    assert [event["step"] for event in recorder.events] == list(range(1, summary["steps"] + 1))


@pytest.mark.parametrize("half_life", [None, 0.2])
def test_a_parked_run_leaves_the_device_to_the_other_and_comes_to_the_same_weights(
    make_trainer: Make, deterministic: None, half_life: float | None
) -> None:
    alone, undisturbed = make_trainer("efficient-lvsm", Budget(12), half_life=half_life)
    finish(alone)
    del alone
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    trainer, recorder = make_trainer("efficient-lvsm", Budget(12), half_life=half_life)
    other, _ = make_trainer("lvsm-decoder-only", Budget(12))
    for share in (0.25, 0.5, 1.0):
        trainer.advance(share)
        assert torch.cuda.memory_allocated() <= before + 2**20, "parked: its tensors are on the host"
        assert {weight.device.type for weight in trainer.model.parameters()} == {"cpu"}
        other.advance(share)
    assert trainer.finished
    trainer.finish("finished")
    assert weights_hash(recorder.weights) == weights_hash(undisturbed.weights)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("arm", ARMS)
def test_a_timed_run_replays_bit_for_bit(make_trainer: Make, deterministic: None, arm: str, precision: str) -> None:
    timed, original = make_trainer(arm, Budget(0.5), unit="seconds", precision=precision)
    finish(timed)
    trace = [event["p"] for event in original.events]
    again, replayed = make_trainer(arm, ReplayedBudget(trace), unit="seconds", precision=precision)
    again.advance(2.0)
    again.finish("finished")
    assert len(replayed.events) == len(trace)
    assert weights_hash(replayed.weights) == weights_hash(original.weights)


def test_a_saved_run_goes_on_to_the_same_weights(make_trainer: Make, deterministic: None) -> None:
    whole, undisturbed = make_trainer("efficient-lvsm", Budget(12))
    finish(whole)
    first, stopped = make_trainer("efficient-lvsm", Budget(12))
    first.advance(0.5)
    first.save()
    second, recorder = make_trainer("efficient-lvsm", Budget(12))
    tensors, meta = stopped.state
    assert {tensor.device.type for tensor in tensors.values()} == {"cpu"}
    second.restore(tensors, meta, 0.0)
    finish(second)
    assert weights_hash(recorder.weights) == weights_hash(undisturbed.weights)


@pytest.mark.parametrize("arm", ARMS)
def test_bf16_trains_and_keeps_fp32_weights(make_trainer: Make, arm: str) -> None:
    trainer, recorder = make_trainer(arm, Budget(60), precision="bf16")
    finish(trainer)
    losses = [event["loss"] for event in recorder.events]
    assert sum(losses[-10:]) < sum(losses[:10])
    assert all(weight.dtype == torch.float32 for weight in recorder.weights.values() if weight.is_floating_point())
    exact, same = make_trainer(arm, Budget(1), precision="fp32")
    finish(exact)
    assert losses[0] == pytest.approx(same.events[0]["loss"], rel=0.02)


class Glutton(nn.Module):
    """Asks for more than the whole device once it has taken its warm-up and three steps."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.forwards = BUILDERS["efficient-lvsm"](), 0

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        self.forwards += 1
        if self.forwards > 6:
            torch.empty(2 * torch.cuda.get_device_properties(0).total_memory, dtype=torch.uint8, device="cuda")
        return self.inner(**inputs)


def test_out_of_memory_ends_the_run_and_frees_the_device(make_trainer: Make) -> None:
    trainer, recorder = make_trainer("glutton", Budget(20), build=Glutton)
    with pytest.raises(OutOfMemory, match="batch 16 does not fit at step"):
        trainer.advance(1.0)
    assert len(recorder.events) <= 3
    assert {weight.device.type for weight in trainer.model.parameters()} == {"cpu"}
    assert trainer.finish("out-of-memory")["status"] == "out-of-memory"


def test_the_sentinel_reads_alike_twice(device: torch.device) -> None:
    kernel = sentinel.make_kernel(device)
    rates = [sentinel.measure(kernel, SystemClock(), seconds=0.5, synchronize=torch.cuda.synchronize) for _ in range(3)]
    assert min(rates) > 0
    assert sentinel.drift(rates) < 0.3
