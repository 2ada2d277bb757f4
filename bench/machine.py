"""The machine as a process sees it: processor, memory, torch build, CUDA devices, foreign GPU processes.

Only looks, changes nothing. Each part is a small function that takes what it reads as an argument, so that tests can stand
in for the machine.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import psutil

LoadModule = Callable[[str], ModuleType]
"""Stands in for ``importlib.import_module``; may raise anything."""

Run = Callable[[Sequence[str]], str]
"""Runs a program and returns its standard output; raises ``OSError`` or ``subprocess.SubprocessError``."""


@dataclass(frozen=True)
class Processor:
    """The CPU as this process may use it."""

    model: str
    cores: int
    """Physical cores of the machine (logical ones where the system does not tell)."""
    usable: float
    """Logical cores that this process may use: its affinity, or the container's quota where that is less."""
    load: float
    """Load average of the last minute, in running processes, of the whole machine."""
    memory_total: int
    """Bytes; the container's limit where that is less than the machine's."""
    memory_available: int


@dataclass(frozen=True)
class Accelerator:
    """One CUDA device that torch sees."""

    name: str
    capability: str
    memory_total: int
    """Bytes."""
    memory_free: int


@dataclass(frozen=True)
class GpuProcess:
    """A process, not ours, that computes on a GPU."""

    pid: int
    name: str
    memory: int
    """Bytes; 0 where the driver does not tell."""


@dataclass(frozen=True)
class Torch:
    """The installed torch build."""

    version: str
    cuda: str | None
    """CUDA version it was built for, None for a build without."""
    threads: int
    """Its default number of compute threads."""
    accelerators: tuple[Accelerator, ...] = ()


def look_at_processor(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> Processor:
    """CPU and memory, with a container's limits taken into account."""
    memory = psutil.virtual_memory()
    limit, used = _cgroup_memory(cgroup)
    total = min(memory.total, limit or memory.total)
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    logical = psutil.cpu_count() or affinity
    return Processor(
        model=_cpu_model(proc / "cpuinfo"),
        cores=psutil.cpu_count(logical=False) or logical,
        usable=min(float(affinity), _cgroup_cores(cgroup) or float(affinity)),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,
        memory_total=total,
        memory_available=min(memory.available, total - used if limit else memory.available),
    )


def usable_cores() -> int:
    """Cores that this process may use: its affinity, or a container's quota where that is less."""
    return max(1, int(look_at_processor().usable))


def look_at_torch(load_module: LoadModule) -> tuple[Torch | None, str]:
    """The torch build and its devices, or None and what is wrong with it."""
    try:
        torch = load_module("torch")
    except Exception as error:
        return None, one_line(error)
    devices = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            free, total = torch.cuda.mem_get_info(index)
            devices.append(Accelerator(properties.name, f"{properties.major}.{properties.minor}", total, free))
    return Torch(torch.__version__, torch.version.cuda, torch.get_num_threads(), tuple(devices)), ""


def look_at_driver(run: Run) -> str | None:
    """Version of the NVIDIA driver, None without one."""
    lines = _ask_nvidia_smi(run, "--query-gpu=driver_version")
    return lines[0] if lines else None


def look_at_gpu_processes(run: Run) -> tuple[GpuProcess, ...]:
    """Processes that compute on a GPU and are not this one or a child of it."""
    family = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    found = []
    for line in _ask_nvidia_smi(run, "--query-compute-apps=pid,used_memory,process_name"):
        pid, memory, name = (part.strip() for part in line.split(",", 2))
        if pid.isdigit() and int(pid) not in family:
            found.append(GpuProcess(int(pid), name, int(memory) * 1024**2 if memory.isdigit() else 0))
    return tuple(found)


def free_disk(folder: Path) -> int:
    """Free bytes on the disk that holds ``folder``, or that will when it is made."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def describe_wait_policy(environment: Mapping[str, str]) -> str:
    """How the OpenMP threads of this process wait: ``passive``, or ``spinning`` (the runtime's default)."""
    passive = environment.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE" or environment.get("GOMP_SPINCOUNT") == "0"
    return "passive" if passive else "spinning"


def run_program(command: Sequence[str]) -> str:
    """Run a program for its standard output, at most 10 s."""
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout


def _ask_nvidia_smi(run: Run, query: str) -> list[str]:
    try:
        answer = run(["nvidia-smi", query, "--format=csv,noheader,nounits"])
    except (OSError, subprocess.SubprocessError):
        return []  # no driver: then there is nothing to tell
    return [line.strip() for line in answer.splitlines() if line.strip()]


def _cpu_model(cpuinfo: Path) -> str:
    if cpuinfo.exists() and (match := re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)):
        return match[1].strip()
    return platform.processor() or platform.machine()


def _cgroup_cores(cgroup: Path) -> float | None:
    """The container's CPU quota in cores (cgroup v2), None without one."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _cgroup_memory(cgroup: Path) -> tuple[int | None, int]:
    """The container's memory limit and use in bytes (cgroup v2), None and 0 without one."""
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        return (None, 0) if limit == "max" else (int(limit), int((cgroup / "memory.current").read_text()))
    except (OSError, ValueError):
        return None, 0


def one_line(error: BaseException) -> str:
    """The error's message in one line of at most 100 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 100 else text[:97] + "..."
