"""What all tests share.

The OpenMP runtime reads its wait policy once, when torch is imported, so it is set here, before any test module is. With
the default spinning, two torch processes on a busy two-core machine starve each other.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from ctypes.util import find_library
from pathlib import Path
from typing import Any

os.environ["GOMP_SPINCOUNT"] = "0"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
# Where bytecode is not to be written, every process that a test starts would compile all sources again.
os.environ["PYTHONDONTWRITEBYTECODE"] = ""

import pytest
from hypothesis import settings

sys.dont_write_bytecode = False
# Tests make many objects and few cycles: looking for them every 700 objects takes a tenth of all time.
gc.set_threshold(50_000, 20, 20)

# Derandomised: a test that fails does so on every machine. No deadline: the machine may be busy.
settings.register_profile("isochron", deadline=None, derandomize=True, database=None, max_examples=60, print_blob=True)
settings.load_profile("isochron")

REPO_ROOT = Path(__file__).resolve().parent.parent
SHARED = REPO_ROOT.parent / "shared"
TOGETHER = "tests/experiment/"
"""Its tests share finished comparisons, which one process makes once."""
MOST_WORKERS = 4
"""Each takes up to 2 GB, and every one imports torch and collects all tests."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """``-n auto``: a worker for each core that may be used; none, where a GPU's memory is measured or there is one core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if find_library("cuda") or cores == 1 else min(cores, MOST_WORKERS)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """``--dist loadfile``: a file's tests stay together, and so do those of a folder whose results are made once."""
    from xdist.scheduler import LoadFileScheduling

    class LoadFolderScheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return TOGETHER if nodeid.startswith(TOGETHER) else super()._split_scope(nodeid)

    return LoadFolderScheduling(config, log) if config.option.dist == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked ``shared`` or ``gpu``, with the reason, where what they need is not there."""
    for item in items:
        if item.get_closest_marker("shared") and not SHARED.is_dir():
            item.add_marker(
                pytest.mark.skip(reason=f"no reference fixtures: {SHARED.name}/ does not lie beside the tree")
            )
        if item.get_closest_marker("gpu") and not _has_cuda():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session", autouse=True)
def what_is_loaded_stays_frozen() -> Iterator[None]:
    """A full collection, as around every slice of a run, looks through all objects of this process: a third of a second here."""
    gc.collect()
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "unfreeze", lambda: None)
        yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    """Give every test one torch thread, whatever the test before it left; torch is not imported for it."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """Root of the repository under test."""
    return REPO_ROOT


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Folder of reference sheets and parity fixtures beside the repository; skips the test where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no reference fixtures: {SHARED.name}/ does not lie beside the tree")
    return SHARED
