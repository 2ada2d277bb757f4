"""What all tests share.

The OpenMP runtime reads its wait policy once, when torch is imported, so it is set here, before any test module is. With
the default spinning, two torch processes on a busy two-core machine starve each other.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["GOMP_SPINCOUNT"] = "0"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import pytest
from hypothesis import settings

# Derandomised: a test that fails does so on every machine. No deadline: the machine may be busy.
settings.register_profile("isochron", deadline=None, derandomize=True, database=None, max_examples=60, print_blob=True)
settings.load_profile("isochron")

REPO_ROOT = Path(__file__).resolve().parent.parent
SHARED = REPO_ROOT.parent / "shared"


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
