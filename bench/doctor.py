"""What this machine offers, what is missing, and what follows: ``isochron doctor``.

``examine`` only looks: it changes nothing, starts no computation and survives the absence of torch itself. Each part is
a small function that takes what it reads as an argument, so that tests can stand in for the machine.
"""

from __future__ import annotations

import importlib
import math
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bench import PROTOCOL, __version__
from bench.machine import (
    GpuProcess,
    LoadModule,
    Processor,
    Run,
    Torch,
    describe_wait_policy,
    free_disk,
    look_at_driver,
    look_at_gpu_processes,
    look_at_processor,
    look_at_torch,
    one_line,
    run_program,
)

GIB = 1024**3
LITTLE_DISK = 4 * GIB
LITTLE_MEMORY = 4 * GIB
MUCH_LOAD = 0.5
"""Load average per usable core above which the machine counts as busy."""


@dataclass(frozen=True)
class Part:
    """A part that the main job can do without, or whose loss changes what is measured."""

    name: str
    state: str
    """``ok`` or what is wrong."""
    follows: str
    """What follows from its state, empty when it is ok."""


@dataclass(frozen=True)
class Advice:
    """One sentence that the reader should act on."""

    level: Literal["warning", "error"]
    text: str


@dataclass(frozen=True)
class Findings:
    """All that ``examine`` saw; sizes in bytes."""

    isochron: str
    protocol: str
    python: str
    system: str
    processor: Processor
    torch: Torch | None
    driver: str | None
    wait_policy: str
    foreign: tuple[GpuProcess, ...]
    runs_folder: str
    disk_free: int
    parts: tuple[Part, ...]
    advice: tuple[Advice, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for ``--json``."""
        return asdict(self)


def examine(
    runs: Path = Path("runs"),
    *,
    environment: Mapping[str, str] | None = None,
    run: Run = run_program,
    load_module: LoadModule = importlib.import_module,
) -> Findings:
    """Look at the machine.

    Args:
        runs: folder where runs will be made; it need not exist yet.
        environment: the environment variables, read by the command and handed in; only the OpenMP ones are looked at.
        run: stands in for running ``nvidia-smi``.
        load_module: stands in for ``importlib.import_module``.

    Returns:
        Findings with their advice filled in. Nothing is raised for a part that is missing or broken.
    """
    processor = look_at_processor()
    parts: list[Part] = []
    torch, trouble = look_at_torch(load_module)
    if trouble:
        parts.append(Part("torch", trouble, "nothing can be trained: run `make install`"))
    parts += look_at_parts(load_module)
    findings = Findings(
        isochron=__version__,
        protocol=PROTOCOL,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} ({platform.machine()})",
        processor=processor,
        torch=torch,
        driver=look_at_driver(run),
        wait_policy=describe_wait_policy(environment or {}),
        foreign=look_at_gpu_processes(run),
        runs_folder=str(runs),
        disk_free=free_disk(runs),
        parts=tuple(parts),
    )
    return replace(findings, advice=tuple(advise(findings)))


PARTS = {
    "torchvision": "LPIPS and st-lpips cannot be computed; its version must match torch's exactly: run `make install`",
    "embreex": "scenes cannot be rendered here: bring a rendered cache from another machine, or install embreex",
    "trimesh": "scenes cannot be rendered here: run `make install`",
    "skimage": "neither SSIM nor photographic textures: run `make install`",
    "fvcore": "FLOPs cannot be counted a second way, so no run starts: run `make install`",
    "stlpips_pytorch": "no perceptual metric where LPIPS weights are missing: run `make install`",
    "pytest_benchmark": "`make bench-micro` cannot run: run `make install`",
}
"""Module -> what follows when it cannot be imported."""


def look_at_parts(load_module: LoadModule) -> list[Part]:
    """Parts outside torch, each with what follows when it is missing or broken."""
    parts = []
    for name, follows in PARTS.items():
        try:
            load_module(name)
        except Exception as error:
            parts.append(Part(name, one_line(error), follows))
        else:
            parts.append(Part(name, "ok", ""))
    return [*parts, _perceptual(load_module), _compiler()]


def _perceptual(load_module: LoadModule) -> Part:
    """Which perceptual metric this machine scores: LPIPS needs a backbone that not every machine can fetch."""
    try:
        kind, follows = load_module("bench.metrics.perceptual").resolve("auto")
    except Exception as error:
        return Part("LPIPS", one_line(error), "no perceptual metric can be scored: run `make install`")
    return Part("LPIPS", f"{kind} is scored" if follows else "ok", follows)


def _compiler() -> Part:
    """torch.compile needs a C++ compiler for code that runs on a CPU."""
    if any(map(shutil.which, ("c++", "g++", "clang++"))):
        return Part("C++ compiler", "ok", "")
    return Part("C++ compiler", "not found", "`training.compile: true` fails on a CPU; install one (Debian: g++)")


def advise(findings: Findings) -> list[Advice]:
    """What the reader should know or do, from what was found."""
    cpu, advice = findings.processor, []

    def say(level: Literal["warning", "error"], text: str) -> None:
        advice.append(Advice(level, text))

    if findings.torch is None:
        say("error", "torch cannot be imported; run `make install`")
    elif findings.driver and not findings.torch.accelerators:
        say("warning", "there is an NVIDIA driver, but this torch build sees no CUDA device: runs would use the CPU")
    if cpu.load > MUCH_LOAD * cpu.usable:
        say(
            "warning",
            f"the machine is busy (load {cpu.load:.1f} on {cpu.usable:g} cores): interleaved slices keep the arms fair,"
            " but throughput and steps come out lower than on an idle machine, and the sentinel may flag runs",
        )
    if findings.foreign:
        who = ", ".join(f"{process.name} (pid {process.pid})" for process in findings.foreign)
        say("warning", f"other processes compute on a GPU: {who}; memory cannot be filled, and times will drift")
    if cpu.memory_available < LITTLE_MEMORY:
        say("warning", f"{_size(cpu.memory_available)} of memory is available: a smaller memory budget may be needed")
    if findings.disk_free < LITTLE_DISK:
        say(
            "warning", f"{_size(findings.disk_free)} free where runs are made ({findings.runs_folder}): free some first"
        )
    return advice


def render(findings: Findings) -> str:
    """The findings as text for people."""
    cpu, torch = findings.processor, findings.torch
    rows: list[tuple[str, str]] = [
        ("isochron", f"{findings.isochron}, protocol {findings.protocol}"),
        ("python", f"{findings.python} on {findings.system}"),
        ("processor", f"{cpu.model}: {cpu.cores} cores, {cpu.usable:g} usable, load {cpu.load:.1f}"),
        ("memory", f"{_size(cpu.memory_available)} of {_size(cpu.memory_total)} available"),
        ("disk", f"{_size(findings.disk_free)} free for {findings.runs_folder}/"),
    ]
    if torch:
        build = f"CUDA {torch.cuda}" if torch.cuda else "no CUDA"
        rows.append(("torch", f"{torch.version} ({build}), {torch.threads} threads, waiting: {findings.wait_policy}"))
        for index, device in enumerate(torch.accelerators):
            memory = f"{_size(device.memory_free)} of {_size(device.memory_total)} free"
            rows.append((f"cuda:{index}", f"{device.name}, {memory}, capability {device.capability}"))
        if not torch.accelerators:
            rows.append(("cuda", "none: `--device auto` means the CPU, and tests/gpu is skipped"))
    if findings.driver:
        rows.append(("driver", findings.driver))
    rows.append(("in place", ", ".join(part.name for part in findings.parts if part.state == "ok") or "nothing"))
    rows += [(part.name, f"{part.state}: {part.follows}") for part in findings.parts if part.state != "ok"]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {text}" for name, text in rows]
    lines += ["", *(f"{item.level}: {item.text}" for item in findings.advice)] if findings.advice else []
    return "\n".join(lines)


def _size(number: int) -> str:
    """Bytes for people: ``1.5 GiB``."""
    if number <= 0:
        return "0 MiB"
    return f"{number / GIB:.1f} GiB" if number >= GIB else f"{math.ceil(number / 1024**2)} MiB"
