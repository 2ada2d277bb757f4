"""Scaling folders with known exponents, written without measuring anything."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.report import tables
from bench.store.files import write_manifest
from bench.store.read import open_comparison
from bench.store.scaling import open_scaling, seal
from tests.report.fake_store import FakeArm, FakeStore

Law = Callable[[float], float]
VALUES = (2, 4, 8, 16, 32, 64)
DEVICE = {"kind": "cpu", "name": "Fake 2-core CPU", "cores": 2, "threads": 1, "torch": "2.15.0"}


def cost_curve(laws: Mapping[str, Law], **changes: Any) -> dict[str, Any]:
    """A curve of planted latencies over `VALUES`."""
    return {
        "kind": "cost",
        "name": "views",
        "title": "Cost against views",
        "task": "nvs",
        "axis": ["input_views"],
        "axis_label": "input views",
        "values": list(VALUES),
        "timed_at": {"target_views": 8},
        "arms": [{"name": name, "timed": {"label": name}} for name in laws],
        "quantities": ["latency", "flops"],
        **changes,
    }


def write_costs(
    folder: Path,
    laws: Mapping[str, Law],
    *,
    noise: float = 0.01,
    skipped: Sequence[tuple[str, int]] = (),
    **changes: Any,
) -> Path:
    """A finished folder of one cost curve: 7 rounds of ``law(views)`` milliseconds with relative noise, FLOPs without any."""
    _write_record(folder, [cost_curve(laws, **changes)])
    measured = folder / "costs" / "views"
    record = {
        "schema": 1, "protocol": "1.0", "name": "efficiency-nvs", "task": "nvs", "preset": "tiny", "status": "finished",
        "device": DEVICE, "precision": "fp32", "timed_by": "processor time", "rounds": 7, "seed": 0, "limit_seconds": 5.0,
        "limit_bytes": 2**30, "sweep": "views", "architectures": [], "code_sha256": "0" * 64,
    }  # fmt: skip
    generator = np.random.default_rng(0)
    lines = []
    for views in VALUES:
        calls = []
        for name, law in laws.items():
            times = [law(views) * float(factor) for factor in 1 + noise * generator.standard_normal(7)]
            left_out = "about 9 s a call foreseen" if (name, views) in skipped else ""
            call = {"label": name, "mode": "full", "flops": round(1e9 * law(views)), "skipped": left_out}
            calls.append(call if left_out else {**call, "times_ms": times, "live_bytes": 2**20 * views})
        lines.append({"sizes": {"input_views": views, "target_views": 8}, "load": 0.1, "calls": calls})
    measured.mkdir(parents=True)
    (measured / "efficiency.json").write_text(json.dumps(record))
    (measured / "timings.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_manifest(measured)
    seal(open_scaling(folder))
    return folder


def write_quality(folder: Path, laws: Mapping[str, Law], values: Sequence[float], *, seeds: int = 5) -> Path:
    """A finished folder of one quality curve whose arms reach ``law(value)`` dB, with the fake store's noise of the seeds."""
    curve = {
        "kind": "quality",
        "name": "budget",
        "title": "Quality against the budget",
        "comparison": "nvs",
        "axis_label": "charged seconds",
        "x": "budget",
        "points": [{"value": value} for value in values],
    }
    _write_record(folder, [curve])
    for value in values:
        arms = tuple(
            FakeArm(name, "fill", ceiling=law(value), rate=100 / value, steps=20, batch=8) for name, law in laws.items()
        )
        store = FakeStore(arms, tuple(range(seeds)), budget_s=value, reference=next(iter(laws)), noise=0.05)
        point = store.write(folder / "points" / "budget" / f"{value:g}")
        tables.write(open_comparison(point), point)
        write_manifest(point)
    seal(open_scaling(folder))
    return folder


def _write_record(folder: Path, curves: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True)
    record = {
        "schema": 1,
        "protocol": "1.0",
        "name": "scaling",
        "preset": "tiny",
        "status": "finished",
        "device": DEVICE,
        "curves": curves,
    }
    (folder / "scaling.json").write_text(json.dumps(record))
