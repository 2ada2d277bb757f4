"""Run a function in a fresh process and bring back its result, its error, or how it died.

The processes are forks of a *fork server*: a process that has imported torch and the harness and has done nothing else
(no model, no CUDA context, no threads of its own). So a probe starts in milliseconds instead of the seconds that importing
torch takes, and its memory starts from the same clean base each time. The fork server inherits the environment at its
first use, so thread settings must be in place before.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from bench.engine.memory import OUT_OF_MEMORY_EXIT, Guard, available, own
from bench.errors import UserError

PRELOAD = ("torch", "torch._dynamo", "bench.engine.probe", "bench.engine.flops")
"""What the fork server imports. Nothing here may start threads or touch a device when it is imported."""
GUARD_SHARE = 0.8
"""A child may take at most this share of the memory that is available when it starts."""


class ChildError(Exception):
    """The child process gave no result."""


class ChildRaised(ChildError):
    """The function raised: the message is the error's last line, `trace` the whole of it."""

    def __init__(self, message: str, trace: str) -> None:
        """Keep what the child sent."""
        super().__init__(message)
        self.trace = trace


class ChildOutOfMemory(ChildError):
    """The child was ended by its memory guard, or killed (SIGKILL), which is what a system short of memory does."""


class ChildCrashed(ChildError):
    """The child died without a word: of a signal such as SIGSEGV, or by leaving the interpreter."""


class ChildTimedOut(ChildError):
    """The child did not end in time and was killed."""


def run_isolated(
    function: Callable[..., Any],
    *arguments: Any,
    timeout_s: float,
    guard_bytes: int | None = None,
    preload: Sequence[str] = PRELOAD,
) -> Any:
    """Call ``function(*arguments)`` in a fresh process.

    Args:
        function: importable by name (a function of a module), as are its arguments' types: both are pickled.
        *arguments: what to call it with.
        timeout_s: seconds after which the child is killed.
        guard_bytes: end the child once it has taken so many bytes, libraries aside; by default and at most 80 % of what is
            available when it starts: a probe must not bring down the machine that it runs on.
        preload: modules that the fork server imports. Only the first call of a process has a say.

    Returns:
        What the function returned, as JSON brings it back (tuples become lists).

    Raises:
        UserError: the function raised one; its message is kept.
        ChildRaised: the function raised anything else.
        ChildOutOfMemory: the guard or the system ended the child.
        ChildCrashed: the child died in another way.
        ChildTimedOut: time is up.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, guard_bytes, function, arguments))
    name = getattr(function, "__name__", str(function))
    try:
        process.start()
        theirs.close()
        message = _receive(ours, process.sentinel, timeout_s)
        if message is _TIME_IS_UP:
            raise ChildTimedOut(f"{name} did not end within {timeout_s:g} s")
        process.join(timeout=10.0)
        if message is None:
            raise _obituary(name, process.exitcode)
    finally:
        ours.close()
        if process.pid is not None and process.is_alive():
            process.kill()
            process.join()
    if message["status"] == "user error":
        raise UserError(message["error"])
    if message["status"] == "raised":
        raise ChildRaised(message["error"], message["trace"])
    return message["result"]


_TIME_IS_UP: dict[str, Any] = {}


def _receive(connection: Connection, sentinel: int, timeout_s: float) -> dict[str, Any] | None:
    """The child's message; None if it died without one, `_TIME_IS_UP` if it did neither."""
    ready = wait([connection, sentinel], timeout=timeout_s)
    if not ready:
        return _TIME_IS_UP
    try:  # a child that has ended may still have left its message in the pipe
        return dict(json.loads(connection.recv_bytes())) if connection.poll() else None
    except (EOFError, OSError):
        return None


def _obituary(name: str, code: int | None) -> ChildError:
    if code == OUT_OF_MEMORY_EXIT:
        return ChildOutOfMemory(f"{name} took more memory than it may and was ended")
    if code == -signal.SIGKILL:
        return ChildOutOfMemory(f"{name} was killed from outside (SIGKILL): the system ran out of memory")
    if code is not None and code < 0:
        return ChildCrashed(f"{name} died of {signal.Signals(-code).name}")
    return ChildCrashed(f"{name} left without a result (exit code {code})")


def _child(
    connection: Connection, guard_bytes: int | None, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    # Ctrl-C reaches the whole foreground group; the parent alone decides what becomes of the child.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    most = int(GUARD_SHARE * available())
    Guard(own, own() + (most if guard_bytes is None else min(most, guard_bytes))).start()
    threading.Thread(target=_end_with, args=(os.getppid(),), name="orphan watch", daemon=True).start()
    try:
        message = {"status": "ok", "result": function(*arguments)}
        packed = json.dumps(message)
    except UserError as error:
        packed = json.dumps({"status": "user error", "error": str(error)})
    except BaseException as error:  # SystemExit too: the parent must learn of it
        last_line = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
        packed = json.dumps({"status": "raised", "error": last_line, "trace": traceback.format_exc()})
    connection.send_bytes(packed.encode())
    connection.close()


def _end_with(parent: int, period: float = 0.2) -> None:
    """End this process when the process that wanted its result is gone (the fork server ends with its owner)."""
    while os.getppid() == parent:
        time.sleep(period)
    os._exit(1)
