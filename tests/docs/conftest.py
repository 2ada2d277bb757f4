"""Commands of the pages run in this process, on little data, with a stand-in for what only costs time.

What is left out has tests of its own: probes, counters and timed calls (tests/engine, tests/experiment), figures (tests/report), the
slow checks of the conformance kit (tests/test_conformance.py).
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from PIL import Image
from torch import nn

from bench import conformance
from bench.config import Comparison
from bench.conformance import checks
from bench.engine import trainer
from bench.engine.batchfit import BatchFit, ProbeResult, parse_policy
from bench.experiment import efficiency, execute, measure, resolve
from bench.experiment.efficiency.spec import Row, TimedCall
from bench.experiment.resolve import Arm
from bench.experiment.session import Session
from bench.report import plots
from bench.report.paper import results
from bench.store.files import read_lines
from bench.store.provenance import write_provenance
from bench.store.read import Comparison as Run
from bench.tasks import masked_image_config
from tests.docs import places
from tests.experiment.helpers import Outcome, isochron

SLOW = (checks._memory, checks._flops, checks._tie, checks._bfloat16)
"""Checks of the conformance kit that take most of its time."""
FIGURES = ("curves", "front", "ledger")
RANDOM = ("uniform_", "normal_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_")
"""Functions of `torch.nn.init` that draw weights."""


@contextlib.contextmanager
def weights_left_as_they_are() -> Iterator[None]:
    """Modules that are built here are for their shapes: nothing is drawn for their weights."""
    with pytest.MonkeyPatch.context() as patch:
        for name in RANDOM:
            patch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)
        yield


def counts(comparison: Comparison, cache_dir: Path, arm: Arm) -> dict[str, Any]:
    """Parameters, and FLOPs by the architecture's own formula: no counter runs."""
    task = resolve.make_task(comparison, cache_dir)
    batch = task.transfer(task.worst_case(1), torch.device("cpu"))
    with torch.device("meta"), weights_left_as_they_are():
        model = resolve.build(arm.config)
    forward = int(model.flops(batch))
    flops = {"forward_per_sample": forward, "training_per_sample": 3 * forward, "counters": {}, "other_operators": {}}
    return {
        "flops": {**flops, "convention": "1 MAC = 2 FLOPs"},
        "parameters": sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
    }


def fit_batch(comparison: Comparison, *_: object) -> BatchFit:
    """One sample fits, and whatever the comparison fixes: no probe runs."""
    batches = sorted({1, *(policy.size for policy in map(parse_policy, comparison.batch) if policy.size)})
    return BatchFit(2**30, 1000, tuple(ProbeResult(batch, batch << 20, 100.0, True) for batch in batches), 0.0, 2.0**20)


def counted(task: str, row: Row) -> dict[str, Any]:
    """The published line of ``counts.jsonl``, or another one's numbers where this row is not published: no counter runs."""
    lines = read_lines(places.ROOT / places.PUBLISHED / f"efficiency-{task}-tiny" / "counts.jsonl")
    key = {"label": row.label, "mode": row.mode, "sizes": dict(row.sizes)}
    same = [line for line in lines if {name: line[name] for name in key} == key]
    return {**(same or lines)[0], **key}


def timed(group: Sequence[TimedCall], *_: object, rounds: int, **__: object) -> list[dict[str, Any]]:
    """A line of ``timings.jsonl`` on a machine of one GFLOP a millisecond: nothing runs."""
    return [
        {
            "label": call.label,
            "mode": call.mode,
            "flops": call.flops,
            "skipped": "",
            "held_bytes": 0,
            "live_bytes": call.extent,
            "times_ms": [call.flops / 1e9 * (1 + 0.01 * (number % 3)) for number in range(rounds)],
        }
        for call in group
    ]


def inference(session: Session, _: object) -> None:
    """Calls of a tenth of a second: none runs."""
    one = {"median": 100.0, "low": 99.0, "high": 101.0}
    for arm in session.arms:
        told = {"batch": 1, "samples_per_s": one, "latency_ms": one, "peak_bytes": 1 << 20, "unit": "samples"}
        session.folder.write_arm(
            arm.name, {**session.folder.arm(arm.name), "inference": {**told, "units_per_sample": 1}}
        )


