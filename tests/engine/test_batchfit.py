from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.engine.batchfit import MAX_PROBES, BatchFit, Policy, ProbeError, ProbeResult, choose, parse_policy, search
from bench.errors import UserError

MIB = 2**20


class FakeDevice:
    """Memory and step time as functions of the batch; out of memory either with a known peak or without one."""

    def __init__(
        self,
        peak: Callable[[int], float],
        limit: int,
        step_s: Callable[[int], float] = lambda batch: 0.01 + 0.001 * batch,
        knows_misfits: bool = True,
        real_limit: int | None = None,
    ) -> None:
        self.peak, self.limit, self.step_s, self.knows_misfits = peak, limit, step_s, knows_misfits
        self.real_limit = limit if real_limit is None else real_limit
        self.probed: list[int] = []

    def __call__(self, batch: int) -> ProbeResult:
        assert batch >= 1
        assert batch not in self.probed, "the same batch was probed twice"
        self.probed.append(batch)
        peak = int(self.peak(batch))
        if peak > self.real_limit:
            # What runs far over is ended before it can say how much it needs.
            known = peak if self.knows_misfits and peak < 1.5 * self.real_limit else None
            return ProbeResult(batch, known, None, False, "out of memory")
        return ProbeResult(batch, peak, batch / self.step_s(batch), True)


def check(fit: BatchFit, device: FakeDevice) -> None:
    """What must hold whatever the device does."""
    assert [p.batch for p in fit.curve] == sorted(device.probed)
    for answer in (fit.max_fit, fit.knee):
        probe = fit.at(answer)
        assert probe is not None
        assert probe.fits
    assert fit.knee <= fit.max_fit <= fit.cap


@given(
    base=st.floats(0, 0.9),
    sample=st.floats(-4.5, -0.31).map(lambda exponent: 10**exponent),
    limit=st.integers(64 * MIB, 1 << 38),
    knows_misfits=st.booleans(),
    cap=st.integers(1, 10**6),
)
def test_affine_memory_is_filled_in_six_probes(
    base: float, sample: float, limit: int, knows_misfits: bool, cap: int
) -> None:
    def peak(batch: int) -> float:
        return limit * (base + sample * batch)

    device = FakeDevice(peak, limit, knows_misfits=knows_misfits)
    if peak(1) >= limit:
        with pytest.raises(UserError, match="not even one sample fits"):
            search(device, limit, cap)
        return
    fit = search(device, limit, cap)
    check(fit, device)
    assert len(device.probed) <= MAX_PROBES
    filled = peak(fit.max_fit) / limit
    assert filled >= 0.9 or peak(fit.max_fit + 1) > limit or fit.max_fit == cap


@given(seed=st.integers(0, 10**6), base=st.floats(0, 0.5), exponent=st.floats(-3.5, -1))
def test_noise_of_two_percent_still_fills_nine_tenths(seed: int, base: float, exponent: float) -> None:
    limit, noise = 512 * MIB, random.Random(seed)

    def peak(batch: int) -> float:
        return limit * (base + 10**exponent * batch) * noise.uniform(0.98, 1.02)

    device = FakeDevice(peak, limit)
    fit = search(device, limit, 10**6)
    check(fit, device)
    assert len(device.probed) <= MAX_PROBES
    assert fit.at(fit.max_fit).peak_bytes >= 0.9 * limit or (fit.max_fit + 1) * 10**exponent + base > 0.98


@pytest.mark.parametrize("knows_misfits", [True, False])
@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("quadratic", lambda b: 50 * MIB + 3e4 * b * b),
        ("cubic", lambda b: 50 * MIB + 1e3 * b**3),
        ("steps of 64", lambda b: 50 * MIB + 40 * MIB * -(-b // 64)),
        ("falling slope", lambda b: 20 * MIB + 4 * MIB * b**0.8),
        ("flat, then a cliff", lambda b: 100 * MIB if b < 100 else 4000 * MIB),
        ("falls at first", lambda b: 200 * MIB / b + 2 * MIB * b),
    ],
)
def test_a_hoarder_gets_a_batch_that_was_probed_and_fits(
    name: str, peak: Callable[[int], float], knows_misfits: bool
) -> None:
    device = FakeDevice(peak, 1000 * MIB, knows_misfits=knows_misfits)
    fit = search(device, 1000 * MIB, 10**6)
    check(fit, device)
    assert len(device.probed) <= MAX_PROBES
    best = max(b for b in range(1, 5000) if peak(b) <= 1000 * MIB)
    assert fit.max_fit >= (0.4 if "cliff" in name else 0.6) * best, f"{name}: {fit.max_fit} of {best}"


def test_a_device_with_less_than_it_declares_is_still_filled() -> None:
    device = FakeDevice(lambda b: MIB * (100 + 2 * b), 1000 * MIB, knows_misfits=False, real_limit=960 * MIB)
    fit = search(device, 1000 * MIB, 10**6)
    check(fit, device)
    assert fit.at(fit.max_fit).peak_bytes >= 0.9 * 960 * MIB


def test_memory_that_hardly_grows_stops_at_the_training_set() -> None:
    device = FakeDevice(lambda b: 10 * MIB + 10 * b, 1000 * MIB)
    fit = search(device, 1000 * MIB, cap=300)
    assert fit.max_fit == 300
    assert max(device.probed) == 300


@pytest.mark.parametrize("cap", [1, 2, 3])
def test_tiny_training_sets(cap: int) -> None:
    fit = search(FakeDevice(lambda b: MIB * b, 1000 * MIB), 1000 * MIB, cap)
    assert fit.max_fit == cap


