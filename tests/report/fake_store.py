"""Writes a complete, synthetic result folder (layout: docs/store.md), so that the report can be tested without training."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SAMPLES = tuple(f"scene-{scene:04d}/target-{view}" for scene in range(8) for view in range(2))
QUICK = SAMPLES[:6]
FRACTIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
METRICS = [
    {"name": "psnr", "label": "PSNR (dB)", "higher_is_better": True, "digits": 2, "note": "per image, range [0, 1]"},
    {"name": "ssim", "label": "SSIM", "higher_is_better": True, "digits": 3, "note": "Gaussian window 11"},
    {"name": "st_lpips", "label": "ST-LPIPS", "higher_is_better": False, "digits": 3, "note": "AlexNet; not LPIPS"},
]


TRAINING = {
    "optimizer": "adamw",
    "learning_rate": 4e-4,
    "reference_batch": 8,
    "scaling": "sqrt",
    "betas": [0.9, 0.95],
    "weight_decay": 0.05,
    "gradient_clip": 1.0,
    "ema_half_life": None,
    "precision": "fp32",
    "compile": False,
    "charge_compilation": False,
    "tune": {"candidates": [], "budget": 10.0},
}


@dataclass
class FakeArm:
    """An arm whose PSNR rises as ``ceiling - (ceiling - 9) exp(-rate t)`` plus a little noise of the seed."""

    label: str
    policy: str
    ceiling: float
    rate: float
    steps: int
    batch: int

    @property
    def name(self) -> str:
        return f"{self.label}.{self.policy.replace(':', '-')}"


ARMS = (
    FakeArm("lvsm-decoder-only", "fill", ceiling=17.0, rate=0.11, steps=96, batch=48),
    FakeArm("efficient-lvsm", "fill", ceiling=18.4, rate=0.06, steps=118, batch=64),
    FakeArm("lvsm-decoder-only", "knee", ceiling=17.8, rate=0.12, steps=410, batch=8),
    FakeArm("efficient-lvsm", "knee", ceiling=19.0, rate=0.09, steps=520, batch=8),
)


@dataclass
class FakeStore:
    """What to write. ``statuses`` maps (arm name, seed) to a status other than finished; "not started" writes no folder."""

    arms: tuple[FakeArm, ...] = ARMS
    seeds: tuple[int, ...] = (0, 1, 2)
    budget_s: float = 25.0
    status: str = "finished"
    statuses: Mapping[tuple[str, int], str] = field(default_factory=dict)
    flags: Mapping[tuple[str, int], list[str]] = field(default_factory=dict)
    reference: str = "lvsm-decoder-only"
    noise: float = 0.15
    learn_nothing: bool = True
    training: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """Label -> settings of training to set otherwise."""
    comparison: dict[str, Any] = field(default_factory=dict)
    """Keys of comparison.json to set otherwise."""

    def write(self, folder: Path) -> Path:
        """Write everything below `folder` and return it."""
        folder.mkdir(parents=True, exist_ok=True)
        _json(folder / "comparison.json", self._comparison() | self.comparison)
        for arm in self.arms:
            _json(folder / "arms" / f"{arm.name}.json", _measured(arm))
            for seed in self.seeds:
                self._write_run(folder / "runs" / arm.name / f"seed-{seed}", arm, seed)
        if self.learn_nothing:
            _json(folder / "references.json", [_baseline(*entry) for entry in BASELINES])
        sentinels = [
            {"time": 10.0 * block + index, "block": block, "when": when, "rate": 200.0 * (1 - 0.01 * index)}
            for block in range(len(self.seeds))
            for index, when in enumerate(("start", "between", "end"))
        ]
        _lines(folder / "sentinel.jsonl", sentinels)
        return folder

    def _comparison(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "protocol": "1.0",
            "name": "nvs",
            "preset": "tiny",
            "description": "LVSM decoder-only against the dual-stream design on rendered scenes.",
            "task": {"name": "nvs", "options": {}, "metrics": METRICS},
            "arms": [
                {
                    "name": arm.name,
                    "label": arm.label,
                    "architecture": arm.label,
                    "options": {"width": 128, "gradient_checkpointing": False},
                    "policy": arm.policy,
                    "pretrained": False,
                    "training": TRAINING | self.training.get(arm.label, {}),
                }
                for arm in self.arms
            ],
            "reference": self.reference,
            "seeds": list(self.seeds),
            "budget_s": self.budget_s,
            "eval_fractions": list(FRACTIONS),
            "device": {
                "kind": "cpu",
                "name": "Fake 2-core CPU",
                "cores": 2,
                "threads": 1,
                "memory_limit_bytes": 512 * 2**20,
                "torch": "2.15.0",
                "load_at_start": 0.2,
            },
            "precision": "fp32",
            "tuning": {"seconds_per_arm": 0.0, "choices": {}},
            "warnings": ["st-lpips stands in for LPIPS, whose weights were not to be had"],
            "status": self.status,
        }

    def _write_run(self, folder: Path, arm: FakeArm, seed: int) -> None:
        status = self.statuses.get((arm.name, seed), "finished")
        if status == "not started":
            return
        generator = np.random.default_rng([seed, *arm.name.encode()])
        step_s = self.budget_s / arm.steps
        fractions = FRACTIONS if status == "finished" else FRACTIONS[:2]
        steps = arm.steps + (seed % 3) if status == "finished" else max(1, arm.steps // 3)
        luck, shift = 0.3 * math.sin(seed), self.noise * generator.standard_normal()
        evals = [self._evaluation(arm, fraction, step_s, luck, shift, generator) for fraction in fractions]
        _json(
            folder / "run.json",
            {
                "schema": 1,
                "protocol": "1.0",
                "arm": arm.name,
                "label": arm.label,
                "policy": arm.policy,
                "seed": seed,
                "status": status,
                "reason": {"diverged": "non-finite loss at step 32", "failed": "RuntimeError: x"}.get(status, ""),
                "flags": self.flags.get((arm.name, seed), []),
                "budget_s": self.budget_s,
                "spent_s": steps * step_s,
                "overshoot_s": 0.3 * step_s,
                "overshoot_bound_s": 0.5 * step_s,
                "steps": steps,
                "samples": steps * arm.batch,
                "optimizer_batch": arm.batch,
                "final": {},
                "stream_sha256": f"{seed:064x}",
                "weights_sha256": "0" * 64,
                "sessions": 1,
            },
        )
        _lines(folder / "evals.jsonl", evals)
        _lines(folder / "events.jsonl", [_event(arm, step, step_s, steps, generator) for step in range(1, steps + 1)])
        _json(folder / "ledger.json", _ledger(steps * step_s))

    def _evaluation(
        self, arm: FakeArm, fraction: float, step_s: float, luck: float, shift: float, generator: np.random.Generator
    ) -> dict[str, Any]:
        seconds, last = fraction * self.budget_s, fraction == 1.0
        step = round(seconds / step_s)
        level = (
            arm.ceiling - (arm.ceiling - 9.0) * math.exp(-arm.rate * seconds) + (0.0 if fraction == 0 else luck + shift)
        )
        records = []
        for index, sample in enumerate(SAMPLES if last else QUICK):
            psnr = level + 0.8 * math.sin(index) + 0.02 * generator.standard_normal()
            record = {"sample": sample, "psnr": psnr}
            if last:
                record |= {"ssim": psnr / 30, "st_lpips": 0.9 - psnr / 30}
            records.append(record)
        return {
            "fraction": fraction,
            "p": fraction,
            "spent": step * step_s,
            "step": step,
            "samples": step * arm.batch,
            "annealed": last,
            "quick": not last,
            "records": records,
        }


BASELINES = (
    ("mean-colour", "mean colour", 10.4),
    ("nearest-view", "nearest view", 12.1),
    ("depth-warp", "depth warp", 16.2),
)


def _baseline(name: str, label: str, psnr: float) -> dict[str, Any]:
    records = [
        {"sample": sample, "psnr": psnr + 0.8 * math.sin(index), "ssim": psnr / 30, "st_lpips": 0.9 - psnr / 30}
        for index, sample in enumerate(SAMPLES)
    ]
    metrics = {key: sum(record[key] for record in records) / len(records) for key in ("psnr", "ssim", "st_lpips")}  # type: ignore[misc]
    return {"name": name, "label": label, "metrics": metrics, "records": records}


def _measured(arm: FakeArm) -> dict[str, Any]:
    forward = 2.0e9 if arm.label.startswith("lvsm") else 1.6e9
    limit = 512 * 2**20
    return {
        "arm": arm.name,
        "label": arm.label,
        "policy": arm.policy,
        "parameters": 1_062_656 if arm.label.startswith("lvsm") else 1_258_240,
        "flops": {
            "forward_per_sample": forward,
            "training_per_sample": 3 * forward,
            "counters": {"torch": forward, "fvcore": forward, "closed_form": forward},
            "convention": "2 FLOPs per multiply-add; matrix products, convolutions, attention",
        },
        "batch": {
            "policy": arm.policy,
            "micro_batch": arm.batch,
            "optimizer_batch": arm.batch,
            "limit_bytes": limit,
            "peak_bytes": round(0.93 * limit),
            "memory_filled": 0.93 if arm.policy == "fill" else 0.21,
            "max_fit": 64,
            "knee": 8,
            "fit": {"a": 1e7, "b": 7e6},
            "curve": [{"batch": 8, "peak_bytes": 6e7, "samples_per_s": 160.0, "fits": True, "error": ""}],
        },
        "inference": {
            "batch": arm.batch,
            "samples_per_s": {"median": 512.5, "low": 498.0, "high": 530.25},
            "latency_ms": {"median": 15.6, "low": 15.1, "high": 16.2},
            "peak_bytes": 3e7,
        },
        "learning_rate": {
            "base": 4e-4,
            "reference_batch": 8,
            "rule": "sqrt",
            "value": 4e-4 * math.sqrt(arm.batch / 8),
        },
    }


def _event(arm: FakeArm, step: int, step_s: float, steps: int, generator: np.random.Generator) -> dict[str, Any]:
    return {
        "step": step,
        "p": min(1.0, (step - 0.5) / steps),
        "spent": step * step_s,
        "seconds": step_s * (1 + 0.05 * generator.standard_normal()),
        "lr": 4e-4,
        "batch": arm.batch,
        "samples": step * arm.batch,
        "loss": 0.1 / step,
        "grad_norm": 1.0,
    }


def _ledger(charged: float) -> dict[str, Any]:
    shares = {"data_wait": 0.004, "h2d": 0.006, "forward": 0.33, "backward": 0.6, "optimizer": 0.055, "log": 0.005}
    categories = {key: share * charged for key, share in shares.items()} | {
        "ema": 0.0,
        "setup": 1.5,
        "probe": 2.5,
        "eval": 3.2,
        "checkpoint": 0.3,
        "compile": 0.0,
        "warmup": 0.7,
        "sentinel": 1.4,
        "switch": 0.4,
        "idle": 0.0,
        "lost": 0.0,
    }
    accounted = sum(categories.values())
    return {
        "categories": categories,
        "charged": charged,
        "accounted": accounted,
        "wall": accounted * 1.001,
        "unaccounted": accounted * 0.001,
        "unaccounted_fraction": 0.001 / 1.001,
        "valid": True,
    }


def _json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