def provenance_kept(kept: Path) -> Callable[..., None]:
    """`write_provenance` that looks at this machine once: all runs of a session have the same."""

    def write(folder: Path, outside: Sequence[Path] = ()) -> None:
        if outside:
            write_provenance(folder, outside)
            return
        if not kept.exists():
            write_provenance(kept)
        shutil.copytree(kept, folder, dirs_exist_ok=True)

    return write


def saved_quickly(image: Image.Image, *to: Any, save: Any = Image.Image.save, **options: Any) -> None:
    """`Image.save` that does not look for the smallest file."""
    save(image, *to, **({**options, "optimize": False, "compress_level": 1} if options.get("optimize") else options))


def figures_of_each_task_once() -> Callable[[Run, Path], list[Path]]:
    """`plots.write` that draws the figures of the first run of every task; those of the others stand empty."""
    write, seen = plots.write, set[str]()

    def written(run: Run, folder: Path) -> list[Path]:
        if run.record.task.name not in seen:
            seen.add(run.record.task.name)
            return write(run, folder)
        return [path for name in FIGURES for path in drawn(None, folder / name)]

    return written


def drawn(figure: object, stem: Path) -> list[Path]:
    """Files where the figure would be."""
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "pdf")]
    for path in paths:
        path.write_bytes(b"drawn")
    return paths


@pytest.fixture(scope="module", autouse=True)  # a worker goes on to tests of other folders
def what_only_costs_time(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        known: dict[str, dict[str, Any]] = {}

        def counts_once(comparison: Comparison, cache_dir: Path, arm: Arm) -> dict[str, Any]:
            key = f"{arm.config.model_dump_json()} {comparison.task}"
            return known.get(key) or known.setdefault(key, counts(comparison, cache_dir, arm))

        patch.setattr(measure, "counts", counts_once)
        patch.setattr(measure, "fit_batch", fit_batch)
        patch.setattr(measure, "measure_inference", inference)
        patch.setattr(conformance, "CHECKS", [entry for entry in conformance.CHECKS if entry[1] not in SLOW])
        patch.setattr(checks, "FINITE_BATCHES", 2)
        patch.setattr(trainer, "WARMUP_STEPS", 1)
        patch.setattr(psutil, "cpu_percent", lambda interval: 0.0)  # looks for half a second at what else runs
        patch.setattr(Image.Image, "save", saved_quickly)
        patch.setattr(plots, "write", figures_of_each_task_once())
        patch.setattr(plots, "save", drawn)
        patch.setattr(results, "PROCESSES", 1)  # stand-ins are of this process
        patch.setattr(os, "fsync", lambda file: None)
        patch.setattr(gc, "unfreeze", lambda: None)
        once = provenance_kept(tmp_path_factory.mktemp("provenance") / "kept")
        patch.setattr(execute, "write_provenance", once)
        patch.setattr(efficiency, "write_provenance", once)
        patch.setattr(masked_image_config, "SCENES", {"train": 1, "validation": 1, "test": 1})
        patch.setattr(efficiency, "count", counted)
        patch.setattr(efficiency, "measure_group", timed)
        for name in ("_on_meta", "_time_groups"):
            patch.setattr(efficiency, name, weights_left_as_they_are()(getattr(efficiency, name)))
        yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated data, made once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`data(place)` is where the data that a page calls by this path lie; made when first asked for."""
    root = tmp_path_factory.mktemp("data")

    def made(place: str) -> Path:
        path = root / place.replace("/", "_")
        if not path.exists():
            places.DATA[place](path)
        return path

    return made


@pytest.fixture
def called(
    tmp_path: Path, cache: Path, data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """`called(words)` runs `isochron` with these words in an empty folder that has what they name."""
    monkeypatch.setenv("ISOCHRON_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "pooled", raising=False)

    def call(words: Sequence[str]) -> Outcome:
        read = [word for before, word in pairwise(["", *words]) if before != "--out"]
        named = {word.partition("=")[2] if "=" in word else word for word in read}
        for place in named & set(places.DATA):
            link = tmp_path / place
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(data(place))
        for place in sorted(named & set(places.FILES)):
            path = tmp_path / place
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                places.FILES[place](path)
        return isochron(*expanded(words))

    return call


def expanded(words: Sequence[str]) -> list[str]:
    """As a shell would expand `*`."""
    return [found for word in words for found in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
