"""How the tests are shared out among processes: how many there are, and what stays together."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from tests import conftest


@pytest.mark.parametrize(
    ("cores", "library", "workers"),
    [(1, None, 0), (2, None, 2), (16, None, conftest.MOST_WORKERS), (16, "libcuda.so.1", 0)],
)
def test_a_worker_for_each_core_but_one_process_for_a_gpu(
    monkeypatch: pytest.MonkeyPatch, cores: int, library: str | None, workers: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    monkeypatch.setattr(conftest, "find_library", lambda name: library)
    assert conftest.pytest_xdist_auto_num_workers() == workers


def test_files_stay_together_and_so_do_those_that_share_what_was_trained() -> None:
    pytest.importorskip("xdist")
    option = SimpleNamespace(dist="loadfile")
    config = SimpleNamespace(option=option, getvalue=lambda name: ["popen", "popen"])
    scope = conftest.pytest_xdist_make_scheduler(config, None)._split_scope  # type: ignore[arg-type]
    assert scope("tests/experiment/test_run.py::test_a[1]") == scope("tests/experiment/test_tune.py::test_b")
    assert scope("tests/store/test_read.py::test_a") == scope("tests/store/test_read.py::test_b[x::y]")
    assert scope("tests/store/test_read.py::test_a") != scope("tests/store/test_write.py::test_a")
    option.dist = "load"
    assert conftest.pytest_xdist_make_scheduler(config, None) is None, "as it was asked for"  # type: ignore[arg-type]