def test_nothing_fits_names_need_limit_and_mend() -> None:
    with pytest.raises(UserError, match=r"batch 1 needs 700.0 MiB, the memory limit is 512.0 MiB: raise the limit"):
        search(FakeDevice(lambda b: 600 * MIB + 100 * MIB * b, 512 * MIB), 512 * MIB, 100)


def test_an_ordinary_error_is_raised_at_once_with_its_trace() -> None:
    calls = []

    def probe(batch: int) -> ProbeResult:
        calls.append(batch)
        error = RuntimeError("ValueError: mat1 and mat2 shapes cannot be multiplied")
        error.trace = "Traceback ...\nValueError: mat1 and mat2 shapes cannot be multiplied"  # type: ignore[attr-defined]
        raise error

    with pytest.raises(ProbeError, match="not for want of memory: ValueError: mat1 and mat2") as caught:
        search(probe, 512 * MIB, 100)
    assert len(calls) == 1
    assert caught.value.trace.startswith("Traceback")
    assert isinstance(caught.value, UserError)
    assert "\n" not in str(caught.value)


def test_an_error_of_the_users_is_passed_on() -> None:
    def probe(batch: int) -> ProbeResult:
        raise UserError("task.views must be >= 1, got 0")

    with pytest.raises(UserError, match="views must be"):
        search(probe, 512 * MIB, 100)


@given(exponent=st.floats(-2, 2.5))
def test_knee_of_a_saturating_device_is_near_the_true_one(exponent: float) -> None:
    half = 10**exponent  # batch at half the largest throughput
    device = FakeDevice(lambda b: MIB * (100 + b), 1000 * MIB, step_s=lambda b: 0.001 * (half + b))
    fit = search(device, 1000 * MIB, 10**6)
    check(fit, device)
    best = fit.max_fit / (half + fit.max_fit)
    true_knee = next(b for b in range(1, 1000) if b / (half + b) >= 0.95 * best)
    assert true_knee <= fit.knee <= max(3 * true_knee, 8)


def test_knee_of_a_device_that_is_flat_until_it_is_full() -> None:
    device = FakeDevice(lambda b: MIB * (100 + b), 1000 * MIB, step_s=lambda b: max(0.1, 0.001 * b))
    fit = search(device, 1000 * MIB, 10**6)
    assert 95 <= fit.knee <= 250


def test_knee_is_small_where_large_batches_are_slower() -> None:
    device = FakeDevice(lambda b: MIB * (100 + b), 1000 * MIB, step_s=lambda b: 0.001 * b * (1 + b / 500))
    assert search(device, 1000 * MIB, 10**6).knee <= 20


def test_policies_read_and_print() -> None:
    for text in ("fill", "knee", "fixed:16"):
        assert str(parse_policy(text)) == text
    assert parse_policy("fixed:16") == Policy("fixed", 16)
    for text in ("", "Fill", "fixed", "fixed:0", "fixed:-1", "fixed:1.5", "tuned", "fixed:3 "):
        with pytest.raises(UserError, match="batch policy must be fill, knee or fixed:N"):
            parse_policy(text)


def test_choice_and_record() -> None:
    device = FakeDevice(lambda b: MIB * (100 + 10 * b), 1000 * MIB)
    fit = search(device, 1000 * MIB, 10**6, also=[16])
    filled = choose(fit, parse_policy("fill")).to_record()
    assert filled["micro_batch"] == filled["optimizer_batch"] == filled["max_fit"] == fit.max_fit
    assert 0.9 <= filled["memory_filled"] <= 1.0
    assert filled["fit"]["b"] == pytest.approx(10 * MIB, rel=0.01)
    assert filled["fit"]["a"] == pytest.approx(100 * MIB, rel=0.01)
    assert set(filled["curve"][0]) == {"batch", "peak_bytes", "samples_per_s", "fits", "error"}
    assert choose(fit, parse_policy("knee")).batch == fit.knee
    fixed = choose(fit, parse_policy("fixed:16")).to_record()
    assert (fixed["policy"], fixed["micro_batch"], fixed["peak_bytes"]) == ("fixed:16", 16, 260 * MIB)


@pytest.mark.parametrize("size", [100, 95, 10_000])
def test_a_fixed_batch_that_does_not_fit_is_refused(size: int) -> None:
    device = FakeDevice(lambda b: MIB * (100 + 10 * b), 1000 * MIB)
    fit = search(device, 1000 * MIB, 10**6, also=[size])
    with pytest.raises(UserError, match=rf"fixed:{size}: {size} samples need about .* of 1000.0 MiB: choose fixed:"):
        choose(fit, Policy("fixed", size))
    assert max(device.probed) <= 100, "a hopeless batch must not be tried"


def test_a_fixed_batch_near_the_limit_is_probed_and_becomes_the_largest() -> None:
    device = FakeDevice(lambda b: MIB * (100 + 10 * b), 1000 * MIB)
    fit = search(device, 1000 * MIB, 10**6, also=[90])
    assert 90 in device.probed
    assert choose(fit, Policy("fixed", 90)).batch == 90 == fit.max_fit
    assert choose(fit, Policy("fixed", 90)).memory_filled == 1.0


def test_a_fixed_batch_above_the_training_set_is_refused() -> None:
    fit = search(FakeDevice(lambda b: MIB * b, 1000 * MIB), 1000 * MIB, 50, also=[60])
    with pytest.raises(UserError, match="only 50 training samples"):
        choose(fit, Policy("fixed", 60))


def test_allocator_retries_do_not_fit() -> None:
    def probe(batch: int) -> ProbeResult:
        retries = 1 if batch > 40 else 0
        return ProbeResult(batch, 10 * MIB * batch, 100.0, not retries, "retried" if retries else None, retries)

    assert search(probe, 1000 * MIB, 10**6).max_fit <= 40
