from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from bench.engine.launch import ChildCrashed, ChildOutOfMemory, ChildRaised, ChildTimedOut, run_isolated
from bench.errors import UserError
from tests.engine import isolated_functions as functions

LONG = 120.0


def test_result_comes_back() -> None:
    assert run_isolated(functions.add, 2, 3, timeout_s=LONG) == {"sum": 5}


def test_a_result_larger_than_the_pipe_comes_back() -> None:
    assert len(run_isolated(functions.long_answer, 3_000_000, timeout_s=LONG)) == 3_000_000


def test_every_child_is_a_fresh_fork_of_a_process_that_has_done_nothing_but_import() -> None:
    first, second = (run_isolated(functions.state_of_the_process, timeout_s=LONG) for _ in range(2))
    assert first["pid"] != second["pid"]
    assert os.getpid() not in (first["pid"], first["parent"])
    assert first["parent"] == second["parent"]  # one fork server
    assert first["probe"]
    assert not first["cuda"]
    # Its own thread and the guard's; numpy's BLAS may bring one for each core.
    assert first["threads"] <= 2 + (os.cpu_count() or 1)


def test_an_error_comes_back_with_its_last_line_and_trace() -> None:
    with pytest.raises(ChildRaised) as error:
        run_isolated(functions.fail, timeout_s=LONG)
    assert "7" in str(error.value)
    assert "\n" not in str(error.value)
    assert "isolated_functions.py" in error.value.trace
    assert "LookupError: no such view" in error.value.trace


def test_the_users_errors_stay_the_users_errors() -> None:
    with pytest.raises(UserError, match="views must be >= 1, got 0"):
        run_isolated(functions.fail_as_user, timeout_s=LONG)


def test_a_result_that_is_not_json_is_an_error_of_the_function() -> None:
    with pytest.raises(ChildRaised, match="not JSON serializable"):
        run_isolated(functions.not_json, timeout_s=LONG)


def test_leaving_the_interpreter_is_no_result() -> None:
    with pytest.raises(ChildRaised, match="SystemExit: 3"):
        run_isolated(functions.leave, timeout_s=LONG)


def test_killed_by_the_system_counts_as_out_of_memory() -> None:
    with pytest.raises(ChildOutOfMemory, match="SIGKILL"):
        run_isolated(functions.die, int(signal.SIGKILL), timeout_s=LONG)


def test_other_signals_are_crashes() -> None:
    with pytest.raises(ChildCrashed, match="SIGTERM"):
        run_isolated(functions.die_at_once, int(signal.SIGTERM), timeout_s=LONG)


def test_time_is_up() -> None:
    start = time.perf_counter()
    with pytest.raises(ChildTimedOut, match="sleep did not end within"):
        run_isolated(functions.sleep, 50.0, timeout_s=0.3)
    assert time.perf_counter() - start < 40


@pytest.mark.skipif(sys.platform == "win32", reason="no /proc")
def test_the_guard_ends_a_child_before_it_eats_the_machine() -> None:
    with pytest.raises(ChildOutOfMemory, match="more memory than it may"):
        run_isolated(functions.allocate_forever, 10, 2000, timeout_s=LONG, guard_bytes=150 * functions.MIB)
    assert run_isolated(functions.allocate_forever, 10, 50, timeout_s=LONG, guard_bytes=150 * functions.MIB) == 5
