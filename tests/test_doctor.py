from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from bench import machine
from bench.doctor import PARTS, Findings, advise, examine, render

GIB = 1024**3


def no_driver(command: Sequence[str]) -> str:
    raise FileNotFoundError(command[0])


def driver_with(processes: str) -> Callable[[Sequence[str]], str]:
    def run(command: Sequence[str]) -> str:
        assert command[0] == "nvidia-smi"
        return "580.65\n" if "driver_version" in command[1] else processes

    return run


def fake_torch(devices: Sequence[tuple[str, int, int]] = ()) -> SimpleNamespace:
    """A torch build that sees devices of (name, free bytes, total bytes)."""
    cuda = SimpleNamespace(
        is_available=lambda: bool(devices),
        device_count=lambda: len(devices),
        get_device_properties=lambda index: SimpleNamespace(name=devices[index][0], major=9, minor=0),
        mem_get_info=lambda index: devices[index][1:],
    )
    return SimpleNamespace(
        __version__="2.15.0", version=SimpleNamespace(cuda="13.2"), cuda=cuda, get_num_threads=lambda: 2
    )


def modules(torch: Any = None, broken: dict[str, Exception] | None = None, instead: str = "") -> Callable[[str], Any]:
    """An importer whose ``broken`` modules raise; ``instead`` is the line on a metric that stands in for LPIPS."""

    def load(name: str) -> Any:
        if name in (broken or {}):
            raise broken[name]
        if name == "bench.metrics.perceptual":
            return SimpleNamespace(resolve=lambda choice: ("st-lpips", instead) if instead else ("lpips-vgg", ""))
        return (torch or fake_torch()) if name == "torch" else ModuleType(name)

    return load


@pytest.fixture
def idle(tmp_path: Path) -> Findings:
    """A quiet machine with all parts in place."""
    found = examine(tmp_path / "runs", run=no_driver, load_module=modules())
    quiet = replace(found.processor, load=0.1, usable=2.0, memory_available=16 * GIB, memory_total=24 * GIB)
    found = replace(found, processor=quiet, disk_free=100 * GIB)
    return replace(found, advice=tuple(advise(found)))


def advice_of(findings: Findings) -> str:
    return "\n".join(f"{item.level}: {item.text}" for item in advise(findings))


def test_a_quiet_complete_machine_needs_no_advice(idle: Findings) -> None:
    assert advice_of(idle) == ""
    text = render(idle)
    assert "2 usable" in text
    assert "16.0 GiB of 24.0 GiB available" in text
    assert "error" not in text
    assert "warning" not in text


def test_every_broken_part_is_told_with_what_follows(tmp_path: Path) -> None:
    broken: dict[str, Exception] = {name: ImportError(f"No module named '{name}'") for name in PARTS}
    broken["torchvision"] = RuntimeError("operator torchvision::nms\ndoes not exist")
    text = render(examine(tmp_path, run=no_driver, load_module=modules(broken=broken)))
    for name, follows in PARTS.items():
        assert any(line.startswith(name) and line.endswith(follows) for line in text.splitlines()), name
    assert "operator torchvision::nms does not exist" in text, "on one line"


def test_without_torch_it_still_reports_and_says_what_to_do(tmp_path: Path) -> None:
    gone: dict[str, Exception] = dict.fromkeys(
        ["torch", "bench.metrics.perceptual"], ModuleNotFoundError("No module named 'torch'")
    )
    found = examine(tmp_path, run=no_driver, load_module=modules(broken=gone))
    assert found.torch is None
    assert [item.level for item in found.advice if "torch" in item.text] == ["error"]
    assert "make install" in render(found)


def test_a_stand_in_for_lpips_is_told(tmp_path: Path) -> None:
    text = render(examine(tmp_path, run=no_driver, load_module=modules(instead="ST-LPIPS is scored instead")))
    assert re.search(r"^LPIPS +st-lpips is scored: ST-LPIPS is scored instead$", text, re.MULTILINE)


def test_a_missing_compiler_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    text = render(examine(tmp_path, run=no_driver, load_module=modules()))
    assert re.search(r"^C\+\+ compiler +not found: .*training.compile", text, re.MULTILINE)


def test_devices_driver_and_foreign_processes(tmp_path: Path) -> None:
    torch = fake_torch([("NVIDIA H200", 130 * GIB, 140 * GIB)])
    ours = f"{os.getpid()}, 512, python\n"
    run = driver_with(ours + "4242, 2048, /usr/bin/train, -x\n4243, [N/A], other\n")
    found = examine(tmp_path, run=run, load_module=modules(torch))
    assert [(process.pid, process.memory) for process in found.foreign] == [(4242, 2 * GIB), (4243, 0)]
    text = render(found)
    assert "NVIDIA H200, 130.0 GiB of 140.0 GiB free, capability 9.0" in text
    assert "580.65" in text
    assert "/usr/bin/train, -x (pid 4242)" in text


def test_a_driver_without_a_device_is_a_warning(tmp_path: Path) -> None:
    found = examine(tmp_path, run=driver_with(""), load_module=modules())
    assert "sees no CUDA device" in advice_of(found)


def test_a_hanging_driver_is_no_driver(tmp_path: Path) -> None:
    def hang(command: Sequence[str]) -> str:
        raise subprocess.TimeoutExpired(list(command), 10)

    found = examine(tmp_path, run=hang, load_module=modules())
    assert found.driver is None
    assert found.foreign == ()


@pytest.mark.parametrize(("load", "warned"), [(0.9, False), (1.1, True)])
def test_load_counts_against_the_usable_cores(idle: Findings, load: float, warned: bool) -> None:
    busy = replace(idle, processor=replace(idle.processor, load=load))
    assert ("busy" in advice_of(busy)) == warned


def test_little_memory_and_disk_are_warned_of(idle: Findings) -> None:
    poor = replace(idle, processor=replace(idle.processor, memory_available=GIB), disk_free=300 * 1024**2)
    assert "1.0 GiB of memory" in advice_of(poor)
    assert "300 MiB free" in advice_of(poor)


@pytest.mark.parametrize(
    ("environment", "policy"),
    [
        ({}, "spinning"),
        ({"OMP_WAIT_POLICY": "active"}, "spinning"),
        ({"OMP_WAIT_POLICY": "passive"}, "passive"),
        ({"GOMP_SPINCOUNT": "0"}, "passive"),
    ],
)
def test_wait_policy(environment: dict[str, str], policy: str) -> None:
    assert machine.describe_wait_policy(environment) == policy


def test_a_containers_limits_count(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: Abacus 3000\n")
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text(f"{GIB // 4}\n")
    (tmp_path / "memory.current").write_text(f"{GIB // 16}\n")
    found = machine.look_at_processor(proc=tmp_path, cgroup=tmp_path)
    assert (found.model, found.usable, found.memory_total) == ("Abacus 3000", 0.5, GIB // 4)
    assert found.memory_available <= GIB // 4 - GIB // 16


def test_no_limits_means_the_machines_own(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    found = machine.look_at_processor(proc=tmp_path, cgroup=tmp_path)
    assert found.usable >= 1
    assert found.memory_total > GIB // 4
    assert found.model, "falls back to the platform's word"


def test_free_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert machine.free_disk(tmp_path / "runs" / "deep") > 0


def test_it_becomes_json_and_changes_nothing(tmp_path: Path) -> None:
    found = examine(tmp_path / "runs", run=no_driver, load_module=modules())
    told = json.loads(json.dumps(found.to_dict()))
    assert told["processor"]["usable"] == found.processor.usable
    assert told["torch"]["version"] == "2.15.0"
    assert list(tmp_path.iterdir()) == []


def test_the_real_machine_can_be_examined() -> None:
    found = examine(load_module=importlib.import_module)
    assert found.torch is not None
    assert render(found).startswith("isochron")
